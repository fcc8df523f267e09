"""Paired comparison of two methods."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from scipy.stats import ttest_rel

from fssbench.errors import FssbenchError
from fssbench.metrics.iou import IoU
from fssbench.statistics.compare import compare, compare_miou, miou_draws
from fssbench.statistics.intervals import miou_samples, score_intervals
from fssbench.statistics.sums import SparseSums, Sums


def simulated(
    generator, queries, *, gap=0.03, classes=5, repeats=1, noise=0.05, union=1000
) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Return rows of two methods with a common difficulty of each image."""
    query = np.repeat(np.arange(queries), repeats)
    hard = generator.uniform(-0.25, 0.25, size=queries)[query]
    tables = []
    for quality in (0.5, 0.5 + gap):
        own = generator.uniform(-noise, noise, size=queries)[query]
        inter = np.round(union * (quality + hard + own)).astype("int64")
        tables.append(rows(query % classes, [f"q{q}" for q in query], inter, union))
    return tables[0], tables[1]


def rows(class_id, query, inter, union) -> pandas.DataFrame:
    """Return rows of images of 5000 pixels."""
    table = pandas.DataFrame({"class_id": class_id, "query": query})
    table = table.assign(intersection_fg=inter, union_fg=union)
    table = table.assign(
        intersection_bg=5000 - table["union_fg"], union_bg=5000 - table["intersection_fg"]
    )
    return table.assign(index=range(len(table)))


def own_iou(table):
    return 100 * table["intersection_fg"] / table["union_fg"]


def test_scores_and_differences_are_those_of_the_metric():
    a, b = simulated(np.random.default_rng(0), 120, repeats=2)
    found = compare([(a, b)], resamples=200)
    of_a, of_b = IoU().summarise(a), IoU().summarise(b)
    assert set(found.scores) == set(of_a)
    for name, value in found.scores.items():
        assert (value.a, value.b) == pytest.approx((of_a[name], of_b[name]))
        assert value.difference == pytest.approx(of_b[name] - of_a[name])
        assert value.low < value.difference < value.high
    assert found.images == (120,)
    assert found.folds == (found.scores,)


def test_the_same_rows_give_the_same_interval_and_swapped_ones_its_mirror():
    a, b = simulated(np.random.default_rng(1), 200)
    forth, again, back = (compare([pair]).scores["miou"] for pair in [(a, b), (a, b), (b, a)])
    assert forth == again
    assert (back.low, back.high) == pytest.approx((-forth.high, -forth.low), abs=0.02)
    assert back.p_value == pytest.approx(forth.p_value, abs=0.01)


def test_a_method_equals_itself():
    a, _ = simulated(np.random.default_rng(2), 50, repeats=2)
    found = compare([(a, a.copy())], resamples=200)
    for value in (*found.scores.values(), *(line.iou for line in found.classes)):
        assert (value.difference, value.low, value.high, value.p_value) == (0, 0, 0, 1)
        assert not value.significant
    assert (found.wins, found.ties, found.losses) == (0, 100, 0)


def test_interval_and_p_value_agree_with_the_paired_t_test():
    """One class, equal unions: the mIoU is a plain mean of the episodes' IoU."""
    for gap in (0.0, 0.004, 0.008, 0.012):
        a, b = simulated(np.random.default_rng(3), 400, classes=1, gap=gap)
        expected = ttest_rel(own_iou(b), own_iou(a))
        interval = expected.confidence_interval(0.95)
        value = compare([(a, b)]).scores["miou"]
        assert (value.low, value.high) == pytest.approx((interval.low, interval.high), abs=0.05)
        assert value.p_value == pytest.approx(expected.pvalue, rel=0.25, abs=0.005)


def test_p_is_below_five_percent_exactly_when_the_interval_excludes_zero():
    generator = np.random.default_rng(4)
    significant = 0
    for _ in range(40):
        a, b = simulated(generator, 80, gap=0.008, noise=0.04)
        for value in compare([(a, b)], resamples=1000).scores.values():
            # Both answers are correct between two neighbouring replicates.
            if abs(value.p_value - 0.05) > 0.002:
                assert value.significant == (value.p_value < 0.05)
                significant += value.significant
    assert 10 < significant < 110


def test_no_replicate_beyond_zero_is_the_smallest_p_value():
    a, b = simulated(np.random.default_rng(5), 200, gap=0.2)
    assert compare([(a, b)], resamples=999).scores["miou"].p_value == pytest.approx(0.002)


def test_pairing_takes_out_what_is_hard_for_both():
    a, b = simulated(np.random.default_rng(6), 300)
    value = compare([(a, b)]).scores["miou"]
    widths = [high - low for low, high in (score_intervals([t])["miou"] for t in (a, b))]
    assert value.high - value.low < 0.4 * min(widths)


def test_against_a_perfect_method_it_is_the_interval_of_the_score():
    a, _ = simulated(np.random.default_rng(7), 300, repeats=2)
    perfect = rows(a["class_id"], a["query"], a["union_fg"], a["union_fg"])
    value = compare([(a, perfect)]).scores["miou"]
    low, high = score_intervals([a], resamples=10_000)["miou"]
    assert (value.low, value.high) == pytest.approx((100 - high, 100 - low), abs=0.1)


def test_repeated_queries_add_no_certainty():
    once = simulated(np.random.default_rng(8), 100, repeats=1)
    many = simulated(np.random.default_rng(8), 100, repeats=10)
    narrow, wide = (compare([pair]).scores["miou"] for pair in (once, many))
    assert wide.high - wide.low == pytest.approx(narrow.high - narrow.low, rel=0.05)


def test_the_mean_over_folds():
    pairs = [simulated(np.random.default_rng(k), 150) for k in range(4)]
    found = compare(pairs)
    alone = [compare([pair]).scores["miou"] for pair in pairs]
    value = found.scores["miou"]
    assert value.difference == pytest.approx(np.mean([one.difference for one in alone]))
    for fold, one in zip(found.folds, alone, strict=True):
        assert (fold["miou"].a, fold["miou"].b) == pytest.approx((one.a, one.b))
        assert fold["miou"].low == pytest.approx(one.low, abs=0.05)
    widths = [one.high - one.low for one in alone]
    assert value.high - value.low == pytest.approx(np.sqrt(np.square(widths).sum()) / 4, rel=0.1)
    assert sorted({line.table for line in found.classes}) == [0, 1, 2, 3]


def test_classes():
    a, b = simulated(np.random.default_rng(9), 90, repeats=2, classes=3)
    found = compare([(a, b)]).classes
    of_a, of_b = (IoU().per_class(table) for table in (a, b))
    assert [line.class_id for line in found] == [0, 1, 2]
    for line in found:
        value = line.iou
        assert value.a == pytest.approx(of_a.loc[line.class_id, "iou"])
        assert value.b == pytest.approx(of_b.loc[line.class_id, "iou"])
        assert (line.episodes, line.images) == (60, 30)
        mine = a["class_id"] == line.class_id
        per_image = (own_iou(b) - own_iou(a))[mine].groupby(a["query"][mine]).mean()
        expected = 2 * 1.96 * per_image.std() / np.sqrt(30)
        assert value.high - value.low == pytest.approx(expected, rel=0.15)


def test_a_class_that_replicates_miss_has_an_interval_all_the_same():
    a, b = simulated(np.random.default_rng(10), 60, classes=2)
    class_id = np.where(np.arange(60) < 2, 7, a["class_id"])  # seven: two images of sixty
    found = compare([(a.assign(class_id=class_id), b.assign(class_id=class_id))]).classes[-1]
    assert (found.class_id, found.images) == (7, 2)
    assert -100 < found.iou.low <= found.iou.difference <= found.iou.high < 100


def test_a_class_of_one_image_says_nothing_of_others():
    a, b = simulated(np.random.default_rng(11), 60, classes=2)
    class_id = np.where(np.arange(60) < 1, 7, a["class_id"])
    found = compare([(a.assign(class_id=class_id), b.assign(class_id=class_id))]).classes[-1]
    assert (found.iou.low, found.iou.high, found.iou.p_value) == (-100, 100, 1)


def test_one_query_image_says_nothing_of_others():
    one, many = simulated(np.random.default_rng(12), 1), simulated(np.random.default_rng(12), 50)
    for pairs in ([one], [one, many]):
        value = compare(pairs, resamples=100).scores["miou"]
        assert (value.low, value.high, value.p_value) == (-100, 100, 1)
        assert not value.significant


def test_wins_ties_and_losses_are_exact():
    """2/3 ties with 4/6, and no foreground anywhere is an IoU of 1."""
    a = rows([0] * 5, list("abcde"), [2, 1, 5, 0, 0], [3, 2, 6, 0, 9])
    b = rows([0] * 5, list("abcde"), [4, 2, 4, 7, 0], [6, 3, 6, 7, 1])
    found = compare([(a, b)], resamples=50)
    assert (found.wins, found.ties, found.losses) == (1, 3, 1)


def test_a_class_without_any_foreground_counts_as_zero_as_in_the_metric():
    a = rows([0, 0, 1, 1], list("abcd"), [5, 6, 0, 0], [10, 10, 0, 0])
    b = rows([0, 0, 1, 1], list("abcd"), [5, 6, 0, 0], [10, 10, 4, 3])
    value = compare([(a, b)], resamples=50).scores["miou"]
    assert (value.a, value.b) == pytest.approx((27.5, 27.5))
    assert value.a == pytest.approx(IoU().summarise(a)["miou"])


def test_ten_thousand_episodes():
    """The interval of 10,000 episodes contains the truth and is narrower than half a point."""
    a, b = simulated(np.random.default_rng(13), 7000, classes=20, gap=0.03)
    value = compare([(a, b)]).scores["miou"]
    assert value.low < 3.0 < value.high
    assert value.high - value.low < 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.iloc[::-1].reset_index(drop=True), r"row 0 is of index 0 .* and 29 "),
        (lambda t: t.assign(query=t["query"].replace("q7", "q8")), "row 7 is of query q7 .* q8 in"),
        (lambda t: t.assign(class_id=t["class_id"] + 1), "row 0 is of class_id 0 .* and 1 in"),
        (lambda t: t.iloc[:-1], "30 rows and 29 rows: not the same episodes"),
        (lambda t: t.drop(columns="union_bg"), "the second table lacks the column union_bg"),
    ],
)
def test_other_episodes_are_refused(change, reason):
    a, b = simulated(np.random.default_rng(14), 30)
    with pytest.raises(FssbenchError, match=reason) as error:
        compare([(a, change(b))])
    assert "\n" not in str(error.value)
    with pytest.raises(FssbenchError, match=f"pair 1: .*{reason}"):
        compare([(a, b), (a, change(b))])


def test_nothing_is_refused():
    a, b = simulated(np.random.default_rng(15), 30)
    with pytest.raises(FssbenchError, match="at least one fold"):
        compare([])
    with pytest.raises(FssbenchError, match="no row"):
        compare([(a.iloc[:0], b.iloc[:0])])


@pytest.mark.parametrize("queries", [(1,), (40,), (150, 40, 90)])
def test_samples_drawn_together_give_the_differences_of_each_pair(queries):
    pairs = [simulated(np.random.default_rng(k), count) for k, count in enumerate(queries)]
    better = [b.assign(intersection_fg=b["intersection_fg"] + 10) for _, b in pairs]
    methods = [[a for a, _ in pairs], [b for _, b in pairs], better]
    sums = [[SparseSums.of(Sums.by_query(fold)) for fold in folds] for folds in methods]
    a, *others = miou_samples(sums, miou_draws())
    for folds, other in zip(methods[1:], others, strict=True):
        expected = compare(list(zip(methods[0], folds, strict=True))).scores["miou"]
        assert compare_miou(a, other) == expected
