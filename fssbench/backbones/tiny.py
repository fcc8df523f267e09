"""Two small encoders whose weights ship with fssbench, for use without a download.

Both expect images normalised with mean 0.5 and standard deviation 0.5. They were trained by
`tools/train_tiny_backbones.py` on procedural silhouettes that the `shapes` benchmark does not
contain, for scenes of about 160 x 160 pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.stepped import ModuleBackbone, ResNetBackbone, assemble

SHIPPED = Path(__file__).parent / "weights_shipped"


class _Block(nn.Module):
    """A basic residual block with the module names of timm's."""

    def __init__(self, channels: int, planes: int, stride: int) -> None:
        super().__init__()
        downsample = None
        if stride != 1 or channels != planes:  # first, since random weights depend on the order
            downsample = nn.Sequential(
                nn.Conv2d(channels, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )
        self.conv1 = nn.Conv2d(channels, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.act2: nn.Module = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        y += x if self.downsample is None else self.downsample(x)
        activated: Tensor = self.act2(y)
        return activated


class TinyResNet(nn.Module):
    """A residual network of 1.5 M parameters, without a head, with timm's module names.

    ``layer1`` to ``layer4`` have 32, 64, 112 and 128 channels at strides 4, 8, 16 and 32, in 2, 3,
    3 and 2 basic blocks. It is not timm's class because `import timm` takes longer than the rest
    of a short evaluation; random weights are those that timm's class would draw.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.feature_info = [{"num_chs": 32, "reduction": 2, "module": "act1"}]
        channels = 64
        for stage, (planes, blocks) in enumerate(((32, 2), (64, 3), (112, 3), (128, 2))):
            layers = []
            for block in range(blocks):
                layers.append(_Block(channels, planes, 2 if stage and not block else 1))
                channels = planes
            name = f"layer{stage + 1}"
            self.add_module(name, nn.Sequential(*layers))
            self.feature_info.append({"num_chs": planes, "reduction": 4 << stage, "module": name})
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, _Block):
                nn.init.zeros_(module.bn2.weight)
        # A stem of 32 instead of 64 channels halves the time of a pass.
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        first: Any = self.get_submodule("layer1.0")
        first.conv1 = nn.Conv2d(32, 32, 3, 1, 1, bias=False)
        first.downsample = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of ``layer4``, (B, 128, h / 32, w / 32), of images (B, 3, h, w)."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        for info in self.feature_info[1:]:
            x = self.get_submodule(str(info["module"]))(x)
        return x


def tiny_vit() -> nn.Module:
    """Build a hybrid vision transformer of 1.3 M parameters, without a head.

    Its patches are embedded by the first half of `TinyResNet` (Dosovitskiy et al., "An Image is
    Worth 16x16 Words", ICLR 2021, section 3.1), which trains far faster than a linear embedding.

    Returns:
        A `timm` VisionTransformer with random weights: `blocks.0` to `blocks.4` and `norm` give
        tokens of 128 channels at stride 8 behind one class token. It takes images whose sides are
        multiples of 8.
    """
    from timm.models.vision_transformer import VisionTransformer

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
    trunk = TinyResNet()
    names = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2")
    stages = OrderedDict((name, trunk.get_submodule(name)) for name in names)
    stages["project"] = nn.Conv2d(64, 128, 1)
    model.patch_embed.proj = nn.Sequential(stages)
    built: nn.Module = model
    return built


def shipped_resnet(*, weights: str) -> Backbone:
    """Return the small ResNet whose weights ship with fssbench."""
    return _shipped(ResNetBackbone, TinyResNet, weights, "tiny-resnet", multiple=32)


def shipped_vit(*, weights: str) -> Backbone:
    """Return the small vision transformer whose weights ship with fssbench."""
    from fssbench.backbones.timm_models import FeatureBackbone

    return _shipped(FeatureBackbone, tiny_vit, weights, "tiny-vit", multiple=8)


def _shipped(
    family: type[ModuleBackbone], make: Callable[[], nn.Module], weights: str, name: str, *,
    multiple: int,
) -> Backbone:  # fmt: skip
    source = weight_files.resolve(weights, backbone=name, shipped=SHIPPED / f"{name}.safetensors")
    return assemble(family, make, source, name=name, image_size=160, multiple=multiple)
