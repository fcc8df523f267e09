from __future__ import annotations

import itertools

import numpy
import pandas
import pytest

from fssbench.episodes.analysis.stats import (
    Repeats,
    check_rows,
    effective_images,
    episode_stats,
    miou,
    stretches,
    widths,
)
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.statistics.intervals import score_intervals


def manifest(asked) -> Manifest:
    return Manifest(
        protocol="fake/v1", dataset="fake", split="val", fingerprint="f", fold=0, shots=2, seed=0,
        limit=None, classes=((0, "cat"), (1, "dog"), (2, "hen")), dropped=(),
        episodes=tuple(
            Episode(index=i, class_id=c, query=q, support=s) for i, (c, q, s) in enumerate(asked)
        ),
    )  # fmt: skip


def drawn(count: int, images: int, seed: int = 0) -> Manifest:
    """Return a manifest of two alternating classes and query images of equal counts."""
    generator = numpy.random.default_rng(seed)
    queries = [f"q{n % images}" for n in generator.permutation(count)]
    return manifest([(n % 2, query, ("s1", "s2")) for n, query in enumerate(queries)])


def rows_of(asked: Manifest, *, own: float, seed: int = 0) -> pandas.DataFrame:
    """Return rows whose IoU variance is the query image's by the share `own`."""
    generator = numpy.random.default_rng(seed)
    hardness = {e.query: generator.normal() for e in asked.episodes}
    union = 1000
    share = [
        0.5 + 0.12 * (own**0.5 * hardness[e.query] + (1 - own) ** 0.5 * generator.normal())
        for e in asked.episodes
    ]
    inter = (numpy.clip(share, 0, 1) * union).astype("int64")
    return pandas.DataFrame(
        {
            "index": [e.index for e in asked.episodes],
            "class_id": [e.class_id for e in asked.episodes],
            "query": [e.query for e in asked.episodes],
            "intersection_fg": inter,
            "union_fg": union,
            "intersection_bg": 9000,
            "union_bg": 10_000 - inter,
        }
    )


def test_shares_and_repeats_counted_by_hand():
    found = episode_stats(
        manifest(
            [
                (0, "a", ("b", "c")),
                (0, "a", ("b", "b")),
                (1, "a", ("b", "c")),
                (0, "a", ("b", "c")),
                (1, "d", ("a", "c")),
            ]
        )
    )
    shares = {c.name: (c.episodes, c.share, c.queries, c.supports) for c in found.classes}
    assert shares == {"cat": (3, 60.0, 1, 2), "dog": (2, 40.0, 2, 3), "hen": (0, 0.0, 0, 0)}
    assert found.queries == Repeats(uses=5, distinct=2, most=4)
    assert found.supports == Repeats(uses=10, distinct=3, most=5)
    # a-b and a-c of the cat, a-b and a-c of the dog, d-a and d-c
    assert found.pairs == Repeats(uses=10, distinct=6, most=4)
    assert found.whole == Repeats(uses=5, distinct=4, most=2)
    assert found.twice == 1


def test_effective_images():
    assert effective_images(["a", "b", "c"]) == 3
    assert effective_images(["a"] * 5) == 1
    assert effective_images(["a", "a", "b"]) == pytest.approx(9 / 5)


@pytest.mark.parametrize(("total", "n"), [(1000, 250), (1000, 300), (10_000, 250), (7, 7), (9, 2)])
def test_stretches_do_not_touch(total, n):
    parts = stretches(total, n)
    assert 1 <= len(parts) <= 8
    assert all(part.stop - part.start == n for part in parts)
    assert parts[0].start == 0
    assert parts[-1].stop <= total
    assert all(a.stop <= b.start for a, b in itertools.pairwise(parts))


def test_the_widest_measure_is_the_interval_of_the_record():
    asked = drawn(400, 400)
    rows = rows_of(asked, own=0.5)
    (found,) = [w for w in widths(asked, rows, counts=(), resamples=500) if w.episodes == 400]
    low, high = score_intervals([rows], resamples=500)["miou"]
    assert found.width == pytest.approx(high - low)
    assert (found.images, found.effective, found.stretches) == (400, 400, 1)


def test_with_new_images_widths_fall_with_the_root_of_the_count():
    asked = drawn(2000, 2000)
    found = {w.episodes: w for w in widths(asked, rows_of(asked, own=0.5), counts=(125, 500, 8000))}
    assert found[125].width / found[500].width == pytest.approx(2, rel=0.15)
    assert found[500].width / found[2000].width == pytest.approx(2, rel=0.15)
    assert (found[500].stretches, found[2000].stretches, found[8000].stretches) == (4, 1, 0)
    assert found[8000].width == pytest.approx(found[2000].width / 2)
    assert found[8000].images is None


def test_more_episodes_of_the_same_images_say_little():
    """Ten times the episodes of the same 200 images hardly narrow the interval."""
    asked = drawn(2000, 200)
    found = {w.episodes: w for w in widths(asked, rows_of(asked, own=0.95), counts=(200, 2000))}
    assert found[2000].images == 200
    assert found[2000].width / found[200].width > 0.7  # 0.32 if the episodes were independent


def test_images_without_rows_are_reported():
    found = widths(drawn(1000, 100), counts=(50, 1000, 5000))
    assert [w.width for w in found] == [None, None, None]
    assert found[1].images == found[1].effective == 100
    assert found[0].images < 50
    assert found[2].images is None


def test_rows_of_another_manifest_are_refused():
    asked = drawn(100, 100)
    rows = rows_of(asked, own=0.5)
    check_rows(rows, asked)
    with pytest.raises(FssbenchError, match="100 rows, but the manifest has 50 episodes"):
        check_rows(rows, asked.limited(50))
    with pytest.raises(FssbenchError, match="row 0 is of "):
        check_rows(rows, drawn(100, 100, seed=1))
    with pytest.raises(FssbenchError, match="lack the column union_bg"):
        widths(asked, rows.drop(columns="union_bg"))


def test_miou_is_the_mean_over_classes():
    rows = pandas.DataFrame(
        {
            "class_id": [0, 0, 1], "query": ["a", "b", "c"], "intersection_fg": [1, 3, 1],
            "union_fg": [4, 4, 2], "intersection_bg": [1, 1, 1], "union_bg": [1, 1, 1],
        }
    )  # fmt: skip
    assert miou(rows) == pytest.approx(50.0)
