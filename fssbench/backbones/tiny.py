"""Two small encoders whose weights ship with fssbench, for use without a download.

Both expect images normalised with mean 0.5 and standard deviation 0.5. They were trained by
`tools/train_tiny_backbones.py` on procedural silhouettes that the `shapes` benchmark does not
contain, for scenes of about 160 x 160 pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn


def tiny_resnet() -> nn.Module:
    """Build a residual network of 1.5 M parameters, without a head.

    Returns:
        A `timm` ResNet with random weights. `layer1` to `layer4` have 32, 64, 112 and 128 channels
        at strides 4, 8, 16 and 32, in 2, 3, 3 and 2 basic blocks.
    """
    block: Any = BasicBlock  # timm's annotation is wrong
    model: Any = ResNet(
        block, (2, 3, 3, 2), num_classes=0, global_pool="", channels=(32, 64, 112, 128)
    )
    # A stem of 32 instead of 64 channels halves the time of a pass.
    model.conv1 = nn.Conv2d(3, 32, 7, stride=2, padding=3, bias=False)
    model.bn1 = nn.BatchNorm2d(32)
    model.layer1[0].conv1 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
    model.layer1[0].downsample = None
    model.feature_info[0]["num_chs"] = 32
    built: nn.Module = model
    return built


def tiny_vit() -> nn.Module:
    """Build a hybrid vision transformer of 1.3 M parameters, without a head.

    Its patches are embedded by the first half of `tiny_resnet` (Dosovitskiy et al., "An Image is
    Worth 16x16 Words", ICLR 2021, section 3.1), which trains far faster than a linear embedding.

    Returns:
        A `timm` VisionTransformer with random weights: `blocks.0` to `blocks.4` and `norm` give
        tokens of 128 channels at stride 8 behind one class token. It takes images whose sides are
        multiples of 8.
    """
    model: Any = VisionTransformer(
        img_size=160,
        patch_size=8,
        num_classes=0,
        global_pool="",
        embed_dim=128,
        depth=5,
        num_heads=4,
        dynamic_img_size=True,
    )
    trunk: Any = tiny_resnet()
    names = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2")
    stages = OrderedDict((name, trunk.get_submodule(name)) for name in names)
    stages["project"] = nn.Conv2d(64, 128, 1)
    model.patch_embed.proj = nn.Sequential(stages)
    built: nn.Module = model
    return built
