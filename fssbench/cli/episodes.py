"""``fssbench episodes``."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fssbench.cli.completion import names_of
from fssbench.cli.episodes_stats import stats
from fssbench.cli.options import PATH, cell_options, data_options, json_option, lists_option
from fssbench.cli.output import print_json

if TYPE_CHECKING:
    from fssbench.episodes.analysis.diff import ManifestDiff
    from fssbench.episodes.episode import Episode


_HEADER = (
    "protocol", "dataset", "split", "fold", "shots", "seed", "limit", "digest", "fingerprint",
)  # fmt: skip


@click.group()
def episodes() -> None:
    """Build and inspect manifests: frozen lists of episodes."""


episodes.add_command(stats)


@episodes.command()
@click.option("--protocol", default="shapes/v1-1k", show_default=True, help="Protocol id.",
              shell_complete=names_of("protocol"))  # fmt: skip
@data_options
@cell_options
@click.option("--out", type=PATH, default=Path("manifests"), show_default=True,
              help="Folder for the manifest files.")  # fmt: skip
@json_option
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
    dataset = parts.protocol_dataset(spec.name, data_root, **data_options)
    written: list[dict[str, Any]] = []
    all_folds = range(dataset.folds) if folds is None else folds
    for fold, count, seed in itertools.product(all_folds, shots, seeds):
        manifest = build_manifest(
            spec, dataset, fold=fold, shots=count, seed=seed, limit=limit, lists=lists
        )
        name, number = spec.name.replace("/", "-"), len(manifest.episodes)
        path = out / f"{name}-fold{fold}-{count}shot-seed{seed}.jsonl.gz"
        manifest.write(path)
        written.append({"path": str(path), "digest": manifest.digest, "episodes": number})
        if not as_json:
            click.echo(f"{path}: {number} episodes, {manifest.digest}")
    if as_json:
        print_json(written)


@episodes.command()
@click.argument("dataset", shell_complete=names_of("dataset"))
@data_options
@click.option("--fold", type=int, required=True, help="Fold of novel classes.")
@click.option("--split", type=click.Choice(["train", "val"]), default="val", show_default=True,
              help="Novel classes of val, or base classes of train.")  # fmt: skip
@click.option("--out", type=PATH, default=Path("lists"), show_default=True,
              help="Folder for pascal/fss_list or coco/fss_list.")  # fmt: skip
def lists(
    dataset: str, data_root: Path | None, data_options: dict[str, str], fold: int, split: str,
    out: Path,
) -> None:  # fmt: skip
    """Write the list files of DATASET that HDMNet and BAM read, by their rule.

    An image is listed for a class of at least 2,048 pixels; in train, only images without novel
    classes are listed.
    """
    from fssbench import build as parts
    from fssbench.episodes.literature.hdmnet import write_lists
    from fssbench.episodes.protocol import class_lists

    made = parts.dataset(dataset, data_root, **data_options)
    novel = set(made.fold_classes(fold))
    classes = novel if split == "val" else set(range(len(made.classes))) - novel
    found = class_lists(made, split, tuple(classes), 2 * 32 * 32)
    if split == "train":
        found = {
            c: [image for image in images if novel.isdisjoint(made.class_pixels(image))]
            for c, images in found.items()
        }
    for path in write_lists(out, made, fold, split, found):
        click.echo(path)
    count = len(set[str]().union(*found.values()))
    click.echo(f"{count} images, {sum(map(len, found.values()))} pairs of image and class")


@episodes.command()
@click.argument("manifest")
@data_options
@lists_option
@click.option("--first", type=click.IntRange(min=0), default=5, show_default=True,
              help="Number of episodes to print.")  # fmt: skip
@json_option
def show(manifest: str, first: int, as_json: bool, **dataset: Any) -> None:
    """Show the header, the classes and the first episodes of a manifest; check its digest.

    MANIFEST is a manifest file, a run directory, or a setting such as
    shapes/v1-1k/fold0-1shot-seed0, whose manifest is built.
    """
    from fssbench.cli.manifests import read_or_build

    read = read_or_build(manifest, **dataset)
    counts = Counter(way.class_id for way in read.by_way())
    queries = Counter(c for c, _ in {(way.class_id, way.query) for way in read.by_way()})
    if as_json:
        print_json({
            **{key: getattr(read, key) for key in _HEADER},
            "episodes": len(read.episodes),
            "ways": read.ways,
            "classes": {name: counts[c] for c, name in read.classes},
            "dropped": [name for _, name in read.dropped],
        })  # fmt: skip
        return
    ways = f"{read.ways}-way, " * (read.ways > 1)
    click.echo(f"{read.protocol}, fold {read.fold}, {ways}{read.shots}-shot, seed {read.seed}")
    click.echo(f"digest      {read.digest}")
    click.echo(f"fingerprint {read.fingerprint}")
    click.echo(f"episodes    {len(read.episodes)}" + (" (limited)" if read.limit else ""))
    for class_id, name in read.classes:
        click.echo(f"  {name}: {counts[class_id]} episodes over {queries[class_id]} query images")
    if read.dropped:
        click.echo(f"left out, too few images: {', '.join(n for _, n in read.dropped)}")
    for episode in read.episodes[:first]:
        shown = [target for target in episode.targets if target.support]
        names = ", ".join(read.class_name(target.class_id) for target in shown)
        click.echo(f"{episode.index}: {names} in {episode.query}, supports {_supports(episode)}")


@episodes.command()
@click.argument("manifest")
@data_options
@lists_option
@click.option("--format", "form", type=click.Choice(["json"]), default="json", show_default=True,
              help="Format of the list of episodes.")  # fmt: skip
@click.option("--out", type=PATH, required=True, help="Folder to write.")
def export(manifest: str, form: str, out: Path, **dataset: Any) -> None:
    """Write the episodes of MANIFEST for another program, with the supports' masks as PNG files.

    MANIFEST is a manifest file, a run directory, or a setting such as
    shapes/v1-1k/fold0-1shot-seed0. fssbench record import scores the predicted masks.
    """
    from fssbench.cli.manifests import read_with_dataset
    from fssbench.episodes.export import export_episodes

    del form  # there is one
    read, data = read_with_dataset(manifest, **dataset)
    click.echo(f"{export_episodes(read, data, out)}: {len(read.episodes)} episodes")


@episodes.command()
@click.argument("a")
@click.argument("b")
@data_options
@lists_option
@json_option
def diff(a: str, b: str, as_json: bool, **dataset: Any) -> int:
    """Compare two manifests. Exit code 0 if they are equal, 1 if they differ.

    Each is a manifest file, a run directory, or a setting such as shapes/v1-1k/fold0-1shot-seed0,
    whose manifest is built.
    """
    from fssbench.cli.manifests import read_or_build
    from fssbench.episodes.analysis.diff import diff as compare

    found = compare(read_or_build(a, **dataset), read_or_build(b, **dataset))
    if as_json:
        print_json(found.to_fields())
    else:
        _print_diff(found)
    return 0 if found.equal else 1


def _print_diff(found: ManifestDiff) -> None:
    same = found.digest_a == found.digest_b
    click.echo(f"digest A  {found.digest_a}")
    click.echo(f"digest B  {found.digest_b}{'  (the same)' if same else ''}")
    equal = [field.name for field in found.fields if field.same]
    click.echo(f"same      {', '.join(equal) or 'nothing'}")
    for field in found.fields:
        if not field.same:
            click.echo(f"differs   {field.name}: {_brief(field.a)} | {_brief(field.b)}")
    click.echo(
        f"episodes  {found.episodes_a} | {found.episodes_b}: {found.common} in common, "
        f"{found.in_place} of them at the same index; {found.common_queries} (query, class) pairs "
        "in common"
    )
    if found.first is not None:
        click.echo(f"first difference: episode {found.first.index}")
        for letter, episode in (("A", found.first.a), ("B", found.first.b)):
            if episode:
                classes = ", ".join(str(target.class_id) for target in episode.targets)
                text = f"class {classes} in {episode.query}, supports {_supports(episode)}"
            click.echo(f"  {letter}: {text if episode else 'none, the manifest ends'}")
    for share in found.shares:
        click.echo(
            f"  {share.name}: {share.a} ({share.share_a:.1f} %) | {share.b} ({share.share_b:.1f} %)"
        )
    different = f"different{': the same episodes, with other annotations' * same}"
    click.echo("equal" if found.equal else different)


def _supports(episode: Episode) -> str:
    return " | ".join(", ".join(t.support) for t in episode.targets if t.support)


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} ({', '.join(value[:5])}{', …' * (len(value) > 5)})"
    return "none" if value is None else str(value)
