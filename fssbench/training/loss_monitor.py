"""Detection of diverged losses, and advice for a lack of memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence

from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError, lacks_memory
from fssbench.training.samples import Sample

EXPLODED = 1000.0
"""Ratio of the total loss to its running mean (at least 1) above which training stops."""

_MEMORY = 0.98  # of the running mean, for each step
_NAMED = 3  # samples that a message names


class LossMonitor:
    """A monitor of the total loss and its running mean.

    Attributes:
        level: running mean of the total loss, saved in the training state; None before the first
            step.
    """

    def __init__(self, level: float | None = None) -> None:
        self.level = level

    def check(self, losses: Mapping[str, float]) -> str:
        """Return the problem of a step's losses, or "", and update the running mean."""
        for name, value in losses.items():
            if not math.isfinite(value):
                return f"loss {name} is {'NaN' if math.isnan(value) else 'infinite'}"
        total = losses["total"]
        if self.level is not None and total > EXPLODED * max(1.0, self.level):
            return f"the loss exploded to {total:.3g} (about {self.level:.3g} before)"
        self.level = total if self.level is None else _MEMORY * self.level + (1 - _MEMORY) * total
        return ""


def describe(samples: Sequence[Sample]) -> str:
    """Return a text that names the first few samples and counts the others."""
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
    """Replace an out-of-memory error by one that names the options to change.

    Args:
        samples: number of samples of a micro-batch.
        size: side of the images.
        accumulate: current number of micro-batches of a step.

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
