"""Episodes, samplers, protocols and manifests; protocols are registered here."""

from __future__ import annotations

from fssbench.specs import ProtocolSpec, SamplerSpec

# "The class covers at least 2·32·32 pixels": the rule of OSLSM and PFENet, at original size.
_MIN_PIXELS = 2 * 32 * 32

_HSNET = "Hypercorrelation Squeeze for Few-Shot Segmentation, ICCV 2021"
_HDMNET = "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation, CVPR 2023"


def fssbench_samplers() -> list[SamplerSpec]:
    """The house sampler, a control, and samplers that draw as the literature does."""
    return [
        SamplerSpec(
            name="class-balanced",
            summary="every class equally often, queries without repetition, distinct supports",
            factory="fssbench.episodes.sampler:class_balanced",
        ),
        SamplerSpec(
            name="wrong-mask",
            summary="class-balanced, but supports show the mask of another class (a control)",
            factory="fssbench.episodes.sampler:wrong_mask",
        ),
        SamplerSpec(
            name="shared-class",
            summary="class-balanced, but supports hold a second class of the query (a control)",
            factory="fssbench.episodes.sampler:shared_class",
        ),
        SamplerSpec(
            name="hsnet-list-order",
            summary="HSNet's on PASCAL-5i and FSS-1000: queries in list order, supports may repeat",
            factory="fssbench.episodes.literature.hsnet:in_list_order",
            paper=_HSNET,
        ),
        SamplerSpec(
            name="hsnet-class-uniform",
            summary="HSNet's on COCO-20i: class uniform, then image; supports may repeat",
            factory="fssbench.episodes.literature.hsnet:class_uniform",
            paper=_HSNET,
        ),
        SamplerSpec(
            name="image-sequential",
            summary="the law of HDMNet, BAM and PFENet: images in list order, any class of each",
            factory="fssbench.episodes.literature.hdmnet:image_sequential",
            paper=_HDMNET,
        ),
    ]


def fssbench_protocols() -> list[ProtocolSpec]:
    """House protocols and the literature's. Never change one: give the changed one a new name."""
    return [*_house(), *_literature()]


def _house() -> list[ProtocolSpec]:

    def balanced(
        name: str, split: str, episodes: int | None, note: str = "", **more: object
    ) -> ProtocolSpec:
        count = _count(episodes)
        fields = {"sampler": "class-balanced", "min_pixels": _MIN_PIXELS, **more}
        return ProtocolSpec(
            name=name,
            summary=f"{count}, split {split!r}, scored at original size{note and f'; {note}'}",
            dataset=name.partition("/")[0],
            split=split,
            episodes=episodes,
            **fields,  # type: ignore[arg-type]
        )

    return [
        balanced("pascal5i/v1-1k", "val", 1000),
        balanced("coco20i/v1-1k", "val", 1000),
        balanced("coco20i/v1-10k", "val", 10000),
        balanced("coco20i/v1-mini", "val", 1000, "for subsets: drops rare classes", rare="drop"),
        balanced("fss1000/v1", "test", None, min_pixels=1),
        balanced(
            "fss1000/v1-mini",
            "test",
            None,
            "for subsets: drops rare classes",
            min_pixels=1,
            rare="drop",
        ),
        balanced("folder/v1", "test", None, min_pixels=1),
        # Objects of the embedded benchmark are small: its images have 160 pixels a side.
        balanced("shapes/v1-1k", "val", 1000, min_pixels=400),
        balanced(
            "shapes/v1-1k-wrong-mask",
            "val",
            1000,
            "a control: supports show another class's mask",
            min_pixels=400,
            sampler="wrong-mask",
            draw_key="shapes/v1-1k",
        ),
        balanced(
            "shapes/v1-1k-shared-class",
            "val",
            1000,
            "a control: supports hold a second class of the query",
            min_pixels=400,
            sampler="shared-class",
            draw_key="shapes/v1-1k",
        ),
    ]


def _literature() -> list[ProtocolSpec]:
    """From authors' list files. They replay published numbers; new ones belong to the house's."""

    def hsnet(name: str, split: str, episodes: int | None, **more: object) -> ProtocolSpec:
        return ProtocolSpec(
            name=name,
            summary=f"as HSNet's code: {_count(episodes)}, scored at the matcher's input size",
            dataset=name.partition("/")[0],
            split=split,
            episodes=episodes,
            min_pixels=0,
            score_size="input",
            paper=_HSNET,
            **more,  # type: ignore[arg-type]
        )

    def hdmnet(name: str, episodes: int, lists: str) -> ProtocolSpec:
        return ProtocolSpec(
            name=name,
            summary=f"by the law of HDMNet's code: {_count(episodes)}, scored at original size",
            dataset=name.partition("/")[0],
            split="val",
            sampler="image-sequential",
            episodes=episodes,
            min_pixels=0,
            lists=f"fssbench.episodes.literature.hdmnet:{lists}",
            paper=_HDMNET,
        )

    return [
        hsnet(
            "pascal5i/hsnet-1k",
            "val",
            1000,
            sampler="hsnet-list-order",
            lists="fssbench.episodes.literature.hsnet:pascal_lists",
        ),
        hsnet(
            "coco20i/hsnet-1k",
            "val",
            1000,
            sampler="hsnet-class-uniform",
            lists="fssbench.episodes.literature.hsnet:coco_lists",
            # HSNet knows no ignored pixels on COCO: what is not the class is background.
            void="background",
        ),
        hsnet(
            "fss1000/hsnet",
            "test",
            None,
            sampler="hsnet-list-order",
            lists="fssbench.episodes.literature.hsnet:fss_lists",
        ),
        hdmnet("pascal5i/hdmnet-1k", 1000, "pascal_lists"),
        hdmnet("coco20i/hdmnet-10k", 10000, "coco_lists"),
    ]


def _count(episodes: int | None) -> str:
    return "every image of every class" if episodes is None else f"{episodes:,} episodes"
