"""Building the manifest of a protocol on a dataset."""

from __future__ import annotations

from pathlib import Path

import attrs

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.data.own_data import OwnData
from fssbench.episodes.draw import Draw
from fssbench.episodes.literature.lists import read_listed
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.sampler import Pool, Sampler
from fssbench.errors import FssbenchError
from fssbench.specs import ProtocolSpec, SamplerSpec

MOST_SHOTS = 5
"""A protocol drops classes that are too rare for this number of shots, whatever its own is."""


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
    """Draw the episodes of one fold from annotations alone, without images and models.

    Args:
        protocol: rules of drawing.
        dataset: dataset of the protocol.
        fold: fold of the novel classes.
        shots: number of supports K, at least 1.
        seed: seed of the draws; 0 in benchmarks.
        limit: number of episodes to cut the manifest to.
        lists: folder of the authors' list files, for a protocol that reads them.

    Raises:
        FssbenchError: the dataset is not that of the protocol, the fold does not exist, a class has
            too few images and the protocol does not drop such classes, the fold has fewer classes
            than the protocol has ways, or list files are missing or wrong.
    """
    if protocol.dataset not in (dataset.name, type(dataset).name):
        raise FssbenchError(
            f"protocol {protocol.name} is for {protocol.dataset}, the dataset is {dataset.name}"
        )
    for name, number in (("shots", shots), ("limit", limit)):
        if number is not None and number < 1:
            raise FssbenchError(f"{name} must be at least 1, not {number}")
    dataset.check_fold(fold)
    check_lists(protocol, lists)
    rare: list[int] = []
    if lists is None:
        novel = dataset.fold_classes(fold)
        classes, rare = _common_classes(protocol, dataset, fold, shots, novel)
        pool = Pool(lists=classes, dataset=dataset, seed=seed, ways=protocol.ways)
        if protocol.base_classes:
            base = tuple(c for c in range(len(dataset.classes)) if c not in novel)
            known, _ = _common_classes(protocol, dataset, fold, shots, base)
            pool = attrs.evolve(pool, base=known)
    else:
        listed = read_listed(protocol, lists, dataset, fold)
        pool = Pool(
            lists=listed.lists,
            queries=listed.queries,
            dataset=dataset,
            seed=seed,
            ways=protocol.ways,
        )
    spec = registry.registry().get(SamplerSpec, protocol.sampler)
    sampler: Sampler = registry.load(spec)
    if len(pool.lists) < protocol.ways:
        raise FssbenchError(
            f"{protocol.name}, fold {fold}: {protocol.ways} ways need {protocol.ways} novel "
            f"classes with enough images; there are {len(pool.lists)}"
        )
    draw = Draw(protocol.draw_key or protocol.name, fold, shots, seed)
    episodes = sampler(pool, episodes=protocol.episodes, shots=shots, draw=draw)
    asked = (True,) * protocol.ways + (False,) * len(pool.base)  # with supports, or base classes
    for episode in episodes:
        if tuple(bool(target.support) for target in episode.targets) != asked:
            raise FssbenchError(
                f"{protocol.name} has {len(asked)} ways, {len(pool.base)} of them base classes; "
                f"its sampler {protocol.sampler} drew others: use the sampler n-way"
            )
    classes_of = sorted({**pool.lists, **pool.base}) if pool.base else pool.lists
    manifest = Manifest(
        protocol=protocol.name,
        dataset=dataset.name,
        split=protocol.split,
        fingerprint=dataset.fingerprint(protocol.split),
        fold=fold,
        shots=shots,
        seed=seed,
        limit=None,
        classes=tuple((c, dataset.classes[c]) for c in classes_of),
        dropped=tuple((c, dataset.classes[c]) for c in rare),
        episodes=tuple(episodes),
    )
    if absent := sorted({*pool.lists, *pool.base} - set(manifest.class_ids)):
        names = ", ".join(dataset.classes[c] for c in absent)
        raise FssbenchError(f"{protocol.name}, fold {fold}: no episode asks for {names}")
    return manifest if limit is None else manifest.limited(limit)


def check_lists(protocol: ProtocolSpec, lists: Path | None) -> None:
    """Raise an `FssbenchError` unless list files are given exactly if the protocol reads them."""
    if protocol.lists and lists is None:
        raise FssbenchError(
            f"{protocol.name} reads its authors' list files; give their folder: --lists FOLDER"
        )
    if lists is not None and not protocol.lists:
        raise FssbenchError(
            f"--lists {lists}: {protocol.name} lists the images of the dataset; leave out --lists"
        )


def class_lists(
    dataset: Dataset, split: str, classes: tuple[int, ...], min_pixels: int
) -> dict[int, list[str]]:
    """Return by class the sorted ids of a split's images with at least `min_pixels` of it."""
    dataset.check_split(split)
    dataset.prepare(split)
    lists: dict[int, list[str]] = {class_id: [] for class_id in sorted(classes)}
    for image_id in sorted(dataset.image_ids(split)):
        for class_id, pixels in dataset.class_pixels(image_id).items():
            if pixels >= min_pixels and class_id in lists:
                lists[class_id].append(image_id)
    return lists


def _common_classes(
    protocol: ProtocolSpec, dataset: Dataset, fold: int, shots: int, classes: tuple[int, ...]
) -> tuple[dict[int, list[str]], list[int]]:
    """Return the image lists of classes, and the classes that are too rare."""
    lists = class_lists(dataset, protocol.split, classes, protocol.min_pixels)
    # The same classes are dropped for 1 and for 5 shots, so that both have the same classes.
    needed = shots + 1 if protocol.rare == "error" else max(shots, MOST_SHOTS) + 1
    rare = [c for c, images in lists.items() if len(images) < needed]
    if rare and (protocol.rare == "error" or len(rare) == len(lists)):
        counts = ", ".join(f"{dataset.classes[c]} ({len(lists[c])})" for c in rare)
        raise FssbenchError(
            f"{protocol.name}, fold {fold}, {shots}-shot: every class needs {needed} images in "
            f"split {protocol.split!r} with at least {protocol.min_pixels} of its pixels; too few: "
            f"{counts}. Complete the dataset, ask for fewer shots{_hint(protocol, dataset)}"
        )
    return {c: images for c, images in lists.items() if c not in rare}, rare


def _hint(protocol: ProtocolSpec, dataset: Dataset) -> str:
    if isinstance(dataset, OwnData):
        return ", or name the novel classes with -d novel=NAME,NAME"
    for other in registry.registry().specs(ProtocolSpec).values():
        if other.dataset == protocol.dataset and other.rare == "drop":
            return f", or use {other.name}, which leaves such classes out and names them"
    return ""
