"""Episodes, samplers, protocols and manifests, and the registration of samplers and protocols."""

from __future__ import annotations

from typing import Any

from fssbench.specs import ProtocolSpec, SamplerSpec

# An image is listed for a class of at least 2·32·32 pixels: the rule of OSLSM and PFENet, applied
# at the original size.
_MIN_PIXELS = 2 * 32 * 32

_HSNET = "Hypercorrelation Squeeze for Few-Shot Segmentation, ICCV 2021"
_PANET = "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment, ICCV 2019"
_CAPL = "Tian et al., Generalized Few-shot Semantic Segmentation, CVPR 2022"
_REPRI = "Boudiaf et al., Few-Shot Segmentation Without Meta-Learning, CVPR 2021"
_HDMNET = "Hierarchical Dense Correlation Distillation for Few-Shot Segmentation, CVPR 2023"
_PATNET = "Lei et al., Cross-Domain Few-Shot Semantic Segmentation, ECCV 2022"
_INSID3 = "INSID3: Training-Free In-Context Segmentation with DINOv3, CVPR 2026"
_DAVIS = "The 2017 DAVIS Challenge on Video Object Segmentation, arXiv 1704.00675"

_VRP_SAM = "VRP-SAM: SAM with Visual Reference Prompt, CVPR 2024"

_WEAKER = {
    "box": "supports show the box around the class",
    "point": "supports show 20 points of the class",
    "scribble": "supports show 9 strokes inside the class",
    "no-mask": "a control: the mask of a support is the whole image",
}

_SAMPLERS = (
    (
        "class-balanced", "sampler:class_balanced", "",
        "every class equally often, queries without repetition, distinct supports",
    ), (
        "n-way", "sampler:n_way", _PANET,
        "class-balanced, with further classes of the fold in each episode, in a drawn order",
    ), (
        "class-uniform", "sampler:class_uniform", _HSNET,
        "training on COCO-20i as HSNet and DCAMA: class uniform, then image",
    ), (
        "image-once", "literature.hdmnet:image_once", _HDMNET,
        "training as HDMNet, BAM and PFENet: each image once, a class drawn for each",
    ), (
        "wrong-mask", "sampler:wrong_mask", "",
        "class-balanced, but supports show the mask of another class (a control)",
    ), (
        "shared-class", "sampler:shared_class", "",
        "class-balanced, but supports hold a second class of the query (a control)",
    ), (
        "hsnet-list-order", "literature.hsnet:in_list_order", _HSNET,
        "HSNet's on PASCAL-5i and FSS-1000: queries in list order, supports may repeat",
    ), (
        "hsnet-class-uniform", "literature.hsnet:class_uniform", _HSNET,
        "HSNet's on COCO-20i: class uniform, then image; supports may repeat",
    ), (
        "patnet-class-in-turn", "literature.hsnet:class_in_turn", _PATNET,
        "PATNet's on cross-domain sets: classes in turn, query uniform; supports may repeat",
    ), (
        "image-sequential", "literature.hdmnet:image_sequential", _HDMNET,
        "as HDMNet, BAM and PFENet: images in list order, a class drawn for each",
    ), (
        "first-frame", "literature.davis:first_frame", _DAVIS,
        "each object of a video in all frames but the first, its support, and the last",
    ),
)  # fmt: skip


def fssbench_samplers() -> list[SamplerSpec]:
    """Return fssbench's own sampler, its controls, and the samplers of the literature."""
    return [
        SamplerSpec(
            name=name, factory=f"fssbench.episodes.{function}", paper=paper, summary=summary
        )
        for name, function, paper, summary in _SAMPLERS
    ]


def fssbench_protocols() -> list[ProtocolSpec]:
    """Return fssbench's own protocols and those of the literature.

    Never change one: register the changed one under a new name. The protocols of the literature
    replay published numbers from authors' list files; new protocols draw from the dataset.
    """
    rare: dict[str, Any] = {"note": "; for subsets: drops rare classes", "rare": "drop"}
    # The images of `shapes` have 160 pixels a side, so its objects are small.
    shapes: dict[str, Any] = {"min_pixels": 400}
    # All images of the cross-domain sets are tested, and listed for any pixel of a class, as by
    # their authors.
    tested: dict[str, Any] = {"split": "test", "min_pixels": 1}
    control = {**shapes, "draw_key": "shapes/v1-1k"}
    # The authors' label maps of COCO have one class for each pixel, and no ignored pixels.
    label_maps: dict[str, Any] = {"void": "background", "data_options": {"overlaps": "painted"}}
    # LVIS-92i has 92 classes a fold for one shot only: many have fewer than six images.
    enough: dict[str, Any] = {"note": "; classes with at least 6 images", "rare": "drop"}
    all_classes: dict[str, Any] = {
        "note": "; all 92 classes of a fold, 1-shot only", "data_options": {"partial": "use"},
    }  # fmt: skip
    wrong_mask = "; a control: supports show another class's mask"
    shared_class = "; a control: supports hold a second class of the query"
    return [
        _own("pascal5i/v1-1k", 1000),
        _own("pascal5i/v1-1k-coco-folds", 1000, note="; the folds of COCO-20i, for methods trained "
             "there", paper=_REPRI, cite=("fssbench:boudiaf2021repri",),
             data_options={"folds": "coco"}),
        _own("coco20i/v1-1k", 1000),
        _own("coco20i/v1-10k", 10000),
        _own("coco20i/v1-mini", 1000, **rare),
        _own("fss1000/v1", None, min_pixels=1),
        _own("fss1000/v1-mini", None, min_pixels=1, **rare),
        _own("fss1000/v1-val", None, min_pixels=1, split="val", data_options={"novel": "val"},
             note="; the split of IFA's FSS-1000 column"),
        _own("folder/v1", None, min_pixels=1),
        _own("coco-json/v1", None, min_pixels=1, split="val"),
        _own("labels/v1", None, min_pixels=1, split="val"),
        # As in the authors' loaders, an image is listed for a part or class of any size.
        _own("pascal-part/v1-1k", 1000, min_pixels=1),
        _own("paco-part/v1-1k", 1000, min_pixels=1, note="; drops rare classes", rare="drop"),
        _own("isaid5i/v1-1k", 1000, min_pixels=1),
        ProtocolSpec(
            name="davis17/v1",
            summary="DAVIS's semi-supervised rule: the first frame is the support of each object, "
            "all others but the last are queries; scored with J&F at original size",
            dataset="davis17", split="val", sampler="first-frame", episodes=None, min_pixels=1,
            metrics=("boundary",), paper=_DAVIS, cite=("fssbench:ponttuset2017davis",),
        ),
        _own("deepglobe/v1-1k", 1000, **tested),
        _own("isic2018/v1-1k", 1000, **tested),
        _own("chest-xray/v1", None, **tested),
        _own("suim/v1-1k", 1000, **tested),
        _patnet("deepglobe/patnet-600"),
        _patnet("chest-xray/patnet-600"),
        # INSID3 seeds NumPy's generator with 0 as well, and scores at the original size.
        _insid3("chest-xray/insid3-600", 600, "{}", split="test", sampler="patnet-class-in-turn",
                min_pixels=1, data_options={"source": "all"}, cite=("fssbench:lei2022cdfss",)),
        _insid3("isaid5i/insid3", None, "every listed tile of every class", split="val",
                sampler="hsnet-list-order", min_pixels=0, cite=("fssbench:min2021hsnet",),
                lists="fssbench.episodes.literature.hsnet:isaid_lists"),
        _own("lvis92i/v1-1k", 1000, min_pixels=1, **enough),
        _own("lvis92i/v1-1k-all", 1000, min_pixels=1, **all_classes),
        _own("shapes/v1-1k", 1000, **shapes),
        _own("shapes/v1-1k-wrong-mask", 1000, note=wrong_mask, sampler="wrong-mask", **control),
        _own("shapes/v1-1k-shared-class", 1000, note=shared_class, sampler="shared-class",
             **control),
        *(_n_way(dataset, ways, **more) for dataset, more in (
            ("pascal5i", {}), ("coco20i", {}), ("shapes", shapes),
        ) for ways in (2, 5)),
        *(_weaker(dataset, kind, **more) for dataset, more in (
            ("pascal5i", {}), ("coco20i", {}), ("shapes", shapes),
        ) for kind in _WEAKER),
        _generalised("pascal5i"),
        _generalised("shapes", **shapes),
        _hsnet("pascal5i/hsnet-1k", 1000, "pascal_lists", sampler="hsnet-list-order"),
        _hsnet("coco20i/hsnet-1k", 1000, "coco_lists", sampler="hsnet-class-uniform",
               **label_maps),
        _hsnet("fss1000/hsnet", None, "fss_lists", sampler="hsnet-list-order"),
        _hdmnet("pascal5i/hdmnet-1k", 1000),
        _hdmnet("coco20i/hdmnet-10k", 10000, **label_maps),
    ]  # fmt: skip


def _own(name: str, episodes: int | None, *, note: str = "", **more: Any) -> ProtocolSpec:
    split = more.get("split") or ("val" if episodes else "test")
    summary = f"{{}}, split {split!r}, scored at original size{note}"
    more = {"sampler": "class-balanced", "min_pixels": _MIN_PIXELS, **more}
    return _protocol(name, episodes, summary, **more)


def _n_way(dataset: str, ways: int, **more: Any) -> ProtocolSpec:
    note, name = f"; {ways} classes at once", f"{dataset}/v1-1k-{ways}way"
    more |= {"ways": ways, "paper": _PANET, "cite": ("fssbench:wang2019panet",)}
    return _own(name, 1000, note=note, sampler="n-way", **more)


def _weaker(dataset: str, kind: str, **more: Any) -> ProtocolSpec:
    """Return the protocol with the episodes of `v1-1k`, whose supports show weaker annotations."""
    note, name = _WEAKER[kind], f"{dataset}/v1-1k-{kind}"
    more |= {"draw_key": f"{dataset}/v1-1k", "support_kind": kind}
    if kind != "no-mask":
        more |= {"paper": _VRP_SAM, "cite": ("fssbench:sun2024vrpsam",)}
    return _own(name, 1000, note=f"; {note}", **more)


def _generalised(dataset: str, **more: Any) -> ProtocolSpec:
    note = "; all novel and all base classes at once (generalised few-shot segmentation)"
    more |= {"ways": 5, "paper": _CAPL, "cite": ("fssbench:tian2022capl",)}
    name = f"{dataset}/v1-1k-generalised"
    return _own(name, 1000, note=note, sampler="n-way", base_classes=True, **more)


def _hsnet(name: str, episodes: int | None, lists: str, **more: Any) -> ProtocolSpec:
    return _protocol(
        name, episodes, "as HSNet's code: {}, scored at the matcher's input size", min_pixels=0,
        score_size="input", lists=f"fssbench.episodes.literature.hsnet:{lists}", paper=_HSNET,
        cite=("fssbench:min2021hsnet",), **more,
    )  # fmt: skip


def _hdmnet(name: str, episodes: int, **more: Any) -> ProtocolSpec:
    return _protocol(
        name, episodes, "drawn as in HDMNet's code: {}, scored at original size", min_pixels=0,
        sampler="image-sequential", lists="fssbench.episodes.literature.hdmnet:read_lists",
        paper=_HDMNET, cite=("fssbench:peng2023hdmnet",), **more,
    )  # fmt: skip


def _patnet(name: str) -> ProtocolSpec:
    return _protocol(
        name, 600, "as PATNet's code: {}, scored at the matcher's input size", min_pixels=1,
        split="test", score_size="input", sampler="patnet-class-in-turn", paper=_PATNET,
        cite=("fssbench:lei2022cdfss",),
    )  # fmt: skip


def _insid3(name: str, episodes: int | None, count: str, **more: Any) -> ProtocolSpec:
    summary = f"as INSID3's code: {count}, scored at original size"
    return _protocol(name, episodes, summary, paper=_INSID3, **more)


def _protocol(name: str, episodes: int | None, summary: str, **more: Any) -> ProtocolSpec:
    """Return a protocol on 'val' with a number of episodes, or of each image of 'test' once."""
    count = f"{episodes:,} episodes" if episodes else "every image of every class"
    return ProtocolSpec(
        name=name,
        summary=summary.format(count),
        dataset=name.partition("/")[0],
        episodes=episodes,
        **{"split": "val" if episodes else "test", **more},
    )
