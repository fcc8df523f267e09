"""Metrics, and the registration of those that are part of fssbench."""

from __future__ import annotations

from fssbench.specs import MetricSpec


def fssbench_metrics() -> list[MetricSpec]:
    """Return the metrics of intersections over unions, regions and boundaries."""
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
            summary="ROM and RUM: over- and under-segmentation of regions, per episode",
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
