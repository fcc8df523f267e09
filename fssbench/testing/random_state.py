"""Save, restore and watch the global random generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy
import torch

# An unusual number, so that seeding with a usual one is detected as a change.
_PLACE = 918_273_645


@contextlib.contextmanager
def restored_generators() -> Iterator[None]:
    """Restore the generators of Python, NumPy and torch at the end of the block."""
    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        numpy.random.set_state(states[1])
        torch.set_rng_state(states[2])


def place_generators(number: int = 0) -> None:
    """Set the three generators to a known state, one for each number."""
    random.seed(_PLACE + number)
    numpy.random.seed(_PLACE + number)
    torch.manual_seed(_PLACE + number)


class Watch:
    """A record of the generators' states, to detect changes."""

    def __init__(self) -> None:
        place_generators()
        self._before = _states()

    def moved(self) -> str:
        """Return the names of the changed generators: ``random, numpy.random``; "" for none."""
        after = _states()
        return ", ".join(name for name, state in self._before.items() if state != after[name])


def _states() -> dict[str, object]:
    kind, keys, *rest = numpy.random.get_state()
    return {
        "random": random.getstate(),
        "numpy.random": (kind, numpy.asarray(keys).tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
