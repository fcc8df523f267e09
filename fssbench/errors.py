"""The error class for users' mistakes, and helpers for messages."""

from __future__ import annotations

import contextlib
import difflib
import logging
import re
from collections.abc import Iterable, Iterator


class FssbenchError(Exception):
    """An error that the user can correct.

    The message is one line: the file, option or name, the problem, and the correction. The command
    line prints it without a traceback and exits with code 2.
    """


def one_line(error: BaseException) -> str:
    """Return the class and the message of an error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def lacks_memory(error: BaseException) -> bool:
    """Return True for an out-of-memory error of Python or torch, on a CPU or a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


_NO_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory|bad_alloc")


@contextlib.contextmanager
def without_warnings(*loggers: str) -> Iterator[None]:
    """Hide the warnings of loggers within the block, whose facts are reported after it."""
    levels = {logger: logger.level for logger in map(logging.getLogger, loggers)}
    try:
        for logger in levels:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def near(name: str, known: Iterable[str]) -> str:
    """Return the clause ``did you mean 'a' or 'b'? `` with known names close to `name`, or ""."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""


def by_kind(messages: Iterable[str]) -> list[str]:
    """Return one line for each kind of message, with a count and three examples.

    Messages ``PLACE: TEXT`` are of one kind if their texts differ in numbers and names alone.
    """
    kinds: dict[str, list[str]] = {}
    for message in dict.fromkeys(messages):
        text = message.partition(": ")[2] or message
        kinds.setdefault(_VARIABLE.sub("#", text), []).append(message)
    lines = []
    for alike in kinds.values():
        places = [message.partition(": ")[0] for message in alike[1:3]]
        more = f" and {len(alike) - 3} more" if len(alike) > 3 else ""
        count = f"{len(alike)} times: " if places else ""
        lines.append(f"{count}{alike[0]}" + (f"; also {', '.join(places)}{more}" if places else ""))
    return lines


_VARIABLE = re.compile(r"[(\[]?\d[\d(), ]*( and \d+ more)?|'[^']*'|\S*[/.]\S+")
