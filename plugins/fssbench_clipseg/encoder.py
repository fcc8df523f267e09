"""The pretrained model of CLIPSeg: CLIP, the decoder, the image processor and the tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from fssbench import FssbenchError, WeightsInfo, pretrained_module

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2,
    "initializer_factor": 2.0,  # a factor of 1 would give almost a single value
}  # fmt: skip
# Input side, arguments of the configuration, and repository on the hub.
MODELS: dict[str, tuple[int, dict[str, Any], str]] = {
    "clipseg-rd64": (
        352,
        {
            "vision_config": {"patch_size": 16}, "text_config": {},
            "use_complex_transposed_convolution": True,
        },
        "CIDAS/clipseg-rd64-refined",
    ),
    "clipseg-tiny": (
        96,
        {
            "vision_config": {**_SMALL, "image_size": 64, "patch_size": 16},
            "text_config": {
                **_SMALL, "vocab_size": 258, "bos_token_id": 256, "eos_token_id": 257,
                "pad_token_id": 257,
            },
            "projection_dim": 24, "extract_layers": (0, 1, 2), "reduce_dim": 16,
            "decoder_intermediate_size": 32, "use_complex_transposed_convolution": True,
        },
        "",
    ),
}  # fmt: skip


class ClipSegModel(nn.Module):
    """A ``transformers.CLIPSegForImageSegmentation`` with its preprocessing.

    Args:
        weights: ``pretrained``, ``random``, a weight file, or a folder.
        name: registered name.

    Attributes:
        weights: origin of the weights.
        side: side of the square that images are resized to, in pixels.

    Raises:
        FssbenchError: the weights cannot be read or do not fit.
    """

    weights: WeightsInfo

    def __init__(self, *, weights: str, name: str) -> None:
        super().__init__()
        self.side, sizes, repository = MODELS[name]
        self.model: Any = pretrained_module(
            lambda: transformers.CLIPSegForImageSegmentation(transformers.CLIPSegConfig(**sizes)),
            weights,
            name=name,
            repository=repository,
            rename=_without_positions,
        )
        info: Any = self.model.weights
        self.weights = info
        # The hub's settings of the image processor, whose interpolation is bilinear.
        self._processor: Any = transformers.ViTImageProcessor(
            size={"height": self.side, "width": self.side},
            image_mean=list(MEAN),
            image_std=list(STD),
        )
        path = Path(weights).expanduser()
        self._vocabulary = {"pretrained": repository, "random": ""}.get(
            weights, str(path if path.is_dir() else path.parent)
        )

    def pixels(self, images: Sequence[Tensor]) -> Tensor:
        """Convert B images, uint8 (3, H, W), to the input (B, 3, side, side) of the model."""
        arrays = [image.cpu().numpy() for image in images]
        found: Tensor = self._processor(arrays, return_tensors="pt")["pixel_values"]
        return found.to(self.model.device)

    def image_embedding(self, image: Tensor) -> Tensor:
        """Return CLIP's embedding of an image, float (1, D)."""
        embedding: Tensor = self.model.get_conditional_embeddings(
            batch_size=1, conditional_pixel_values=self.pixels([image])
        )
        return embedding

    def text_embedding(self, text: str) -> Tensor:
        """Return CLIP's embedding of a text, float (1, D)."""
        ids = torch.tensor([self.tokens(text)], device=self.model.device)
        embedding: Tensor = self.model.get_conditional_embeddings(batch_size=1, input_ids=ids)
        return embedding

    def forward(self, images: Sequence[Tensor], embeddings: Tensor) -> Tensor:
        """Segment B images.

        Args:
            images: uint8 (3, H, W) each.
            embeddings: embeddings of their prompts, float (B, D).

        Returns:
            Logits, float (B, side, side).
        """
        found: Tensor = self.model(
            pixel_values=self.pixels(images), conditional_embeddings=embeddings
        ).logits
        return found.float().reshape(-1, self.side, self.side)  # versions differ for B = 1

    @functools.cached_property
    def tokens(self) -> Callable[[str], list[int]]:
        """Function that converts a text to its tokens, first and last token included.

        Trained weights have CLIP's vocabulary, the files ``vocab.json`` and ``merges.txt`` of the
        hub or beside the weight file. Tokens of random weights are the bytes of the text.

        Raises:
            FssbenchError: the vocabulary is missing, or has another size than the model's.
        """
        config = self.model.config.text_config
        longest = config.max_position_embeddings
        if not self._vocabulary:
            return lambda text: [
                config.bos_token_id, *text.encode()[: longest - 2], config.eos_token_id
            ]  # fmt: skip
        library: Any = transformers  # its lists of names for type checkers are incomplete
        try:
            tokenizer = library.CLIPTokenizerFast.from_pretrained(self._vocabulary)
        except (OSError, ValueError, TypeError) as error:
            raise FssbenchError(
                f"{self._vocabulary}: no vocabulary of CLIP can be read there; text prompts need "
                "vocab.json and merges.txt of the model's repository beside the weights"
            ) from error
        if len(tokenizer) != config.vocab_size:
            raise FssbenchError(
                f"{self._vocabulary}: a vocabulary of {len(tokenizer)} tokens, but the model has "
                f"{config.vocab_size}; give the files of the model's own repository"
            )
        return lambda text: list(tokenizer(text, truncation=True, max_length=longest)["input_ids"])


def _without_positions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the numbers of positions, which files of earlier versions of the library contain."""
    return {name: value for name, value in state.items() if not name.endswith(".position_ids")}
