"""Bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

from fssbench.metrics.iou import IoU
from fssbench.statistics.intervals import miou_intervals, score_intervals
from fssbench.statistics.sums import SparseSums, Sums


def miou_interval(tables, **more):
    return score_intervals(tables, **more)["miou"]


def simulated(generator, queries, classes=5, repeats=1, truth=0.6):
    """Return episodes of expected class IoU `truth`, with each query image `repeats` times."""
    rows = []
    for query in range(queries):
        quality = generator.beta(6 * truth, 6 * (1 - truth))
        for _ in range(repeats):
            rows.append((query % classes, f"q{query}", round(1000 * quality), 1000, 500, 1000))
    names = ["class_id", "query", *IoU.columns]
    table = pandas.DataFrame(rows, columns=names)
    return table.assign(index=range(len(table)))


def test_it_is_the_same_for_the_same_rows_and_holds_the_score():
    rows = simulated(np.random.default_rng(0), 200)
    low, high = miou_interval([rows])
    assert (low, high) == miou_interval([rows])
    assert low < IoU().summarise(rows)["miou"] < high


def test_width_agrees_with_the_normal_approximation():
    """One class, equal unions: the mIoU is a plain mean, whose standard error is known."""
    rows = simulated(np.random.default_rng(1), 400, classes=1)
    ratios = rows["intersection_fg"] / rows["union_fg"]
    expected = 2 * 1.96 * 100 * ratios.std() / np.sqrt(len(ratios))
    low, high = miou_interval([rows])
    assert high - low == pytest.approx(expected, rel=0.1)


def test_repeated_queries_add_no_certainty():
    once = simulated(np.random.default_rng(2), 100, repeats=1)
    many = simulated(np.random.default_rng(2), 100, repeats=10)
    narrow, wide = (high - low for low, high in (miou_interval([once]), miou_interval([many])))
    assert wide == pytest.approx(narrow, rel=0.1)


def test_the_mean_over_folds_is_narrower_than_a_fold():
    folds = [simulated(np.random.default_rng(k), 150) for k in range(4)]
    low, high = miou_interval(folds)
    widths = [b - a for a, b in (miou_interval([fold]) for fold in folds)]
    assert high - low == pytest.approx(np.sqrt(np.square(widths).sum()) / 4, rel=0.15)
    assert low < np.mean([IoU().summarise(f)["miou"] for f in folds]) < high


def test_one_query_has_no_width():
    rows = simulated(np.random.default_rng(0), 1)
    score = IoU().summarise(rows)["miou"]
    assert miou_interval([rows]) == pytest.approx((score, score))


def test_perfect_scores_have_no_width():
    rows = simulated(np.random.default_rng(0), 50).assign(intersection_fg=1000)
    assert miou_interval([rows]) == (100.0, 100.0)


def test_it_covers_the_truth_as_often_as_it_says():
    """Over 200 simulated benchmarks, clustered, the 95 % interval holds the truth in 90 to 99 %.

    (The binomial noise of 200 trials is in the bounds.)
    """
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        rows = simulated(generator, 120, classes=4, repeats=3)
        low, high = miou_interval([rows], resamples=500)
        held += low <= 60.0 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_each_score_is_in_its_interval():
    rows = simulated(np.random.default_rng(3), 120, repeats=2)
    noise = np.random.default_rng(4).integers(-100, 100, len(rows))
    rows = rows.assign(intersection_bg=rows["intersection_bg"] + noise)
    scores, intervals = IoU().summarise(rows), score_intervals([rows])
    assert set(intervals) == set(scores)
    for name, (low, high) in intervals.items():
        assert low < scores[name] < high


def test_the_mean_of_episodes_agrees_with_the_normal_approximation():
    rows = simulated(np.random.default_rng(5), 500)
    own = rows["intersection_fg"] / rows["union_fg"]
    low, high = score_intervals([rows])["episode_miou"]
    assert high - low == pytest.approx(2 * 1.96 * 100 * own.std() / np.sqrt(len(own)), rel=0.1)


@pytest.mark.parametrize("queries", [(1,), (40,), (150, 40, 1, 90)])
def test_methods_drawn_together_have_the_interval_of_each_alone(queries):
    methods = [
        [simulated(np.random.default_rng([seed, k]), q, truth=0.5) for k, q in enumerate(queries)]
        for seed in range(3)
    ]
    sums = [[SparseSums.of(Sums.by_query(fold)) for fold in folds] for folds in methods]
    together = miou_intervals(sums)
    assert together == [miou_interval(folds) for folds in methods]
