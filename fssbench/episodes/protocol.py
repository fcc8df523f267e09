"""From a protocol and a dataset to a manifest."""

from __future__ import annotations

from pathlib import Path

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.literature.lists import read_listed
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.sampler import Pool, Sampler
from fssbench.errors import FssbenchError
from fssbench.specs import ProtocolSpec, SamplerSpec

MOST_SHOTS = 5
"""A protocol that drops rare classes drops those that cannot serve as many shots as this."""


def build_manifest(
    protocol: ProtocolSpec,
    dataset: Dataset,
    *,
    fold: int,
    shots: int,
    seed: int = 0,
    limit: int | None = None,
    lists: Path | None = None,
) -> Manifest:
    """Draw the episodes of one fold. Needs annotations only, no images and no model.

    Args:
        protocol: how.
        dataset: of what; its name must be the protocol's.
        fold: whose novel classes.
        shots: K, at least 1.
        seed: any integer; a benchmark uses 0.
        limit: keep the first so many episodes.
        lists: folder of the authors' list files, for a protocol that reads such.

    Raises:
        FssbenchError: the dataset is another, the fold does not exist, a class has too few images
            and the protocol does not drop such classes, or list files are missing or wrong.
    """
    if dataset.name != protocol.dataset:
        raise FssbenchError(
            f"protocol {protocol.name} is for {protocol.dataset}, the dataset is {dataset.name}"
        )
    if shots < 1:
        raise FssbenchError(f"shots must be at least 1, not {shots}")
    if limit is not None and limit < 1:
        raise FssbenchError(f"limit must be at least 1, not {limit}")
    dataset.check_fold(fold)
    check_lists(protocol, lists)
    if lists is None:
        pool, rare = _own_pool(protocol, dataset, fold=fold, shots=shots, seed=seed)
    else:
        pool, rare = _listed_pool(protocol, dataset, lists, fold=fold, seed=seed), {}
    known = registry.registry()
    sampler: Sampler = registry.load(known.get(SamplerSpec, protocol.sampler))
    draw = Draw(protocol.draw_key or protocol.name, fold, shots, seed)
    episodes = sampler(pool, episodes=protocol.episodes, shots=shots, draw=draw)
    manifest = Manifest(
        protocol=protocol.name,
        dataset=dataset.name,
        split=protocol.split,
        fingerprint=dataset.fingerprint(protocol.split),
        fold=fold,
        shots=shots,
        seed=seed,
        limit=None,
        classes=tuple((c, dataset.classes[c]) for c in pool.lists),
        dropped=tuple((c, dataset.classes[c]) for c in rare),
        episodes=tuple(episodes),
    )
    silent = set(pool.lists) - set(manifest.class_ids)
    if silent:
        names = ", ".join(dataset.classes[c] for c in sorted(silent))
        raise FssbenchError(f"{protocol.name}, fold {fold}: no episode asks for {names}")
    return manifest if limit is None else manifest.limited(limit)


def check_lists(protocol: ProtocolSpec, lists: Path | None) -> None:
    """Raise an `FssbenchError` unless list files are given where, and only where, they are read."""
    if protocol.lists and lists is None:
        raise FssbenchError(
            f"{protocol.name} reads its authors' list files; say where they are with --lists FOLDER"
        )
    if lists is not None and not protocol.lists:
        raise FssbenchError(
            f"--lists {lists}: {protocol.name} makes its lists of the dataset; leave --lists away"
        )


def class_lists(
    dataset: Dataset, split: str, classes: tuple[int, ...], min_pixels: int
) -> dict[int, list[str]]:
    """For each class the sorted ids of a split's images that hold at least `min_pixels` of it."""
    dataset.check_split(split)
    dataset.prepare(split)
    lists: dict[int, list[str]] = {class_id: [] for class_id in sorted(classes)}
    for image_id in sorted(dataset.image_ids(split)):
        for class_id, pixels in dataset.class_pixels(image_id).items():
            if pixels >= min_pixels and class_id in lists:
                lists[class_id].append(image_id)
    return lists


def _own_pool(
    protocol: ProtocolSpec, dataset: Dataset, *, fold: int, shots: int, seed: int
) -> tuple[Pool, dict[int, int]]:
    """Lists made of the dataset, and the number of images of classes that are too rare for them."""
    lists = class_lists(dataset, protocol.split, dataset.fold_classes(fold), protocol.min_pixels)
    # Classes are dropped for all shots alike, so that 1-shot and 5-shot ask for the same classes.
    needed = shots + 1 if protocol.rare == "error" else max(shots, MOST_SHOTS) + 1
    rare = {c: len(images) for c, images in lists.items() if len(images) < needed}
    if rare and (protocol.rare == "error" or len(rare) == len(lists)):
        counts = ", ".join(f"{dataset.classes[c]} ({n})" for c, n in rare.items())
        raise FssbenchError(
            f"{protocol.name}, fold {fold}, {shots}-shot: every class needs {needed} images in "
            f"split {protocol.split!r} with at least {protocol.min_pixels} of its pixels; too few: "
            f"{counts}. Complete the dataset, ask for fewer shots{_hint(protocol)}"
        )
    kept = {c: lists[c] for c in lists if c not in rare}
    return Pool(lists=kept, dataset=dataset, seed=seed), rare


def _listed_pool(
    protocol: ProtocolSpec, dataset: Dataset, folder: Path, *, fold: int, seed: int
) -> Pool:
    """Lists read from authors' files."""
    dataset.check_split(protocol.split)
    dataset.prepare(protocol.split)
    reader = registry.load_lists(protocol)
    listed = read_listed(reader, folder, dataset, protocol.split, fold)
    return Pool(lists=listed.lists, queries=listed.queries, dataset=dataset, seed=seed)


def _hint(protocol: ProtocolSpec) -> str:
    for other in registry.registry().specs(ProtocolSpec).values():
        if other.dataset == protocol.dataset and other.rare == "drop":
            return f", or use {other.name}, which leaves such classes out and says so"
    return ""
