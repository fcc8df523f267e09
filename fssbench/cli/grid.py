"""``fssbench evaluate --grid`` and ``--estimate``."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fssbench.evaluation.estimate import Estimate
    from fssbench.evaluation.evaluation import Evaluation
    from fssbench.evaluation.evaluator import CellOutcome

_BESIDE = ("grid", "on", "estimate", "devices", "out", "as_json", "plugin")
"""Parameters that can be combined with a grid file."""
_PROCESSES = (1, 8, 64)


def evaluate_grid(
    ctx: click.Context, path: Path, *, on: str, estimate: bool, as_json: bool
) -> None:
    """Evaluate a grid, or say what it will take."""
    from rich.console import Console

    from fssbench.grid.grid import read_grid
    from fssbench.grid.local import run_local
    from fssbench.grid.table import GridTable

    changes = _changes(ctx)
    if on == "ray" and "devices" in changes:
        raise click.UsageError("remove --devices: Ray sets the number of processes", ctx)
    jobs = read_grid(path, **changes)
    if estimate:
        print_estimate([job.evaluation for job in jobs], as_json)
        return
    others = os.environ.get("RANK", "0") != "0"  # torchrun: the first process says it
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
    if others:
        return
    if as_json:
        print_json(results)
    else:
        _print_results(results, jobs[0].evaluation.out)


def _changes(ctx: click.Context) -> dict[str, Any]:
    """Return the options given in addition to the file, by the names of `Evaluation`."""
    given = {
        name
        for name in ctx.params
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    options = {p.name: p.opts[-1] for p in ctx.command.params if isinstance(p, click.Option)}
    wrong = sorted(options.get(name, name.upper()) for name in given - set(_BESIDE))
    if wrong:
        raise click.UsageError(f"{wrong[0]} goes into the file that --grid names", ctx)
    return {name: ctx.params[name] for name in ("devices", "out") if name in given}


def print_json(results: Sequence[CellOutcome]) -> None:
    """Print all records with their paths as JSON."""
    records = [{"path": str(r.folder), **json.loads(r.record.to_json())} for r in results]
    click.echo(json.dumps(records, indent=2))


def _print_results(results: Sequence[CellOutcome], out: Path) -> None:
    table = _table("method", "backbone", "fold", "shots", "seed", "mIoU", "95 % interval",
                   "FB-IoU", "ms/episode")  # fmt: skip
    groups: dict[tuple[str, str, int, int], list[CellOutcome]] = {}
    for result in results:
        record = result.record
        key = str(result.folder.parent), record.protocol, record.shots, record.seed
        groups.setdefault(key, []).append(result)
    for group in groups.values():
        for record in (result.record for result in group):
            low, high = record.intervals["miou"]
            table.add_row(
                record.matcher, record.backbone, str(record.fold), str(record.shots),
                str(record.seed), f"{record.scores['miou']:.2f}", f"{low:.2f} to {high:.2f}",
                f"{record.scores['fb_iou']:.2f}", f"{1000 * record.cost.seconds_per_episode:.1f}",
            )  # fmt: skip
        table.add_section()
    _show(table)
    if not any(result.fresh for result in results):
        click.echo("Nothing was measured anew: these runs were finished before.")
    click.echo(f"Board:   fssbench board build {out} --out boards")


def print_estimate(jobs: Sequence[Evaluation], as_json: bool) -> None:
    """Print the estimated cost of evaluations."""
    import attrs

    from fssbench.evaluation.estimate import estimate

    found = estimate(jobs)
    total = sum(each.seconds for each in found)
    if as_json:
        cells = [attrs.asdict(each) for each in found]
        click.echo(json.dumps({"seconds": total, "cells": cells}, indent=2))
        return
    table = _table("method", "backbone", "fold", "shots", "seed", "episodes", "images", "time",
                   "cache", "memory", "on disk")  # fmt: skip
    for each in found:
        table.add_row(
            each.matcher, each.backbone, str(each.fold), str(each.shots), str(each.seed),
            str(each.episodes), *_cells(each),
        )  # fmt: skip
    _show(table)
    shares = ", ".join(f"{count}: {spell_seconds(total / count)}" for count in _PROCESSES)
    click.echo(f"All cells, by number of processes like this one (GPUs, say): {shares}.")
    if any(each.images > each.distinct_images for each in found):
        need = max(each.all_bytes for each in found)
        click.echo(
            "Some images are encoded more than once for want of memory: keeping everything takes "
            f"{spell_bytes(need)} (--cache-memory)."
        )


def _cells(each: Estimate) -> tuple[str, ...]:
    if each.done:
        return "", "done", "", "", ""
    return (
        str(each.images),
        spell_seconds(each.seconds),
        spell_bytes(each.cache_bytes),
        spell_bytes(each.memory_bytes),
        spell_bytes(each.disk_bytes) if each.disk_bytes else "",
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


def _table(*names: str) -> Any:
    from rich.table import Table

    table = Table()
    for name in names:
        table.add_column(name, justify="left" if name in ("method", "backbone") else "right")
    return table


def _show(table: Any) -> None:
    from rich.console import Console

    console = Console()
    # A narrow terminal must not cut numbers off.
    console.width = max(console.width, 110)
    console.print(table)
