"""Completion of registered names in the shell."""

from __future__ import annotations

from collections.abc import Callable

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


def recipes(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the recipe of the command's matcher and stage."""
    from fssbench.training.recipe import recipe_names

    # click leaves arguments unparsed while the last option lacks its value.
    matcher = ctx.params.get("matcher") or next(iter(ctx.args), "")
    try:
        spec = registry.registry().get(MatcherSpec, matcher)
        stages = recipe_names(spec)
    except FssbenchError:
        return []
    stage = ctx.params.get("stage")
    found = {
        name: each
        for each, named in stages.items()
        for name in named
        if name.startswith(incomplete) and stage in (None, "", each)
    }
    return [CompletionItem(name, help=f"stage {each}") for name, each in found.items()]
