"""The site of the docs: `tox -e docs` builds it and runs these; elsewhere they skip."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
INDEX = """# small

![]({image})

## Pages

### Use

| page | for |
|---|---|
| [guide.md](guide.md) | all |
| [hooks.md](hooks.md) | more |

## Words
"""
RECORD = "results/small/v1/it/record.json"


@pytest.fixture
def repository(tmp_path):
    """A repository with a page on the map, a section, a page that is not on the map, a board."""
    pages = {
        "docs/index.md": INDEX.format(image="dot.png"),
        "docs/guide.md": "# The guide\n\nSee [the board](../leaderboards/small.md#one-1-shot).\n",
        "docs/hooks.md": "# Hooks\n\n[one](hooks/one.md), [guide.md](guide.md)\n",
        "docs/hooks/one.md": "# one\n\n`[not](a.link)` and\n\n```text\n[nor](this.md)\n```\n",
        "docs/lost.md": "# Lost\n",
        "leaderboards/README.md": "# Leaderboards\n\n[docs/guide.md](../docs/guide.md)\n",
        "leaderboards/small.md": "# small\n\n## one, 1-shot\n\n"
        f"[results](results/small), [0]({RECORD})\n",
        f"leaderboards/{RECORD}": "{}\n",
        "docs/site.css": "p { color: red }\n",
        "docs/dot.png": "",
    }
    for name, text in pages.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "tools").mkdir()
    shutil.copy(REPOSITORY / "tools" / "docs_site.py", tmp_path / "tools")
    shutil.copy(REPOSITORY / "mkdocs.yml", tmp_path)
    return tmp_path


def build(repository: Path) -> subprocess.CompletedProcess[str]:
    for module in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason=f"{module} is not installed (fssbench[docs])")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(repository / "site")],
        cwd=repository, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_map_is_the_navigation_and_boards_are_pages(repository):
    done = build(repository)
    assert done.returncode == 0, done.stderr
    site = repository / "site"
    home = (site / "index.html").read_text()
    tabs = re.findall(r'class="md-tabs__link">\s*(.+?)\s*</a>', home)
    assert tabs == ["Home", "Use", "More", "Boards"]
    assert '<a href="guide/">The guide</a>' in home
    assert (
        '<a href="../leaderboards/small/#one-1-shot">the board</a>'
        in (site / "guide/index.html").read_text()
    )
    assert '<a href="../guide/">The guide</a>' in (site / "hooks/index.html").read_text()
    one = (site / "hooks/one/index.html").read_text()
    assert "[not](a.link)" in one
    assert "[nor](this.md)" in one
    board = (site / "leaderboards/small/index.html").read_text()
    assert "<p>results, " in board
    assert f'<a href="../{RECORD}">0</a>' in board
    assert (site / "leaderboards" / RECORD).read_text() == "{}\n"
    explained = (site / "leaderboards/index.html").read_text()
    assert '<a href="../guide/">docs/guide.md</a>' in explained


@pytest.mark.parametrize(
    ("page", "text", "reason"),
    [
        ("docs/guide.md", "[gone](gone.md)", "gone.md"),
        ("docs/guide.md", "[gone](../leaderboards/gone.md)", "gone.md"),
        ("docs/guide.md", "[gone](hooks.md#gone)", "#gone"),
        ("docs/guide.md", "![](https://example.org/a.png)", "from other hosts: guide"),
        ("docs/site.css", "@import url(https://example.org/a.css);", "from other hosts: site.css"),
        ("docs/index.md", "# small\n", "no section 'Pages'"),
    ],
)
def test_what_breaks_the_build(repository, page, text, reason):
    path = repository / page
    keep = "" if page == "docs/index.md" else path.read_text()
    path.write_text(keep + text)
    done = build(repository)
    assert done.returncode == 1
    assert reason in done.stderr


def test_tox_builds_with_what_the_extra_installs():
    extra = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]["docs"]
    section = (REPOSITORY / "tox.ini").read_text().partition("[testenv:docs]")[2]
    for requirement in extra:
        assert re.search(rf"^\s+{re.escape(requirement)}$", section, re.MULTILINE), requirement
