"""Ablations of DCAMA's support pixels and outputs, and its 1-shot ensembles (tables 3, 4, S5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from fssbench import BackboneInfo, FssbenchError
from fssbench.nn import resize, together
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
    """A support of one shot with its features, which the ensemble ``scl`` segments again.

    Attributes:
        support: the support of one shot.
        features: for each requested layer (1, C, h, w).
        mask: uint8 (1, H, W).
    """

    support: Support
    features: Mapping[str, Tensor]
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

    def embed_support(self, features: Mapping[str, Tensor], masks: Tensor) -> Support | Ensemble:
        """Embed all shots at once, or each alone for an ensemble.

        Args:
            features: for each requested layer (B, K, C, h, w).
            masks: uint8 (B, K, H, W); 255 counts as background.
        """
        embed = super().embed_support
        shots = masks.shape[1]
        if self.config.shots == "one-pass" or shots == 1:
            joined: Support = embed(features, masks)
            return joined
        each = [
            embed({n: f[:, k : k + 1] for n, f in features.items()}, masks[:, k : k + 1])
            for k in range(shots)
        ]
        return self._ensemble(each, features, masks)

    def prepare_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Support | Guide:
        """Return the support of one image, for ``scl`` with its features.

        Args:
            features: for each requested layer (1, C, h, w).
            mask: uint8 (1, H, W).
        """
        support: Support = super().prepare_support(features, mask)
        return Guide(support, features, mask) if self.config.shots == "scl" else support

    def join_supports(self, prepared: Sequence[Sequence[Any]]) -> Support | Ensemble:
        """Join the shots to one support, or to an ensemble.

        Args:
            prepared: B lists of K values of `prepare_support`.
        """
        guides = [[one for one in shots if isinstance(one, Guide)] for shots in prepared]
        plain = [
            [one.support if isinstance(one, Guide) else one for one in shots] for shots in prepared
        ]
        if self.config.shots == "one-pass" or len(plain[0]) == 1:
            joined: Support = super().join_supports(plain)
            return joined
        features: dict[str, Tensor] = {}
        masks = torch.empty(0)
        if guides[0]:
            features = {
                name: torch.stack([torch.cat([one.features[name] for one in k]) for k in guides])
                for name in guides[0][0].features
            }
            masks = torch.stack([torch.cat([one.mask for one in k]) for k in guides])
        each = [self._with_mixed(together(shot)) for shot in zip(*plain, strict=True)]
        return self._ensemble(each, features, masks)

    def aggregated_masks(self, query: Mapping[str, Tensor], support: Any) -> dict[int, Tensor]:
        """Return the intermediate query masks, as `Dcama.aggregated_masks` does.

        Raises:
            FssbenchError: the support is an ensemble.
        """
        if isinstance(support, Ensemble):
            raise FssbenchError("dcama: an ensemble has no common aggregated masks; use one-pass")
        return super().aggregated_masks(query, support)

    def _ensemble(
        self, each: Sequence[Support], features: Mapping[str, Tensor], masks: Tensor
    ) -> Ensemble:
        weights = None
        if self.config.shots == "scl":
            weights = guided_weights(self.segment, features, masks, each)
        return Ensemble(each, weights)

    def _project(
        self, stride: int, features: Mapping[str, Tensor], masks: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        if not self.config.background:
            features = {n: background_off(features[n], masks) for n in self.layers[stride]}
        keys, values = super()._project(stride, features, masks)
        chosen = None if self.config.pixels is None else budget(masks, self.config.pixels)
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
            return otsu(self._aggregate(stride, query, support).sum(1))
        return super()._match(query, support)

    def _mixed_skips(self, maps: Mapping[str, Tensor], *, side: int) -> Tensor | None:
        return super()._mixed_skips(maps, side=side) if self.config.output == "mask" else None


def background_off(features: Tensor, masks: Tensor) -> Tensor:
    """Set to zero the background of support features, as HSNet does (table 3).

    Args:
        features: (B, K, C, h, w).
        masks: float (B, K, h, w) in [0, 1].
    """
    return features * masks.unsqueeze(2).to(features.dtype)


def budget(masks: Tensor, pixels: int) -> Tensor | None:
    """Choose a fixed number of support pixels of each shot (table S5, after CyCTR).

    Up to half of them are foreground (a mask value above 0.5) and the rest is background; if one
    region is too small, the other one supplies the difference. Within a region the pixels are
    evenly spaced in row-major order, without randomness, so results are reproducible.

    Args:
        masks: float (B, K, h, w) in [0, 1].
        pixels: number of pixels of each shot.

    Returns:
        int64 (B, K·pixels), positions in the flattened (K, h, w); None if a shot has no more than
        that number of pixels.
    """
    batch, shots, height, width = masks.shape
    if height * width <= pixels:
        return None
    chosen = []
    for index, mask in enumerate(masks.flatten(0, 1).flatten(1)):
        foreground, background = (mask > 0.5).nonzero()[:, 0], (mask <= 0.5).nonzero()[:, 0]
        share = max(min(len(foreground), pixels // 2), pixels - len(background))
        picked = torch.cat([_spread(foreground, share), _spread(background, pixels - share)])
        chosen.append(picked + index % shots * height * width)
    return torch.stack(chosen).view(batch, shots * pixels)


def otsu(masks: Tensor) -> Tensor:
    """Binarise each map at its Otsu threshold (Otsu, 1979).

    Args:
        masks: float (B, h, w).

    Returns:
        float (B, h, w), 1 for foreground and -1 for background.
    """
    planes = masks.detach().float().cpu().numpy()
    thresholds = [otsu_threshold(plane) for plane in planes]
    limits = torch.tensor(thresholds, device=masks.device).view(-1, 1, 1)
    return torch.where(masks > limits, 1.0, -1.0)


def otsu_threshold(plane: np.ndarray) -> float:
    """Return the threshold with the largest variance between the classes (Otsu, 1979).

    As in scikit-image, candidates are the centres of a histogram's 256 bins, in float32.

    Args:
        plane: float32 (h, w), finite.

    Returns:
        The lowest of the best centres, or the value of a constant plane.
    """
    if plane.min() == plane.max():
        return float(plane.min())
    sizes, edges = np.histogram(plane, 256)
    counts, centres = sizes.astype(np.float32), (edges[:-1] + edges[1:]) / 2
    sums = counts * centres
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below, mean_above = sums.cumsum() / below, sums[::-1].cumsum()[::-1] / above
    distances = mean_below[:-1] - mean_above[1:]
    return float(centres[np.argmax(below[:-1] * above[1:] * distances**2)])


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
    if how in ("voting", "hsnet"):
        votes = (each > 0).sum(1).float()
        if how == "voting":
            return 2 * votes / each.shape[1] - 1
        most = votes.amax((1, 2), keepdim=True).clamp(min=1)
        # Votes are whole numbers, so that half a vote changes the sign of ties only.
        return (2 * votes - most + 0.5) / most
    probabilities = each.sigmoid()
    if weights is None:
        mean = probabilities.mean(1)
    else:
        weights = weights + (weights.sum(1, keepdim=True) == 0)  # all zero: equal weights
        weights = weights / weights.sum(1, keepdim=True)
        mean = (probabilities * weights[:, :, None, None]).sum(1)
    return mean.logit(eps=1e-6)


def guided_weights(
    segment: Callable[[Mapping[str, Tensor], Any], Tensor],
    features: Mapping[str, Tensor],
    masks: Tensor,
    supports: Sequence[Any],
) -> Tensor:
    """Return how well each support segments all K supports (Zhang et al.: SCL, CVPR 2021).

    Args:
        segment: function of query features and a support of one shot that returns logits.
        features: support features, (B, K, C, h, w) for each layer.
        masks: uint8 (B, K, H, W); pixels of 255 are ignored.
        supports: K supports of one shot each.

    Returns:
        float (B, K): mean IoU of the K predictions from each support.
    """
    shots = masks.shape[1]
    scores = []
    for guide in supports:
        ious = []
        for k in range(shots):
            logits = segment({name: maps[:, k] for name, maps in features.items()}, guide)
            logits = resize(logits[:, None], masks.shape[-2:])[:, 0]
            found = (logits > 0) & (masks[:, k] != 255)
            truth = masks[:, k] == 1
            union = (found | truth).sum((1, 2)).clamp(min=1)
            ious.append((found & truth).sum((1, 2)) / union)
        scores.append(torch.stack(ious).mean(0))
    return torch.stack(scores, 1)


def _spread(positions: Tensor, count: int) -> Tensor:
    ranks = torch.arange(count, device=positions.device) * len(positions) // max(count, 1)
    return positions[ranks]
