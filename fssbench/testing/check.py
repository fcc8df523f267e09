"""What a check is: a function that says what it saw, or what it expected instead."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import attrs

from fssbench.errors import one_line
from fssbench.testing.random_state import kept_generators

CheckResult = Literal["passed", "failed", "skipped"]
S = TypeVar("S", bound="Subject")


class Subject(Protocol):
    """What is checked, and all that the checks need beside it."""

    @property
    def thing(self) -> Any:
        """The class or function; messages say where it is."""
        ...


class NonconformityError(AssertionError):
    """Something is not as the interface promises.

    Args:
        expected: what should have been.
        seen: what was instead.
        look: where to look for the reason.
    """

    def __init__(self, expected: str, seen: str, look: str = "") -> None:
        super().__init__(expected, seen, look)
        self.expected, self.seen, self.look = expected, seen, look

    def __str__(self) -> str:
        """Three lines for people; two where nobody knows where to look."""
        lines = [f"expected: {self.expected}", f"seen:     {self.seen}"]
        return "\n".join([*lines, f"look at:  {self.look}"] if self.look else lines)


class NotCheckedError(Exception):
    """A check that does not apply, or cannot be made here; the message says why."""


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a check.

    Attributes:
        check: its name.
        verdict: ``passed``, ``failed`` or ``skipped``.
        seen: what was seen, or why nothing was checked.
        expected: of a failure, what should have been.
        look: of a failure, where to look.
    """

    check: str
    verdict: CheckResult
    seen: str
    expected: str = ""
    look: str = ""


@attrs.frozen(kw_only=True)
class Check:
    """One check of one kind of thing.

    Attributes:
        name: short, e.g. ``support_matters``.
        summary: what is expected, one line.
        look: names of the thing's methods that are answerable for it.
        function: takes the subject and returns what it saw.
    """

    name: str
    summary: str
    look: tuple[str, ...]
    function: Callable[[Any], str]

    def run(self, subject: Subject) -> str:
        """What was seen.

        The process's generators are as they were afterwards, whatever the thing did to them.

        Raises:
            NonconformityError: the check failed; so does anything that the checked thing raises.
            NotCheckedError: the check does not apply.
        """
        try:
            with kept_generators():
                return self.function(subject)
        except NotCheckedError:
            raise
        except NonconformityError as found:
            look = found.look or places(subject.thing, self.look)
            raise NonconformityError(found.expected, found.seen, look) from found.__cause__
        except Exception as error:  # the thing may raise what it likes
            look = raised_in(error, subject.thing) or places(subject.thing, self.look)
            raise NonconformityError(self.summary, one_line(error), look) from error

    def outcome(self, subject: Subject) -> Outcome:
        """As `run`, but failures are told, not raised."""
        try:
            return Outcome(check=self.name, verdict="passed", seen=self.run(subject))
        except NotCheckedError as why:
            return Outcome(check=self.name, verdict="skipped", seen=str(why))
        except NonconformityError as found:
            return Outcome(
                check=self.name, verdict="failed", seen=found.seen, expected=found.expected,
                look=found.look,
            )  # fmt: skip


class Checks:
    """The checks of one kind of thing, in order; functions join with `add`.

    Args:
        kind: of what, e.g. ``matcher``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._checks: dict[str, Check] = {}

    def add(self, *look: str) -> Callable[[Callable[[S], str]], Callable[[S], str]]:
        """A decorator: the function's name is the check's, its first line what is expected.

        Args:
            look: names of the thing's methods that are answerable; none for the thing itself.
        """

        def join(function: Callable[[S], str]) -> Callable[[S], str]:
            name = function.__name__
            summary = inspect.cleandoc(function.__doc__ or name).partition("\n")[0]
            self._checks[name] = Check(name=name, summary=summary, look=look, function=function)
            return function

        return join

    def __iter__(self) -> Iterator[Check]:
        return iter(self._checks.values())

    def __getitem__(self, name: str) -> Check:
        return self._checks[name]


def expect(condition: bool, expected: str, seen: str, look: str = "") -> None:
    """Raise a `NonconformityError` unless the condition holds."""
    if not condition:
        raise NonconformityError(expected, seen, look)


def places(thing: Any, names: tuple[str, ...]) -> str:
    """Where methods of a class, or a class or function, are: ``Mine.segment, mine.py:12``."""
    found = []
    for name in names or ("",):
        part = getattr(thing, name, thing) if name else thing
        title = ".".join(filter(None, (getattr(thing, "__name__", ""), name)))
        found.append(f"{title}{_at(part)}")
    return "; ".join(found)


def raised_in(error: BaseException, thing: Any) -> str:
    """The innermost line of an error's traceback that is in the thing's own folder, or ""."""
    home = _file(thing)
    if home is None:
        return ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if home.parent in file.parents:
            return f"{frame.name}, {_short(file)}:{frame.lineno}: {frame.line}"
    return ""


def _at(part: Any) -> str:
    try:
        file, (_, line) = _file(part), inspect.getsourcelines(inspect.unwrap(part))
    except (OSError, TypeError):
        return ""
    return f", {_short(file)}:{line}" if file else ""


def _file(part: Any) -> Path | None:
    try:
        name = inspect.getsourcefile(inspect.unwrap(part))
    except TypeError:
        return None
    return Path(name) if name else None


def _short(file: Path) -> str:
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(file)
