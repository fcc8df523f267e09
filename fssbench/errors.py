"""The one error that a user can cause."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class FssbenchError(Exception):
    """A mistake that the person at the keyboard can mend.

    The message is one line: what (file, option or name), what is wrong with it, what to do.
    The command line prints it without a traceback and exits with code 2.
    """


def one_line(error: BaseException) -> str:
    """An error that is not ours, with its class, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in Python or in torch, on a CPU or a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_NO_MEMORY.search(str(error)))


_NO_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory|bad_alloc")


def near(name: str, known: Iterable[str]) -> str:
    """Names like `name` among `known`, as the clause ``did you mean 'a' or 'b'? `` (or nothing)."""
    close = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}? " if close else ""
