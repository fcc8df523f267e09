"""A method and a metric, registered; nothing heavy is imported here."""

from __future__ import annotations

from fssbench import MatcherSpec, MetricSpec


def fssbench_matchers() -> list[MatcherSpec]:
    """The method."""
    return [
        MatcherSpec(
            name="example-matcher",
            summary="a small network on the similarity to the foreground's prototype",
            factory="fssbench_example.model:Example",
            config="fssbench_example.model:ExampleConfig",
            stages="fssbench_example.stages:stages",
            recipes="fssbench_example:recipes.toml",
            licence="Apache-2.0",
            parameter_counts={"tiny-resnet": 2 * 16 * 9 + 16 + 16 + 1},
        )
    ]


def fssbench_metrics() -> list[MetricSpec]:
    """The metric."""
    return [
        MetricSpec(
            name="example-size",
            summary="how much larger predictions are than targets, in percent of the image",
            factory="fssbench_example.metric:SizeError",
        )
    ]
