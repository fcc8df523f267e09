"""The parsers of files that may come from strangers, with a small valid file of each kind.

Each is given bytes and may do two things: return a value, or raise an `FssbenchError` of one line.
Hypothesis (``tests/fuzz``) and Atheris (``tools/fuzz.py``) drive the same functions.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pandas
import safetensors.torch
import torch
from records_for_tests import digest_of

from fssbench.backbones.weights import read_tensors
from fssbench.data.coco_masks import read_annotations
from fssbench.data.dataset import Dataset
from fssbench.data.run_lengths import rle
from fssbench.episodes.episode import Episode
from fssbench.episodes.literature import hdmnet
from fssbench.episodes.literature.lists import read_lines, read_pickle
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench.results.predictions import Predictions, read_predictions
from fssbench.results.record import Record
from fssbench.results.rows import read_rows, rows_bytes

MANIFEST = Manifest(
    protocol="fake/v1", dataset="fake", split="val", fingerprint="f" * 64, fold=0, shots=2, seed=0,
    limit=None, classes=((0, "cat"), (3, "dög")), dropped=((4, "rare"),),
    episodes=(
        Episode(index=0, class_id=0, query="a", support=("b", "c")),
        Episode(index=1, class_id=3, query="b", support=("d", "e"), support_classes=(0, 1)),
    ),
)  # fmt: skip

RECORD: dict[str, Any] = {
    "schema": 1, "protocol": "fake/v1", "fold": 0, "shots": 2, "seed": 0, "score_size": "original",
    "dataset": {"name": "fake", "split": "val", "fingerprint": "f" * 64},
    "manifest": {
        "digest": MANIFEST.digest, "episodes": 2, "classes": [0, 3], "dropped": ["rare"],
        "limit": None,
    },
    "matcher": "prototype", "config": {"size": 160}, "backbone": "filterbank",
    "checkpoint": {"name": "a.safetensors", "sha256": "0" * 64, "header": {"fold": 0}},
    "weights": {"source": "none", "name": "", "sha256": ""},
    "features": {"layers": ["a"], "size": 160},
    "scores": {"miou": 50.5}, "intervals": {"miou": [40.0, 60.0]},
    "per_class": [{"class_id": 0, "name": "cat", "episodes": 1, "iou": 1, "background_iou": 2.5}],
    "cost": {
        "learnable_parameters": 0, "backbone_parameters": 1, "flops_per_episode": None,
        "seconds_per_episode": 0.5, "peak_memory_mib": 100.0,
    },
    "environment": {"packages": {"torch": "2.6"}}, "created": "2026-01-01T00:00:00+00:00",
    "predictions": "",
}  # fmt: skip

ROWS = pandas.DataFrame(
    {
        "index": [0, 1], "class_id": [0, 3], "query": ["a", 'b,"c"'], "intersection_fg": [1, 2],
        "union_fg": [3, 4], "region_j": [0.1, 1 / 3],
    }
)  # fmt: skip

_MASK = np.zeros((20, 30), np.uint8, order="F")
_MASK[3:7, 4:20] = 1
_COMPRESSED = rle.encode(_MASK)["counts"].decode()

COCO: dict[str, Any] = {
    "images": [{"id": 42, "file_name": "42.jpg", "height": 20, "width": 30}],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 42, "category_id": 18, "iscrowd": 0,
         "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]},
        {"id": 2, "image_id": 42, "category_id": 1, "iscrowd": 1,
         "segmentation": {"size": [20, 30], "counts": [100, 50, 450]}},
        {"id": 3, "image_id": 42, "category_id": 1, "iscrowd": 0,
         "segmentation": {"size": [20, 30], "counts": _COMPRESSED}},
    ],
}  # fmt: skip


class Named(Dataset):
    """Two classes and no images: all that readers of lists ask of a dataset."""

    name = "fake"
    classes = ("cat", "dog")
    folds = 1
    splits = ("val",)

    def __init__(self) -> None:
        pass

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        return 0, 1

    def image_ids(self, split: str) -> list[str]:
        return ["a", "b"]

    def class_pixels(self, image_id: str) -> dict[int, int]:
        return {}

    def image(self, image_id: str) -> torch.Tensor:
        raise NotImplementedError

    def mask(self, image_id: str, class_id: int) -> torch.Tensor:
        raise NotImplementedError

    def fingerprint(self, split: str = "val") -> str:
        return ""


def _coco(path: Path) -> Any:
    masks = read_annotations(path)
    # What was accepted can be drawn, as often as it is asked for.
    for image in masks.image_ids[:3]:
        for class_id in masks.class_pixels(image):
            masks.decode(image, class_id)
    return masks


@attrs.frozen(kw_only=True)
class Parser:
    """A function that reads a file.

    Attributes:
        read: the function.
        suffix: how the file must be called.
        seeds: contents of valid files, before `pack`.
        pack: what the fuzzer leaves to `parse`, because it would never guess a checksum: gzip, zip.
        values: the file is JSON.
    """

    read: Callable[[Path], Any]
    suffix: str = ""
    seeds: tuple[bytes, ...]
    pack: Callable[[bytes], bytes] | None = None
    values: bool = False


def _manifest_text() -> bytes:
    header = {
        "fssbench_manifest": 1, "digest": MANIFEST.digest,
        **attrs.asdict(attrs.evolve(MANIFEST, episodes=()), recurse=False), "episodes": 2,
    }  # fmt: skip
    lines = [json.dumps(header)]
    for episode in MANIFEST.episodes:
        fields = attrs.asdict(episode)
        del fields["index"]
        lines.append(json.dumps(fields))
    return "\n".join(lines).encode()


def _checkpoint() -> bytes:
    header = {"matcher": "m", "backbone": "b", "config": {}, "fold": 0}
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "backbone.b": torch.ones(2)}
    return safetensors.torch.save(tensors, {"fssbench": json.dumps(header)})


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def _predictions() -> bytes:
    kept = Predictions(manifest=MANIFEST.digest)
    kept.add(MANIFEST.episodes, [torch.from_numpy(_MASK == 1), torch.zeros(20, 30).bool()])
    return kept._content()


def _read_predictions(path: Path) -> Any:
    # The record of a stranger names the digest of whatever there is.
    with contextlib.suppress(OSError, EOFError, zlib.error):
        content = gzip.decompress(path.read_bytes())
        found = read_predictions(path, hashlib.sha256(content).hexdigest(), 2)
        for episode in MANIFEST.episodes:
            with contextlib.suppress(FssbenchError):
                found.mask(episode.index, 20, 30)
        return found
    return read_predictions(path, "", 2)


def _read_tensors(path: Path) -> Any:
    # What was accepted can be copied.
    return {name: tensor.clone() for name, tensor in read_tensors(path).items()}


_TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.int8)}


def _torch(*, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": _TENSORS}, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def _zip(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(_torch(zipped=True))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


_ARCHIVE = _members()
(_PICKLE,) = (name for name in _ARCHIVE if name.endswith("data.pkl"))


def _array() -> bytes:
    file = io.BytesIO()
    np.save(file, _TENSORS["a.weight"].numpy())
    return file.getvalue()


_LISTS = {0: ["a", "b"], 1: ["c"] * 3}

PARSERS = {
    "manifest": Parser(
        read=Manifest.read, suffix=".jsonl", seeds=(_manifest_text(),), values=True
    ),
    "packed-manifest": Parser(
        read=Manifest.read, suffix=".jsonl.gz", seeds=(_manifest_text(),), pack=_gzip, values=True
    ),
    "record": Parser(
        read=Record.read, suffix=".json", values=True,
        seeds=(
            json.dumps(RECORD).encode(),
            json.dumps({**RECORD, "digest": digest_of(RECORD)}).encode(),
        ),
    ),
    "rows": Parser(
        read=read_rows, suffix=".csv.gz", seeds=(gzip.decompress(rows_bytes(ROWS)),), pack=_gzip
    ),
    "lines": Parser(read=read_lines, suffix=".txt", seeds=(b"a\nb \n\n", b"\xef\xbb\xbfa\r\nb")),
    "pickle": Parser(
        read=read_pickle, suffix=".pkl", seeds=tuple(pickle.dumps(_LISTS, p) for p in range(6))
    ),
    "hdmnet-classes": Parser(
        read=lambda path: hdmnet._class_lists(path, Named(), 0),
        seeds=(b"{1: [('a.jpg', 'a.png')], 2: [('b.jpg', 'b.png')]}",), suffix=".txt",
    ),
    "coco": Parser(read=_coco, suffix=".json", seeds=(json.dumps(COCO).encode(),), values=True),
    "checkpoint": Parser(read=read_checkpoint, suffix=".safetensors", seeds=(_checkpoint(),)),
    "predictions": Parser(
        read=_read_predictions, suffix=".jsonl.gz", seeds=(_predictions(),), pack=_gzip, values=True
    ),
    "weights": Parser(
        read=_read_tensors, suffix=".pth", seeds=(_torch(zipped=False), _torch(zipped=True))
    ),
    "pickled-weights": Parser(
        read=_read_tensors, suffix=".pth", seeds=(_ARCHIVE[_PICKLE],),
        pack=lambda data: _zip({**_ARCHIVE, _PICKLE: data}),
    ),
    "array": Parser(
        read=_read_tensors, suffix=".npz", seeds=(_array(),),
        pack=lambda data: _zip({"a.npy": data}),
    ),
}  # fmt: skip


def parse(name: str, data: bytes, folder: Path, *, raw: bool = False) -> Any:
    """Give bytes to a parser as a file; an error of one line that names the file is None.

    Args:
        name: of the parser.
        data: what the file holds, before it is packed.
        folder: where the file is put.
        raw: do not pack it.
    """
    parser = PARSERS[name]
    path = folder / f"{name}{parser.suffix}"
    path.write_bytes(data if raw or parser.pack is None else parser.pack(data))
    try:
        return parser.read(path)
    except FssbenchError as error:
        message = str(error)
        assert "\n" not in message, message
        assert "\r" not in message, message
        assert path.name in message, message
        assert len(message) < 2000, message
        return None
