"""Transductive inference: a linear classifier, fitted by gradient steps to one episode.

The objective has three terms: the cross entropy of the supports' labelled pixels, the entropy of
the query's pixels, and the KL divergence of the query's mean prediction from an estimate of the
proportions of background and foreground. Everything is float32, as in the authors' code: where the
foreground's probability rounds to 1, the background's is 0 and has no gradient.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from fssbench_repri.config import RePriConfig

_EPSILON = 1e-10  # as in the authors' code, added to products of lengths and inside logarithms


@attrs.frozen(eq=False)
class Pixels:
    """Features of N images, and the weights of their pixels.

    Attributes:
        features: float32 (N, C, h, w).
        counted: 1 for pixels that are counted, 0 for others; float32 (N, h, w).
    """

    features: Tensor
    counted: Tensor
    lengths: Tensor = attrs.field(init=False)

    @lengths.default
    def _lengths(self) -> Tensor:
        return self.features.norm(dim=1)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of values (..., N, h, w) over the counted pixels; 0 if there are none."""
        return (values * self.counted).sum((-3, -2, -1)) / self.counted.sum().clamp(min=1)


@attrs.frozen(eq=False)
class Objective:
    """Terms of the objective and the mean prediction behind one of them.

    Attributes:
        cross_entropy: cross entropy of the supports' labelled pixels, a scalar.
        divergence: KL divergence of `marginal` from the estimated proportions, a scalar.
        entropy: mean entropy of the query's pixels, a scalar.
        marginal: mean probabilities of background and foreground in the query, (2,).
    """

    cross_entropy: Tensor
    divergence: Tensor
    entropy: Tensor
    marginal: Tensor


class Classifier:
    """Classifier of a feature f as foreground: sigmoid(temperature * cos(f, prototype) - bias).

    It starts with the mean of the supports' foreground features as prototype (of all shots
    together), the query's mean scaled cosine as bias, and its own predictions as proportions.
    Without a foreground pixel, the prototype is 0 and the first gradient step sets its direction.

    Args:
        support: features of the K supports, float32 (K, C, h, w).
        labels: their labels, (K, h, w): 0, 1, others are ignored.
        query: features of the query, float32 (C, h, w).
        config: options.
        valid: pixels of the query to count, bool (h, w); None for all. The bias is the mean of all
            pixels in either case, as in the authors' code.

    Attributes:
        prototype: (C,).
        bias: scalar.
        proportions: estimated proportions of background and foreground in the query, (2,).
        kl_weight: weight of the divergence in the next step.
    """

    def __init__(
        self, support: Tensor, labels: Tensor, query: Tensor, config: RePriConfig,
        *, valid: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self.targets = (labels == 1).float()
        self.support = Pixels(support, (labels <= 1).float())
        everywhere = torch.ones_like(query[:1])
        self.query = Pixels(query[None], everywhere if valid is None else valid[None].float())
        total = (support * self.targets[:, None]).sum((0, 2, 3))
        self.prototype = total / (self.targets.sum() + _EPSILON)
        self.bias = self.logits(self.query).mean()
        self.proportions = self.query.mean(self.probabilities(self.query))
        auto = 1 / len(support)
        self.kl_weight = auto if config.kl_weight is None else config.kl_weight
        self.entropy_weight = auto if config.entropy_weight is None else config.entropy_weight

    def fit(self) -> None:
        """Take all gradient steps; their number does not depend on the data."""
        for iteration in range(2, self.config.iterations + 1):
            self.step()
            if iteration in self.config.proportion_updates and self.kl_weight:
                self.proportions = self.query.mean(self.probabilities(self.query))
                self.kl_weight += 1

    def step(self) -> tuple[Objective, Tensor, Tensor]:
        """Take a gradient step; return the objective before it and the two gradients."""
        with torch.enable_grad():
            self.prototype.requires_grad_()
            self.bias.requires_grad_()
            found = self.objective()
            weighted = self.kl_weight * found.divergence + self.entropy_weight * found.entropy
            of_prototype, of_bias = torch.autograd.grad(
                found.cross_entropy + weighted, [self.prototype, self.bias]
            )
        with torch.no_grad():
            self.prototype = self.prototype - self.config.lr * of_prototype
            self.bias = self.bias - self.config.lr * of_bias
        return found, of_prototype, of_bias

    def objective(self) -> Objective:
        """Return the objective of prototype and bias."""
        background, foreground = self.probabilities(self.support)
        labelled = torch.where(self.targets == 1, foreground, background)
        both = self.probabilities(self.query)
        marginal = self.query.mean(both)
        # A mean that rounds to 0 has the limit 0, where the product would be 0 * -inf.
        ratio = marginal.clamp(min=torch.finfo(marginal.dtype).tiny) / (self.proportions + _EPSILON)
        return Objective(
            cross_entropy=-self.support.mean((labelled + _EPSILON).log()),
            divergence=(marginal * ratio.log()).sum(),
            entropy=-self.query.mean((both * (both + _EPSILON).log()).sum(0)),
            marginal=marginal,
        )

    def probabilities(self, pixels: Pixels) -> Tensor:
        """Return the probabilities of background and foreground, (2, N, h, w)."""
        foreground = (self.logits(pixels) - self.bias).sigmoid()
        return torch.stack([1 - foreground, foreground])

    def logits(self, pixels: Pixels) -> Tensor:
        """Return temperature times cosine, without the bias, (N, h, w)."""
        products = torch.einsum("c,nchw->nhw", self.prototype, pixels.features)
        cosines = products / (self.prototype.norm() * pixels.lengths + _EPSILON)
        return self.config.temperature * cosines
