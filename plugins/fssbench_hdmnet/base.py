"""The base learner: PSPNet's head, which classifies the base classes of a fold.

HDMNet takes it from BAM (Lang et al., CVPR 2022), which takes it from PSPNet (Zhao et al., "Pyramid
Scene Parsing Network", CVPR 2017, section 3.2). It is trained supervised in the stage `base`; in
the ensemble (HDMNet, section 4.3) its probability of any base class is evidence for background.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench import FssbenchError

_BINS = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """A map concatenated with its averages over 1, 4, 9 and 36 cells (PSPNet, figure 3 c).

    Args:
        channels: C, channels of the map; a multiple of four.
    """

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        reduced = channels // len(_BINS)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(cells),
                nn.Conv2d(channels, reduced, 1, bias=False),
                _Norm(reduced),
                nn.ReLU(inplace=True),
            )
            for cells in _BINS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the map and the levels of the pyramid, coarse to fine, at the map's size.

        Args:
            x: float (B, C, h, w).

        Returns:
            Float (B, 2 C, h, w).
        """
        levels = [
            functional.interpolate(level(x), x.shape[-2:], mode="bilinear", align_corners=True)
            for level in self.levels
        ]
        return torch.cat([x, *levels], dim=1)


class BaseLearner(nn.Module):
    """Head from the deepest features to logits of background and the base classes.

    `forward` is `classify` of `embed`: the matcher also needs the embedding, as its deepest feature
    ("layer 5" of the authors' code, from which the first of the two priors is computed).

    Args:
        channels: C, channels of the backbone's deepest layer; a multiple of four.
        classes: number of base classes plus one for background: 16 on PASCAL, 61 on COCO.
        width: channels of the embedding, 512 in the authors' code.
        dropout: probability that a channel of the embedding is dropped before classification.
    """

    def __init__(
        self, channels: int, classes: int, *, width: int = 512, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.classes = classes
        self.pyramid = PyramidPooling(channels=channels)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(2 * channels, width, 3, padding=1, bias=False), _Norm(width)
        )
        # The ReLU is not in place: the matcher reads the embedding before it.
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1)
        )

    def embed(self, features: Tensor) -> Tensor:
        """Return the embedding that is classified: after the batch norm, before the ReLU.

        Args:
            features: features of the backbone's deepest layer, float (B, C, h, w).

        Returns:
            Float (B, width, h, w), of either sign.
        """
        return self.bottleneck(self.pyramid(features))

    def classify(self, embedding: Tensor) -> Tensor:
        """Return the logits of an embedding, (B, classes, h, w); channel 0 is background."""
        return self.classifier(embedding)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of background and base classes.

        Args:
            features: features of the backbone's deepest layer, float (B, C, h, w).

        Returns:
            Float (B, classes, h, w): channel 0 is background, channel n the n-th base class of the
            fold (from 1, ascending class ids).
        """
        return self.classify(self.embed(features))


class _Norm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where a channel has a single value.

    The level of 1 x 1 cells has B values in each channel; for B = 1 torch's batch norm raises an
    error in training.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def base_channels(class_ids: Tensor, classes: Sequence[int]) -> Tensor:
    """Return the base learner's channel of each episode's class.

    Args:
        class_ids: class ids of the dataset, int64 (B,).
        classes: base classes of the fold, ascending, as in `EpisodeBatch.classes`.

    Returns:
        Int64 (B,): n for the n-th base class (from 1); 0, which is background, for any other.
    """
    known = torch.tensor((-1, *classes)).to(class_ids.device, non_blocking=True)
    return (class_ids[:, None] == known).int().argmax(1)


def any_base_class(logits: Tensor, left_out: Tensor | None) -> Tensor:
    """Return the summed probability of the base classes.

    Args:
        logits: logits of a base learner, (B, 1 + classes, h, w).
        left_out: channel to leave out of the sum beside background, int64 (B,), or None.

    Returns:
        (B, 1, h, w).
    """
    counted = torch.ones(logits.shape[:2], device=logits.device)
    counted[:, 0] = 0
    if left_out is not None:
        counted.scatter_(1, left_out.unsqueeze(1), 0)
    return torch.einsum("bnhw,bn->bhw", logits.float().softmax(1), counted).unsqueeze(1)


def check_base_classes(count: int, classes: Sequence[int]) -> None:
    """Check that the option ``base_classes`` is the number of the fold's base classes.

    Args:
        count: value of the option.
        classes: base classes of the fold.

    Raises:
        FssbenchError: the numbers differ.
    """
    if len(classes) != count:
        raise FssbenchError(
            f"-o base_classes={count}: this fold has {len(classes)} base classes; give "
            f"-o base_classes={len(classes)}, for all stages"
        )
