"""The base learner: PSPNet's head, which knows the base classes of a fold.

HDMNet takes it from BAM (Lang et al., CVPR 2022), which takes it from PSPNet (Zhao et al., "Pyramid
Scene Parsing Network", CVPR 2017, section 3.2). It is trained supervised in the stage `base`; in
the ensemble (HDMNet, section 4.3) its probability of any base class speaks for background.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench import FssbenchError

BINS = (1, 2, 3, 6)
WIDTH = 512


class PyramidPooling(nn.Module):
    """Append averages over 1, 4, 9 and 36 cells of a map to it (PSPNet, figure 3 c).

    Args:
        channels: of the map; a multiple of four.
        bins: cells along a side, for each level of the pyramid.
    """

    def __init__(self, *, channels: int, bins: Sequence[int] = BINS) -> None:
        super().__init__()
        reduced = channels // len(bins)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(cells),
                nn.Conv2d(channels, reduced, 1, bias=False),
                _Norm(reduced),
                nn.ReLU(inplace=True),
            )
            for cells in bins
        )
        self.out_channels = channels + len(bins) * reduced

    def forward(self, x: Tensor) -> Tensor:
        """Pool, reduce, and bring back to the size of the map.

        Args:
            x: float (B, C, h, w).

        Returns:
            Float (B, 2 C, h, w): the map, then the levels of the pyramid, coarse to fine.
        """
        levels = [
            functional.interpolate(level(x), x.shape[-2:], mode="bilinear", align_corners=True)
            for level in self.levels
        ]
        return torch.cat([x, *levels], dim=1)


class BaseLearner(nn.Module):
    """From the deepest features to logits over background and the base classes.

    `forward` is `classify` of `embed`: the matcher needs the embedding too, as its deepest feature
    ("layer 5" of the authors' code, from which the first of the two priors is made).

    Args:
        channels: C of the backbone's deepest layer; a multiple of four.
        classes: base classes *and* background: 16 on PASCAL, 61 on COCO.
        width: channels of the embedding, 512 in the authors' code.
        dropout: probability that a channel of the embedding is dropped before classification.
    """

    def __init__(
        self, channels: int, classes: int, *, width: int = WIDTH, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.channels = channels
        self.classes = classes
        self.width = width
        self.pyramid = PyramidPooling(channels=channels)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(self.pyramid.out_channels, width, 3, padding=1, bias=False),
            _Norm(width),
        )
        # The ReLU is not in place: the matcher reads the embedding before it.
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1)
        )

    def embed(self, features: Tensor) -> Tensor:
        """What classification starts from: after batch norm, before the ReLU.

        Args:
            features: float (B, C, h, w), the backbone's deepest layer.

        Returns:
            Float (B, width, h, w), of either sign.
        """
        embedding: Tensor = self.bottleneck(self.pyramid(features))
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits (B, classes, h, w) from what `embed` gave; channel 0 is background."""
        logits: Tensor = self.classifier(embedding)
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """Logits over background and base classes.

        Args:
            features: float (B, C, h, w), the backbone's deepest layer.

        Returns:
            Float (B, classes, h, w): channel 0 is background, channel n the n-th base class of the
            fold (from 1, ascending class ids).
        """
        return self.classify(self.embed(features))


class _Norm(nn.BatchNorm2d):
    """Batch norm that keeps to its running statistics where there is but one value a channel.

    The level of 1 x 1 cells has B values for each channel. With a batch of one, torch's own raises
    an error in training.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(input)


def base_channels(class_ids: Tensor, classes: Sequence[int]) -> Tensor:
    """The base learner's channel of each episode's class.

    Args:
        class_ids: int64 (B,), the dataset's class ids.
        classes: the fold's base classes, ascending, as in `EpisodeBatch.classes`.

    Returns:
        Int64 (B,): n for the n-th base class (from 1); 0, which is background, for any other.
    """
    known = torch.tensor(classes, device=class_ids.device, dtype=class_ids.dtype)
    number = torch.arange(1, len(known) + 1, device=class_ids.device)
    return ((class_ids[:, None] == known) * number).sum(1)


def any_base_class(logits: Tensor, left_out: Tensor | None) -> Tensor:
    """Probability of all base classes together.

    Args:
        logits: of a base learner, (B, 1 + classes, h, w).
        left_out: int64 (B,), a channel that does not count; None to count all but background.

    Returns:
        (B, 1, h, w).
    """
    counted = torch.ones(logits.shape[:2], device=logits.device)
    counted[:, 0] = 0
    if left_out is not None:
        counted.scatter_(1, left_out.unsqueeze(1), 0)
    return torch.einsum("bnhw,bn->bhw", logits.float().softmax(1), counted).unsqueeze(1)


def check_base_classes(count: int, classes: Sequence[int]) -> None:
    """Make sure that the option ``base_classes`` is the fold's number of base classes.

    Args:
        count: the option.
        classes: the fold's base classes.

    Raises:
        FssbenchError: it is another.
    """
    if len(classes) != count:
        raise FssbenchError(
            f"-o base_classes={count}: this fold has {len(classes)} base classes; give "
            f"-o base_classes={len(classes)}, for all stages"
        )


_FROM_OFFICIAL = (
    (re.compile(r"ppm\.features\.(\d+\..+)"), r"pyramid.levels.\1"),
    (re.compile(r"cls\.([01]\..+)"), r"bottleneck.\1"),
    # In HDMNet's files the head is cut in two; in those of its base stage it is one piece.
    (re.compile(r"base_learnear\.(2\..+)"), r"classifier.\1"),
    (re.compile(r"cls\.4\.(.+)"), r"classifier.2.\1"),
)


def from_official(name: str) -> str | None:
    """`BaseLearner`'s name of a tensor in the authors' files.

    Args:
        name: e.g. ``ppm.features.0.1.weight``, ``cls.0.weight``, ``base_learnear.2.bias``
            (``cls.4.bias`` in files of BAM's and HDMNet's base stage).

    Returns:
        E.g. ``pyramid.levels.0.1.weight``; None for tensors of other parts.
    """
    for pattern, replacement in _FROM_OFFICIAL:
        if match := pattern.fullmatch(name):
            return match.expand(replacement)
    return None
