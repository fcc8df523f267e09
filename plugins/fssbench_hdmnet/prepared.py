"""Prepared supports and queries."""

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
