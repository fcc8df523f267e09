"""Intervals of any score, compared with `score_intervals` for the IoU scores."""

import numpy
import pandas
import pytest

from fssbench.metrics.iou import IoU
from fssbench.statistics.intervals import score_intervals
from fssbench.statistics.resampled import resampled_intervals


def table(episodes: int, images: int) -> pandas.DataFrame:
    generator = numpy.random.default_rng(3)
    union = generator.integers(50, 400, episodes)
    inter = (union * generator.beta(4, 3, episodes)).astype("int64")
    return pandas.DataFrame(
        {
            "index": range(episodes),
            "class_id": generator.integers(0, 3, episodes),
            "query": [f"i{n}" for n in generator.integers(0, images, episodes)],
            "intersection_fg": inter,
            "union_fg": union,
            "intersection_bg": 900 - union,
            "union_bg": 900 - inter,
        }
    )


def test_those_of_the_iou_scores_are_the_same():
    rows = table(60, 25)
    expected = score_intervals([rows], resamples=300)
    found = resampled_intervals(rows, IoU().summarise, resamples=300)
    assert found.keys() == expected.keys()
    for name, ends in expected.items():
        assert found[name] == pytest.approx(ends, rel=1e-9), name


def test_query_images_are_drawn_not_episodes():
    """Ten copies of each image give the interval of one."""
    once = pandas.DataFrame({"query": list("abcdefgh"), "class_id": 0, "x": range(8)})
    often = pandas.concat([once] * 10, ignore_index=True)
    one, ten = (
        resampled_intervals(rows, lambda rows: {"x": float(rows["x"].mean())})["x"]
        for rows in (once, often)
    )
    assert one == pytest.approx(ten)
    assert one[0] < 3.5 < one[1]


def test_where_nothing_varies():
    rows = pandas.DataFrame({"query": ["a", "b"], "class_id": 0, "x": [2.0, 2.0]})
    mean = lambda rows: {"x": float(rows["x"].mean())}  # noqa: E731
    assert resampled_intervals(rows, mean) == {"x": (2.0, 2.0)}
    alone = pandas.DataFrame({"query": ["a", "a"], "class_id": 0, "x": [1.0, 2.0]})
    assert resampled_intervals(alone, mean) == {"x": (1.5, 1.5)}


def test_a_score_that_is_sometimes_none_has_no_interval():
    rows = pandas.DataFrame({"query": list("abc"), "class_id": 0, "x": [0.0, 1.0, 1.0]})
    found = resampled_intervals(
        rows, lambda rows: {"x": float(rows["x"].mean()), "y": 1 / float(rows["x"].mean() or "nan")}
    )
    assert set(found) == {"x"}
