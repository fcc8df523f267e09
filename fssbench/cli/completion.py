"""Completion of registered names in the shell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import click
from click.shell_completion import CompletionItem

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.specs import MatcherSpec

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names_of(kind: str) -> Complete:
    """Return the ``shell_complete`` function of a parameter that takes a name of a kind.

    In ``a,NAME`` and ``ROLE=NAME`` the last name is completed.
    """

    def complete(
        ctx: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        start = max(incomplete.rfind(","), incomplete.rfind("=")) + 1
        specs = registry.registry().specs(registry.KINDS[kind]).values()
        return [
            CompletionItem(incomplete[:start] + spec.name, help=spec.summary)
            for spec in specs
            if spec.name.startswith(incomplete[start:])
        ]

    return complete


def shown_names(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete NAME of ``show KIND NAME``."""
    kind = ctx.params.get("kind")
    return names_of(kind)(ctx, parameter, incomplete) if kind in registry.KINDS else []


def plugins(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a loaded plugin."""
    infos = registry.registry().plugins.infos
    return [CompletionItem(each.name) for each in infos if each.name.startswith(incomplete)]


def stages(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a stage of the command's matcher."""
    return [CompletionItem(name) for name in _recipes(ctx) if name.startswith(incomplete)]


def recipes(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the recipe of the command's matcher and stage."""
    stage = ctx.params.get("stage")
    found = {
        name: each
        for each, named in _recipes(ctx).items()
        for name in named
        if name.startswith(incomplete) and stage in (None, "", each)
    }
    return [CompletionItem(name, help=f"stage {each}") for name, each in found.items()]


def _recipes(ctx: click.Context) -> Mapping[str, Sequence[str]]:
    """Return the names of the recipes of the command's matcher by stage."""
    from fssbench.training.recipe import recipe_names

    # click leaves arguments unparsed while the last option lacks its value.
    matcher = ctx.params.get("matcher") or next(iter(ctx.args), "")
    try:
        return recipe_names(registry.registry().get(MatcherSpec, matcher))
    except FssbenchError:
        return {}
