"""CLIPSeg (Lüddecke and Ecker, CVPR 2022), as implemented in the transformers library."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from fssbench import EpisodeImages, FssbenchError, ImageMatcher
from fssbench.nn import resize
from fssbench_clipseg.config import ClipSegConfig
from fssbench_clipseg.encoder import MEAN, MODELS, ClipSegModel


class _ClipSeg(ImageMatcher):
    """The part of CLIPSeg that does not depend on the kind of the prompt."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        encoder = self.encoders["model"]
        if not isinstance(encoder.module, ClipSegModel):
            raise FssbenchError(
                f"--encoder model={encoder.name}: not CLIPSeg; choose one of {', '.join(MODELS)}"
            )

    @property
    def model(self) -> ClipSegModel:
        """The pretrained model."""
        module: Any = self.encoders["model"].module
        return module

    @abstractmethod
    def embedding(self, episode: EpisodeImages) -> Tensor:
        """Return CLIP's embedding of the prompt, float (1, D)."""

    def predict(self, episode: EpisodeImages) -> Tensor:
        """Segment the query of an episode; see `ImageMatcher.predict`."""
        (logits,) = self.predict_batch([episode])
        return logits

    def predict_batch(self, episodes: Sequence[EpisodeImages]) -> list[Tensor]:
        """Segment the queries of B episodes; see `ImageMatcher.predict_batch`."""
        embeddings = torch.cat([self.embedding(episode) for episode in episodes])
        batch = self.model([episode.query for episode in episodes], embeddings)
        zero = math.log(self.config.threshold / (1 - self.config.threshold))
        sizes = [episode.query.shape[-2:] for episode in episodes]
        return [
            resize(logits, size)[0, 0] - zero
            for logits, size in zip(batch[:, None, None], sizes, strict=True)
        ]


class ClipSeg(_ClipSeg):
    """CLIPSeg with image prompts; K shots by the mean of the prompts' embeddings."""

    def embedding(self, episode: EpisodeImages) -> Tensor:
        """Return the mean embedding of the K prompts, float (1, D)."""
        embeddings = []
        for image, mask in zip(episode.images, episode.masks, strict=True):
            prompt = visual_prompt(image, mask, self.config, self.model.side)
            embeddings.append(
                self.encoders["model"].cached(prompt, "embedding", self.model.image_embedding)
            )
        return torch.stack(embeddings).mean(dim=0)


class ClipSegText(_ClipSeg):
    """CLIPSeg with the name of the class as prompt; the support is not used."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        _ = self.model.tokens  # a missing vocabulary is an error at the start

    def embedding(self, episode: EpisodeImages) -> Tensor:
        """Return the embedding of the prompt, float (1, D)."""
        if episode.class_name is None:
            raise FssbenchError("clipseg-text needs the name of the class, and there is none")
        name = clean_name(episode.class_name)
        return self.model.text_embedding(self.config.template.replace("{}", name))


def clean_name(name: str) -> str:
    """Return the name of a class as words.

    Underscores and dots become spaces, and words of digits alone are removed, e.g.
    ``009.polar_bear_2`` becomes ``polar bear``. A name of nothing else stays as it is.
    """
    words = re.split(r"[\s_.]+", name)
    return " ".join(word for word in words if word and not word.isdecimal()) or name


def visual_prompt(image: Tensor, mask: Tensor, config: ClipSegConfig, side: int) -> Tensor:
    """Return the support image with the object emphasised ("visual prompt engineering").

    The background is blurred and darkened, and the image is cropped around the object and padded
    to a square with the mean colour. The authors darken normalised images, so that the background
    fades to the mean colour too, not to black.

    Args:
        image: support image, uint8 (3, H, W).
        mask: its mask, uint8 (H, W); only pixels of 1 are the object.
        config: options of the prompt.
        side: input side of the model, in pixels.

    Returns:
        The prompt, uint8 (3, S, S); (3, H, W) without crop.
    """
    foreground = mask == 1
    height, width = mask.shape
    pixels = image.float()
    mean = 255 * pixels.new_tensor(MEAN)[:, None, None]
    background = pixels
    sigma = config.blur * max(height, width) / side
    if sigma > 0:
        # 15 pixels at a standard deviation of 3 in the authors' code. The border is reflected,
        # which needs a radius below the sides.
        radius = min(math.ceil(7 / 3 * sigma), height - 1, width - 1)
        background = gaussian_blur(pixels, [2 * radius + 1, 2 * radius + 1], [sigma, sigma])
    background = mean + config.background * (background - mean)
    prompt = torch.where(foreground, pixels, background)
    if config.context is not None and foreground.any():
        rows, columns = (_span(foreground.any(dim=d), config.context) for d in (1, 0))
        prompt = prompt[:, rows, columns]
        height, width = prompt.shape[-2:]
        longest = max(height, width)
        top, left = (longest - height) // 2, (longest - width) // 2
        square = mean.expand(3, longest, longest).clone()
        square[:, top : top + height, left : left + width] = prompt
        prompt = square
    return prompt.round().clamp(0, 255).byte()


def _span(occupied: Tensor, context: float) -> slice:
    """Return the occupied range of rows or columns, with a margin."""
    (indices,) = occupied.nonzero(as_tuple=True)
    first, last = int(indices[0]), int(indices[-1]) + 1
    margin = context * (last - first)
    return slice(int(max(0, first - margin)), int(min(len(occupied), last + margin)))
