"""Generation of a runnable plugin package."""

from __future__ import annotations

import importlib.util
import itertools
import keyword
import re
from importlib import resources
from pathlib import Path
from string import Template

import attrs

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.specs import MatcherSpec

LONGEST = 40
"""Maximum number of characters of a name; it limits the lines of the package to 100."""

# Template below templates/ -> file of the package.
FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "init.py": "$module/__init__.py",
    "model.py": "$module/model.py",
    "stages.py": "$module/stages.py",
    "recipes.toml": "$module/recipes.toml",
    "test.py": "tests/test_$word.py",
    "workflow.yml": ".github/workflows/check.yml",
    "gitignore": ".gitignore",
}
IMAGE_FILES = {
    "pyproject.toml": "pyproject.toml",
    "image_README.md": "README.md",
    "image_init.py": "$module/__init__.py",
    "image_model.py": "$module/model.py",
    "image_test.py": "tests/test_$word.py",
    "workflow.yml": ".github/workflows/check.yml",
    "gitignore": ".gitignore",
}
"""The same for a matcher on whole images."""
_TAKEN = {"Matcher", "FeatureRequest", "ImageMatcher"}
"""Names that the model module imports."""
_FIELDS = ("name", "word", "module", "distribution", "title")
"""Attributes of `Names` that templates use."""


@attrs.frozen
class Names:
    """Names used in a generated package.

    Attributes:
        name: the matcher's registered name, e.g. ``my-method``.
    """

    name: str

    @property
    def word(self) -> str:
        """Name as part of an identifier: ``my_method``."""
        return self.name.replace("-", "_")

    @property
    def module(self) -> str:
        """Import name of the package: ``fssbench_my_method``."""
        return f"fssbench_{self.word}"

    @property
    def distribution(self) -> str:
        """Distribution name of the package: ``fssbench-my-method``."""
        return f"fssbench-{self.name}"

    @property
    def title(self) -> str:
        """Class name of the matcher: ``MyMethod``."""
        title = "".join(part.capitalize() for part in self.name.split("-"))
        return f"{title}Method" if title in _TAKEN or keyword.iskeyword(title) else title


def new_package(name: str, to: Path | None = None, *, image: bool = False) -> list[Path]:
    """Write a package with one matcher, its training, a recipe, a test and a README.

    Args:
        name: the matcher's name.
        image: True for a matcher on whole images, which has no training.
        to: folder to write, which must be empty except for ``.git``, or not exist; None for the
            distribution's name in the working folder.

    Returns:
        The written files.

    Raises:
        FssbenchError: the name cannot be used, or the folder is not empty or cannot be written.
    """
    names = check_name(name)
    folder = Path(names.distribution) if to is None else to
    _check_folder(folder)
    fields = {key: getattr(names, key) for key in _FIELDS}
    texts = resources.files(__package__) / "templates"
    written = []
    for template, target in (IMAGE_FILES if image else FILES).items():
        text = (texts / f"{template}.template").read_text(encoding="utf-8")
        path = folder / Template(target).substitute(fields)
        write_atomically(path, Template(text).substitute(fields).encode())
        written.append(path)
    return written


def check_name(name: str) -> Names:
    """Return the names derived from a matcher's name.

    Raises:
        FssbenchError: it is malformed, too long, already registered, or its module exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or len(name) > LONGEST:
        proposal = _proposal(name)
        raise FssbenchError(
            f"{name!r} is not a valid name of a matcher: use at most {LONGEST} lower-case letters "
            "and digits in words with - between, a letter first"
            f"{f'; did you mean {proposal!r}?' if proposal else ''}"
        )
    known = registry.registry()
    for spec in known.specs(MatcherSpec).values():
        if name in (spec.name.replace("_", "-"), *(a.replace("_", "-") for a in spec.aliases)):
            raise FssbenchError(
                f"a matcher called {name!r} is already registered by the plugin "
                f"{known.provider(spec)}; choose another name, e.g. {_free(name)!r}"
            )
    names = Names(name)
    if importlib.util.find_spec(names.module) is not None:
        raise FssbenchError(
            f"a module called {names.module} is already installed; choose another name, e.g. "
            f"{_free(name)!r}"
        )
    return names


def _proposal(name: str) -> str:
    """Return the nearest valid name, or ""."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    words = re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-")
    return f"{'my-' if words[:1].isdigit() else ''}{words}"[:LONGEST].strip("-")


def _free(name: str) -> str:
    """Return the name with the smallest unused number as its suffix."""
    known = registry.registry().specs(MatcherSpec)
    names = (Names(f"{name}-{number}") for number in itertools.count(2))
    return next(
        each.name
        for each in names
        if each.name not in known and importlib.util.find_spec(each.module) is None
    )


def _check_folder(folder: Path) -> None:
    try:
        held = sorted(path.name for path in folder.iterdir() if path.name != ".git")
    except FileNotFoundError:
        return
    except OSError as error:
        raise FssbenchError(
            f"{folder}: {error.strerror or error}; choose a folder with --to"
        ) from error
    if held:
        raise FssbenchError(
            f"{folder}: the folder holds {held[0]}{' and more' if held[1:] else ''}, and files "
            "are not overwritten; choose another with --to"
        )
