"""Records of masks that another program predicted."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fssbench import build, registry
from fssbench.data.dataset import Dataset
from fssbench.data.image_digest import ImageHashes
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError, one_line
from fssbench.evaluation.make_record import result_fields
from fssbench.evaluation.measure import concatenated, measure_masks, table_of
from fssbench.files import read_within
from fssbench.inference.chunk_loader import target_of
from fssbench.results.predictions import MOST_FOR_ONE, Line, Predictions, by_way
from fssbench.results.record import (
    MANIFEST_FILE,
    ROWS_FILE,
    Cost,
    Record,
    Weights,
)
from fssbench.results.rows import write_rows
from fssbench.runtime.environment import environment
from fssbench.specs import MatcherSpec, ProtocolSpec

IMPORTED = "imported"
"""Value of `Record.provenance`."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]{0,99}")


@attrs.frozen(kw_only=True)
class Method:
    """Description of the program that predicted masks, as the user states it.

    Attributes:
        matcher: name of the method; names of registered matchers are refused.
        backbone: name of its encoder.
        config: settings of the method by name.
        parameters: number of its learnable parameters; None if unknown.
    """

    matcher: str
    backbone: str = "unknown"
    config: dict[str, Any] = attrs.field(factory=dict)
    parameters: int | None = None

    def __attrs_post_init__(self) -> None:
        for option, name in (("--name", self.matcher), ("--backbone", self.backbone)):
            if not _NAME.fullmatch(name) or "--" in name:
                raise FssbenchError(
                    f"{option} {name!a}: use lower-case letters, digits and . _ + -, without --"
                )
        taken = {
            name
            for spec in registry.registry().specs(MatcherSpec).values()
            for name in (spec.name, *spec.aliases)
        }
        if self.matcher in taken:
            raise FssbenchError(
                f"--name {self.matcher}: a registered matcher has this name; choose another"
            )


def import_masks(
    masks: Path,
    manifest: Manifest,
    dataset: Dataset,
    method: Method,
    out: Path,
    *,
    metrics: Sequence[str] = ("iou",),
) -> Record:
    """Score predicted masks; write a record with its rows, its manifest and the masks.

    Args:
        masks: folder with a PNG file for each episode, named by its index (``17.png``,
            ``00017.png``), of 0 for background and 1 or 255 for foreground, or 1 to N for N ways;
            or a JSON or JSON Lines file, also gzipped, of ``{"index", "size": [H, W], "counts"}``
            with COCO's run lengths, a list of them for N ways.
        manifest: episodes of the masks.
        dataset: dataset of the images.
        method: description of the program.
        out: folder to write, missing or empty.
        metrics: names of metrics, in addition to ``iou`` and those of the protocol.

    Raises:
        FssbenchError: a mask is missing, has another size than its query or other values, or
            belongs to no episode; or the folder is not empty.
    """
    protocol = registry.registry().get(ProtocolSpec, manifest.protocol)
    if protocol.score_size != "original":
        raise FssbenchError(
            f"{protocol.name} scores masks at the size of a matcher's input; import masks of a "
            "protocol that scores at the original size"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FssbenchError(f"{out}: is not an empty folder; choose another --out")
    manifest.check_annotations(dataset)
    names = dict.fromkeys(("iou", *metrics, *protocol.metrics))
    measured = [build.metric(name) for name in names]
    given = _folder(masks, manifest) if masks.is_dir() else _file(masks, manifest)
    predictions = Predictions(manifest=manifest.digest)
    columns = []
    for episode, mask in zip(manifest.episodes, given, strict=True):
        target = target_of(episode, dataset, None, protocol.score_size, protocol.void)
        if mask.shape != target.shape:
            raise FssbenchError(
                f"{masks}: the mask of episode {episode.index} is {_size(mask)}, its query "
                f"{episode.query} {_size(target)} pixels; restore masks to the image's size"
            )
        columns.append(measure_masks(measured, [mask], [target], manifest.ways))
        predictions.add([episode], [mask])
    rows = table_of(manifest.episodes, concatenated(columns))
    record = Record(
        **result_fields(
            manifest,
            measured,
            score_size=protocol.score_size,
            rows=rows,
            images=ImageHashes(dataset).digest(manifest.image_ids()),
            folds_of=dataset.folds_of,
        ),
        matcher=method.matcher,
        config=method.config,
        checkpoint=None,
        backbone=method.backbone,
        weights=Weights(source="unknown"),
        features={},
        cost=Cost(
            learnable_parameters=method.parameters,
            backbone_parameters=None,
            flops_per_episode=None,
            seconds_per_episode=None,
            peak_memory_mib=None,
        ),
        environment=environment(torch.device("cpu")),
        predictions=predictions.digest,
        provenance=IMPORTED,
    )
    manifest.write(out / MANIFEST_FILE)
    write_rows(rows, out / ROWS_FILE)
    predictions.write(out)
    record.write(out)
    return record


def _folder(folder: Path, manifest: Manifest) -> Iterator[Tensor]:
    """Yield the masks of PNG files in the order of the episodes."""
    files: dict[int, Path] = {}
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        if path.suffix != ".png" or not path.stem.isdecimal():
            raise FssbenchError(f"{path}: name the files by the index of the episode, e.g. 17.png")
        if int(path.stem) in files:
            raise FssbenchError(
                f"{path} and {files[int(path.stem)].name}: both of episode {int(path.stem)}"
            )
        files[int(path.stem)] = path
    _check_indices(folder, list(files), manifest)
    return (_png(files[episode.index], manifest.ways) for episode in manifest.episodes)


def _png(path: Path, ways: int) -> Tensor:
    try:
        with Image.open(path) as picture:
            if picture.mode not in ("1", "L", "P"):
                raise FssbenchError(f"{path}: is {picture.mode}; save a mask as a grey image")
            levels = np.asarray(picture).astype(np.uint8)
    except (OSError, ValueError) as error:
        raise FssbenchError(f"{path}: cannot be decoded: {one_line(error)}") from error
    found = set(np.unique(levels).tolist())
    if not (found <= {*range(ways + 1)} or (ways == 1 and found <= {0, 255})):
        listed = ", ".join(map(str, sorted(found)[:5]))
        rule = "a mask has 0, and 1 or 255" if ways == 1 else f"{ways} ways have labels 0 to {ways}"
        raise FssbenchError(f"{path}: has the values {listed}; {rule}")
    return torch.from_numpy(levels > 0 if ways == 1 else levels)


def _file(path: Path, manifest: Manifest) -> Iterator[Tensor]:
    """Yield the masks of a file of run lengths in the order of the episodes."""
    limit = (len(manifest.episodes) + 1) * MOST_FOR_ONE
    try:
        text = read_within(path, limit, packed=path.suffix == ".gz")
        is_list = text.lstrip()[:1] == b"["
        lines = json.loads(text) if is_list else [json.loads(x) for x in text.splitlines() if x]
        header = lines[0] if lines and "index" not in lines[0] else {}
        by_index = {line["index"]: line for line in lines[bool(header) :]}
        if len(by_index) < len(lines) - bool(header):
            raise ValueError("an index occurs twice")
        for index, line in by_index.items():
            if type(index) is not int:
                raise ValueError(f"index {index!r} is no whole number")
            if not (isinstance(line["size"], list) and len(line["size"]) == 2):
                raise ValueError(f"size {line['size']!r} of index {index} is not [H, W]")
            counts = line["counts"]
            if (len(counts) if by_way(counts) else 1) != manifest.ways:
                raise ValueError(f"index {index} needs counts of {manifest.ways} ways")
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise FssbenchError(
            f"{path}: no masks ({one_line(error)}); give a folder of PNG files, or lines of "
            '{"index": 0, "size": [H, W], "counts": …}'
        ) from error
    if header.get("manifest", manifest.digest) != manifest.digest:
        raise FssbenchError(f"{path}: these masks belong to another manifest")
    _check_indices(path, list(by_index), manifest)
    return _decoded(path, Predictions(manifest=manifest.digest, lines=by_index), by_index, manifest)


def _decoded(
    path: Path, predictions: Predictions, lines: Mapping[int, Line], manifest: Manifest
) -> Iterator[Tensor]:
    for episode in manifest.episodes:
        try:
            yield predictions.mask(episode.index, *lines[episode.index]["size"])
        except FssbenchError as error:
            raise FssbenchError(f"{path}: {error}") from error


def _check_indices(path: Path, found: Sequence[int], manifest: Manifest) -> None:
    wanted = {episode.index for episode in manifest.episodes}
    for problem, indices in (
        ("masks are missing for", wanted - set(found)),
        ("masks belong to no episode, for", set(found) - wanted),
    ):
        if indices:
            first = ", ".join(map(str, itertools.islice(sorted(indices), 3)))
            raise FssbenchError(
                f"{path}: {problem} {len(indices)} of the indices, first {first}; the manifest "
                f"has {len(wanted)} episodes"
            )


def _size(mask: Tensor) -> str:
    return f"{mask.shape[-1]} x {mask.shape[-2]}"
