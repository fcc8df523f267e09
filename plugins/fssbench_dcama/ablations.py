"""Ablations of DCAMA's support pixels and outputs, and its 1-shot ensembles (tables 3, 4, S5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench import BackboneInfo, FssbenchError
from fssbench.nn import relative_votes, resize, separate, together
from fssbench_dcama.config import DcamaConfig
from fssbench_dcama.model import Dcama
from fssbench_dcama.prepared import Query, Support


def dcama(*, config: DcamaConfig, backbone: BackboneInfo) -> Dcama:
    """Build the paper's network, or its ablations if an option asks for one.

    Args:
        config: options.
        backbone: names and shapes of the features.
    """
    paper = DcamaConfig()
    options = ("shots", "background", "pixels", "output")
    ablated = any(getattr(config, name) != getattr(paper, name) for name in options)
    return (DcamaAblations if ablated else Dcama)(config=config, backbone=backbone)


@attrs.frozen(eq=False)
class Guide:
    """A support of one shot that the ensemble ``scl`` segments again, as a query.

    Attributes:
        support: the support of one shot.
        query: the same image as a query.
        mask: uint8 (1, H, W).
    """

    support: Support
    query: Query
    mask: Tensor


@attrs.frozen(eq=False)
class Ensemble:
    """K supports of one shot each.

    Attributes:
        members: the supports.
        weights: weight of each support's prediction, float (B, K); None for equal weights.
    """

    members: Sequence[Any]
    weights: Tensor | None = None


class DcamaAblations(Dcama):
    """`Dcama` with the options ``shots``, ``background``, ``pixels`` and ``output``.

    With ``output`` set to a scale, logits are (B, h, w) of 1 and -1.
    """

    def prepare_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Sequence[Any]:
        """Return the supports of N images, for ``scl`` each with itself as a query.

        Args:
            features: features by requested layer, (N, C, h, w).
            masks: uint8 (N, H, W).
        """
        supports = super().prepare_support(features, masks)
        if self.config.shots != "scl":
            return supports
        return list(map(Guide, supports, self.prepare_query(features), separate(masks, len(masks))))

    def embed_support(self, support: Sequence[Sequence[Any]]) -> Support | Ensemble:
        """Join the shots to one support, or to an ensemble.

        Args:
            support: B lists of K values of `prepare_support`.
        """
        shots: list[Sequence[Any]] = list(zip(*support, strict=True))
        guides = [together(shot) for shot in shots] if self.config.shots == "scl" else []
        plain = [[one.support for one in shot] for shot in shots] if guides else shots
        embed = super().embed_support
        if self.config.shots == "one-pass" or len(shots) == 1:
            joined: Support = embed(list(zip(*plain, strict=True)))
            return joined
        each = [embed([[one] for one in shot]) for shot in plain]
        return Ensemble(each, guided_weights(self._match, guides, each) if guides else None)

    def _project(
        self, stride: int, features: Mapping[str, Tensor], masks: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        if not self.config.background:
            features = {n: background_off(features[n], masks) for n in self.layers[stride]}
        keys, values = super()._project(stride, features, masks)
        chosen = None if self.config.pixels is None else budget(masks[:, 0], self.config.pixels)
        if chosen is not None:
            values = values.gather(1, chosen)
            for name, key in keys.items():
                _, heads, _, width = key.shape
                keys[name] = key.gather(2, chosen[:, None, :, None].expand(-1, heads, -1, width))
        return keys, values

    def _match(self, query: Query, support: Any) -> Tensor:
        if isinstance(support, Ensemble):
            logits = [self._match(query, one) for one in support.members]
            return combine(logits, self.config.shots, support.weights)
        if self.config.output != "mask":
            stride = int(self.config.output[2:])
            return otsu(self.aggregate(stride, query, support).sum(1))
        return super()._match(query, support)

    def maps(self, query: Sequence[Query], support: Any) -> dict[str, Tensor]:
        """Return the intermediate masks; an ensemble has none in common."""
        return {} if isinstance(support, Ensemble) else super().maps(query, support)

    def _mixed_skips(self, maps: Mapping[str, Tensor], *, side: int) -> Tensor | None:
        return super()._mixed_skips(maps, side=side) if self.config.output == "mask" else None


def aggregated_masks(matcher: Dcama, query: Sequence[Query], support: Any) -> dict[int, Tensor]:
    """Return the intermediate query masks of figures 4 (b) and 6.

    Args:
        matcher: DCAMA.
        query: B values of `Dcama.prepare_query`.
        support: result of `Dcama.embed_support`.

    Returns:
        For each stride (8, 16, 32) the masks of its L layers, (B, L, h, w) in [0, 1].

    Raises:
        FssbenchError: the support is an ensemble.
    """
    if isinstance(support, Ensemble):
        raise FssbenchError("dcama: an ensemble has no common aggregated masks; use one-pass")
    joined = together(query)
    return {s: matcher.aggregate(s, joined, support) for s in sorted(matcher.strides)}


def background_off(features: Tensor, masks: Tensor) -> Tensor:
    """Set to zero the background of support features, as HSNet does (table 3).

    Args:
        features: (N, C, h, w).
        masks: float (N, 1, h, w) in [0, 1].
    """
    return features * masks.to(features.dtype)


def budget(masks: Tensor, pixels: int) -> Tensor | None:
    """Choose a fixed number of support pixels of each shot (table S5, after CyCTR).

    Up to half of them are foreground (a mask value above 0.5) and the rest is background; if one
    region is too small, the other one supplies the difference. Within a region the pixels are
    evenly spaced in row-major order, without randomness, so results are reproducible.

    Args:
        masks: float (N, h, w) in [0, 1].
        pixels: number of pixels of each image.

    Returns:
        int64 (N, pixels), positions in the flattened (h, w); None if an image has no more than
        that number of pixels.
    """
    masks = masks.flatten(1)
    total = masks.shape[1]
    if total <= pixels:
        return None
    shown = masks > 0.5
    foreground = shown.sum(1, keepdim=True)
    background = total - foreground
    share = torch.maximum(foreground.clamp(max=pixels // 2), pixels - background)
    order = (~shown).byte().argsort(dim=1, stable=True)  # foreground first, each in row-major order
    rank = torch.arange(pixels, device=masks.device)
    first = rank * foreground // share.clamp(min=1)
    second = foreground + (rank - share) * background // (pixels - share).clamp(min=1)
    return order.gather(1, torch.where(rank < share, first, second))


def otsu(masks: Tensor) -> Tensor:
    """Binarise each map at its Otsu threshold (Otsu, 1979).

    Args:
        masks: float (B, h, w).

    Returns:
        float (B, h, w), 1 for foreground and -1 for background.
    """
    return torch.where(masks > otsu_thresholds(masks.detach().float()), 1.0, -1.0)


def otsu_thresholds(planes: Tensor) -> Tensor:
    """Return the thresholds with the largest variance between the classes (Otsu, 1979).

    As in scikit-image, candidates are the centres of a histogram's 256 bins, in float32.

    Args:
        planes: float32 (B, h, w), finite.

    Returns:
        (B, 1, 1): the lowest of the best centres, or the value of a constant plane.
    """
    values = planes.flatten(1)
    low, high = values.aminmax(dim=1, keepdim=True)
    edges = low + torch.arange(257, device=values.device) * ((high - low) / 256)
    edges[:, -1:] = high
    bins = (torch.searchsorted(edges, values, right=True) - 1).clamp(0, 255)
    counts = torch.zeros_like(edges[:, 1:]).scatter_add_(1, bins, torch.ones_like(values))
    centres = (edges[:, :-1] + edges[:, 1:]) / 2
    sums = counts * centres
    below, above = counts.cumsum(1), counts.flip(1).cumsum(1).flip(1)
    means_below, means_above = sums.cumsum(1) / below, sums.flip(1).cumsum(1).flip(1) / above
    distances = means_below[:, :-1] - means_above[:, 1:]
    best = (below[:, :-1] * above[:, 1:] * distances**2).nan_to_num(-1).argmax(1, keepdim=True)
    return torch.where(low == high, low, centres.gather(1, best))[..., None]


def combine(logits: Sequence[Tensor], how: str, weights: Tensor | None = None) -> Tensor:
    """Join the logits of K 1-shot predictions.

    Args:
        logits: K tensors (B, h, w).
        how: ``voting`` (foreground by strict majority), ``averaging`` (of foreground
            probabilities), ``hsnet`` (votes divided by the largest vote of the image, with a
            threshold of one half: Min et al., ICCV 2021), or ``scl`` (averaging with `weights`).
        weights: float (B, K), not negative; all zero counts as equal weights.

    Returns:
        (B, h, w) logits.
    """
    each = torch.stack(list(logits), 1).float()  # (B, K, h, w)
    if how == "hsnet":
        return relative_votes(each)
    if how == "voting":
        return 2 * (each > 0).sum(1).float() / each.shape[1] - 1
    probabilities = each.sigmoid()
    if weights is None:
        mean = probabilities.mean(1)
    else:
        weights = weights + (weights.sum(1, keepdim=True) == 0)  # all zero: equal weights
        weights = weights / weights.sum(1, keepdim=True)
        mean = (probabilities * weights[:, :, None, None]).sum(1)
    return mean.logit(eps=1e-6)


def guided_weights(
    match: Callable[[Query, Any], Tensor], guides: Sequence[Guide], supports: Sequence[Any]
) -> Tensor:
    """Return how well each support segments all K supports (Zhang et al.: SCL, CVPR 2021).

    Args:
        match: function of queries and a support of one shot that returns logits (B, h, w).
        guides: K supports as queries, with masks uint8 (B, H, W); pixels of 255 are ignored.
        supports: K supports of one shot each.

    Returns:
        float (B, K): mean IoU of the K predictions from each support.
    """
    scores = []
    for support in supports:
        ious = []
        for guide in guides:
            logits = resize(match(guide.query, support)[:, None], guide.mask.shape[-2:])[:, 0]
            found, truth = (logits > 0) & (guide.mask != 255), guide.mask == 1
            union = (found | truth).sum((1, 2)).clamp(min=1)
            ious.append((found & truth).sum((1, 2)) / union)
        scores.append(torch.stack(ious).mean(0))
    return torch.stack(scores, 1)
