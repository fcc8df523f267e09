"""MkDocs hooks: navigation, pages from outside of docs/, and a check for external resources.

The list of pages in ``docs/index.md`` defines the navigation: a heading of the third level is a
tab, each linked page an entry, and a page with a folder (``hooks.md`` and ``hooks/``) a section.
The boards are pages of the site too; links to them are relative to the repository.
"""

from __future__ import annotations

import logging
import posixpath
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.docs_site")

REPOSITORY = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`(?!\])", re.DOTALL | re.MULTILINE)


# --- navigation -----------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Build the navigation from ``docs/index.md`` and the existing boards."""
    docs = Path(config.docs_dir)
    nav: list[Any] = [{"Home": "index.md"}, *_tabs(docs)]
    known = set(re.findall(r"'([^']+\.md)'", str(nav)))
    rest = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    missing = [name for name in rest if name not in known]
    if missing:
        log.info("not linked in docs/index.md: %s", ", ".join(missing))
        nav.append({"More": missing})
    nav.append({"Boards": [path.as_posix() for path in _boards()]})
    config.nav = nav
    return config


def _tabs(docs: Path) -> list[dict[str, Any]]:
    text = (docs / "index.md").read_text()
    pages = re.search(r"^## Pages\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    if pages is None:
        raise PluginError("docs/index.md has no section 'Pages', which is the navigation")
    parts = re.split(r"^### (.+)$", pages[1], flags=re.MULTILINE)
    return [
        {title: [_entry(docs, name) for name in _linked(text)]}
        for title, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _entry(docs: Path, name: str) -> Any:
    """Return a page, or a section with the pages of its folder in the order of its links."""
    folder = name.removesuffix(".md")
    if not (docs / folder).is_dir():
        return name
    text = (docs / name).read_text()
    title = text.partition("\n")[0].removeprefix("# ")
    inner = [link for link in _linked(text) if link.startswith(f"{folder}/")]
    return {title: [{"Overview": name}, *inner]}


def _linked(text: str) -> list[str]:
    """Return the pages that a text links to, without duplicates."""
    return list(dict.fromkeys(re.findall(r"\]\(([\w/-]+\.md)\)", text)))


# --- pages from outside of docs/ ------------------------------------------------------------------


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the boards, and the records that they link to."""
    records = sorted(REPOSITORY.glob("leaderboards/results/**/record.json"))
    for path in [*_boards(), *(record.relative_to(REPOSITORY) for record in records)]:
        source = str(REPOSITORY / path)
        files.append(File.generated(config, path.as_posix(), abs_src_path=source))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Convert links of the repository to links of the site, or to plain text."""
    here = _place(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        text, link = match.groups()
        target, hash_, anchor = link.partition("#")
        if not target or re.match(r"[a-z]+:", link):
            return match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        if place.startswith("docs/") or files.get_file_from_path(place):
            uri = place.removeprefix("docs/")
            relative = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
            return f"[{_title(text, place)}]({relative}{hash_}{anchor})"
        if not (REPOSITORY / place).exists():
            return match[0]  # MkDocs reports it in strict mode
        return text

    parts = re.split(f"({CODE.pattern})", markdown, flags=CODE.flags)
    return "".join(part if i % 2 else LINK.sub(turned, part) for i, part in enumerate(parts))


def _place(uri: str) -> str:
    """Return the path of a page in the repository."""
    return uri if (REPOSITORY / uri).exists() else f"docs/{uri}"


def _title(text: str, place: str) -> str:
    """Return the text of a link: the title of the page instead of its file name."""
    if text != posixpath.basename(place) or not place.endswith(".md"):
        return text
    return (REPOSITORY / place).read_text().partition("\n")[0].removeprefix("# ")


def _boards() -> list[Path]:
    """Return the pages of leaderboards/, starting with their introduction."""
    boards = (path.relative_to(REPOSITORY) for path in REPOSITORY.glob("leaderboards/*.md"))
    return sorted(boards, key=lambda path: (path.stem != "README", path))


# --- external resources ---------------------------------------------------------------------------


class _Loads(HTMLParser):
    """Collector of the resources that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        place = given.get("src")
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            place = given.get("href")
        if place:
            self.found.append(place)


def on_post_build(*, config: MkDocsConfig) -> None:
    """Fail if a page or a style sheet loads a resource from another host."""
    site = Path(config.site_dir)
    foreign = []
    for path in sorted(site.rglob("*.html")):
        loads = _Loads()
        loads.feed(path.read_text())
        foreign += [f"{path.relative_to(site)}: {place}" for place in loads.found if _away(place)]
    for path in sorted(site.rglob("*.css")):
        places = re.findall(r"(?:url\(|@import (?!url))[\"']?([^\"')]+)", path.read_text())
        foreign += [f"{path.relative_to(site)}: {place}" for place in places if _away(place)]
    if foreign:
        raise PluginError(f"resources from other hosts: {'; '.join(foreign)}")


def _away(place: str) -> bool:
    return place.startswith(("http:", "https:", "//"))
