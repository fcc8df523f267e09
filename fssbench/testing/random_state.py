"""The process's generators of random numbers, which belong to nobody."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy
import torch

# Seeding with a usual number must be seen as a change, so no usual number is what they stand at.
_PLACE = 918_273_645


@contextlib.contextmanager
def kept_generators() -> Iterator[None]:
    """Afterwards the generators of Python, NumPy and torch are as they were before."""
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])


def place_generators(number: int = 0) -> None:
    """Bring the three generators to a known place; there is one for each number."""
    random.seed(_PLACE + number)
    numpy.random.seed(_PLACE + number)
    torch.manual_seed(_PLACE + number)


class Watch:
    """Remembers where the generators are, and tells which of them moved."""

    def __init__(self) -> None:
        place_generators()
        self._before = _states()

    def moved(self) -> str:
        """Names of the generators that moved since: ``random, numpy.random``; "" for none."""
        after = _states()
        return ", ".join(name for name, state in self._before.items() if state != after[name])


def _states() -> dict[str, object]:
    kind, keys, *rest = numpy.random.get_state()
    return {
        "random": random.getstate(),
        "numpy.random": (kind, numpy.asarray(keys).tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
