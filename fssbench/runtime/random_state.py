"""Save, restore and compare the states of the global random generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy
import torch

T = TypeVar("T")

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


def drawn_twice(make: Callable[[], T]) -> tuple[T, T]:
    """Return two results of a function, from different states of the global generators."""
    place_generators(1)
    first = make()
    place_generators(2)
    return first, make()


def generator_states() -> dict[str, object]:
    """Return comparable states of the global generators by name."""
    kind, keys, *rest = numpy.random.get_state()
    return {
        "random": random.getstate(),
        "numpy.random": (kind, numpy.asarray(keys).tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
