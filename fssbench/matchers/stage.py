"""Stages: what one phase of training is fed, what it trains, and its losses by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
from torch import Tensor, nn

if TYPE_CHECKING:
    from fssbench.matchers.matcher import Matcher
    from fssbench.matchers.recipe import Recipe

Feed = Literal["episodes", "labelled", "images"]


@attrs.frozen(kw_only=True, eq=False)
class EpisodeBatch:
    """What a stage that feeds on ``episodes`` gets: B episodes of K shots.

    Masks are uint8 of 0, 1 and 255 (ignore: unlabelled, or outside of the augmented image). S is
    the side of the encoder's input; S of `Recipe.size` or of the matcher's `FeatureRequest`.

    Attributes:
        class_ids: int64 (B,), the dataset's class ids (base classes).
        query: for each requested layer the queries' features, float (B, C, h, w).
        support: for each requested layer the supports' features, float (B, K, C, h, w).
        query_masks: uint8 (B, S, S).
        support_masks: uint8 (B, K, S, S).
        query_images: float (B, 3, S, S) in [0, 1], as they were encoded.
        support_images: float (B, K, 3, S, S) in [0, 1]; whole, also if their background was hidden
            before encoding (`FeatureRequest.mask_support`).
    """

    class_ids: Tensor
    query: Mapping[str, Tensor]
    support: Mapping[str, Tensor]
    query_masks: Tensor
    support_masks: Tensor
    query_images: Tensor
    support_images: Tensor


@attrs.frozen(kw_only=True, eq=False)
class LabelledBatch:
    """What a stage that feeds on ``labelled`` images gets: B images with all base classes marked.

    Attributes:
        images: float (B, 3, S, S) in [0, 1].
        labels: int64 (B, S, S): 0 is background, n is the n-th of `classes` (from 1), 255 ignore.
            Pixels of novel classes are background; `Recipe.train_filter` ``base-only`` drops such
            images.
        features: for each requested layer the images' features, float (B, C, h, w).
        classes: class ids of the fold's base classes, ascending.
    """

    images: Tensor
    labels: Tensor
    features: Mapping[str, Tensor]
    classes: tuple[int, ...]


@attrs.frozen(kw_only=True, eq=False)
class ImageBatch:
    """What a stage that feeds on plain ``images`` gets: B images and no annotation.

    Attributes:
        images: float (B, 3, S, S) in [0, 1].
        features: for each requested layer the images' features, float (B, C, h, w).
    """

    images: Tensor
    features: Mapping[str, Tensor]


@attrs.frozen(kw_only=True, eq=False)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: what the recipe's ``optimiser.lr_scales`` and the dry run call it.
        parameters: those of the matcher (or of the stage) that are trained.
        lr_scale: what the recipe's learning rate is multiplied with, unless the recipe's
            ``optimiser.lr_scales`` names this group.
        weight_decay: instead of the recipe's, e.g. 0 for biases and norms; None for the recipe's.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float | None = None


class Stage(ABC):
    """One phase of a matcher's training; `Matcher.stages` returns one object for each.

    The trainer does the rest: it draws and augments what the stage feeds on, encodes it without
    gradients in one pass, calls `losses`, sums them with the recipe's weights, and takes steps.

    * The matcher is in training mode (dropout, batch norm) unless `training_mode` says otherwise;
      the backbone never is.
    * Generators (torch, NumPy, Python) are seeded anew for each step from (seed, step, rank): draw
      from them as you like, a resumed training draws the same.
    * Losses are means over the batch's samples, so that averaging over micro-batches and processes
      gives the loss of the whole batch.

    Attributes:
        name: what ``--stage`` and the tables of ``recipes.toml`` call it.
        summary: one line.
        feeds: ``episodes`` (`EpisodeBatch`), ``labelled`` (`LabelledBatch`) or ``images``
            (`ImageBatch`).
        trains_backbone: the backbone gets gradients too, as a group called ``backbone``, and the
            checkpoint holds it. Its batch norms still keep their statistics.
        validates: measure mIoU after each epoch; False for a stage after which the matcher cannot
            segment yet, so that there is no best checkpoint.
    """

    name: str
    summary: str = ""
    feeds: Feed = "episodes"
    trains_backbone: bool = False
    validates: bool = True

    @abstractmethod
    def losses(self, matcher: Any, batch: Any) -> dict[str, Tensor]:
        """The losses of a batch by name, each a scalar, before the recipe's weights.

        Args:
            matcher: the matcher that made this stage.
            batch: what the stage feeds on, on the matcher's device.

        Returns:
            E.g. ``{"bce": …}``. What is summed is ``sum(recipe.losses.get(name, 1) * loss)``.
        """

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """What the stage trains; parameters in no group are frozen. By default all, in one group.

        Args:
            matcher: the matcher that made this stage.
            recipe: for choices that depend on it; learning rates are the optimiser's business.
        """
        del recipe
        return [ParameterGroup(name="matcher", parameters=list(matcher.parameters()))]

    def modules(self) -> Sequence[nn.Module]:
        """Modules that only training needs: a teacher, a head that is dropped afterwards.

        They are moved to the matcher's device, but no checkpoint holds them. Trainable ones belong
        into `parameters` too, and are resumed; a teacher without trained parameters is not saved,
        so build it the same each time.
        """
        return ()

    def training_mode(self, matcher: Matcher) -> None:
        """Set the modules' modes before each epoch, e.g. to keep frozen parts in eval mode."""
        matcher.train()
