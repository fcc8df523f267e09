"""The pages of docs/ as tests read them: sections, blocks of code, tables, complete files."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fssbench import hookspecs, registry

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("fssbench_")}
TINY = ["--fold", "0", "-d", "images_per_split=60", "--limit", "10", "--workers", "0"]


@contextmanager
def working_folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """An empty folder to work in; plugins that were loaded from files are gone afterwards."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    registry.use_plugins([])
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def page(name: str) -> str:
    """The text of a page, named from docs/ and without its suffix."""
    return (DOCS / f"{name}.md").read_text()


def sections(text: str) -> dict[str, str]:
    """Text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def table(text: str) -> list[list[str]]:
    """The cells of a text's first table, without its head."""
    found = re.search(r"^\|[ :|-]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    assert found, f"no table in: {text[:80]}"
    # A vertical line inside of a cell is written \|.
    cells = (re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in found[1].splitlines())
    return [[cell.strip().replace("\\|", "|") for cell in row] for row in cells]


def files(text: str) -> dict[str, str]:
    """Python blocks that are complete files: their first line is a comment with the file's name."""
    found = {}
    for block in blocks(text, "python"):
        name = re.match(r"# ([\w/]+\.py)\n", block)
        if name:
            found[name[1]] = block
    return found


def write(found: dict[str, str], folder: Path) -> list[str]:
    for name, text in found.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(found)
