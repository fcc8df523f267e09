"""A plugin of matchers that each violate one check, and one that passes all."""

from __future__ import annotations

import attrs
import numpy
import torch
from torch import nn
from torch.nn import functional

from fssbench import FeatureRequest, Matcher, MatcherSpec, ParameterGroup, Stage

LAYER = "cells4"


def fssbench_matchers():
    counts = {"Good": 74, "Miscounted": 75}
    return [
        MatcherSpec(
            name=cls.__name__.lower(), summary=cls.__doc__ or "passes all checks",
            factory=f"broken_matchers:{cls.__name__}",
            stages="broken_matchers:stages",
            recipes="broken_matchers:broken_recipes.toml",
            parameter_counts={"pixels": counts[cls.__name__]} if cls.__name__ in counts else {},
        )
        for cls in (Good, *Good.__subclasses__())
    ]  # fmt: skip


def stages(matcher):
    other = {
        Diverging: Dividing, Unwritten: Nameless, Idle: Constant, Promising: Episodes,
        Meddling: Meddler, Losing: Stranger,
    }  # fmt: skip
    return (other.get(type(matcher), Training)(),)


class Episodes(Stage):
    name = "episodes"

    def losses(self, matcher, batch):
        logits = matcher(batch.query, batch.support, batch.support_masks)
        truth = functional.adaptive_avg_pool2d(
            (batch.query_masks == 1).float()[:, None], logits.shape[-2:]
        )[:, 0]
        return {"bce": functional.binary_cross_entropy_with_logits(logits, truth)}


class Good(Matcher):
    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        self.mix = nn.Conv2d(6, 8, 1)
        self.out = nn.Conv2d(8, 1, 1)
        self.base = nn.Parameter(torch.ones(9))

    def request(self):
        return FeatureRequest(layers=(LAYER,), size=64)

    def share(self, masks):
        return (masks == 1).float()

    def embed_support(self, support):
        maps = support.features[LAYER]
        share = functional.avg_pool2d(self.share(support.masks), 4)[:, :, None]
        return (maps * share).sum((1, 3, 4)) / share.sum((1, 3, 4)).clamp(min=1e-6)

    def segment(self, query, support):
        maps = query[LAYER]
        both = torch.cat([maps, maps - support[:, :, None, None]], 1)
        return self.out(self.mix(both).relu())[:, 0]

    def maps(self, query, support):
        return {"brightness": query[LAYER].mean(1)}


class Training(Episodes):
    def parameters(self, matcher, recipe):
        trained = [*matcher.mix.parameters(), *matcher.out.parameters()]
        return [ParameterGroup(name="all", parameters=trained)]


# --- the two halves -------------------------------------------------------------------------------


class Uneven(Good):
    """Requests a size that is not a multiple of the backbone's."""

    def request(self):
        return FeatureRequest(layers=(LAYER,), size=60)


class OneShot(Good):
    """Takes one support only."""

    def embed_support(self, support):
        (masks,) = support.masks.unbind(1)
        return super().embed_support(attrs.evolve(support, masks=masks[:, None]))


class Coupled(Good):
    """Compares the episodes of a batch with each other."""

    def segment(self, query, support):
        return super().segment(query, support - support.mean(0))


class Boxed(Good):
    """Requests a letterbox and does not support its margin."""

    def request(self):
        return FeatureRequest(layers=(LAYER,), size=64, resize="letterbox")

    def share(self, masks):
        if masks.max() > 1:
            raise ValueError("a mask with more than two values")
        return masks.float()


class Divided(Good):
    """Divides by the number of marked pixels."""

    def embed_support(self, support):
        empty = (support.masks == 1).flatten(2).sum(-1).amin(1) == 0
        return super().embed_support(support) / (~empty).float()[:, None]


class Contrasted(Good):
    """Divides by the number of pixels that are not marked."""

    def embed_support(self, support):
        full = (support.masks != 1).flatten(2).sum(-1).amin(1) == 0
        return super().embed_support(support) / (~full).float()[:, None]


class Greedy(Good):
    """Takes ignored pixels for foreground."""

    def share(self, masks):
        return (masks > 0).float()


class Weighed(Good):
    """Takes ignored pixels for 255 times foreground."""

    def share(self, masks):
        return masks.float()


class Blind(Good):
    """Ignores the mask."""

    def share(self, masks):
        return torch.ones_like(masks, dtype=torch.float)


class Flat(Good):
    """Returns numbers instead of maps."""

    def maps(self, query, support):
        return {"brightness": query[LAYER].mean((1, 2, 3))}


class Centred(Good):
    """Subtracts the mean of all images that it prepares at once."""

    def prepare_query(self, features):
        return super().prepare_query({n: maps - maps.mean(0) for n, maps in features.items()})


class Unlisted(Good):
    """Prepares a batch, and not a list of images."""

    def prepare_query(self, features):
        return features[LAYER]


# --- randomness -----------------------------------------------------------------------------------


class Restless(Good):
    """Adds noise."""

    def segment(self, query, support):
        noise = float(numpy.random.default_rng().normal())
        return super().segment(query, support) + noise


class Unseeded(Good):
    """Draws initial weights from an unseeded generator."""

    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        drawn = numpy.random.default_rng().normal(size=9)
        self.base = nn.Parameter(torch.tensor(drawn, dtype=torch.float))


class Drawing(Good):
    """Draws an unused number from torch's generator."""

    def segment(self, query, support):
        torch.rand(1)
        return super().segment(query, support)


class Seeding(Good):
    """Seeds NumPy's generator in its constructor."""

    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        numpy.random.seed(0)


# --- training -------------------------------------------------------------------------------------


class Diverging(Good):
    """Has losses that are not finite."""


class Dividing(Training):
    def losses(self, matcher, batch):
        return {name: loss / 0 for name, loss in super().losses(matcher, batch).items()}


class Unwritten(Good):
    """Has a stage without a recipe."""


class Nameless(Training):
    name = "elsewhere"


class Idle(Good):
    """Has a stage whose losses do not depend on its parameters."""


class Constant(Training):
    def losses(self, matcher, batch):
        return {"bce": sum(0 * p.sum() for p in matcher.parameters())}


class Promising(Good):
    """Has a stage with parameters that do not affect the loss."""


class Meddling(Good):
    """Has a stage that changes other parameters than its own."""


class Meddler(Training):
    def losses(self, matcher, batch):
        with torch.no_grad():
            matcher.base += 1
        return super().losses(matcher, batch)


class Losing(Good):
    """Trains a parameter that is not saved in checkpoints."""


class Stranger(Training):
    def parameters(self, matcher, recipe):
        self.own = nn.Parameter(torch.ones(2))
        return [
            *super().parameters(matcher, recipe), ParameterGroup(name="own", parameters=[self.own])
        ]  # fmt: skip

    def losses(self, matcher, batch):
        (loss,) = super().losses(matcher, batch).values()
        return {"bce": loss + self.own.square().sum()}


# --- weights and devices --------------------------------------------------------------------------


class Forgetful(Good):
    """Has state outside of its state dict."""

    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        self.shift = float(torch.randn(()))

    def segment(self, query, support):
        return super().segment(query, support) + self.shift


class Rooted(Good):
    """Has a tensor that is not a buffer."""

    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        self.grey = torch.full((3, 1, 1), 0.5)

    def segment(self, query, support):
        return super().segment({LAYER: query[LAYER] - self.grey}, support)


class Miscounted(Good):
    """Declares one parameter too many."""
