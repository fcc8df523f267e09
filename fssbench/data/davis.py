"""DAVIS 2017: videos in which several objects are annotated, each of them a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from fssbench.data.dataset import IGNORE
from fssbench.data.images import check_same_size, read_image
from fssbench.data.index import IndexedDataset, list_lines
from fssbench.data.masks import read_labels
from fssbench.errors import FssbenchError

LIST = "ImageSets/2017/val.txt"
IMAGES = "JPEGImages/480p"
MASKS = "Annotations/480p"


class Davis17(IndexedDataset):
    """Validation videos of DAVIS 2017 (Pont-Tuset et al., arXiv 1704.00675) at 480 pixels.

    Image ids are ``video/frame``. The palette index of a mask's pixel is the number of its object,
    from 1, and class ``video/N`` is object N of a video. The first mask of a video shows all its
    objects; higher numbers in later masks are no objects. As in DAVIS's evaluation code, 255 is
    background. All classes are novel; there is one fold.

    Args:
        root: folder with ``JPEGImages``, ``Annotations`` and ``ImageSets``.
        config: always None; `Davis17` has no options.

    Raises:
        FssbenchError: a folder, the list of the videos, a video or its first mask is missing, the
            list is empty, or a video shows no object in its first frame.
    """

    name: ClassVar[str] = "davis17"
    splits = ("val",)
    folds = 1

    def __init__(self, *, root: Path | None, config: None = None) -> None:
        del config
        super().__init__()
        needs = f"the folder that holds {IMAGES}, {MASKS} and {LIST}"
        if root is None:
            raise FssbenchError(f"davis17 needs --data-root, {needs}")
        if not (root / LIST).is_file():
            raise FssbenchError(f"davis17: no {root / LIST}; --data-root must name {needs}")
        self.root = root
        videos = [line.strip() for line in list_lines(root / LIST) if line.strip()]
        if not videos:
            raise FssbenchError(f"{root / LIST}: lists no video; write one a line")
        self._frames = {video: self._frames_of(video) for video in videos}
        self._objects = {video: self._objects_of(video) for video in videos}
        self.classes = tuple(
            f"{video}/{number}"
            for video, count in self._objects.items()
            for number in range(1, count + 1)
        )
        self._ids = {name: class_id for class_id, name in enumerate(self.classes)}

    def frames(self, class_id: int) -> Sequence[str]:
        """Return the image ids of the video of a class, in order of time."""
        return self._frames[self.classes[class_id].rpartition("/")[0]]

    def fold_classes(self, fold: int) -> tuple[int, ...]:
        """Return all class ids."""
        self.check_fold(fold)
        return tuple(range(len(self.classes)))

    def image_ids(self, split: str) -> Sequence[str]:
        """Return the ids of all frames, by video in the order of the list."""
        self.check_split(split)
        return [image_id for frames in self._frames.values() for image_id in frames]

    def image(self, image_id: str) -> Tensor:
        """Return the frame as uint8 (3, H, W)."""
        return read_image(self.image_path(image_id))

    def mask(self, image_id: str, class_id: int) -> Tensor:
        """Return the mask of an object as uint8 (H, W) of 0 and 1; zeros in other videos."""
        labels = self._labels(image_id)
        video, _, number = self.classes[class_id].rpartition("/")
        if video != image_id.rpartition("/")[0]:
            return torch.zeros_like(labels)
        return (labels == int(number)).to(torch.uint8)

    def image_path(self, image_id: str) -> Path:
        """Return the file of a frame."""
        return self.root / IMAGES / f"{image_id}.jpg"

    def mask_path(self, image_id: str) -> Path:
        """Return the mask file of a frame."""
        return self.root / MASKS / f"{image_id}.png"

    def count_pixels(self, image_id: str) -> Mapping[int, int]:
        """Count the pixels of each object in a mask."""
        video = image_id.rpartition("/")[0]
        counts = torch.bincount(self._labels(image_id).flatten(), minlength=IGNORE + 1).tolist()
        numbers = range(1, self._objects[video] + 1)
        return {self._ids[f"{video}/{n}"]: counts[n] for n in numbers if counts[n]}

    def listed_in(self, split: str) -> str:
        """Return the list of the videos."""
        del split
        return str(self.root / LIST)

    def _frames_of(self, video: str) -> list[str]:
        folder = self.root / IMAGES / video
        found = sorted(path.stem for path in folder.glob("*.jpg"))
        if not found:
            raise FssbenchError(f"{folder}: no frames (.jpg) of {video}, which {LIST} lists")
        return [f"{video}/{stem}" for stem in found]

    def _objects_of(self, video: str) -> int:
        path = self.mask_path(self._frames[video][0])
        labels = read_labels(path, "index")
        counts = torch.bincount(labels.flatten(), minlength=IGNORE + 1)
        found = set(counts.nonzero().flatten().tolist()) - {0, IGNORE}
        if not found:
            raise FssbenchError(f"{path}: the first mask of {video} shows no object")
        if missing := set(range(1, max(found) + 1)) - found:
            raise FssbenchError(
                f"{path}: has the objects {', '.join(map(str, sorted(found)))}, but not "
                f"{min(missing)}; each object must be in the first mask of its video"
            )
        return len(found)

    def _labels(self, image_id: str) -> Tensor:
        path = self.mask_path(image_id)
        labels = read_labels(path, "index")
        check_same_size(labels, path, self.image_path(image_id))
        return labels
