"""``fssbench show``."""

from __future__ import annotations

import inspect
import json
import typing
from typing import Any

import attrs
import click

from fssbench import registry
from fssbench.cli.options import json_option, pairs, plugin_option
from fssbench.options import options_class
from fssbench.specs import BackboneSpec, MatcherSpec, Spec


@click.command()
@click.argument("kind", type=click.Choice([*registry.KINDS, "schema"]))
@click.argument("name")
@click.option("--backbone", default="",
              help="Encoder of a matcher's parameters  [default: its first recipe's].")  # fmt: skip
@click.option("-o", "--option", "options", multiple=True, callback=pairs, metavar="KEY=VALUE",
              help="Option of the matcher, for its parameters.")  # fmt: skip
@json_option
@plugin_option
def show(kind: str, name: str, backbone: str, options: dict[str, str], as_json: bool) -> None:
    """Show everything about one registered thing: its spec, its options, its layers.

    `show schema record` prints the JSON Schema of records.
    """
    if kind == "schema":
        from fssbench.results.schema import schema_text

        click.echo(schema_text(name), nl=False)
        return
    known = registry.registry()
    spec = known.get(registry.KINDS[kind], name)
    about: dict[str, Any] = {
        **{k: v for k, v in attrs.asdict(spec).items() if v not in ("", (), {}, None)},
        "plugin": known.provider(spec),
        "options": _options(spec),
    }
    if isinstance(spec, BackboneSpec):
        about["layers"] = _layers(spec)
    if isinstance(spec, MatcherSpec):
        about |= _parameters(spec, backbone, options)
    if as_json:
        click.echo(json.dumps(about, indent=2, default=str))
        return
    for key, value in about.items():
        if isinstance(value, dict):
            click.echo(f"{key}:" if value else f"{key}: none")
            width = max(map(len, value), default=0)
            for name_, text in value.items():
                click.echo(f"  {name_:<{width}}  {text}")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            click.echo(f"{key}: {shown}")
    config_class = options_class(spec)
    if config_class is not None and config_class.__doc__:
        click.echo(f"\n{inspect.cleandoc(config_class.__doc__)}")


def _options(spec: Spec) -> dict[str, str]:
    config_class = options_class(spec)
    if config_class is None:
        return {}
    hints = typing.get_type_hints(config_class)
    options = {}
    for field in attrs.fields(config_class):
        kind = getattr(hints[field.name], "__name__", None)
        if kind is None or typing.get_args(hints[field.name]):
            kind = str(hints[field.name]).replace("typing.", "")
        options[field.name] = f"{kind}, {_default(field)}"
    return options


def _default(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    factory = getattr(field.default, "factory", None)
    return f"default {field.default if factory is None else factory()!r}"


def _parameters(spec: MatcherSpec, backbone: str, options: dict[str, str]) -> dict[str, Any]:
    """Return parameter counts of the matcher and its backbone; nothing for a method without any."""
    from fssbench import build
    from fssbench.training.recipe import first_backbone

    backbone = backbone or first_backbone(spec)
    if not backbone:
        return {}
    encoder = registry.registry().get(BackboneSpec, backbone)
    matcher = build.matcher(spec.name, build.describe(encoder), **options)
    parts = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in matcher.named_children()
    }
    whole = sum(parameter.numel() for parameter in matcher.parameters())
    if not whole:
        return {}
    rest = whole - sum(parts.values())
    counts = {**parts, **({"(others)": rest} if rest else {}), "all": whole}
    counts[f"backbone {encoder.name}"] = build.parameters(encoder)
    return {"parameters": {name: f"{number:,}" for name, number in counts.items() if number}}


def _layers(spec: BackboneSpec) -> dict[str, str]:
    from fssbench.build import describe

    info = describe(spec)
    return {
        name: f"{layer.channels} channels, stride {layer.stride}"
        for name, layer in info.layers.items()
    }
