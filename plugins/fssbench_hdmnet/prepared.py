"""Prepared supports and queries, and outputs of the network."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from torch import Tensor

from fssbench_hdmnet.matching import Keys
from fssbench_hdmnet.priors import distinct_vectors


@attrs.frozen(eq=False)
class Support:
    """Embedding of B support sets.

    Attributes:
        keys: keys of each stage of the pyramid, fine to coarse; pixels of all K shots side by side.
        prototype: mean over shots, (B, 256).
        priors: foreground vectors that priors compare with, of each shot (B, S, C): of the base
            learner's embedding, and of the deepest layer.
        grams: channel cosines of each shot, (B, K, C, C); None without the ensemble.
    """

    keys: Sequence[Keys]
    prototype: Tensor
    priors: tuple[Sequence[Tensor], Sequence[Tensor]]
    grams: Tensor | None

    def foreground_only(self) -> Support:
        """Return the support of one image without the background's pixels."""
        first, second = ([distinct_vectors(shot) for shot in shots] for shots in self.priors)
        keys = [keys.foreground_only() for keys in self.keys]
        return attrs.evolve(self, keys=keys, priors=(first, second))


@attrs.frozen(eq=False)
class Query:
    """The support-independent part of a query.

    Attributes:
        merged: part of the pyramid's input that comes from the query, (B, h·w, 64).
        grid: h, w.
        directions: (B, C, h'·w') that priors compare with supports: of the base learner's
            embedding, and of the deepest layer.
        sizes: h', w' of both.
        base: logits of the base learner, (B, 1 + base classes, h', w'); None without the ensemble.
        gram: channel cosines, (B, C, C); None without the ensemble.
    """

    merged: Tensor
    grid: tuple[int, int]
    directions: tuple[Tensor, Tensor]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    base: Tensor | None
    gram: Tensor | None


@attrs.frozen(eq=False)
class Outputs:
    """All outputs for B queries, before they are resized to the input's size.

    Attributes:
        final: merged, (B, 2, h, w), channel 1 is foreground; with the ensemble, no logits (see
            `fssbench_hdmnet.ensemble.Ensemble`), without it the same as `meta`.
        meta: logits of the matching alone, (B, 2, h, w).
        base: logits of the base learner, (B, 1 + base classes, h', w'); None without the ensemble.
        priors: (B, 2, h, w), in [0, 1]: from the base learner's embedding, and the deepest layer.
        correlations: maps C' of equation 7, fine to coarse, (B, h, w) each.
    """

    final: Tensor
    meta: Tensor
    base: Tensor | None
    priors: Tensor
    correlations: Sequence[Tensor]
