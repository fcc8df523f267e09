"""SegGPT (Wang et al., ICCV 2023), as implemented in the transformers library.

Support image over query image, and support mask over an empty half, are two images of one
transformer, which paints the empty half; several supports are a "context ensemble" in the paper.
"""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor, nn
from torch.nn import functional

from fssbench import EpisodeImages, FssbenchError, ImageMatcher, pretrained_module

# Arguments of the configuration, and repository on the hub. The library's defaults are ViT-L.
_MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "seggpt-vit-l": ({}, "BAAI/seggpt-vit-large"),
    "seggpt-tiny": (
        {
            "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2,
            "image_size": (224, 112), "pretrain_image_size": 64, "decoder_hidden_size": 8,
            "merge_index": 1, "intermediate_hidden_state_indices": (2, 3),
            "initializer_range": 0.2,  # 0.02 would paint almost a single colour
        },
        "",
    ),
}  # fmt: skip


def seggpt(*, weights: str, name: str) -> nn.Module:
    """Return the ``transformers.SegGptForImageSegmentation`` of a registered name.

    Raises:
        FssbenchError: the weights cannot be read or do not fit.
    """
    sizes, repository = _MODELS[name]
    return pretrained_module(
        lambda: transformers.SegGptForImageSegmentation(transformers.SegGptConfig(**sizes)),
        weights,
        name=name,
        repository=repository,
    )


class SegGpt(ImageMatcher):
    """SegGPT with masks in white on black; K shots by the feature ensemble."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        encoder = self.encoders["model"]
        if not isinstance(encoder.module, transformers.SegGptForImageSegmentation):
            raise FssbenchError(
                f"--encoder model={encoder.name}: not SegGPT; choose one of {', '.join(_MODELS)}"
            )

    def predict(self, episode: EpisodeImages) -> Tensor:
        """Segment the query of an episode; see `ImageMatcher.predict`."""
        model: Any = self.encoders["model"].module
        side = model.config.image_size[1]  # the height is that of two images
        # One label gives the palette black and white. Ignored pixels are background.
        processor: Any = transformers.SegGptImageProcessor(size={"height": side, "width": side})
        inputs = processor(
            images=[episode.query.cpu().numpy()] * len(episode.images),
            prompt_images=[image.cpu().numpy() for image in episode.images],
            prompt_masks=[(mask == 1).byte().cpu().numpy() for mask in episode.masks],
            num_labels=1,
            return_tensors="pt",
        ).to(model.device)
        # Features of the query are averaged over the prompts after every attention, so that all
        # prompts paint the same, but for the border to the prompt; the authors take the first.
        painted = (
            model(
                **inputs,
                feature_ensemble=len(episode.images) > 1,
                embedding_type=self.config.embedding,
            )
            .pred_masks[0, :, side:]
            .float()
        )
        mean, std = (
            painted.new_tensor(values)[:, None, None]
            for values in (processor.image_mean, processor.image_std)
        )
        # The mean of the colours is over one half where white is nearer than black.
        logits = (painted * std + mean).clamp(0, 1).mean(dim=0) - 0.5
        size = tuple(episode.query.shape[-2:])
        return functional.interpolate(logits[None, None], size, mode="nearest")[0, 0]
