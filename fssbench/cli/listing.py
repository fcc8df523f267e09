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
            {key: getattr(spec, key) for key in ("name", "summary", "paper")}
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
        lines = [(entry["name"], _describe(plural, entry)) for entry in entries]
        width = max((len(name) for name, _ in lines), default=0)
        for name, text in lines:
            click.echo(f"  {name:<{width}}  {text}")


def _describe(plural: str, entry: dict[str, Any]) -> str:
    if plural != "plugins":
        return str(entry["summary"])
    if entry["error"]:
        return click.style(f"({entry['source']}) broken: {entry['error']}", fg="red")
    return f"({entry['source']}) {', '.join(entry['hooks']) or 'no hooks'}"
