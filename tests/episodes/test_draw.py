"""Random draws: uniformity and reproducibility."""

from __future__ import annotations

from collections import Counter

import numpy
from scipy.stats import chisquare

from fssbench.episodes.draw import Draw


def test_the_stream_is_the_same_for_ever():
    # Numbers of NumPy 2.4 on x86-64; NumPy guarantees the raw stream of Philox.
    draw = Draw("shapes/v1-1k", 0, 1, 0)
    assert [draw.below(1000) for _ in range(8)] == EXPECTED
    assert Draw("a", 1).shuffled(range(6)) == EXPECTED_ORDER


EXPECTED = [665, 103, 249, 187, 671, 161, 571, 382]
EXPECTED_ORDER = [3, 0, 1, 2, 4, 5]


def test_keys_separate_streams():
    first = [Draw("p", 1, 12).below(1 << 60) for _ in range(1)]
    second = [Draw("p", 11, 2).below(1 << 60) for _ in range(1)]
    assert first != second


def test_the_global_generator_is_left_alone():
    numpy.random.seed(7)
    expected = numpy.random.RandomState(7).random_sample()
    Draw("x").shuffled(range(100))
    assert numpy.random.random_sample() == expected


def test_below_is_uniform():
    draw = Draw("uniform")
    counts = Counter(draw.below(7) for _ in range(70_000))
    assert sorted(counts) == list(range(7))
    assert chisquare([counts[k] for k in range(7)]).pvalue > 1e-4


def test_shuffles_are_uniform():
    draw = Draw("orders")
    counts = Counter(tuple(draw.shuffled("abc")) for _ in range(12_000))
    assert len(counts) == 6
    assert chisquare(list(counts.values())).pvalue > 1e-4


def test_distinct_leaves_out_what_it_must():
    draw = Draw("distinct")
    for _ in range(200):
        drawn = draw.distinct("abcdef", 5, but="c")
        assert sorted(drawn) == list("abdef")
