"""Validation during training, with the code of an evaluation and a separate manifest."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import pandas
import torch.distributed
from lightning_fabric import Fabric

from fssbench import registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.draw import Draw
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import class_lists
from fssbench.episodes.sampler import Pool, Sampler
from fssbench.errors import FssbenchError
from fssbench.evaluation.measure import measure_chunks
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.pipeline import Pipeline
from fssbench.metrics.iou import IoU
from fssbench.runtime.device import loader_processes
from fssbench.specs import SamplerSpec
from fssbench.training.recipe import Augment, Recipe
from fssbench.training.samples import SPLIT, base_classes
from fssbench.training.step import TrainingStep

if TYPE_CHECKING:
    from fssbench.training.plan import Plan

SAMPLER = "class-balanced"
HELD_OUT_BATCH = 8
"""Batch size of held-out images."""

_CACHE_BYTES = 256 << 20
"""Size limit of the feature cache during validation."""


def validation_manifest(
    dataset: Dataset, recipe: Recipe, *, fold: int, on: Literal["base", "novel"], episodes: int
) -> Manifest:
    """Return the validation manifest, without training images.

    Episodes of base classes are drawn from the split ``val``; those of novel classes from the test
    split, the dataset's last.

    Raises:
        FssbenchError: no class has enough images in the split.
    """
    split = "val" if on == "base" else dataset.splits[-1]
    classes = base_classes(dataset, fold) if on == "base" else dataset.fold_classes(fold)
    lists = class_lists(dataset, split, classes, recipe.min_pixels)
    if on == "base":  # the splits of small datasets may overlap
        trained = set(dataset.image_ids(SPLIT))
        lists = {c: [image for image in lists[c] if image not in trained] for c in lists}
    enough = {c: images for c, images in lists.items() if len(images) > recipe.shots}
    if not enough:
        raise FssbenchError(
            f"{dataset.name}, fold {fold}: no {on} class has {recipe.shots + 1} images in split "
            f"{split!r}, beside those trained on, to validate on; give --validation-episodes 0"
        )
    sampler: Sampler = registry.load(registry.registry().get(SamplerSpec, SAMPLER))
    protocol = f"{dataset.name}/validation-{on}"
    drawn = sampler(
        Pool(lists=enough, dataset=dataset),
        episodes=episodes,
        shots=recipe.shots,
        draw=Draw(protocol, fold, recipe.shots, 0),
    )
    return Manifest(
        protocol=protocol,
        dataset=dataset.name,
        split=split,
        fingerprint=dataset.fingerprint(split),
        fold=fold,
        shots=recipe.shots,
        seed=0,
        limit=None,
        classes=tuple((c, dataset.classes[c]) for c in enough),
        dropped=tuple((c, dataset.classes[c]) for c in lists if c not in enough),
        episodes=tuple(drawn),
    )


@attrs.frozen(kw_only=True, eq=False)
class Validation:
    """Evaluation of a matcher as in `fssbench.evaluate`.

    Attributes:
        plan: plan of the training.
        fabric: Fabric of the training, for device and processes.
        manifest: validation episodes.
    """

    plan: Plan
    fabric: Fabric
    manifest: Manifest

    def scores(self, chunks: int | None = None) -> dict[str, float]:
        """Return the scores of `IoU`, in percent, and leave the matcher in eval mode.

        Args:
            chunks: number of chunks to measure; None for all.
        """
        plan, settings, world = self.plan, self.plan.settings, self.fabric.world_size
        pipeline = Pipeline(
            plan.matcher, plan.backbone, device=self.fabric.device, precision=settings.precision
        )
        cache = FeatureCache(pipeline, plan.dataset, _CACHE_BYTES)
        every = list(chunks_of(self.manifest.episodes).items())[:chunks]
        loaded = cache.load(
            dict(every[self.fabric.global_rank :: world]),
            score_size="original",
            workers=loader_processes(settings.workers, settings.devices),
        )
        metric = IoU()
        results = measure_chunks(loaded, pipeline.device, cache, [metric], batch_size=1)
        shares = gather([result.rows for result in results], world)
        tables = itertools.chain.from_iterable(shares)
        table = pandas.concat(tables, ignore_index=True).sort_values("index")
        return metric.summarise(table, tuple(sorted(set(table["class_id"].tolist()))))


def gather(mine: Any, world: int) -> list[Any]:
    """Return the values of all processes, by rank."""
    shares = [mine] * world
    if world > 1:
        torch.distributed.all_gather_object(shares, mine)
    return shares


def measure_held_out(plan: Plan, module: TrainingStep, fabric: Fabric) -> Mapping[str, float]:
    """Return the means of a stage's measures over the held-out images.

    Args:
        plan: plan of the training.
        module: matcher and stage, with the matcher in eval mode.
        fabric: Fabric of the training; each process measures its share of the images.
    """
    augmentation = attrs.evolve(plan.loader.augmentation, recipe=Augment(crop="centre"))
    loader = attrs.evolve(plan.loader, augmentation=augmentation, caches=False)
    sums: dict[str, float] = {}
    ids: Sequence[str] = plan.held_out
    for start in list(range(0, len(ids), HELD_OUT_BATCH))[fabric.global_rank :: fabric.world_size]:
        some = ids[start : start + HELD_OUT_BATCH]
        for name, value in module.measures(loader.load(0, start, some)).items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(some)
    shares: list[dict[str, float]] = gather(sums, fabric.world_size)
    names = list(dict.fromkeys(itertools.chain(*shares)))
    return {name: sum(s.get(name, 0.0) for s in shares) / len(ids) for name in names}
