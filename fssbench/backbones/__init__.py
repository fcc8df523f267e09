"""Frozen encoders behind one interface, `fssbench.backbones.backbone.Backbone`."""

from __future__ import annotations

from collections.abc import Iterable

from fssbench.specs import BackboneSpec

_RESNET = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
_SAM = "Kirillov et al., Segment Anything, ICCV 2023"
_DINOV2 = "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024"


def fssbench_backbones() -> Iterable[BackboneSpec]:
    """The encoders that come with fssbench."""
    yield BackboneSpec(
        name="resnet50",
        summary="ResNet-50, ImageNet-1k (torchvision's first weights)",
        factory="fssbench.backbones.timm_models:resnet",
        arguments={"name": "resnet50", "tag": "resnet50.tv_in1k", "image_size": 384},
        paper=_RESNET,
        licence="BSD-3-Clause",
    )
    yield BackboneSpec(
        name="resnet101",
        summary="ResNet-101, ImageNet-1k (torchvision's first weights)",
        factory="fssbench.backbones.timm_models:resnet",
        arguments={"name": "resnet101", "tag": "resnet101.tv_in1k", "image_size": 384},
        paper=_RESNET,
        licence="BSD-3-Clause",
    )
    yield BackboneSpec(
        name="vgg16",
        summary="VGG-16 without batch norm, ImageNet-1k (torchvision's weights)",
        factory="fssbench.backbones.timm_models:vgg",
        arguments={"name": "vgg16", "tag": "vgg16.tv_in1k", "image_size": 384},
        paper="Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015",
        licence="BSD-3-Clause",
    )
    yield BackboneSpec(
        name="swin-b",
        summary="Swin-B, window 12, ImageNet-22k then ImageNet-1k at 384",
        factory="fssbench.backbones.timm_models:swin",
        arguments={
            "name": "swin-b",
            "tag": "swin_base_patch4_window12_384.ms_in22k_ft_in1k",
            "image_size": 384,
        },
        paper="Liu et al., Swin Transformer, ICCV 2021",
        licence="MIT",
    )
    for depth in (50, 101):
        yield BackboneSpec(
            name=f"resnet{depth}-psp",
            summary=f"ResNet-{depth} with a deep stem and output stride 8, as in PSPNet's code",
            factory="fssbench.backbones.psp:resnet_psp",
            arguments={
                "name": f"resnet{depth}-psp",
                "tag": f"resnet{depth}s.gluon_in1k",
                "architecture": f"resnet{depth}s",
            },
            paper="Zhao et al., Pyramid Scene Parsing Network, CVPR 2017",
            licence="Apache-2.0",
        )
    yield BackboneSpec(
        name="vgg16-bn",
        summary="VGG-16 with batch norm in five stages, as in PFENet, BAM and HDMNet",
        factory="fssbench.backbones.psp:vgg_psp",
        arguments={"name": "vgg16-bn", "tag": "vgg16_bn.tv_in1k"},
        paper="Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015",
        licence="BSD-3-Clause",
    )
    for letter, size, parameters in (("s", "small", 22), ("b", "base", 87), ("l", "large", 304)):
        yield BackboneSpec(
            name=f"dinov2-{letter}",
            summary=f"DINOv2 ViT-{letter.upper()}/14 without registers, {parameters} M parameters",
            factory="fssbench.backbones.timm_models:dinov2",
            arguments={
                "name": f"dinov2-{letter}",
                "tag": f"vit_{size}_patch14_dinov2.lvd142m",
                "image_size": 518,
            },
            paper=_DINOV2,
            licence="Apache-2.0",
        )
    for letter, size, parameters in (("b", "base", 90), ("l", "large", 308), ("h", "huge", 637)):
        yield BackboneSpec(
            name=f"sam-vit-{letter}",
            summary=f"SAM's image encoder ViT-{letter.upper()}/16, {parameters} M parameters",
            factory="fssbench.backbones.sam:sam",
            arguments={
                "name": f"sam-vit-{letter}",
                "tag": f"samvit_{size}_patch16.sa1b",
            },
            paper=_SAM,
            licence="Apache-2.0",
        )
    yield BackboneSpec(
        name="tiny-sam",
        summary="SAM's image encoder at a size for tests; has no trained weights",
        factory="fssbench.backbones.sam:tiny_sam",
        paper=_SAM,
        licence="Apache-2.0",
    )
    yield BackboneSpec(
        name="mobilenetv2",
        summary="MobileNetV2 1.0, ImageNet-1k",
        factory="fssbench.backbones.mobilenetv2:mobilenetv2",
        paper="Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
        licence="Apache-2.0",
    )
    yield BackboneSpec(
        name="filterbank",
        summary="colour and oriented filters at three scales; no weights at all",
        factory="fssbench.backbones.filterbank:filterbank",
        licence="MIT",
    )
    yield BackboneSpec(
        name="tiny-resnet",
        summary="small ResNet for tests and demos; weights come with fssbench",
        factory="fssbench.backbones.timm_models:tiny_resnet",
        licence="MIT",
    )
    yield BackboneSpec(
        name="tiny-vit",
        summary="small vision transformer for tests and demos; weights come with fssbench",
        factory="fssbench.backbones.timm_models:tiny_vit",
        licence="MIT",
    )
