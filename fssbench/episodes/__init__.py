"""Episodes, samplers, protocols and manifests; the house protocols are registered here."""

from __future__ import annotations

from fssbench.specs import ProtocolSpec, SamplerSpec

# "The class covers at least 2·32·32 pixels": the rule of OSLSM and PFENet, at original size.
_MIN_PIXELS = 2 * 32 * 32


def fssbench_samplers() -> list[SamplerSpec]:
    """The house sampler and the control that shows whether a method heeds its support."""
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
    ]


def fssbench_protocols() -> list[ProtocolSpec]:
    """The house protocols. Never change one: give the changed one a new name."""

    def balanced(
        name: str, split: str, episodes: int | None, note: str = "", **more: object
    ) -> ProtocolSpec:
        count = "every image of every class" if episodes is None else f"{episodes:,} episodes"
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
    ]
