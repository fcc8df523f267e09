"""Identity of the code that computes a row: distributions, versions, commits, source hashes."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import attrs

from fssbench.runtime.git import git


@attrs.frozen(kw_only=True)
class Code:
    """The code of one package or module.

    Attributes:
        distribution: name of the distribution that installed it; "" for a file of the user.
        version: version of the distribution; "" without one.
        commit: git commit of its folder; "" outside of a repository.
        dirty: True if the folder differs from the commit; None outside of a repository.
        sha256: hash of its source and data files; "" for a module without a file.
    """

    distribution: str = ""
    version: str = ""
    commit: str = ""
    dirty: bool | None = None
    sha256: str = ""


def code_of(things: Iterable[object]) -> dict[str, Code]:
    """Return the code of objects, by the name of the top-level package or module.

    The code of an object is that of its class, of the class's bases, and of everything that a file
    outside of the environment (one of the user's) refers to or imports, also inside of functions.
    Packages of the environment that only a function imports are not named.

    Args:
        things: functions, classes, instances and modules.
    """
    found: dict[str, Code] = {}
    waiting = [name for thing in things for name in _modules_of(thing)]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in seen or top in sys.stdlib_module_names or top in _NOT_FOLLOWED:
            continue
        seen.add(name)
        path = _location(top)
        own = path is not None and top != "fssbench" and not _is_installed(path)
        if top not in sys.modules and not own:
            continue
        if top not in found:
            found[top] = _describe(top, path) if own else _loaded(top, path)
            waiting += _imports(path, found[top].sha256) if path is not None and own else ()
        if own:
            waiting += _references(sys.modules.get(name))
    return dict(sorted(found.items()))


def identities(code: Mapping[str, Code]) -> dict[str, dict[str, str]]:
    """Return the facts of each package that decide whether it computes the same values."""
    return {name: {"version": c.version, "sha256": c.sha256} for name, c in code.items()}


_RUNS = {"run.json", "training.json", "record.json"}
"""Files whose folder is a run directory, and no part of a package."""

_NOT_FOLLOWED = {"torch", "numpy", "attr", "attrs", "typing_extensions", "builtins"}
"""Packages whose versions are in a run's identity already, or that compute nothing."""


def _modules_of(thing: object) -> Iterator[str]:
    if isinstance(thing, functools.partial):
        thing = thing.func
    kind = thing if inspect.isclass(thing) else type(thing)
    if isinstance(thing, ModuleType):
        yield thing.__name__
        return
    if inspect.isroutine(thing):
        yield thing.__module__ or ""
        return
    for base in kind.__mro__:
        yield base.__module__


def _references(module: ModuleType | None) -> Iterator[str]:
    for value in list(vars(module).values()) if module is not None else ():
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        if isinstance(name, str) and name in sys.modules:
            yield name


@functools.lru_cache(maxsize=512)
def _imports(path: Path, sha256: str) -> tuple[str, ...]:
    """Return the modules that a file, or the files of a package, import by absolute names.

    Args:
        path: file or folder.
        sha256: hash of its content, so that an edited one is read again.
    """
    del sha256
    names: set[str] = set()
    for file in _files(path):
        if file.suffix != ".py":
            continue
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            for node in ast.walk(ast.parse(file.read_bytes())):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names.add(node.module or "")
    return tuple(sorted(names))


def _describe(top: str, path: Path | None) -> Code:
    distribution, version = _distribution(top)
    if path is None:
        return Code(distribution=distribution, version=version)
    commit, dirty = ("", None) if _is_installed(path) else _commit(path)
    return Code(
        distribution=distribution, version=version, commit=commit, dirty=dirty, sha256=_hash(path)
    )


@functools.cache
def _loaded(top: str, path: Path | None) -> Code:
    """Return the code of fssbench or of an installed package, as at the first call.

    The process has imported it already, so a later change of its files does not affect the rows,
    unless the module is reloaded.
    """
    return _describe(top, path)


@functools.cache
def _distribution(top: str) -> tuple[str, str]:
    """Return name and version of the distribution of a package, ("", "") without one."""
    # The bundled plugins are in fssbench's own distribution.
    for name in (top, "fssbench" if top.startswith("fssbench_") else ""):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError, ValueError):
            return name, importlib.metadata.version(name)
    # `importlib.metadata.packages_distributions` makes a path of every installed file, which takes
    # a second; the lists of files are searched as text here.
    listed = re.compile(rf"^{re.escape(top)}(?:/|\.[^/,]+,)", re.MULTILINE)
    for each in importlib.metadata.distributions():
        names = (each.read_text("top_level.txt") or "").split()
        if top in names or (not names and listed.search(each.read_text("RECORD") or "")):
            return each.name, each.version
    return "", ""


def _is_installed(path: Path) -> bool:
    folders = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    # Packages of another environment that this one sees are no code of the user either.
    other = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    return other or any(path.is_relative_to(Path(folder).resolve()) for folder in folders)


def _location(top: str) -> Path | None:
    """Return the file or the folder of a top-level module, loaded or not."""
    module = sys.modules.get(top)
    file, folders = getattr(module, "__file__", None), getattr(module, "__path__", None)
    if module is None:
        with contextlib.suppress(ImportError, ValueError):
            if (spec := importlib.util.find_spec(top)) is not None:
                file = spec.origin if spec.has_location else None
                folders = spec.submodule_search_locations
    if not file:  # a folder without an __init__.py, or a module of no file
        first = next(iter(folders or ()), None)
        return None if first is None else Path(first).resolve()
    path = Path(file).resolve()
    return path.parent if path.name == "__init__.py" else path


def _hash(path: Path) -> str:
    """Return the sha256 (hex) of a module with its data files, or of all files of a package."""
    files = sorted(_files(path))
    folder = path.parent if path.is_file() else path
    total = hashlib.sha256()
    for each in files:
        name = "" if each == path else each.relative_to(folder).as_posix()
        total.update(f"{name}\0{hashlib.sha256(each.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _files(code: Path) -> Iterator[Path]:
    """Yield a module with its data files, or the files of a package.

    Hidden files, caches, notes and the package's own runs are left out.
    """
    if code.is_file():
        yield code
        yield from () if _is_installed(code) else _named_files(code)
    for path, folders, names in os.walk(code):
        if not _RUNS.isdisjoint(names):
            folders.clear()
            continue
        folders[:] = [name for name in folders if name != "__pycache__" and name[0] != "."]
        for name in names:
            if _computes(name):
                yield Path(path, name)


def _computes(name: str) -> bool:
    return name[0] != "." and not name.endswith((".pyc", ".md", "~", ".log"))


def _named_files(code: Path) -> Iterator[Path]:
    """Yield the files in a module's folder, or below, that texts in its source name.

    A text is a path (``tables/weights.npy``) or the suffix of a file of the module's name.
    """
    with contextlib.suppress(OSError, SyntaxError, ValueError):
        for text in _texts(code.read_bytes()):
            if ".." in Path(text).parts:
                continue
            path = code.parent / (code.stem + text if text[0] == "." else text)
            with contextlib.suppress(OSError, ValueError):  # a text that is no path
                inside = path != code and path.is_relative_to(code.parent)
                if inside and _computes(path.name) and path.is_file():
                    yield path


@functools.lru_cache(maxsize=64)
def _texts(source: bytes) -> frozenset[str]:
    nodes = ast.walk(ast.parse(source))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant))
    return frozenset(text for text in texts if isinstance(text, str) and text)


def _commit(path: Path) -> tuple[str, bool | None]:
    folder = path.parent if path.is_file() else path
    head = git(folder, "rev-parse", "HEAD")
    if head is None:
        return "", None
    return head, bool(git(folder, "status", "--porcelain", "--", str(path)))
