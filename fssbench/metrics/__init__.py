"""Metrics, and the registration of those that are part of fssbench."""

from __future__ import annotations

from fssbench.specs import MetricSpec


def fssbench_metrics() -> list[MetricSpec]:
    """Return the metrics of intersections over unions, regions and boundaries."""
    return [
        MetricSpec(
            name="iou", aliases=("miou", "fb-iou", "episode-miou"),
            factory="fssbench.metrics.iou:IoU",
            summary="class mIoU (accumulated per class), FB-IoU, episode mIoU; from pixel counts",
            paper="Shaban et al., One-Shot Learning for Semantic Segmentation, BMVC 2017",
        ),
        MetricSpec(
            name="regions", aliases=("rom", "rum"), factory="fssbench.metrics.regions:Regions",
            summary="ROM and RUM: over- and under-segmentation of regions, per episode",
            paper="Zhang, Mehta, Caspi, Rethinking Semantic Segmentation Evaluation for "
            "Explainability and Model Selection, arXiv 2101.08418",
        ),
        MetricSpec(
            name="boundary", aliases=("j-and-f", "davis"),
            factory="fssbench.metrics.boundary:Boundary",
            summary="J&F of DAVIS: region similarity J and boundary accuracy F",
            paper="Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object "
            "Segmentation, CVPR 2016",
        ),
    ]  # fmt: skip
