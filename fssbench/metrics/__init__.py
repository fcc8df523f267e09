"""Metrics; fssbench's own are registered here."""

from __future__ import annotations

from fssbench.specs import MetricSpec


def fssbench_metrics() -> list[MetricSpec]:
    """Intersection over union, the field's measure, and measures of regions and outlines."""
    return [
        MetricSpec(
            name="iou",
            summary="class mIoU (accumulated per class), FB-IoU, episode mIoU; from pixel counts",
            factory="fssbench.metrics.iou:IoU",
            aliases=("miou", "fb-iou", "episode-miou"),
            paper="Shaban et al., One-Shot Learning for Semantic Segmentation, BMVC 2017",
        ),
        MetricSpec(
            name="regions",
            summary="ROM and RUM: regions that fall apart or melt together, per episode",
            factory="fssbench.metrics.regions:Regions",
            aliases=("rom", "rum"),
            paper="Zhang, Mehta, Caspi, Rethinking Semantic Segmentation Evaluation for "
            "Explainability and Model Selection, arXiv 2101.08418",
        ),
        MetricSpec(
            name="boundary",
            summary="J&F of DAVIS: region similarity J and boundary accuracy F",
            factory="fssbench.metrics.boundary:Boundary",
            aliases=("j-and-f", "davis"),
            paper="Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object "
            "Segmentation, CVPR 2016",
        ),
    ]
