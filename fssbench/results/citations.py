"""BibTeX entries of registered objects, and of everything that records used."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fssbench import registry
from fssbench._version import __version__
from fssbench.errors import FssbenchError, near
from fssbench.plugins import BUILT_IN
from fssbench.results.record import Record
from fssbench.specs import (
    BackboneSpec,
    DatasetSpec,
    MatcherSpec,
    ProtocolSpec,
    Spec,
    file_beside,
)

REFERENCES = "references.bib"
"""Name of the file with the BibTeX entries of a package."""


def bibtex(spec: Spec) -> dict[str, str]:
    """Return the BibTeX entries that a spec cites, by key.

    Raises:
        FssbenchError: a file cannot be read, or has no such entry.
    """
    found = {}
    for text in spec.cite:
        package, _, key = text.partition(":")
        path = file_beside(f"{package}:{REFERENCES}", spec.name)
        entries = _entries(path)
        if key not in entries:
            advice = f"{near(key, entries)}there: {', '.join(entries) or 'none'}"
            raise FssbenchError(f"{path}: no entry {key!r}, which {spec.name} cites; {advice}")
        found[key] = entries[key]
    return found


def cite(records: Sequence[Record]) -> tuple[dict[str, str], list[str]]:
    """Return the BibTeX entries of everything that records used, and notes on what has none.

    Args:
        records: records; the plugins of their methods need not be installed.

    Returns:
        Entries by key, in the order datasets, protocols, methods, encoders and fssbench; and one
        line for each object that is not registered, or whose plugin gives no citation.

    Raises:
        FssbenchError: a file of entries cannot be read, or has no entry of a cited key.
    """
    used: dict[type[Spec], dict[str, None]] = {
        DatasetSpec: {}, ProtocolSpec: {}, MatcherSpec: {}, BackboneSpec: {},
    }  # fmt: skip
    for record in records:
        trained = record.checkpoint.header.get("dataset") if record.checkpoint else None
        encoders = [encoder.name for encoder in record.encoders.values()] or [record.backbone]
        used[DatasetSpec][record.dataset.name] = None
        if isinstance(trained, str):
            used[DatasetSpec][trained] = None
        used[ProtocolSpec][record.protocol] = None
        used[MatcherSpec][record.matcher] = None
        used[BackboneSpec] |= dict.fromkeys(encoders)
    entries: dict[str, str] = {}
    notes = []
    for spec_class, names in used.items():
        for name in names:
            found, note = _find(spec_class, name)
            for key, text in found.items():
                entries.setdefault(key, text)
            notes += [note] if note else []
    return entries | {"fssbench": _own_entry(records)}, notes


def _find(spec_class: type[Spec], name: str) -> tuple[Mapping[str, str], str]:
    """Return the entries of a name, and a note if there should be some and are none."""
    known = registry.registry()
    what = f"{next(kind for kind, cls in registry.KINDS.items() if cls is spec_class)} {name!r}"
    try:
        spec = known.get(spec_class, name)
    except FssbenchError:
        own = "cite its source if it is your own data, else " if spec_class is DatasetSpec else ""
        return {}, f"{what}: not registered; {own}install its plugin, or load it with -p"
    # A protocol is mostly no publication, and fssbench's own objects without one have none.
    expected = spec_class is not ProtocolSpec and known.provider(spec) not in BUILT_IN
    missing = expected and not spec.cite
    return bibtex(spec), f"{what}: its plugin {known.provider(spec)} gives none" if missing else ""


@functools.cache
def _entries(path: Path) -> dict[str, str]:
    """Return the entries of a BibTeX file by key."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FssbenchError(f"{path}: cannot read these BibTeX entries: {error}") from error
    entries = {}
    for match in re.finditer(r"^@\w+\s*\{\s*([^\s,{}]+)\s*,", text, re.MULTILINE):
        end, depth = match.end(), 1
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth:
            raise FssbenchError(f"{path}: the entry {match[1]!r} has no closing brace")
        entries[match[1]] = text[match.start() : end]
    return entries


def _own_entry(records: Sequence[Record]) -> str:
    """Return the entry of fssbench, with the versions of the records; ``CITATION.cff`` agrees."""
    found = {str(record.environment.get("fssbench", "")) for record in records}
    versions = sorted(text for text in found if re.fullmatch(r"[\w.+-]{1,40}", text))
    return (
        "@software{fssbench,\n"
        "  author  = {{The fssbench authors}},\n"
        "  title   = {fssbench: A plugin-based benchmark framework for few-shot semantic "
        "segmentation},\n"
        f"  version = {{{', '.join(versions) or __version__}}},\n"
        "}"
    )
