"""A measured chunk on its way from the process that measured it to the one that writes it down."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any

import attrs
import pandas
from torch import Tensor

from fssbench.episodes.episode import Episode
from fssbench.evaluation.measure import Measured
from fssbench.results.predictions import Predictions


@attrs.frozen(kw_only=True, eq=False)
class ChunkResult:
    """What became of one chunk.

    Attributes:
        chunk: its number.
        episodes: its episodes, in the order in which they were measured.
        rows: one for each of them.
        predictions: one bool (H, W) for each of them, at the size that was scored.
        seconds: what they took, loading included.
    """

    chunk: int
    episodes: tuple[Episode, ...]
    rows: pandas.DataFrame
    predictions: Sequence[Tensor]
    seconds: float

    @classmethod
    def of(cls, measured: Measured) -> ChunkResult:
        """What the loop gives."""
        data, rows, predictions, seconds = measured
        task = data.task
        return cls(
            chunk=task.chunk, episodes=task.episodes, rows=rows, predictions=predictions,
            seconds=seconds,
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """JSON with a checksum before it; masks as run lengths.

        JSON writes floats so that they are read back bit for bit, and executes nothing.
        """
        content = {
            "chunk": self.chunk,
            "columns": list(self.rows.columns),
            "rows": [list(row) for row in self.rows.itertuples(index=False, name=None)],
            "masks": Predictions(manifest="").add(self.episodes, self.predictions),
            "seconds": self.seconds,
        }
        text = json.dumps(content, separators=(",", ":")).encode()
        return b"%08x %s" % (zlib.crc32(text), text)

    @classmethod
    def from_bytes(cls, data: bytes, episodes: Sequence[Episode]) -> ChunkResult:
        """What `to_bytes` wrote.

        Args:
            data: the bytes.
            episodes: of its chunk.

        Raises:
            ValueError: they are damaged, or of other episodes.
        """
        checksum, _, text = data.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            raise ValueError("damaged")
        content: dict[str, Any] = json.loads(text)
        rows = pandas.DataFrame(content["rows"], columns=content["columns"])
        if list(rows["index"]) != [episode.index for episode in episodes]:
            raise ValueError("of other episodes")
        lines = {line["index"]: line for line in content["masks"]}
        masks = Predictions(manifest="", lines=lines)
        return cls(
            chunk=content["chunk"],
            episodes=tuple(episodes),
            rows=rows.astype({"query": str}),
            predictions=[masks.mask(e.index, *lines[e.index]["size"]) for e in episodes],
            seconds=content["seconds"],
        )
