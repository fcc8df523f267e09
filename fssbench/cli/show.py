"""``fssbench show``."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import attrs
import click

from fssbench import registry
from fssbench.cli.completion import names_of, shown_names
from fssbench.cli.options import json_option, option_of
from fssbench.cli.output import print_json
from fssbench.options import options_class, spell
from fssbench.specs import BackboneSpec, MatcherSpec


@click.command()
@click.argument("kind", type=click.Choice([*registry.KINDS, "schema"]))
@click.argument("name", shell_complete=shown_names)
@click.option("--backbone", default="", shell_complete=names_of("backbone"),
              help="Encoder for parameter counts  [default: the first recipe's].")  # fmt: skip
@option_of("the matcher, for its parameters")
@json_option
def show(kind: str, name: str, backbone: str, options: dict[str, str], as_json: bool) -> None:
    """Show one registered object: its spec, its options, its layers.

    `show schema record` prints the JSON Schema of records.
    """
    if kind == "schema":
        from fssbench.results.schema import schema_text

        click.echo(schema_text(name), nl=False)
        return
    from fssbench.results import citations

    known = registry.registry()
    spec = known.get(registry.KINDS[kind], name)
    config_class = options_class(spec)
    about: dict[str, Any] = {
        **{k: v for k, v in attrs.asdict(spec).items() if v not in ("", (), {}, None)},
        "bibtex": "\n\n".join(citations.bibtex(spec).values()),
        "plugin": known.provider(spec),
        "options": _options(config_class) if config_class else {},
    }
    if isinstance(spec, BackboneSpec) and spec.features:
        from fssbench.build import describe

        about["layers"] = {
            name: f"{layer.channels} channels, stride {layer.stride}"
            for name, layer in describe(spec).layers.items()
        }
    if isinstance(spec, MatcherSpec) and spec.encoders is None:
        about |= _parameters(spec, backbone, options)
    if as_json:
        print_json(about, default=str)
        return
    entries = about.pop("bibtex")
    for key, value in about.items():
        if isinstance(value, dict):
            click.echo(f"{key}:" if value else f"{key}: none")
            width = max(map(len, value), default=0)
            for name_, text in value.items():
                click.echo(f"  {name_:<{width}}  {text}")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            click.echo(f"{key}: {shown}")
    for each in config_class.__mro__ if config_class is not None else ():
        if attrs.has(each) and each.__doc__:
            click.echo(f"\n{inspect.cleandoc(each.__doc__)}")
    if entries:
        click.echo(f"\n{entries}")


def _options(config_class: type[Any]) -> dict[str, str]:
    hints = typing.get_type_hints(config_class)
    options = {}
    for field in attrs.fields(config_class):
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
            default = default.factory()
        note = "required" if default is attrs.NOTHING else f"default {default!r}"
        options[field.name] = f"{spell(hints[field.name])}, {note}"
    return options


def _parameters(spec: MatcherSpec, backbone: str, options: dict[str, str]) -> dict[str, Any]:
    """Return parameter counts of the matcher and its backbone; {} for a method without any."""
    from fssbench import build
    from fssbench.training.recipe import first_backbone

    backbone = backbone or first_backbone(spec)
    if not backbone:
        return {}
    encoder = registry.registry().get(BackboneSpec, backbone)
    matcher = build.matcher(spec.name, build.describe(encoder), **options)
    counts = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in (*matcher.named_children(), ("all", matcher))
    }
    whole = counts.pop("all")
    if not whole:
        return {}
    counts |= {"(others)": whole - sum(counts.values()), "all": whole}
    counts[f"backbone {encoder.name}"] = build.parameters(encoder)
    return {"parameters": {name: f"{number:,}" for name, number in counts.items() if number}}
