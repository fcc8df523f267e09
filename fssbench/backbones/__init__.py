"""Frozen encoders, and their registration; the interface is in `fssbench.backbones.backbone`."""

from __future__ import annotations

from fssbench.specs import BackboneSpec

# Key in ``references.bib``, and paper.
_RESNET = ("he2016resnet", "He et al., Deep Residual Learning for Image Recognition, CVPR 2016")
_A1H = ("wightman2021resnet", "Wightman et al., ResNet Strikes Back, NeurIPS 2021 workshops")
_PSPNET = ("zhao2017pspnet", "Zhao et al., Pyramid Scene Parsing Network, CVPR 2017")
_VGG = ("simonyan2015vgg", "Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015")
_SWIN = ("liu2021swin", "Liu et al., Swin Transformer, ICCV 2021")
_DINOV2 = (
    "oquab2024dinov2",
    "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, TMLR 2024",
)
_DINOV2_REG = (
    "darcet2024registers",
    "Darcet et al., Vision Transformers Need Registers, ICLR 2024",
)
_DINOV3 = ("simeoni2025dinov3", "Siméoni et al., DINOv3, 2025")
_SAM2 = ("ravi2025sam2", "Ravi et al., SAM 2: Segment Anything in Images and Videos, ICLR 2025")
_CONVNEXT = ("liu2022convnext", "Liu et al., A ConvNet for the 2020s, CVPR 2022")
_SAM = ("kirillov2023sam", "Kirillov et al., Segment Anything, ICCV 2023")
_MOBILENET = (
    "sandler2018mobilenetv2",
    "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
)
_NONE = ("", "")

# timm's hub has other weights (resnet50_a1h2_176) under the tag of this file.
_URLS = {
    "resnet50_a1h": "https://github.com/rwightman/pytorch-image-models/releases/download/"
    "v0.1-rsb-weights/resnet50_a1h-35c100f8.pth"
}

# Name, tag of the pretrained weights in timm ("" for encoders without), function that makes the
# encoder, paper, licence, summary.
_BACKBONES = (
    ("resnet50", "resnet50.tv_in1k", "timm_models:resnet", _RESNET, "BSD-3-Clause",
     "ResNet-50, ImageNet-1k (torchvision's first weights)"),
    ("resnet101", "resnet101.tv_in1k", "timm_models:resnet", _RESNET, "BSD-3-Clause",
     "ResNet-101, ImageNet-1k (torchvision's first weights)"),
    ("resnet50_a1h", "resnet50.a1h_in1k", "timm_models:resnet", _A1H, "Apache-2.0",
     "ResNet-50, ImageNet-1k (timm's recipe A1, DCAMA's file resnet50_a1h-35c100f8.pth)"),
    ("resnet101_a1h", "resnet101.a1h_in1k", "timm_models:resnet", _A1H, "Apache-2.0",
     "ResNet-101, ImageNet-1k (timm's recipe A1, DCAMA's file resnet101_a1h-36d3f2aa.pth)"),
    ("vgg16", "vgg16.tv_in1k", "timm_models:vgg", _VGG, "BSD-3-Clause",
     "VGG-16 without batch norm, ImageNet-1k (torchvision's weights)"),
    ("swin-b", "swin_base_patch4_window12_384.ms_in22k_ft_in1k", "timm_models:swin", _SWIN, "MIT",
     "Swin-B, window 12, ImageNet-22k then ImageNet-1k at 384"),
    ("swin-b-in1k", "swin_base_patch4_window12_384.ms_in1k", "timm_models:swin", _SWIN, "MIT",
     "Swin-B, window 12, ImageNet-1k alone at 384"),
    ("resnet50-psp", "resnet50s.gluon_in1k", "psp:resnet_psp", _PSPNET, "Apache-2.0",
     "ResNet-50 with a deep stem and output stride 8, as in PSPNet's code"),
    ("resnet101-psp", "resnet101s.gluon_in1k", "psp:resnet_psp", _PSPNET, "Apache-2.0",
     "ResNet-101 with a deep stem and output stride 8, as in PSPNet's code"),
    ("vgg16-bn", "vgg16_bn.tv_in1k", "psp:vgg_psp", _VGG, "BSD-3-Clause",
     "VGG-16 with batch norm in five stages, as in PFENet, BAM and HDMNet"),
    ("dinov2-s", "vit_small_patch14_dinov2.lvd142m", "timm_any:encoder", _DINOV2, "Apache-2.0",
     "DINOv2 ViT-S/14 without registers, 22 M parameters"),
    ("dinov2-b", "vit_base_patch14_dinov2.lvd142m", "timm_any:encoder", _DINOV2, "Apache-2.0",
     "DINOv2 ViT-B/14 without registers, 87 M parameters"),
    ("dinov2-l", "vit_large_patch14_dinov2.lvd142m", "timm_any:encoder", _DINOV2, "Apache-2.0",
     "DINOv2 ViT-L/14 without registers, 304 M parameters"),
    ("dinov2-s-reg", "vit_small_patch14_reg4_dinov2.lvd142m", "timm_any:encoder", _DINOV2_REG,
     "Apache-2.0", "DINOv2 ViT-S/14 with four registers, 22 M parameters"),
    ("dinov2-b-reg", "vit_base_patch14_reg4_dinov2.lvd142m", "timm_any:encoder", _DINOV2_REG,
     "Apache-2.0", "DINOv2 ViT-B/14 with four registers, 87 M parameters"),
    ("dinov2-l-reg", "vit_large_patch14_reg4_dinov2.lvd142m", "timm_any:encoder", _DINOV2_REG,
     "Apache-2.0", "DINOv2 ViT-L/14 with four registers, 304 M parameters"),
    ("dinov2-g-reg", "vit_giant_patch14_reg4_dinov2.lvd142m", "timm_any:encoder", _DINOV2_REG,
     "Apache-2.0", "DINOv2 ViT-G/14 with four registers, 1136 M parameters"),
    ("dinov3-s", "vit_small_patch16_dinov3.lvd1689m", "timm_any:encoder", _DINOV3,
     "LicenseRef-DINOv3", "DINOv3 ViT-S/16, 22 M parameters"),
    ("dinov3-b", "vit_base_patch16_dinov3.lvd1689m", "timm_any:encoder", _DINOV3,
     "LicenseRef-DINOv3", "DINOv3 ViT-B/16, 86 M parameters"),
    ("dinov3-l", "vit_large_patch16_dinov3.lvd1689m", "timm_any:encoder", _DINOV3,
     "LicenseRef-DINOv3", "DINOv3 ViT-L/16, 303 M parameters"),
    ("sam2-t", "sam2_hiera_tiny.fb_r896_2pt1", "timm_any:encoder", _SAM2, "Apache-2.0",
     "SAM 2.1's image encoder Hiera-T, 27 M parameters"),
    ("sam2-s", "sam2_hiera_small.fb_r896_2pt1", "timm_any:encoder", _SAM2, "Apache-2.0",
     "SAM 2.1's image encoder Hiera-S, 34 M parameters"),
    ("sam2-b", "sam2_hiera_base_plus.fb_r896_2pt1", "timm_any:encoder", _SAM2, "Apache-2.0",
     "SAM 2.1's image encoder Hiera-B+, 69 M parameters"),
    ("sam2-l", "sam2_hiera_large.fb_r1024_2pt1", "timm_any:encoder", _SAM2, "Apache-2.0",
     "SAM 2.1's image encoder Hiera-L, 213 M parameters"),
    ("convnext-t", "convnext_tiny.fb_in22k_ft_in1k", "timm_any:encoder", _CONVNEXT,
     "Apache-2.0", "ConvNeXt-T, ImageNet-22k then ImageNet-1k, 28 M parameters"),
    ("convnext-s", "convnext_small.fb_in22k_ft_in1k", "timm_any:encoder", _CONVNEXT,
     "Apache-2.0", "ConvNeXt-S, ImageNet-22k then ImageNet-1k, 49 M parameters"),
    ("convnext-b", "convnext_base.fb_in22k_ft_in1k", "timm_any:encoder", _CONVNEXT,
     "Apache-2.0", "ConvNeXt-B, ImageNet-22k then ImageNet-1k, 88 M parameters"),
    ("convnext-l", "convnext_large.fb_in22k_ft_in1k", "timm_any:encoder", _CONVNEXT,
     "Apache-2.0", "ConvNeXt-L, ImageNet-22k then ImageNet-1k, 196 M parameters"),
    ("sam-vit-b", "samvit_base_patch16.sa1b", "sam:sam", _SAM, "Apache-2.0",
     "SAM's image encoder ViT-B/16, 90 M parameters"),
    ("sam-vit-l", "samvit_large_patch16.sa1b", "sam:sam", _SAM, "Apache-2.0",
     "SAM's image encoder ViT-L/16, 308 M parameters"),
    ("sam-vit-h", "samvit_huge_patch16.sa1b", "sam:sam", _SAM, "Apache-2.0",
     "SAM's image encoder ViT-H/16, 637 M parameters"),
    ("tiny-sam", "", "sam:tiny_sam", _SAM, "Apache-2.0",
     "SAM's image encoder at a size for tests; has no trained weights"),
    ("mobilenetv2", "", "mobilenetv2:mobilenetv2", _MOBILENET, "Apache-2.0",
     "MobileNetV2 1.0, ImageNet-1k"),
    ("filterbank", "", "filterbank:filterbank", _NONE, "MIT",
     "colour and oriented filters at three scales; has no weights"),
    ("tiny-resnet", "", "tiny:shipped_resnet", _NONE, "MIT",
     "small ResNet for tests and demos; weights come with fssbench"),
    ("tiny-vit", "", "tiny:shipped_vit", _NONE, "MIT",
     "small vision transformer for tests and demos; weights come with fssbench"),
)  # fmt: skip


_PROMPTABLE = {
    "sam-vit-b": "SAM ViT-B/16, 94 M parameters,",
    "sam-vit-l": "SAM ViT-L/16, 312 M parameters,",
    "sam-vit-h": "SAM ViT-H/16, 641 M parameters,",
    "tiny-sam": "SAM at a size for tests, without trained weights,",
}


def fssbench_backbones() -> list[BackboneSpec]:
    """Return the encoders of fssbench."""
    promptable = [
        BackboneSpec(
            name=f"promptable-{name}",
            summary=f"promptable {summary} with prompt encoder and mask decoder",
            factory="fssbench.backbones.sam:PromptableSam",
            arguments={"name": name},
            cite=(f"fssbench:{_SAM[0]}",),
            paper=_SAM[1],
            licence="Apache-2.0",
            features=False,
        )
        for name, summary in _PROMPTABLE.items()
    ]
    return promptable + [
        BackboneSpec(
            name=name,
            summary=summary,
            factory=f"fssbench.backbones.{function}",
            arguments={
                **({"name": name, "tag": tag} if tag else {}),
                **({"url": _URLS[name]} if name in _URLS else {}),
            },
            aliases=(f"timm/{tag}",) if function == "timm_any:encoder" else (),
            cite=(f"fssbench:{key}",) if key else (),
            paper=paper,
            licence=licence,
        )
        for name, tag, function, (key, paper), licence, summary in _BACKBONES
    ]
