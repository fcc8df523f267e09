"""Forward pass of a training step: from images to features, and from features to losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fssbench.backbones.backbone import Backbone
from fssbench.errors import FssbenchError
from fssbench.inference.feature_files import FeatureFiles
from fssbench.matchers.matcher import Matcher
from fssbench.training.frozen_features import FrozenFeatures
from fssbench.training.loader import LoadedBatch
from fssbench.training.plan import Plan
from fssbench.training.stage import EpisodeBatch, ImageBatch, LabelledBatch, Stage


class TrainingStep(nn.Module):
    """Matcher and stage as one module, as data parallelism requires.

    Args:
        plan: plan of the training.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.stage = plan.stage
        self.matcher = plan.matcher
        self.extra = nn.ModuleList(plan.stage.modules())
        if plan.stage.trains_backbone:
            self.trained_backbone = plan.backbone
        # A tuple hides a frozen backbone from torch, so that it is neither synchronised nor saved.
        self._backbone = (plan.backbone,)
        self._layers = tuple(plan.stage.layers(plan.matcher))
        self._frozen = FrozenFeatures(plan.backbone, self._layers, _files(plan, self._layers))
        self._weights = plan.recipe.losses
        self._classes = plan.loader.classes

    def forward(self, loaded: LoadedBatch) -> dict[str, Tensor]:
        """Return the losses by name, and their weighted sum as ``total``; scalars.

        Raises:
            FssbenchError: the losses are empty or not scalars, or the recipe weighs unknown ones.
        """
        losses = self.stage.losses(self.matcher, self._batch(loaded))
        if not losses or any(loss.ndim or not torch.is_tensor(loss) for loss in losses.values()):
            raise FssbenchError(f"stage {self.stage.name}: losses must be scalars by name")
        unknown = sorted(self._weights.keys() - losses.keys())
        if unknown:
            raise FssbenchError(
                f"recipe: losses names {unknown[0]!r}; stage {self.stage.name} has "
                f"{', '.join(losses)}"
            )
        weighed = [self._weights.get(name, 1.0) * loss.float() for name, loss in losses.items()]
        total = torch.stack(weighed).sum()
        return {**losses, "total": total}

    @torch.no_grad()
    def measures(self, loaded: LoadedBatch) -> dict[str, Tensor]:
        """Return the stage's measures of held-out samples; scalars by name."""
        return self.stage.measures(self.matcher, self._batch(loaded))

    def changing_state(self) -> dict[str, Tensor]:
        """Return the state dict without those extra modules that are not trained."""
        fixed = tuple(
            f"extra.{number}."
            for number, module in enumerate(self.extra)
            if not any(parameter.requires_grad for parameter in module.parameters())
        )
        return {n: t for n, t in self.state_dict().items() if not n.startswith(fixed)}

    def _batch(self, loaded: LoadedBatch) -> EpisodeBatch | LabelledBatch | ImageBatch:
        device = next(self.parameters()).device

        def there(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        images = there(loaded.images).float() / 255
        indices = there(loaded.image_indices)
        features = self._encode(images, loaded)
        masks = there(loaded.masks)
        shown = images[indices]
        found = {name: maps[indices] for name, maps in features.items()}
        if self.stage.feeds == "episodes":
            return EpisodeBatch(
                class_ids=there(loaded.class_ids),
                query={name: maps[:, 0] for name, maps in found.items()},
                support={name: maps[:, 1:] for name, maps in found.items()},
                query_masks=masks[:, 0],
                support_masks=masks[:, 1:],
                query_images=shown[:, 0],
                support_images=shown[:, 1:],
                classes=self._classes,
                query_labels=None if loaded.labels is None else there(loaded.labels),
            )
        single = {name: maps[:, 0] for name, maps in found.items()}
        if self.stage.feeds == "labelled":
            return LabelledBatch(
                images=shown[:, 0], labels=masks[:, 0].long(), features=single,
                classes=self._classes,
            )  # fmt: skip
        ids = tuple(str(sample) for sample in loaded.samples)
        return ImageBatch(images=shown[:, 0], features=single, ids=ids)

    def _encode(self, images: Tensor, loaded: LoadedBatch) -> Mapping[str, Tensor]:
        backbone = self._backbone[0]
        if any(mask is not None for mask in loaded.keep):
            shown = torch.ones(images.shape[-2:], dtype=torch.uint8)
            masks = torch.stack([shown if mask is None else mask for mask in loaded.keep])
            hidden = masks.to(images.device, non_blocking=True) != 1
            images = torch.where(hidden[:, None], backbone.mean.view(1, 3, 1, 1), images)
        if not self._layers:
            return {}
        if self.stage.trains_backbone:
            found: dict[str, Tensor] = backbone(images, self._layers)
            return found
        return self._frozen.encode(images, loaded.names)


def _files(plan: Plan, layers: Sequence[str]) -> FeatureFiles | None:
    """Return the features on disk of a training that caches features."""
    settings = plan.settings
    if settings.cache_dir is None or not plan.loader.caches:
        return None
    identity = {
        "training": True,
        "layers": list(layers),
        "precision": settings.precision,
        "device": next(plan.backbone.buffers()).device.type,
    }
    return FeatureFiles(plan.backbone, identity, settings.cache_dir, settings.cache_limit)


def set_modes(stage: Stage, matcher: Matcher, backbone: Backbone) -> None:
    """Set matcher and backbone to the modes that a stage trains them in."""
    stage.training_mode(matcher)
    backbone.eval()
    if stage.trains_backbone and stage.updates_batch_norm:
        for module in backbone.modules():
            if isinstance(module, _BatchNorm):
                module.train()


def freeze_the_rest(module: nn.Module, trained: Any) -> None:
    """Require gradients for the trained parameters of a module, and for no others."""
    wanted = {id(parameter) for parameter in trained}
    for parameter in module.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
