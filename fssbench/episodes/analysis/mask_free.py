"""The score of an oracle without support masks, which shows how far a protocol needs them."""

from __future__ import annotations

import attrs
import torch

from fssbench.data.dataset import IGNORE, Dataset
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError


@attrs.frozen(kw_only=True)
class MaskFree:
    """Scores of an oracle that has the support images, but not their masks.

    The oracle segments every class perfectly, but does not know the class of the episode: its
    prediction is all classes that the query has in common with all its supports. HDMNet (appendix
    A.2) trains a network without masks for the same purpose, which depends on the network and its
    training; the oracle depends on the episodes alone.

    Attributes:
        single: percentage of the episodes whose images have a single class in common. In these,
            segmenting the recurring class is correct without masks.
        miou: class mIoU of the oracle, in percent. A perfect method loses ``100 - miou`` points
            without masks; if this is small, scores hardly depend on the use of masks.
    """

    single: float
    miou: float


def mask_free(manifest: Manifest, dataset: Dataset) -> MaskFree:
    """Score the oracle on a manifest, from annotations alone.

    Pixels are counted at original size, without those of 255 (ignored) in the mask of the episode's
    class, as by fssbench's own protocols.

    Args:
        manifest: manifest to score.
        dataset: dataset of the manifest.

    Raises:
        FssbenchError: there are no episodes, or the annotations differ from those of the manifest
            or cannot be read.
    """
    if not manifest.episodes:
        raise FssbenchError("this is a manifest without episodes; build one with at least one")
    if manifest.ways > 1:
        raise FssbenchError(
            f"--mask-free is for episodes of one way; {manifest.protocol} has {manifest.ways}"
        )
    manifest.check_annotations(dataset)
    intersection = dict.fromkeys(manifest.class_ids, 0)
    union = dict.fromkeys(manifest.class_ids, 0)
    single = 0
    for episode in manifest.episodes:
        others = _other_common_classes(episode, dataset)
        single += not others
        correct, predicted = _pixels(episode, others, dataset)
        intersection[episode.class_id] += correct
        union[episode.class_id] += predicted
    ious = [intersection[c] / union[c] if union[c] else 0.0 for c in intersection]
    return MaskFree(single=100 * single / len(manifest.episodes), miou=100 * sum(ious) / len(ious))


def _other_common_classes(episode: Episode, dataset: Dataset) -> set[int]:
    """Return the classes that query and all supports have in common, without the episode's."""
    images = (episode.query, *episode.support)
    return set.intersection(*(set(dataset.class_pixels(i)) for i in images)) - {episode.class_id}


def _pixels(episode: Episode, others: set[int], dataset: Dataset) -> tuple[int, int]:
    """Return the pixels of the class, and of its union with the others, which may overlap."""
    correct = dataset.class_pixels(episode.query).get(episode.class_id, 0)
    if not others:
        return correct, correct
    asked = dataset.mask(episode.query, episode.class_id)
    predicted = asked == 1
    for class_id in others:
        predicted |= dataset.mask(episode.query, class_id) == 1
    return correct, int(torch.count_nonzero(predicted & (asked != IGNORE)))
