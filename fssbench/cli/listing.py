"""``fssbench list``."""

from __future__ import annotations

from typing import Any

import attrs
import click

from fssbench import registry
from fssbench.cli.options import json_option
from fssbench.cli.output import print_json

_KINDS = {f"{kind}s": kind for kind in registry.KINDS}


@click.command(name="list")
@click.argument("kind", required=False, type=click.Choice([*_KINDS, "plugins"]))
@json_option
def listing(kind: str | None, as_json: bool) -> None:
    """List registered objects and plugins, of all kinds or of one."""
    known = registry.registry()
    found: dict[str, list[dict[str, Any]]] = {
        plural: [
            {key: getattr(spec, key) for key in ("name", "summary", "paper", "licence", "cite")}
            | {"plugin": known.provider(spec)}
            for spec in known.specs(registry.KINDS[singular]).values()
        ]
        for plural, singular in _KINDS.items()
        if kind in (None, plural)
    }
    if kind in (None, "plugins"):
        found["plugins"] = [attrs.asdict(info) for info in known.plugins.infos]
    if as_json:
        print_json(found if kind is None else found[kind])
        return
    for position, (plural, entries) in enumerate(found.items()):
        if kind is None:
            click.echo(("\n" if position else "") + click.style(plural, bold=True))
        width = max((len(entry["name"]) for entry in entries), default=0)
        for entry in entries:
            click.echo(f"  {entry['name']:<{width}}  {_describe(plural, entry)}")
            if kind is not None and (source := _source(entry)):
                click.echo(f"  {'':<{width}}  {source}")


def _source(entry: dict[str, Any]) -> str:
    """Return paper and licence of an entry in one line."""
    licence = entry.get("licence") and f"licence: {entry['licence']}"
    return "; ".join(filter(None, (entry.get("paper"), licence)))


def _describe(plural: str, entry: dict[str, Any]) -> str:
    if plural != "plugins":
        return str(entry["summary"])
    if entry["error"]:
        return click.style(f"({entry['source']}) broken: {entry['error']}", fg="red")
    return f"({entry['source']}) {', '.join(entry['hooks']) or 'no hooks'}"
