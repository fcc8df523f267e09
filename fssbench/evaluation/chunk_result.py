"""The result of a chunk, and its line in the journal and in files between processes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pandas
from torch import Tensor

from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError
from fssbench.results.predictions import Predictions


@attrs.frozen(kw_only=True, eq=False)
class ChunkResult:
    """Rows and masks of one measured chunk.

    Attributes:
        chunk: chunk number.
        episodes: episodes of the chunk, in the order of measuring.
        rows: one row for each episode, or for each way of it.
        predictions: one bool (H, W) mask for each episode, at the scored size, or a uint8 label map
            of several ways; empty where a line was written without masks.
        seconds: wall time, including loading.
    """

    chunk: int
    episodes: tuple[Episode, ...]
    rows: pandas.DataFrame
    predictions: Sequence[Tensor]
    seconds: float

    def to_bytes(self, *, masks: bool = True) -> bytes:
        """Return one line of JSON (without its end), after a CRC-32 of the line.

        JSON returns floats bit for bit, and nothing is executed when it is read.

        Args:
            masks: True to include the masks, as run lengths.
        """
        content: dict[str, Any] = {
            "chunk": self.chunk,
            "seconds": self.seconds,
            "columns": list(self.rows.columns),
            "rows": [list(row) for row in self.rows.itertuples(index=False, name=None)],
        }
        if masks:
            content["predictions"] = Predictions(manifest="").add(self.episodes, self.predictions)
        text = json.dumps(content, separators=(",", ":")).encode()
        return b"%08x %s" % (zlib.crc32(text), text)

    @classmethod
    def from_bytes(cls, line: bytes, chunks: Mapping[int, Sequence[Episode]]) -> ChunkResult:
        """Read a line that `to_bytes` wrote.

        Args:
            line: the line.
            chunks: episodes that each chunk has in this version of fssbench.

        Raises:
            ValueError: the line is damaged, or belongs to other episodes.
        """
        checksum, _, text = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            raise ValueError("damaged")
        try:
            content = json.loads(text)
            rows = pandas.DataFrame(content["rows"], columns=content["columns"])
            episodes = tuple(chunks.get(content["chunk"], ()))
            if list(rows["index"]) != [way.index for e in episodes for way in e.ways()]:
                raise ValueError("its episodes differ from those of the manifest")
            saved = content.get("predictions", [])
            lines = {each["index"]: each for each in saved}
            masks = Predictions(manifest="", lines=lines)
            return cls(
                chunk=content["chunk"],
                episodes=episodes,
                rows=rows.astype({"query": str}),
                predictions=[masks.mask(e.index, *lines[e.index]["size"]) for e in episodes]
                if saved
                else (),
                seconds=float(content["seconds"]),
            )
        except (
            KeyError, TypeError, IndexError, AttributeError, RecursionError, FssbenchError,
        ) as error:  # fmt: skip
            raise ValueError(f"no result of a chunk ({error})") from error
