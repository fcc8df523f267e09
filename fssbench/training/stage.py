"""Stages: what one phase of training is fed, what it trains, and its losses by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
from torch import Tensor, nn

if TYPE_CHECKING:
    from fssbench.backbones.backbone import Backbone
    from fssbench.data.dataset import Dataset
    from fssbench.matchers.matcher import Matcher
    from fssbench.training.recipe import Recipe

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
        classes: class ids of the fold's base classes, ascending.
        query_labels: uint8 (B, S, S), all base classes marked as in `LabelledBatch.labels`, for a
            stage that `wants_labels`; otherwise None.
    """

    class_ids: Tensor
    query: Mapping[str, Tensor]
    support: Mapping[str, Tensor]
    query_masks: Tensor
    support_masks: Tensor
    query_images: Tensor
    support_images: Tensor
    classes: tuple[int, ...] = ()
    query_labels: Tensor | None = None


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
        features: for each of the stage's layers the images' features, float (B, C, h, w).
        ids: the images' own ids in the dataset.
    """

    images: Tensor
    features: Mapping[str, Tensor]
    ids: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False)
class StageContext:
    """What a stage may know of the training that it is prepared for.

    Attributes:
        dataset: where images are.
        backbone: the frozen encoder.
        size: side of the encoder's input.
        resize: how an image becomes that square; see `FeatureRequest`.
        images: ids of the images that are trained on, sorted.
        held_out: ids of the images that are measured after each epoch, sorted.
        augmented: whether an image can look different each time.
        weights: what ``--weights PART=…`` gave for the stage's `parts`, by part.
        started: whether the matcher starts from a checkpoint (``--init``).
    """

    dataset: Dataset
    backbone: Backbone
    size: int
    resize: Literal["squash", "letterbox"]
    images: Sequence[str]
    held_out: Sequence[str]
    augmented: bool
    weights: Mapping[str, str]
    started: bool


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
    """One phase of a matcher's training; `MatcherSpec.stages` names the function that lists them.

    The trainer does the rest: it draws and augments what the stage feeds on, encodes it without
    gradients in one pass, calls `losses`, sums them with the recipe's weights, and takes steps.

    * The matcher is in training mode (dropout, batch norm) unless `training_mode` says otherwise;
      the backbone never is, but for its batch norms in a stage that `updates_batch_norm`.
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
            checkpoint holds it; so do those of later stages that start from it.
        updates_batch_norm: with `trains_backbone`, its batch norms normalise by the batch (of one
            process and micro-batch) and update their statistics; False: they keep them.
        validates: measure mIoU after each epoch; False for a stage after which the matcher cannot
            segment yet, so that there is no best checkpoint.
        wants_labels: the queries of episodes come with all base classes marked, too.
        inherits: by the name of another stage, beginnings of the names of those tensors of the
            matcher that are taken from its checkpoints (``--init``). All others start anew, so they
            may differ in shape. All tensors are taken of a checkpoint of a stage not named here.
        held_out: so many images of the split ``val`` that are not trained on are given to
            `measures` after each epoch; for stages that do not feed on episodes.
        parts: names that ``--weights PART=VALUE`` may give weights for, e.g. of a teacher.
    """

    name: str
    summary: str = ""
    feeds: Feed = "episodes"
    trains_backbone: bool = False
    updates_batch_norm: bool = False
    validates: bool = True
    wants_labels: bool = False
    inherits: Mapping[str, Sequence[str]] = {}
    held_out: int = 0
    parts: tuple[str, ...] = ()

    def prepare(self, matcher: Any, context: StageContext) -> Mapping[str, Any]:
        """Get ready: fill in weights that come from elsewhere, find a teacher. Called once.

        It is called before anything else of the stage, in every process, on the CPU, when the
        matcher has its initial weights (those of ``--init``, if given).

        Args:
            matcher: the matcher that made this stage.
            context: what it is prepared for.

        Returns:
            What the trained weights depend on beside recipe and options, as JSON values (names
            and hashes, no paths): part of the training's identity and of the checkpoint's header.

        Raises:
            FssbenchError: something that was given does not fit.
        """
        del matcher, context
        return {}

    def layers(self, matcher: Matcher) -> Sequence[str]:
        """Backbone layers that batches bring; by default those of the matcher's request."""
        return matcher.request().layers

    def measures(self, matcher: Any, batch: Any) -> dict[str, Tensor]:
        """Numbers to report of held-out images, scalars that are means over a batch's samples.

        By default the losses. The matcher is in eval mode, and there are no gradients.
        """
        return self.losses(matcher, batch)

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
