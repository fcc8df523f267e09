"""UINO-FSS: FS-DINO's unified segmenter with a Mamba-based dense prompt.

Zhuo, Tang, Xue, Ding, Ji, Shen: "UINO-FSS: Unifying Representation Learning and Few-shot
Segmentation via Hierarchical Distillation and Mamba-HyperCorrelation", arXiv 2504.15669, version 4.
Sections, tables and equations are that paper's. Its authors have published no code; where the paper
is silent the docstrings say what was chosen, and why: most numbers follow from parameter counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fssbench import BackboneInfo, FeatureRequest, FssbenchError
from fssbench.nn import cosine_map, masked_average, masks_at, separate, together
from fssbench_fsdino.segmenter import Masks, Segmenter, as_prompt, enlarged
from fssbench_uinofss.config import UinoFssConfig
from fssbench_uinofss.hypercorrelation import HyperCorrelation
from fssbench_uinofss.prepared import PreparedSupport, Query, Support
from fssbench_uinofss.prompts import DensePrior, SinePrompt
from fssbench_uinofss.volume import at_places, binary, contrasted_volume

# Elements of refined volumes that are computed at once: one pair of full-size images, or several
# small ones.
_AT_ONCE = 1 << 24


class UinoFss(Segmenter):
    """Bottleneck adapter, meta-visual prompt generator, and SAM's mask decoder (figure 3).

    Args:
        config: options.
        backbone: names and shapes of the features: a vision transformer of one scale.

    Raises:
        FssbenchError: the backbone is no such transformer, or the size does not suit it.
    """

    method = "uinofss"
    config: UinoFssConfig

    def __init__(self, *, config: UinoFssConfig, backbone: BackboneInfo) -> None:
        super().__init__(config=config, backbone=backbone)
        self.deep = last_layers(backbone, config.volume_layers, config.norm)
        channels, width = backbone.layer(self.last).channels, config.width
        self.semantic = (
            SinePrompt(channels, width=width, inner=config.prompt_inner)
            if config.prompts == "semantic"
            else None
        )
        self.hypercorrelation: nn.Module | None = None
        self.prior: DensePrior | None = None
        if config.dense == "volume":
            refined = config.channels
            if config.hypercorrelation == "none":
                self.hypercorrelation, refined = nn.Identity(), config.volume_layers
            else:
                mamba = config.hypercorrelation == "mamba"
                self.hypercorrelation = HyperCorrelation(
                    config.volume_layers,
                    config.channels,
                    blocks=(config.query_block, config.support_block) if mamba else None,
                    states=config.states,
                )
            self.prior = DensePrior(refined, widths=config.decode)
        self.add_decoder()

    # --- supports and queries --------------------------------------------------------------------

    def request(self) -> FeatureRequest:
        """Request the adapter's layer and the last ones; images squashed to a square."""
        layers = tuple(dict.fromkeys((self.layer, *self._compared)))
        return FeatureRequest(layers=layers, size=self.size)

    @property
    def _compared(self) -> tuple[str, ...]:
        """Return the layers in which query and support are compared, the last one last."""
        return self.deep if self.config.dense == "volume" else (self.last,)

    def prepare_support(
        self, features: Mapping[str, Tensor], masks: Tensor
    ) -> Sequence[PreparedSupport]:
        """Compute the prototypes of N images.

        Args:
            features: features by requested layer, (N, C, h, w).
            masks: uint8 (N, H, W); 255 counts as background.
        """
        maps = features[self.last]
        shares = masks_at(masks, 1, *maps.shape[-2:])  # prototypes are means over pixels
        volume = self.config.dense == "volume"
        support = PreparedSupport(
            semantic=None if self.semantic is None else self.semantic.prototypes(maps, shares),
            prototypes=None if volume else masked_average(maps, shares),
            features=tuple(features[n].unsqueeze(1) for n in self.deep) if volume else (),
            masks=shares.unsqueeze(1),
        )
        return separate(support, len(masks))

    def embed_support(self, support: Sequence[Sequence[PreparedSupport]]) -> Support:
        """Concatenate the images of B episodes and compute prompts from their mean prototypes.

        Args:
            support: B lists of K values of `prepare_support`.
        """
        shots: list[PreparedSupport] = [together(shot) for shot in zip(*support, strict=True)]
        means = [one.prototypes for one in shots if one.prototypes is not None]
        masks = torch.cat([one.masks for one in shots], 1)
        if self.semantic is None:
            prompts = self.plain_prompts(len(support), masks.device)
        else:
            each = [one.semantic for one in shots if one.semantic is not None]
            prompts = self.semantic(torch.stack(each, 1))
        return Support(
            prompts=prompts,
            prototypes=torch.stack(means).mean(0) if means else None,
            features=tuple(
                torch.cat(layer, 1) for layer in zip(*(one.features for one in shots), strict=True)
            ),
            masks=masks,
        )

    def prepare_query(self, features: Mapping[str, Tensor]) -> Sequence[Query]:
        """Return the adapter's embedding of N queries, and their last layers.

        Args:
            features: features by requested layer, (N, C, h, w).
        """
        query = Query(
            embedding=self.adapter(features[self.layer]),
            features=tuple(features[name] for name in self._compared),
        )
        return separate(query, len(query.embedding))

    def masks(self, query: Query, support: Support) -> Masks:
        """Return prior and final masks of B queries."""
        if support.prototypes is not None:  # PCS
            similarity = cosine_map(query.features[-1], support.prototypes)
            return self.decoded(query, support, enlarged(similarity))
        assert self.prior is not None
        prior = self.prior(self.pooled(query.features, support))
        return self.decoded(query, support, as_prompt(prior, self.config.prior), prior)  # eq. 11

    def pooled(self, query: Sequence[Tensor], support: Support) -> Tensor:
        """Average refined volume and raw foreground correlation over the support (equation 10).

        Pairs of a query and a support are independent of each other, so large ones are processed
        one after the other (and in training recomputed for the backward pass): memory does not
        grow with shots. For K shots the results are averaged.

        Args:
            query: features of the last layers, each (B, C, h, w).
            support: result of `embed_support`.

        Returns:
            (B, l', h, w).
        """
        shots = support.masks.shape[1]
        maps = [each.repeat_interleave(shots, 0) for each in query]
        others = [each.flatten(0, 1) for each in support.features]
        shares = support.masks.flatten(0, 1)
        count = max(1, _AT_ONCE // self._numbers(maps[-1], others[-1]))
        small = count < len(shares)
        remember = small and self.training and torch.is_grad_enabled()
        parts = []
        for start in range(0, len(shares), count):
            some = slice(start, start + count)
            given = ([x[some] for x in maps], [x[some] for x in others], shares[some])
            parts.append(
                checkpoint(self._pooled_pairs, *given, use_reentrant=False)
                if remember
                else self._pooled_pairs(*given)
            )
        pooled = torch.cat(parts)
        return pooled.view(-1, shots, *pooled.shape[1:]).mean(1)

    def _pooled_pairs(
        self, query: Sequence[Tensor], support: Sequence[Tensor], shares: Tensor
    ) -> Tensor:
        """Return (N, l', h, w) for N pairs."""
        assert self.hypercorrelation is not None
        size = query[-1].shape[-2:]
        coarse = at_places(shares[:, None], self.config.support_places)[:, 0]
        if self.config.mask == "binary":
            coarse, shares = binary(coarse), binary(shares)
        volume = contrasted_volume(
            [at_places(maps, self.config.query_places) for maps in query],
            [at_places(maps, self.config.support_places) for maps in support],
            coarse,
            contrast=self.config.contrast,
        )
        refined = self._average(self.hypercorrelation(volume), coarse)
        if refined.shape[-2:] != size:
            refined = functional.interpolate(refined, size, mode="bilinear", align_corners=False)
        raw = contrasted_volume(query[-1:], support[-1:], shares, contrast=False)
        return refined + self._average(raw, shares)

    def _average(self, volume: Tensor, shares: Tensor) -> Tensor:
        """Average (N, C, hq, wq, hs, ws) over the support to (N, C, hq, wq)."""
        weights = torch.ones_like(shares) if self.config.pool == "all" else shares
        weights = weights / weights.sum((1, 2), keepdim=True).clamp(min=1e-6)
        positions = volume.permute(0, 2, 3, 4, 5, 1).flatten(3, 4)  # (N, hq, wq, hs ws, C)
        each = weights.flatten(1)[:, None, None, None].to(volume.dtype)
        return torch.matmul(each, positions)[..., 0, :].permute(0, 3, 1, 2)

    def _numbers(self, query: Tensor, support: Tensor) -> int:
        """Return the number of elements in the refined volume of one pair."""
        places = 1
        for maps, side in (
            (query, self.config.query_places), (support, self.config.support_places),
        ):  # fmt: skip
            height, width = maps.shape[-2:]
            places *= height * width if side is None else side**2
        return places * self.config.channels


def last_layers(backbone: BackboneInfo, count: int, norm: str = "all") -> tuple[str, ...]:
    """Return the last layers of a transformer, the last one last.

    Args:
        backbone: vision transformer with layers named ``blocks.N``.
        count: number of layers.
        norm: layers that are taken after the encoder's final norm, ``all`` or only the ``last``.

    Raises:
        FssbenchError: the transformer has fewer layers, or gives none of them after its norm.
    """
    blocks = [name for name in backbone.layers if name.startswith("blocks.")]
    if count > len(blocks):
        raise FssbenchError(
            f"volume_layers={count}: {backbone.name} has {len(blocks)} blocks; ask for fewer layers"
        )
    others = blocks[len(blocks) - count : -1]
    if norm == "all":
        if lacking := [name for name in others if not backbone.layers[name].norm]:
            raise FssbenchError(
                f"norm=all: {backbone.name} has no output of {lacking[0]} after its final norm; "
                "give -o norm=last"
            )
        others = [f"{name}:norm" for name in others]
    return (*others, backbone.last_layer)
