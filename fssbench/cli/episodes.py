"""``fssbench episodes``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import click

from fssbench.cli.options import cell_options, data_options, json_option, plugin_option


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
