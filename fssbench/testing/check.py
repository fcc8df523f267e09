"""Checks of plugins: functions that return an observation or raise on nonconformity."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import attrs
from torch import Tensor

from fssbench import registry
from fssbench.errors import FssbenchError, one_line
from fssbench.runtime.random_state import generator_states, place_generators, restored_generators
from fssbench.specs import Spec

CheckResult = Literal["passed", "failed", "skipped"]
S = TypeVar("S", bound="Subject")

TOLERANCE = 1e-3
"""Tolerance for the order of summation, relative to the largest value."""


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Subject:
    """Base of a registered object to check, with everything that its checks need.

    Attributes:
        name: the registered name.
    """

    spec_class: ClassVar[type[Spec]]
    name: str

    @cached_property
    def spec(self) -> Any:
        """Spec of the object."""
        return registry.registry().get(self.spec_class, self.name)

    @cached_property
    def thing(self) -> Any:
        """Class or function that creates the object; messages give its location."""
        return registry.load(self.spec)


class NonconformityError(AssertionError):
    """A violation of an interface.

    Args:
        expected: required behaviour.
        seen: observed behaviour.
        look: location of the responsible code.
    """

    def __init__(self, expected: str, seen: str, look: str = "") -> None:
        super().__init__(expected, seen, look)
        self.expected, self.seen, self.look = expected, seen, look

    def __str__(self) -> str:
        """Return expectation, observation and, if known, the location, one line each."""
        lines = [f"expected: {self.expected}", f"observed: {self.seen}"]
        return "\n".join([*lines, f"location: {self.look}"] if self.look else lines)


class NotCheckedError(Exception):
    """A check that does not apply or cannot run; the message gives the reason."""


@attrs.frozen(kw_only=True)
class Outcome:
    """The outcome of a check.

    Attributes:
        check: name of the check.
        verdict: ``passed``, ``failed`` or ``skipped``.
        seen: observation, or the reason for skipping.
        expected: required behaviour, for a failure.
        look: location of the responsible code, for a failure.
    """

    check: str
    verdict: CheckResult
    seen: str
    expected: str = ""
    look: str = ""


@attrs.frozen(kw_only=True)
class Check:
    """One check of one kind of plugin object.

    Attributes:
        name: short name, e.g. ``support_matters``.
        summary: required behaviour, one line.
        look: names of the responsible methods.
        function: function from the subject to the observation.
    """

    name: str
    summary: str
    look: tuple[str, ...]
    function: Callable[[Any], str]

    def run(self, subject: Subject) -> str:
        """Run the check and return the observation; the global generators are restored.

        Raises:
            NonconformityError: the check failed; also for any error of the checked object.
            NotCheckedError: the check does not apply.
        """
        try:
            with restored_generators():
                return self.function(subject)
        except NotCheckedError:
            raise
        except NonconformityError as found:
            look = found.look or locations(subject.thing, self.look)
            raise NonconformityError(found.expected, found.seen, look) from found.__cause__
        except Exception as error:  # plugins may raise any error
            look = raised_in(error, subject.thing) or locations(subject.thing, self.look)
            raise NonconformityError(self.summary, one_line(error), look) from error

    def outcome(self, subject: Subject) -> Outcome:
        """Run the check and return its outcome, without raising."""
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
    """The checks of one kind of plugin object, in order; `add` registers functions.

    Args:
        kind: kind of object, e.g. ``matcher``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._checks: dict[str, Check] = {}

    def add(self, *look: str) -> Callable[[Callable[[S], str]], Callable[[S], str]]:
        """Return a decorator that registers a function, with its name and docstring summary.

        Args:
            look: names of the responsible methods; none for the whole class or function.
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


def expect_tensor(tensor: Tensor, condition: bool, expected: str) -> None:
    """Raise a `NonconformityError` with shape and type of a tensor unless the condition holds."""
    expect(condition, expected, f"shape {tuple(tensor.shape)}, {tensor.dtype}")


def expect_error(call: Callable[[], object], situation: str) -> str:
    """Return the message of the `FssbenchError` that a call raises; any other end is a failure."""
    expected = f"an FssbenchError for {situation}"
    try:
        call()
    except FssbenchError as error:
        return str(error)
    except Exception as error:
        raise NonconformityError(expected, one_line(error)) from error
    raise NonconformityError(expected, "no error")


def expect_close(
    found: Tensor, reference: Tensor, expected: str, tolerance: float = TOLERANCE
) -> float:
    """Return the largest difference, relative to the largest value of the reference.

    Raises:
        NonconformityError: the shapes differ, or the difference exceeds the tolerance.
    """
    shapes = tuple(found.shape), tuple(reference.shape)
    expect(shapes[0] == shapes[1], expected, f"shapes {shapes[0]} and {shapes[1]}")
    apart = largest(found - reference) / max(largest(reference), 1e-6)
    expect(apart <= tolerance, expected, f"they differ by up to {apart:.2g} of the largest value")
    return apart


def largest(tensor: Tensor) -> float:
    """Return the largest absolute value."""
    return float(tensor.abs().max())


@contextlib.contextmanager
def expect_unchanged_generators(
    advice: str = "", names: tuple[str, ...] = ("random", "numpy.random", "torch"), look: str = ""
) -> Iterator[None]:
    """Raise a `NonconformityError` if the block uses or seeds the global random generators.

    Args:
        advice: end of the message.
        names: generators that are compared.
        look: location of the responsible code.
    """
    place_generators()
    before = generator_states()
    yield
    after = generator_states()
    changed = ", ".join(name for name in names if before[name] != after[name])
    expect(not changed, f"unchanged global random generators{advice}", f"{changed} changed", look)


def locations(thing: Any, names: tuple[str, ...]) -> str:
    """Return the locations of methods, or of a class or function: ``Mine.segment, mine.py:12``."""
    found = []
    for name in names or ("",):
        part = getattr(thing, name, thing) if name else thing
        title = ".".join(filter(None, (getattr(thing, "__name__", ""), name)))
        found.append(f"{title}{_at(part)}")
    return "; ".join(found)


def raised_in(error: BaseException, thing: Any) -> str:
    """Return the innermost traceback line in the folder of the class or function, or ""."""
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
    path = file.resolve()
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else file)
