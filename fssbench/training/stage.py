"""The interface of training stages: input batches, trained parameters and losses."""

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
    """B episodes of K shots, the batch of a stage that feeds on ``episodes``.

    Masks are uint8 of 0, 1 and 255 (ignore: unlabelled, or outside of the augmented image). S is
    the side of the encoder's input, from `Recipe.size` or the matcher's `FeatureRequest`.

    Attributes:
        class_ids: class ids of the dataset (base classes), int64 (B,).
        query: features of the queries by requested layer, float (B, C, h, w).
        support: features of the supports by requested layer, float (B, K, C, h, w).
        query_masks: masks of the queries, uint8 (B, S, S).
        support_masks: masks of the supports, uint8 (B, K, S, S).
        query_images: encoded images of the queries, float (B, 3, S, S) in [0, 1].
        support_images: images of the supports, float (B, K, 3, S, S) in [0, 1], with their
            background even if `FeatureRequest.mask_support` hid it from the encoder.
        classes: class ids of the fold's base classes, ascending.
        query_labels: labels of the queries for all base classes, uint8 (B, S, S) with the values of
            `LabelledBatch.labels`, for a stage with `wants_labels`; otherwise None.
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
    """B images with labels of all base classes, the batch of a stage that feeds on ``labelled``.

    Attributes:
        images: encoded images, float (B, 3, S, S) in [0, 1].
        labels: labels of pixels, int64 (B, S, S): 0 is background, n is the n-th of `classes` (from
            1), 255 is ignored. Pixels of novel classes are background, or by
            `Recipe.train_filter` ignored, or such images are dropped.
        features: features of the images by requested layer, float (B, C, h, w).
        classes: class ids of the fold's base classes, ascending.
    """

    images: Tensor
    labels: Tensor
    features: Mapping[str, Tensor]
    classes: tuple[int, ...]


@attrs.frozen(kw_only=True, eq=False)
class ImageBatch:
    """B images without annotation, the batch of a stage that feeds on ``images``.

    Attributes:
        images: encoded images, float (B, 3, S, S) in [0, 1].
        features: features of the images by layer of the stage, float (B, C, h, w).
        ids: ids of the images in the dataset.
    """

    images: Tensor
    features: Mapping[str, Tensor]
    ids: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False)
class StageContext:
    """The training that a stage is prepared for.

    Attributes:
        dataset: dataset with the images.
        backbone: frozen encoder.
        size: side of the encoder's input in pixels.
        resize: resizing of images to that square; see `FeatureRequest`.
        images: ids of the training images, sorted.
        held_out: ids of the images to measure after each epoch, sorted.
        augmented: True if augmentation is random, so that an image differs between epochs.
        weights: values of ``--weights PART=VALUE`` for the stage's `parts`, by part.
        started: True if the matcher starts from a checkpoint (``--init``).
        recipe: recipe of the training.
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
    recipe: Recipe


@attrs.frozen(kw_only=True, eq=False)
class ParameterGroup:
    """Parameters that share a learning rate.

    Attributes:
        name: name of the group in the recipe's ``optimiser.lr_scales`` and in the dry run.
        parameters: trained parameters of the matcher (or of the stage's `modules`).
        lr_scale: factor of the recipe's learning rate, unless the recipe's ``optimiser.lr_scales``
            names this group.
        weight_decay: weight decay of the group, e.g. 0 for biases and norms; None for the
            recipe's.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    weight_decay: float | None = None


class Stage(ABC):
    """One phase of a matcher's training; `MatcherSpec.stages` names the function that lists them.

    The trainer draws and augments the samples, encodes them without gradients in one pass, calls
    `losses`, sums them with the recipe's weights, and takes optimiser steps.

    * The matcher is in training mode (dropout, batch norm) unless `training_mode` is overridden.
      The backbone is in eval mode, except for its batch norms in a stage with
      `updates_batch_norm`.
    * The random generators (torch, NumPy, Python) are seeded for each step from (seed, step, rank),
      so that a stage may draw from them and a resumed training draws the same.
    * Losses are means over the batch's samples, so that averaging over micro-batches and processes
      gives the loss of the whole batch.

    Attributes:
        name: name of the stage for ``--stage`` and in the tables of ``recipes.toml``.
        summary: description in one line.
        feeds: kind of batches: ``episodes`` (`EpisodeBatch`), ``labelled`` (`LabelledBatch`) or
            ``images`` (`ImageBatch`).
        trains_backbone: True if the backbone is trained too, as the group ``backbone``. The
            checkpoint then holds it, and so do those of later stages that start from it.
        updates_batch_norm: with `trains_backbone`, True if the backbone's batch norms normalise by
            the micro-batch (of all processes) and update their statistics.
        validates: True if mIoU is measured after each epoch; False for a stage after which the
            matcher cannot segment yet, so that there is no best checkpoint.
        wants_labels: True if episodes bring `EpisodeBatch.query_labels`.
        counts_ignored: True if pixels of 255 are background in the losses, so that a recipe cannot
            ignore novel classes.
        inherits: prefixes, by the name of another stage, of the names of the matcher's tensors to
            load from its checkpoints (``--init``). Other tensors are initialised, so they may
            differ in shape. Of a stage not named here, all tensors are loaded.
        siblings: names of other matchers from which the stages in `inherits` are accepted too.
        held_out: number of images of the split ``val``, not trained on, for which `measures` is
            reported after each epoch; for stages that do not feed on episodes.
        parts: names that ``--weights PART=VALUE`` accepts, e.g. of a teacher.
    """

    name: str
    summary: str = ""
    feeds: Feed = "episodes"
    trains_backbone: bool = False
    updates_batch_norm: bool = False
    validates: bool = True
    wants_labels: bool = False
    counts_ignored: bool = False
    inherits: Mapping[str, Sequence[str]] = {}
    siblings: Sequence[str] = ()
    held_out: int = 0
    parts: tuple[str, ...] = ()

    def prepare(self, matcher: Any, context: StageContext) -> Mapping[str, Any]:
        """Prepare the stage: load weights from other sources, or a teacher.

        It is called once in every process, before all other methods, on the CPU, when the matcher
        has its initial weights (those of ``--init``, if given).

        Args:
            matcher: matcher to train.
            context: training to prepare for.

        Returns:
            Further inputs of the training that its weights depend on, beside recipe and options, as
            JSON values (names and hashes, no paths): part of the training's identity and of the
            checkpoint's header.

        Raises:
            FssbenchError: given weights, images or options do not fit the stage.
        """
        del matcher, context
        return {}

    def layers(self, matcher: Matcher) -> Sequence[str]:
        """Return the backbone layers of the batches; by default those of the matcher's request."""
        return matcher.request().layers

    def measures(self, matcher: Any, batch: Any) -> dict[str, Tensor]:
        """Return numbers to report for held-out images, means over a batch's samples.

        By default, these are the losses. It is called in eval mode without gradients.
        """
        return self.losses(matcher, batch)

    @abstractmethod
    def losses(self, matcher: Any, batch: Any) -> dict[str, Tensor]:
        """Return the losses of a batch by name, scalars without the recipe's weights.

        Args:
            matcher: matcher to train.
            batch: batch of the kind that `feeds` names, on the matcher's device.

        Returns:
            Losses such as ``{"bce": …}``; their total is
            ``sum(recipe.losses.get(name, 1) * loss)``.
        """

    def parameters(self, matcher: Matcher, recipe: Recipe) -> Sequence[ParameterGroup]:
        """Return the parameters to train, in groups; by default all of the matcher in one group.

        Parameters in no group are frozen.

        Args:
            matcher: matcher to train.
            recipe: recipe of the training, for choices that depend on it; the optimiser applies its
                learning rates.
        """
        del recipe
        return [ParameterGroup(name="matcher", parameters=list(matcher.parameters()))]

    def modules(self) -> Sequence[nn.Module]:
        """Return modules that only training needs, such as a teacher or an auxiliary head.

        They are moved to the matcher's device, and no checkpoint holds them. `parameters` must name
        their trained parameters too, which are saved and restored when a training is resumed. A
        teacher without trained parameters is not saved, so it must be built the same each time.
        """
        return ()

    def training_mode(self, matcher: Matcher) -> None:
        """Set the modules' modes before each epoch, e.g. eval mode of frozen parts."""
        matcher.train()
