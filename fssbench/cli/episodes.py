"""``fssbench episodes``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from fssbench.cli.options import cell_options, data_options, json_option, plugin_option

if TYPE_CHECKING:
    from fssbench.episodes.diff import ManifestDiff
    from fssbench.episodes.stats import EpisodeStats, Repeats, Width


@click.group()
def episodes() -> None:
    """Build and look at manifests: frozen lists of episodes."""


@episodes.command()
@click.option("--protocol", default="shapes/v1-1k", show_default=True, help="Protocol id.")
@data_options
@cell_options
@click.option("--out", type=click.Path(path_type=Path), default=Path("manifests"),
              show_default=True, help="Folder for the manifest files.")  # fmt: skip
@json_option
@plugin_option
def build(
    protocol: str, data_root: Path | None, data_options: dict[str, str],
    folds: tuple[int, ...] | None, shots: tuple[int, ...], seeds: tuple[int, ...],
    limit: int | None, lists: Path | None, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Draw the episodes of a protocol and write one manifest for each fold, shots and seed."""
    from fssbench import build as parts
    from fssbench import registry
    from fssbench.episodes.protocol import build_manifest
    from fssbench.specs import ProtocolSpec

    spec = registry.registry().get(ProtocolSpec, protocol)
    dataset = parts.dataset(spec.dataset, data_root, **data_options)
    written: list[dict[str, Any]] = []
    for fold in range(dataset.folds) if folds is None else folds:
        for count in shots:
            for seed in seeds:
                manifest = build_manifest(
                    spec, dataset, fold=fold, shots=count, seed=seed, limit=limit, lists=lists
                )
                name = spec.name.replace("/", "-")
                path = out / f"{name}-fold{fold}-{count}shot-seed{seed}.jsonl.gz"
                manifest.write(path)
                written.append(
                    {"path": str(path), "digest": manifest.digest,
                     "episodes": len(manifest.episodes)}
                )  # fmt: skip
                if not as_json:
                    click.echo(f"{path}: {len(manifest.episodes)} episodes, {manifest.digest}")
    if as_json:
        click.echo(json.dumps(written, indent=2))


@episodes.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--first", type=click.IntRange(min=0), default=5, show_default=True,
              help="Episodes to print.")  # fmt: skip
@json_option
@plugin_option
def show(manifest: Path, first: int, as_json: bool) -> None:
    """Show a manifest's header, its classes and its first episodes; check its digest."""
    from fssbench.episodes.manifest import Manifest

    read = Manifest.read(manifest)
    counts = Counter(episode.class_id for episode in read.episodes)
    queries: dict[int, set[str]] = {}
    for episode in read.episodes:
        queries.setdefault(episode.class_id, set()).add(episode.query)
    if as_json:
        about = {
            "protocol": read.protocol, "dataset": read.dataset, "split": read.split,
            "fold": read.fold, "shots": read.shots, "seed": read.seed, "limit": read.limit,
            "digest": read.digest, "fingerprint": read.fingerprint,
            "episodes": len(read.episodes),
            "classes": {name: counts[c] for c, name in read.classes},
            "dropped": [name for _, name in read.dropped],
        }  # fmt: skip
        click.echo(json.dumps(about, indent=2))
        return
    click.echo(f"{read.protocol}, fold {read.fold}, {read.shots}-shot, seed {read.seed}")
    click.echo(f"digest      {read.digest}")
    click.echo(f"fingerprint {read.fingerprint}")
    click.echo(f"episodes    {len(read.episodes)}" + (" (limited)" if read.limit else ""))
    for class_id, name in read.classes:
        distinct = len(queries.get(class_id, ()))
        click.echo(f"  {name}: {counts[class_id]} episodes over {distinct} query images")
    if read.dropped:
        click.echo(f"left out for want of images: {', '.join(n for _, n in read.dropped)}")
    for episode in read.episodes[:first]:
        name = read.class_name(episode.class_id)
        click.echo(
            f"{episode.index}: {name} in {episode.query}, told by {', '.join(episode.support)}"
        )


_LISTS = click.option(
    "--lists", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Authors' list files, for a protocol of the literature.",
)  # fmt: skip


@episodes.command()
@click.argument("a")
@click.argument("b")
@data_options
@_LISTS
@json_option
@plugin_option
def diff(
    a: str, b: str, data_root: Path | None, data_options: dict[str, str], lists: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Compare two manifests. Exit code 0 when they are equal, 1 when they differ.

    Each is a manifest file, a run directory, or a setting such as shapes/v1-1k/fold0-1shot-seed0,
    whose manifest is built.
    """
    from fssbench.cli.manifests import read_or_build
    from fssbench.episodes.diff import diff as compare

    one, other = (
        read_or_build(told, data_root=data_root, data_options=data_options, lists=lists)
        for told in (a, b)
    )
    found = compare(one, other)
    if as_json:
        click.echo(json.dumps(found.to_fields(), indent=2))
    else:
        _print_diff(found)
    return 0 if found.equal else 1


def _print_diff(found: ManifestDiff) -> None:
    same = found.digest_a == found.digest_b
    click.echo(f"digest A  {found.digest_a}")
    click.echo(f"digest B  {found.digest_b}{'  (the same)' if same else ''}")
    kept = [field.name for field in found.fields if field.same]
    click.echo(f"same      {', '.join(kept) or 'nothing'}")
    for field in found.fields:
        if not field.same:
            click.echo(f"differs   {field.name}: {_brief(field.a)} | {_brief(field.b)}")
    click.echo(
        f"episodes  {found.episodes_a} | {found.episodes_b}: {found.common} in common, "
        f"{found.in_place} of them at the same place; {found.common_queries} (query, class) pairs "
        "in common"
    )
    if found.first is not None:
        click.echo(f"first difference: episode {found.first.index}")
        for letter, episode in (("A", found.first.a), ("B", found.first.b)):
            told = (
                f"class {episode.class_id} in {episode.query}, told by {', '.join(episode.support)}"
                if episode
                else "at its end"
            )
            click.echo(f"  {letter}: {told}")
    for share in found.shares:
        click.echo(
            f"  {share.name}: {share.a} ({share.share_a:.1f} %) | {share.b} ({share.share_b:.1f} %)"
        )
    if found.equal:
        click.echo("equal")
    elif same:
        click.echo("different: the same questions, of other annotations")
    else:
        click.echo("different")


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} ({', '.join(value[:5])}{', …' * (len(value) > 5)})"
    return "none" if value is None else str(value)


@episodes.command()
@click.argument("manifest")
@data_options
@_LISTS
@click.option("--run", "run_", type=click.Path(path_type=Path), metavar="RUN",
              help="Run directory of an evaluation of it, for interval widths.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png",
              help="Draw class shares and widths.")  # fmt: skip
@click.option("--mask-free", "masks_hidden", is_flag=True,
              help="How far a method gets without masks; reads annotations.")  # fmt: skip
@json_option
@plugin_option
def stats(
    manifest: str, data_root: Path | None, data_options: dict[str, str], lists: Path | None,
    run_: Path | None, plot: Path | None, masks_hidden: bool, as_json: bool,
) -> None:  # fmt: skip
    """What a manifest asks for: class shares, repeats, and how exact a score it allows.

    MANIFEST is a manifest file, a run directory, or a setting such as
    shapes/v1-1k/fold0-1shot-seed0, whose manifest is built.
    """
    from fssbench import build as parts
    from fssbench.board.plot import check_plot
    from fssbench.cli.manifests import read_or_build
    from fssbench.episodes import stats as counted
    from fssbench.episodes.mask_free import mask_free
    from fssbench.episodes.stats_plot import draw_stats
    from fssbench.errors import FssbenchError
    from fssbench.harness.record import ROWS_FILE
    from fssbench.harness.rows import read_rows

    if plot:
        check_plot(plot)
    read = read_or_build(manifest, data_root=data_root, data_options=data_options, lists=lists)
    rows = None if run_ is None else read_rows(run_ / ROWS_FILE)
    found = counted.episode_stats(read)
    try:
        by_count = counted.widths(read, rows)
    except FssbenchError as error:
        raise FssbenchError(f"{run_}: {error}") from error
    oracle = None
    if masks_hidden:
        oracle = mask_free(read, parts.dataset(read.dataset, data_root, **data_options))
    title = f"{read.protocol}, fold {read.fold}, {read.shots}-shot, seed {read.seed}"
    if plot:
        draw_stats(title, found, by_count, plot)
    if as_json:
        about = {
            "digest": read.digest,
            **found.to_fields(),
            "by_count": [attrs.asdict(width) for width in by_count],
            "miou": None if rows is None else counted.miou(rows),
            "mask_free": oracle and attrs.asdict(oracle),
        }
        click.echo(json.dumps(about, indent=2))
        return
    click.echo(title)
    _print_stats(found, by_count)
    if oracle is not None:
        click.echo(
            f"Without masks: {oracle.single:.1f} % of the episodes have one class in common; an "
            f"oracle that answers\nwith all common classes scores {oracle.miou:.2f}."
        )


def _print_stats(found: EpisodeStats, by_count: tuple[Width, ...]) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    classes = _table("Classes", "class", "episodes", "share", "query images", "support images")
    for share in found.classes:
        classes.add_row(
            share.name, f"{share.episodes}", f"{share.share:.1f} %", f"{share.queries}",
            f"{share.supports}",
        )  # fmt: skip
    console.print(classes)
    repeats = _table("Repeats", "", "uses", "different", "uses of each", "most used")
    kinds: dict[str, Repeats] = {
        "query images": found.queries,
        "support images": found.supports,
        "query and support": found.pairs,
        "whole episodes": found.whole,
    }
    for name, one in kinds.items():
        mean = one.uses / max(one.distinct, 1)
        repeats.add_row(name, f"{one.uses}", f"{one.distinct}", f"{mean:.1f}", f"{one.most}")
    console.print(repeats)
    if found.twice:
        console.print(f"{found.twice} episodes hold a support image more than once.\n")
    measured = any(width.width is not None for width in by_count)
    last = ("width of the 95 % interval",) if measured else ()
    counts = _table("By number of episodes", "episodes", "query images", "effective", *last)
    for width in by_count:
        if not (measured or width.stretches):
            continue
        cells = [
            "" if value is None else f"{value:.0f}" for value in (width.images, width.effective)
        ]
        if measured:
            cells.append(f"{'' if width.stretches else 'about '}{width.width:.2f}")
        counts.add_row(f"{width.episodes:,}", *cells)
    console.print(counts)
    if measured:
        console.print("Widths in points of mIoU. 'about': if further episodes ask of new images.")


def _table(title: str, *names: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column(names[0], overflow="fold")
    for name in names[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table
