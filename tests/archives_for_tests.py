"""Small archives in the real formats of the official ones, and a server for them."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle
from scipy.io import savemat
from scipy.sparse import csc_matrix

VOC_TRAIN = ("2007_000032", "2007_000039")
VOC_VAL = ("2007_000033",)
SBD_TRAIN = ("2008_000002", "2007_000032")
SBD_VAL = ("2008_000003", "2007_000033")
"""SBD annotates one of VOC's training images and its validation image, too."""

HEIGHT, WIDTH = 12, 16


def jpg(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, (number % 256, 80, 10)).save(data, "JPEG")
    return data.getvalue()


def png(labels: np.ndarray) -> bytes:
    data = io.BytesIO()
    picture = Image.fromarray(labels)
    picture.putpalette(bytes(range(256)) * 3)
    picture.save(data, "PNG")
    return data.getvalue()


def voc_labels(image_id: str) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[2:8, 3:9] = 1 + int(image_id[-2:]) % 20
    labels[8, 3:9] = 255  # VOC's border
    return labels


def sbd_labels(image_id: str) -> np.ndarray:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[1:9, 2:10] = 1 + int(image_id[-2:]) % 20
    return labels


def mat(labels: np.ndarray) -> bytes:
    """``GTcls`` as SBD has it: a struct of Boundaries (20 sparse maps), Segmentation, presence."""
    boundaries = np.empty((20, 1), object)
    for number in range(20):
        boundaries[number, 0] = csc_matrix((labels == number + 1).astype(np.uint8))
    present = np.unique(labels[labels > 0]).astype(np.uint8)
    data = io.BytesIO()
    savemat(
        data,
        {
            "GTcls": {
                "Boundaries": boundaries,
                "Segmentation": labels,
                "CategoriesPresent": present,
            }
        },
        do_compression=True,
    )
    return data.getvalue()


def tar_bytes(files: dict[str, bytes], mode: str = "w", extra: Iterable = ()) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as opened:
        for name in dict.fromkeys(name.rpartition("/")[0] for name in files):
            folder = tarfile.TarInfo(name)
            folder.type = tarfile.DIRTYPE
            opened.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
        for info in extra:
            opened.addfile(info)
    return data.getvalue()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as opened:
        for folder in dict.fromkeys(name.rpartition("/")[0] for name in files):
            if folder:
                opened.writestr(f"{folder}/", b"")
        for name, content in files.items():
            opened.writestr(name, content)
    return data.getvalue()


def voc_files() -> dict[str, bytes]:
    root = "VOCdevkit/VOC2012"
    own = (*VOC_TRAIN, *VOC_VAL)
    images = sorted({*own, *SBD_TRAIN, *SBD_VAL, "2011_009999"})
    return {
        **{f"{root}/Annotations/{name}.xml": b"<annotation/>" for name in own},
        f"{root}/ImageSets/Main/train.txt": b"2007_000032\n",
        f"{root}/ImageSets/Segmentation/train.txt": "".join(f"{n}\n" for n in VOC_TRAIN).encode(),
        f"{root}/ImageSets/Segmentation/val.txt": "".join(f"{n}\n" for n in VOC_VAL).encode(),
        f"{root}/ImageSets/Segmentation/trainval.txt": "".join(f"{n}\n" for n in own).encode(),
        **{f"{root}/JPEGImages/{n}.jpg": jpg(k) for k, n in enumerate(images)},
        **{f"{root}/SegmentationClass/{n}.png": png(voc_labels(n)) for n in own},
        **{f"{root}/SegmentationObject/{n}.png": png(voc_labels(n)) for n in own},
    }


def sbd_files() -> dict[str, bytes]:
    root = "benchmark_RELEASE/dataset"
    names = (*SBD_TRAIN, *SBD_VAL)
    return {
        "benchmark_RELEASE/README": b"read me",
        f"{root}/train.txt": "".join(f"{n}\n" for n in SBD_TRAIN).encode(),
        f"{root}/val.txt": "".join(f"{n}\n" for n in SBD_VAL).encode(),
        **{f"{root}/img/{n}.jpg": jpg(7) for n in names},
        **{f"{root}/cls/{n}.mat": mat(sbd_labels(n)) for n in names},
        **{f"{root}/inst/{n}.mat": b"not read" for n in names},
    }


def coco_json(split: str, numbers: Iterable[int]) -> bytes:
    numbers = list(numbers)
    crowd = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    crowd[9:, :5] = 1
    counts = [int(n) for n in _run_lengths(crowd)]
    annotations = []
    for number in numbers:
        square = [2, 2, 9, 2, 9, 8, 2, 8]
        annotations += [
            {"id": number * 10, "image_id": number, "category_id": 18, "iscrowd": 0,
             "area": 42, "bbox": [2, 2, 7, 6], "segmentation": [square]},
            {"id": number * 10 + 1, "image_id": number, "category_id": 1, "iscrowd": 1,
             "area": 15, "bbox": [0, 9, 5, 3],
             "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}},
        ]  # fmt: skip
    images = [
        {"id": n, "file_name": coco_name(split, n), "height": HEIGHT, "width": WIDTH}
        for n in numbers
    ]
    categories = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    return json.dumps(
        {"images": images, "annotations": annotations, "categories": categories}
    ).encode()


def _run_lengths(mask: np.ndarray) -> list[int]:
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    edges = [0, *changes, flat.size]
    lengths = np.diff(edges).tolist()
    found = ([0] if flat[0] else []) + lengths
    assert rle.area(rle.frPyObjects({"size": list(mask.shape), "counts": found}, *mask.shape)) == 15
    return found


def coco_name(split: str, number: int) -> str:
    return f"COCO_{split}_{number:012d}.jpg" if split.endswith("2014") else f"{number:012d}.jpg"


def coco_files(year: str = "2014") -> dict[str, dict[str, bytes]]:
    """By archive."""
    numbers = {f"train{year}": range(1, 5), f"val{year}": range(11, 14)}
    annotations = {f"annotations/captions_val{year}.json": b"{}"}
    for split, ids in numbers.items():
        annotations[f"annotations/instances_{split}.json"] = coco_json(split, ids)
    return {
        f"annotations_trainval{year}": annotations,
        **{
            split: {f"{split}/{coco_name(split, n)}": jpg(n) for n in ids}
            for split, ids in numbers.items()
        },
    }


def fss_files(classes: Iterable[str] = ("abacus", "zucchini"), each: int = 10) -> dict[str, bytes]:
    root = "fewshot_data/fewshot_data"
    found: dict[str, bytes] = {"fewshot_data/.DS_Store": b"mac"}
    for name in classes:
        for n in range(1, each + 1):
            mask = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
            mask[2:8, 2 : 3 + n] = 255
            data = io.BytesIO()
            Image.fromarray(mask).save(data, "PNG")
            found[f"{root}/{name}/{n}.jpg"] = jpg(n)
            found[f"{root}/{name}/{n}.png"] = data.getvalue()
            found[f"__MACOSX/{root}/{name}/._{n}.jpg"] = b"resource fork"
    return found


def write(folder: Path, files: dict[str, bytes]) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}


class Server:
    """Serves `files`; knows ranges; can be told to break off, and remembers what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tag = '"one"'
        self.break_after: list[int] = []
        """Bytes after which the next answers break off."""
        self.ranges = True
        self.content_type = "application/octet-stream"
        self.status = 0
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""


@contextmanager
def serving():
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, wanted = self.path.lstrip("/"), self.headers.get("Range")
            server.asked.append((name, wanted))
            if server.status or name not in server.files:
                self.send_error(server.status or 404)
                return
            data, start = server.files[name], 0
            fresh = self.headers.get("If-Range") in (None, server.tag)
            if wanted and server.ranges and fresh:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Type", server.content_type)
            self.send_header("Content-Length", str(len(data) - start))
            if server.tag:
                self.send_header("ETag", server.tag)
            self.end_headers()
            end = start + server.break_after.pop(0) if server.break_after else len(data)
            self.wfile.write(data[start:end])

        def log_message(self, *_: object) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
