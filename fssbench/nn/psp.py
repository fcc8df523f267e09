"""The head of PSPNet (Zhao et al., "Pyramid Scene Parsing Network", CVPR 2017, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fssbench.errors import FssbenchError
from fssbench.nn.resize import resize

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


class PspHead(nn.Module):
    """Head from the deepest features to logits of background and the base classes of a fold.

    `forward` is `classify` of `embed`: matchers use the embedding as a deeper layer (HDMNet before
    the ReLU, RePRI after it).

    Args:
        channels: C, channels of the features; a multiple of four.
        classes: number of base classes plus one for background: 16 on PASCAL, 61 on COCO.
        width: channels of the embedding, 512 in the authors' codes.
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
        # The ReLU is not in place: matchers read the embedding before it.
        self.classifier = nn.Sequential(
            nn.ReLU(), nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1)
        )

    def embed(self, features: Tensor) -> Tensor:
        """Return the embedding that is classified: after the batch norm, before the ReLU.

        Args:
            features: float (B, C, h, w).

        Returns:
            Float (B, width, h, w), of either sign.
        """
        embedding: Tensor = self.bottleneck(self.pyramid(features))
        return embedding

    def classify(self, embedding: Tensor) -> Tensor:
        """Return the logits of an embedding, (B, classes, h, w); channel 0 is background."""
        logits: Tensor = self.classifier(embedding)
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits of background and base classes.

        Args:
            features: float (B, C, h, w).

        Returns:
            Float (B, classes, h, w): channel 0 is background, channel n the n-th base class of the
            fold (from 1, ascending class ids).
        """
        return self.classify(self.embed(features))

    def loss(
        self, features: Tensor, labels: Tensor, classes: Sequence[int], *, smoothing: float = 0.0
    ) -> Tensor:
        """Return the cross entropy at the labels' size, as `cross_entropy` does.

        Args:
            features: float (B, C, h, w).
            labels: channels of the pixels, int64 (B, H, W); 255 is ignored.
            classes: base classes of the fold.
            smoothing: probability that the target gives to the other classes, in equal shares.

        Raises:
            FssbenchError: the head was made for another number of classes.
        """
        self.check_classes(classes)
        logits = resize(self(features).float(), labels.shape[-2:])
        return cross_entropy(logits, labels, smoothing=smoothing)

    def check_classes(self, classes: Sequence[int]) -> None:
        """Check that the matcher's option ``base_classes`` is the number of the fold's.

        Args:
            classes: base classes of the fold.

        Raises:
            FssbenchError: the numbers differ.
        """
        if len(classes) != self.classes - 1:
            raise FssbenchError(
                f"-o base_classes={self.classes - 1}: this fold has {len(classes)} base classes; "
                f"give -o base_classes={len(classes)}, for all stages"
            )


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the mean over pixels that are not 255 (ignore); 0, not NaN, if all of them are.

    Args:
        logits: logits, float (B, classes, H, W).
        labels: channels of the pixels, int64 (B, H, W).
        smoothing: probability that the target gives to the other classes, in equal shares.
    """
    count = logits.shape[1]
    # torch gives a share of its smoothing to the labelled class, too.
    total = functional.cross_entropy(
        logits, labels, ignore_index=255, reduction="sum",
        label_smoothing=smoothing * count / (count - 1),
    )  # fmt: skip
    return total / torch.count_nonzero(labels != 255).clamp(min=1)


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
