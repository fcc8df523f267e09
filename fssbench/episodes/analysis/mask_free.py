"""How far a method could get that sees no masks: what a protocol owes to them."""

from __future__ import annotations

import attrs
import torch

from fssbench.data.dataset import IGNORE, Dataset
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError


@attrs.frozen(kw_only=True)
class MaskFree:
    """What an oracle scores that sees the supports' images, but no mask.

    It knows every class and segments without a mistake, but nobody tells it which class is meant:
    it answers with all that the query shares with all of its supports. HDMNet (appendix A.2)
    trains a network without masks to see whether a benchmark needs them; that depends on the
    network and its training, this on the episodes alone.

    Attributes:
        single: share of the episodes, in percent, whose images have one class in common. There,
            "segment what comes back" is a right answer, and masks are not needed.
        miou: class mIoU of the oracle, in percent. A perfect method loses ``100 - miou`` points
            without masks; where that is little, a score says little about the use of masks.
    """

    single: float
    miou: float


def mask_free(manifest: Manifest, dataset: Dataset) -> MaskFree:
    """Score the oracle on a manifest; images are not read, only annotations.

    Pixels are counted as the protocols of fssbench do, at original size and without those of 255
    (ignored) in the mask of the class that is asked for.

    Args:
        manifest: the episodes.
        dataset: that it was drawn from.

    Raises:
        FssbenchError: there are no episodes, or the annotations are others or cannot be read.
    """
    if not manifest.episodes:
        raise FssbenchError("a manifest without episodes needs no masks, nor anything else")
    manifest.check_annotations(dataset)
    intersection = dict.fromkeys(manifest.class_ids, 0)
    union = dict.fromkeys(manifest.class_ids, 0)
    single = 0
    for episode in manifest.episodes:
        others = _other_common_classes(episode, dataset)
        single += not others
        right, answered = _pixels(episode, others, dataset)
        intersection[episode.class_id] += right
        union[episode.class_id] += answered
    ious = [intersection[c] / union[c] if union[c] else 0.0 for c in intersection]
    return MaskFree(single=100 * single / len(manifest.episodes), miou=100 * sum(ious) / len(ious))


def _other_common_classes(episode: Episode, dataset: Dataset) -> set[int]:
    """Classes of the query, besides the one that is asked for, that all supports hold."""
    common = set(dataset.class_pixels(episode.query))
    for image in episode.support:
        common &= set(dataset.class_pixels(image))
    return common - {episode.class_id}


def _pixels(episode: Episode, others: set[int], dataset: Dataset) -> tuple[int, int]:
    """Pixels of the class, and of it and the other classes together: classes may overlap."""
    right = dataset.class_pixels(episode.query).get(episode.class_id, 0)
    if not others:
        return right, right
    asked = dataset.mask(episode.query, episode.class_id)
    answer = asked == 1
    for class_id in others:
        answer |= dataset.mask(episode.query, class_id) == 1
    return right, int(torch.count_nonzero(answer & (asked != IGNORE)))
