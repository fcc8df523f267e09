"""What stops a training that has gone wrong, and tells why."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError, lacks_memory
from fssbench.training.samples import Sample

EXPLODED = 1000.0
"""A total loss so many times its running mean (at least 1) has exploded."""

_MEMORY = 0.98  # of the running mean, for each step
_NAMED = 3  # samples that a message names


class LossMonitor:
    """Remembers how large losses are.

    Attributes:
        level: running mean of the total loss; None before the first step. It is saved and resumed.
    """

    def __init__(self, level: float | None = None) -> None:
        self.level = level

    def complaint(self, losses: Mapping[str, float]) -> str:
        """What is wrong with a step's losses; "" if nothing is."""
        for name, value in losses.items():
            if not math.isfinite(value):
                return f"loss {name} is {'NaN' if math.isnan(value) else 'infinite'}"
        total = losses["total"]
        if self.level is not None and total > EXPLODED * max(1.0, self.level):
            return f"the loss exploded to {total:.3g} (about {self.level:.3g} before)"
        self.level = total if self.level is None else _MEMORY * self.level + (1 - _MEMORY) * total
        return ""


def describe(samples: Sequence[Sample]) -> str:
    """Name samples, the first few of them in full."""
    texts = [
        f"class {s.class_id} query {s.query} support {' '.join(s.support)}"
        if isinstance(s, Episode)
        else s
        for s in samples[:_NAMED]
    ]
    more = f" and {len(samples) - _NAMED} more" if len(samples) > _NAMED else ""
    return "; ".join(texts) + more


@contextlib.contextmanager
def memory_advice(samples: int, size: int, accumulate: int) -> Iterator[None]:
    """Turn a lack of memory into an error that says which option to change.

    Args:
        samples: that the process held at once.
        size: side of the images.
        accumulate: micro-batches of a step now.

    Raises:
        FssbenchError: the block ran out of memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise FssbenchError(
            f"out of memory with {samples} samples of {size} x {size} pixels at once; give "
            f"--accumulate {2 * accumulate} (the same batch in smaller parts), a lower "
            "--batch-size, or --precision bf16"
        ) from error
