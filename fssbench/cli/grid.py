"""``fssbench evaluate --grid`` and ``--estimate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.outcomes import print_outcomes
from fssbench.cli.output import make_table, print_json, print_table

if TYPE_CHECKING:
    from fssbench.evaluation.evaluation import Evaluation

_Source = click.core.ParameterSource
_WITH_GRID = ("grid", "on", "estimate", "devices", "out", "as_json", "plugin")
"""Parameters that can be combined with a grid file."""


def evaluate_grid(
    ctx: click.Context, path: Path, *, on: str, estimate: bool, as_json: bool
) -> None:
    """Evaluate a grid, or estimate its cost."""
    from rich.console import Console

    from fssbench.grid.grid import read_grid
    from fssbench.grid.local import run_local
    from fssbench.grid.table import GridTable
    from fssbench.runtime.launcher import launched

    changes = _changes(ctx)
    if on == "ray" and "devices" in changes:
        raise click.UsageError("remove --devices: Ray sets the number of processes", ctx)
    jobs = read_grid(path, **changes)
    if estimate:
        print_estimate([job.evaluation for job in jobs], as_json)
        return
    tasks = launched()
    others = tasks is not None and tasks.rank != 0  # of a launcher's tasks, the first one prints
    table = GridTable(
        Console(stderr=True, quiet=others, force_terminal=False if others else None), jobs
    )
    try:
        if on == "ray":
            from fssbench.grid.ray import run_ray

            results = run_ray(jobs, table)
        else:
            results = run_local(jobs, table)
    finally:
        table.close()
    if not others:
        print_outcomes(results, jobs[0].evaluation.out, as_json, grid=True)


def _changes(ctx: click.Context) -> dict[str, Any]:
    """Return the options given in addition to the file, by the names of `Evaluation`."""
    given = {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) in (_Source.COMMANDLINE, _Source.DEFAULT_MAP)
    }
    options = {p.name: p.opts[-1] for p in ctx.command.params if isinstance(p, click.Option)}
    wrong = sorted(options.get(name, name.upper()) for name in given - set(_WITH_GRID))
    if wrong:
        raise click.UsageError(f"{wrong[0]} belongs into the file of --grid", ctx)
    return {name: ctx.params[name] for name in ("devices", "out") if name in given}


def print_estimate(jobs: Sequence[Evaluation], as_json: bool) -> None:
    """Print the estimated cost of evaluations."""
    import attrs

    from fssbench.evaluation.estimate import estimate

    found = estimate(jobs)
    total = sum(each.seconds for each in found)
    if as_json:
        print_json({"seconds": total, "cells": [attrs.asdict(each) for each in found]})
        return
    table = make_table("method", "backbone", "fold", "shots", "seed", "episodes", "images", "time",
                       "cache", "memory", "on disk", text=2)  # fmt: skip
    for each in found:
        costs = (
            each.images, spell_seconds(each.seconds), spell_bytes(each.cache_bytes),
            spell_bytes(each.memory_bytes), spell_bytes(each.disk_bytes) if each.disk_bytes else "",
        )  # fmt: skip
        setting = each.matcher, each.backbone, each.fold, each.shots, each.seed, each.episodes
        table.add_row(*map(str, (*setting, *(("", "done") if each.done else costs))))
    print_table(table, width=110)
    shares = ", ".join(f"{count}: {spell_seconds(total / count)}" for count in (1, 8, 64))
    click.echo(f"All cells, by number of such processes (e.g. GPUs): {shares}.")
    if any(each.images > each.distinct_images for each in found):
        need = max(each.all_bytes for each in found)
        click.echo(
            "Some images are encoded more than once, too little memory: all features take "
            f"{spell_bytes(need)} (--cache-memory)."
        )


def spell_seconds(seconds: float) -> str:
    """Return a time in a readable unit."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def spell_bytes(size: float) -> str:
    """Return a size in powers of 1024."""
    for unit, length in (("TiB", 1 << 40), ("GiB", 1 << 30)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size / (1 << 20):.0f} MiB"
