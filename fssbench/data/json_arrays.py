"""Reading of JSON files that are larger than the memory, one entry of an array at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from fssbench.data.index import with_progress
from fssbench.errors import FssbenchError
from fssbench.files import MIB

BLOCK = MIB
"""Number of characters that are read at once."""
LONGEST = 512 * MIB
"""Maximum number of characters of an entry of an array, or of another value."""
_TOKEN = 16
"""Number of characters before the end of a block in which it may divide a number or a word."""

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def top_level(path: Path, title: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of a JSON file's object; nothing if the file is no object.

    The value of an array is an iterator of its entries, which are parsed one by one. Entries that
    are not consumed are skipped. Values and errors are those of `json.loads`.

    Args:
        path: file to read.
        title: title of the progress bar.

    Raises:
        FssbenchError: the file cannot be read, or is not valid JSON.
    """
    try:
        with path.open("rb") as file:
            encoding = json.detect_encoding(file.read(4))
        with path.open(encoding=encoding, errors="surrogatepass", newline="") as opened:
            blocks = iter(partial(opened.read, BLOCK), "")
            count = path.stat().st_size // BLOCK + 1
            yield from _Text(path, with_progress(blocks, title, count)).top_level()
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error


class _Text:
    """The part of a JSON text that is in memory, and the position up to which it is parsed."""

    def __init__(self, path: Path, blocks: Iterator[str]) -> None:
        self._path, self._blocks = path, blocks
        self._text, self._at = "", 0
        self._before, self._lines, self._column = 0, 0, 0  # characters that are no longer in memory

    def top_level(self) -> Iterator[tuple[str, Any]]:
        if self._next() == "{":
            for key in self._items("}", self._key):
                is_array = self._next() == "["
                value = self._items("]", self._value) if is_array else self._value()
                yield key, value
                for _ in value if is_array else ():
                    pass
        else:
            self._value()
        if self._next():
            raise self._error("Extra data", self._at)

    def _items(self, end: str, parse: Callable[[], Any]) -> Iterator[Any]:
        """Yield what `parse` returns for each item of an object or array, with its brackets."""
        self._at += 1
        if self._next() != end:
            yield parse()
            while self._next() == ",":
                self._at += 1
                yield parse()
        self._skip(end, "Expecting ',' delimiter")

    def _key(self) -> str:
        if self._next() != '"':
            message = "Expecting property name enclosed in double quotes"
            raise self._error(message, self._at)
        key: str = self._value()
        self._next()
        self._skip(":", "Expecting ':' delimiter")
        return key

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
                problem, divided = "", end
            except json.JSONDecodeError as error:
                problem, end = error.msg, error.pos
                divided = len(self._text) if problem.startswith("Unterminated string") else end
            except (ValueError, RecursionError) as error:
                raise _incomplete(self._path, error) from error
            if divided + _TOKEN < len(self._text) or not self._more():
                break
        if problem:
            raise self._error(problem, end)
        self._at = end
        return value

    def _next(self) -> str:
        """Skip spaces and return the next character, or "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _skip(self, character: str, message: str) -> None:
        if not self._text.startswith(character, self._at):
            raise self._error(message, self._at)
        self._at += 1

    def _more(self) -> bool:
        """Read at least as many characters as remain, so that a long entry is parsed few times."""
        rest, added = len(self._text) - self._at, ""
        if rest > LONGEST:
            raise FssbenchError(
                f"{self._path}: has an entry of more than {LONGEST / MIB:g} MiB; divide the file"
            )
        try:
            while len(added) <= rest and (block := next(self._blocks, "")):
                added += block
        except UnicodeDecodeError as error:
            raise _incomplete(self._path, error) from error
        if added:
            self._lines, self._column = self._position(self._at)
            self._before += self._at
            self._text, self._at = self._text[self._at :] + added, 0
        return bool(added)

    def _position(self, at: int) -> tuple[int, int]:
        """Return the number of line breaks before a character, and that of characters after."""
        lines = self._text.count("\n", 0, at)
        if lines:
            return self._lines + lines, at - self._text.rindex("\n", 0, at) - 1
        return self._lines, self._column + at

    def _error(self, message: str, at: int) -> FssbenchError:
        line, column = self._position(at)
        where = f"line {line + 1} column {column + 1} (char {self._before + at})"
        return _incomplete(self._path, f"{message}: {where}")


def _incomplete(path: Path, error: object) -> FssbenchError:
    return FssbenchError(
        f"{path}: is not a complete JSON file ({error}); download or unpack it again"
    )
