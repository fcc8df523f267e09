"""Predicted masks of an evaluation: one line for each episode, as COCO's compressed run lengths."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fssbench.data.coco_masks import rle, run_lengths
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError, one_line
from fssbench.files import MIB, read_within, write_atomically

PREDICTIONS_FILE = "predictions.jsonl.gz"
FORMAT = 1
MOST_FOR_ONE = MIB // 4
"""Bytes that a mask may take on average before compression; one of a photograph takes a thousandth,
one of white noise of 640 x 480 pixels the half."""

Line = dict[str, Any]
"""``{"index": 7, "size": [H, W], "counts": "…"}``: an episode and pycocotools' compressed mask."""


class Predictions:
    """The masks that were predicted for the episodes of a manifest, at the size that was scored.

    The file holds a header line with the manifest's digest, then a line for each episode, in
    manifest order; the same masks give the same bytes.

    Args:
        manifest: digest of the manifest.
        lines: masks by episode.
    """

    def __init__(self, *, manifest: str, lines: Mapping[int, Line] | None = None) -> None:
        self.manifest = manifest
        self._lines = dict(lines or {})

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, episodes: Sequence[Episode], masks: Sequence[Tensor]) -> list[Line]:
        """Add masks of episodes.

        Args:
            episodes: of the manifest.
            masks: one bool (H, W) for each of them.

        Returns:
            Their lines, for a journal.
        """
        lines = [_compress(e.index, mask) for e, mask in zip(episodes, masks, strict=True)]
        self.restore(lines)
        return lines

    def restore(self, lines: Sequence[Line]) -> None:
        """Add what `add` gave before."""
        self._lines.update((line["index"], line) for line in lines)

    def mask(self, index: int, height: int, width: int) -> Tensor:
        """The mask of an episode, bool (height, width).

        Raises:
            FssbenchError: there is none, it is of another size, or it is damaged.
        """
        try:
            decoded = rle.decode(run_lengths(self._lines[index], [height, width]))
        except KeyError as error:
            raise FssbenchError(f"there is no predicted mask of episode {index}") from error
        except (TypeError, ValueError) as error:
            raise FssbenchError(f"the predicted mask of episode {index}: {error}") from error
        return torch.from_numpy(np.ascontiguousarray(decoded)).bool()

    @property
    def digest(self) -> str:
        """Sha256 (hex) of the file's content before compression."""
        return hashlib.sha256(self._content()).hexdigest()

    def write(self, folder: Path) -> Path:
        """Write ``predictions.jsonl.gz`` into a folder, by rename."""
        path = folder / PREDICTIONS_FILE
        write_atomically(path, gzip.compress(self._content(), mtime=0))
        return path

    def _content(self) -> bytes:
        header = {
            "fssbench_predictions": FORMAT,
            "manifest": self.manifest,
            "episodes": len(self._lines),
        }
        lines = [header, *(self._lines[index] for index in sorted(self._lines))]
        return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()


def read_predictions(path: Path, digest: str, episodes: int) -> Predictions:
    """Read what `Predictions.write` wrote.

    Args:
        path: the file.
        digest: what the record says of it.
        episodes: how many the manifest has, which bounds what is unpacked.

    Raises:
        FssbenchError: it cannot be read, it is too large, or it is not what the record was made
            with.
    """
    again = "evaluate again with --save-predictions"
    try:
        content = read_within(path, (episodes + 1) * MOST_FOR_ONE, packed=True)
    except (gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise FssbenchError(f"{path}: these predictions are damaged ({error}); {again}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise FssbenchError(f"{path}: cannot read these predictions: {reason}; {again}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise FssbenchError(
            f"{path}: the content does not fit the digest in the record; it was changed, or is of "
            f"another run: {again}"
        )
    try:
        header, *lines = (json.loads(line) for line in content.splitlines())
        if header["fssbench_predictions"] != FORMAT or header["episodes"] != len(lines):
            raise ValueError("another format")
        return Predictions(
            manifest=header["manifest"], lines={line["index"]: line for line in lines}
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FssbenchError(
            f"{path}: these are no predictions of fssbench ({one_line(error)}); {again}"
        ) from error


def _compress(index: int, mask: Tensor) -> Line:
    plane = np.asfortranarray(mask.cpu().numpy(), dtype=np.uint8)
    encoded = rle.encode(plane)
    height, width = mask.shape
    return {"index": index, "size": [height, width], "counts": encoded["counts"].decode("ascii")}
