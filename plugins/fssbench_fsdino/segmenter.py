"""The unified segmenter: adapter, prompts and SAM's mask decoder (figure 3)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench import BackboneInfo, FssbenchError, Matcher
from fssbench.nn import together
from fssbench_fsdino.adapter import BottleneckAdapter, early_layer
from fssbench_fsdino.config import SegmenterConfig
from fssbench_fsdino.decoder import FourierPositions, MaskDecoder, MaskDownscaling


@attrs.frozen(kw_only=True, eq=False)
class Masks:
    """Logits of the queries.

    Attributes:
        prior: prior mask of 4D correlations, float (B, 4 h, 4 w); None without them.
        final: mask of the decoder, float (B, 4 h, 4 w).
    """

    prior: Tensor | None
    final: Tensor


class Segmenter(Matcher):
    """Base class of FS-DINO and its extensions: everything except the prompts of the supports.

    A subclass creates its modules after `__init__`, which creates the adapter, and then calls
    `add_decoder`.

    Args:
        config: options.
        backbone: names and shapes of the features: a vision transformer of one scale.

    Attributes:
        method: name for messages.
        initial: SAM's embedding of "no point" as the only sparse prompt, frozen; None without it.

    Raises:
        FssbenchError: the backbone is no such transformer, or its patches do not divide the size.
    """

    method: ClassVar[str]
    config: SegmenterConfig
    initial: nn.Embedding | None

    def __init__(self, *, config: SegmenterConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        self.layer = early_layer(backbone, config.layer)
        self.last = backbone.last_layer
        self.size = config.size or backbone.image_size
        stride = backbone.layer(self.last).stride
        if self.size % stride:
            raise FssbenchError(
                f"{self.method}: size={self.size} is no multiple of the patches of "
                f"{backbone.name}; give a multiple of {stride}"
            )
        self.adapter = BottleneckAdapter(
            backbone.layer(self.layer).channels,
            width=config.adapter_width,
            inner=config.adapter_inner,
            out=config.width,
        )
        self.initial = None
        if config.prompts == "initial":
            self.initial = nn.Embedding(1, config.width).requires_grad_(False)

    def add_decoder(self) -> None:
        """Create SAM's modules: positions, downscaling of masks, mask decoder."""
        self.positions = FourierPositions(self.config.width)
        self.downscaling = MaskDownscaling(self.config.width)
        self.decoder = MaskDecoder(self.config.width)

    @property
    def prompting(self) -> list[nn.Module]:
        """Return the modules that compute prompts, which are neither distilled nor from SAM."""
        taught = (self.adapter, self.initial, self.positions, self.downscaling, self.decoder)
        return [module for module in self.children() if module not in taught]

    def segment(self, query: Sequence[Any], support: Any) -> Tensor:
        """Return the logits of the final masks, (B, 4 h, 4 w)."""
        return self.masks(together(query), support).final

    @abstractmethod
    def masks(self, query: Any, support: Any) -> Masks:
        """Return prior and final masks of B queries.

        Args:
            query: values of `prepare_query`, joined.
            support: result of `embed_support`.
        """

    def plain_prompts(self, batch: int, device: torch.device) -> Tensor:
        """Return support-independent sparse prompts, (B, N, width): the initial one, or none."""
        if self.initial is not None:
            return self.initial.weight.expand(batch, 1, -1)
        return torch.zeros(batch, 0, self.config.width, device=device)

    def decoded(self, query: Any, support: Any, mask: Tensor, prior: Tensor | None = None) -> Masks:
        """Run SAM's decoder on the adapter's embedding.

        Args:
            query: prepared query with an `embedding`, (B, width, h, w).
            support: prepared support with `prompts`, (B, N, width).
            mask: dense prompt, (B, 1, 4 h, 4 w).
            prior: prior mask that `mask` was computed from.
        """
        positions = self.positions(query.embedding.shape[-2:])
        final = self.decoder(query.embedding, positions, support.prompts, self.downscaling(mask))
        return Masks(prior=prior, final=final)


def enlarged(similarity: Tensor) -> Tensor:
    """Enlarge a similarity map to a dense prompt (PCS): (B, h, w) to (B, 1, 4 h, 4 w)."""
    size = [4 * side for side in similarity.shape[-2:]]
    return functional.interpolate(similarity[:, None], size, mode="bilinear", align_corners=False)


def as_prompt(prior: Tensor, how: str) -> Tensor:
    """Convert a prior mask to a dense prompt.

    Args:
        prior: logits of the prior mask, (B, 4 h, 4 w).
        how: kind of values, ``logits`` or ``probability``.

    Returns:
        (B, 1, 4 h, 4 w).
    """
    prompt = prior[:, None]
    return prompt.sigmoid() if how == "probability" else prompt
