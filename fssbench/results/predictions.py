"""Predicted masks of an evaluation: a line for each episode, in COCO's compressed run lengths."""

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

from fssbench.data.run_lengths import rle, run_lengths
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError, one_line
from fssbench.files import MIB, read_within, write_atomically

PREDICTIONS_FILE = "predictions.jsonl.gz"
FORMAT = 1
MOST_FOR_ONE = MIB // 4
"""Maximum mean number of bytes of a mask before compression.

A mask of a photograph takes about a thousandth of it, one of white noise of 640 x 480 pixels half.
"""

Line = dict[str, Any]
"""``{"index": 7, "size": [H, W], "counts": "…"}``: an episode and pycocotools' compressed mask.

The counts of an episode of several ways are a list, with the mask of each way.
"""


class Predictions:
    """Predicted masks of the episodes of a manifest, at the scored size.

    The file has a header line with the manifest's digest and a line for each episode, in manifest
    order. Equal masks give equal bytes.

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
            episodes: episodes of the manifest.
            masks: a bool (H, W) for each episode, or a uint8 label map of several ways.

        Returns:
            The lines of the masks, for a journal.
        """
        lines = [_compress(e, mask) for e, mask in zip(episodes, masks, strict=True)]
        self.restore(lines)
        return lines

    def restore(self, lines: Sequence[Line]) -> None:
        """Add lines that `add` returned."""
        self._lines.update((line["index"], line) for line in lines)

    def mask(self, index: int, height: int, width: int) -> Tensor:
        """Return the prediction for an episode: (height, width), bool, or uint8 of several ways.

        Raises:
            FssbenchError: the mask is missing or damaged, or has another size.
        """
        try:
            line = self._lines[index]
            if not by_way(line["counts"]):
                return _decoded(line, [height, width])
            labels = torch.zeros(height, width, dtype=torch.uint8)
            for way, counts in enumerate(line["counts"], 1):
                mask = _decoded({**line, "counts": counts}, [height, width])
                if labels[mask].any():
                    raise ValueError("masks of two ways overlap")
                labels[mask] = way
            return labels
        except KeyError as error:
            raise FssbenchError(f"there is no predicted mask of episode {index}") from error
        except (TypeError, ValueError) as error:
            raise FssbenchError(f"the predicted mask of episode {index}: {error}") from error

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the file's content before compression."""
        return hashlib.sha256(self._content()).hexdigest()

    def write(self, folder: Path) -> Path:
        """Write ``predictions.jsonl.gz`` into a folder atomically."""
        path = folder / PREDICTIONS_FILE
        write_atomically(path, gzip.compress(self._content(), mtime=0))
        return path

    def _content(self) -> bytes:
        count = len(self._lines)
        header = {"fssbench_predictions": FORMAT, "manifest": self.manifest, "episodes": count}
        lines = [header, *(self._lines[index] for index in sorted(self._lines))]
        return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()


def read_predictions(path: Path, digest: str, episodes: int) -> Predictions:
    """Read the file of `Predictions.write`.

    Args:
        path: the file.
        digest: digest in the record.
        episodes: number of episodes of the manifest, which limits the unpacked size.

    Raises:
        FssbenchError: the file cannot be read or is too large, or does not match the digest.
    """
    try:
        content = read_within(path, (episodes + 1) * MOST_FOR_ONE, packed=True)
    except (gzip.BadGzipFile, EOFError, ValueError, zlib.error) as error:
        raise _unusable(path, f"these predictions are damaged ({error})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise _unusable(path, f"cannot read these predictions: {reason}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise _unusable(path, "changed or of another run, does not fit the digest in the record")
    try:
        header, *lines = (json.loads(line) for line in content.splitlines())
        if header["fssbench_predictions"] != FORMAT or header["episodes"] != len(lines):
            raise ValueError("another format")
        by_episode = {line["index"]: line for line in lines}
        return Predictions(manifest=header["manifest"], lines=by_episode)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _unusable(
            path, f"these are no predictions of fssbench ({one_line(error)})"
        ) from error


def by_way(counts: object) -> bool:
    """Return True for a list with the run lengths of each way, False for those of one mask.

    Uncompressed run lengths of one mask are a list too, of whole numbers.
    """
    return isinstance(counts, list) and any(isinstance(each, str | list) for each in counts)


def _unusable(path: Path, problem: str) -> FssbenchError:
    return FssbenchError(f"{path}: {problem}; evaluate again with --save-predictions")


def _compress(episode: Episode, mask: Tensor) -> Line:
    ways = range(1, len(episode.targets) + 1)
    counts = [_run_lengths(mask == way) for way in ways] if episode.further else _run_lengths(mask)
    return {"index": episode.index, "size": [*mask.shape], "counts": counts}


def _run_lengths(mask: Tensor) -> str:
    encoded = rle.encode(np.asfortranarray(mask.cpu().numpy(), dtype=np.uint8))
    counts: bytes = encoded["counts"]
    return counts.decode("ascii")


def _decoded(line: Line, size: list[int]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rle.decode(run_lengths(line, size)))).bool()
