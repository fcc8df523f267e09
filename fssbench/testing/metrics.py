"""Checks of the metric interface; see `fssbench.Metric`."""

from __future__ import annotations

import itertools
import math
from functools import cached_property

import attrs
import pandas
import torch
from torch import Tensor
from torch.nn import functional

from fssbench import build
from fssbench.data.dataset import IGNORE
from fssbench.metrics.metric import Metric
from fssbench.specs import MetricSpec
from fssbench.testing.check import (
    Checks,
    Subject,
    expect,
    expect_error,
    expect_tensor,
    expect_unchanged_generators,
)
from fssbench.testing.synthetic import picture

CHECKS = Checks("metric")

_EPISODES = 6
_TAKEN = {"index", "way", "novel", "class_id", "query"}


@attrs.frozen(kw_only=True, eq=False, slots=False)
class MetricSubject(Subject):
    """A registered metric."""

    spec_class = MetricSpec

    @cached_property
    def metric(self) -> Metric:
        """The metric."""
        return build.metric(self.name)

    @cached_property
    def planes(self) -> tuple[Tensor, Tensor]:
        """Predictions bool (B, 48, 64) and targets uint8 (B, 48, 64) with ignored pixels."""
        shown = [picture(number, 48, 64) for number in range(_EPISODES)]
        targets = torch.stack([each.with_other(IGNORE).mask for each in shown])
        # An increasing shift gives every episode another score.
        marked = [t.roll(2 * n, 1) == 1 for n, t in enumerate(targets)]
        return torch.stack(marked), targets

    def measured(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the columns; the metric gets copies of its arguments, which it may change."""
        return dict(self.metric.measure(prediction.clone(), target.clone()))

    @cached_property
    def rows(self) -> pandas.DataFrame:
        """Rows of the planes' episodes, of three classes."""
        columns = {name: values.tolist() for name, values in self.measured(*self.planes).items()}
        return pandas.DataFrame(
            {
                "index": range(_EPISODES),
                "class_id": [3, 5, 8] * (_EPISODES // 3),
                "query": [f"image-{n // 2}" for n in range(_EPISODES)],
                **columns,
            }
        )


@CHECKS.add("measure", "columns")
def columns(subject: MetricSubject) -> str:
    """`measure` gives an int64 or float64 (B,) tensor for each of `columns`."""
    names = tuple(subject.metric.columns)
    valid = names and len(set(names)) == len(names) and not _TAKEN & set(names)
    expected = "unique names of columns other than index, way, novel, class_id and query"
    expect(bool(valid), expected, f"columns = {names}")
    found = subject.measured(*subject.planes)
    expect(set(found) == set(names), f"the columns {', '.join(names)}", f"{', '.join(found)}")
    for name, values in found.items():
        valid = values.dtype in (torch.int64, torch.float64) and values.shape == (_EPISODES,)
        expect_tensor(values, valid, f"column {name}: int64 or float64 ({_EPISODES},)")
    return ", ".join(f"{name} {str(found[name].dtype).removeprefix('torch.')}" for name in names)


@CHECKS.add("measure")
def rows_stand_alone(subject: MetricSubject) -> str:
    """An episode's row is the same alone, in a batch, and in a batch padded with 255."""
    prediction, target = subject.planes
    alone = [subject.measured(p[None], t[None]) for p, t in zip(prediction, target, strict=True)]
    joined = {name: torch.cat([each[name] for each in alone]) for name in alone[0]}
    _expect_same_rows(subject, joined, "alone")
    padded = subject.measured(
        functional.pad(prediction, (0, 9, 0, 5)), functional.pad(target, (0, 9, 0, 5), value=IGNORE)
    )
    _expect_same_rows(subject, padded, "padded below and to the right with 255")
    return f"{_EPISODES} episodes, each alone, together and padded"


@CHECKS.add("measure")
def ignored_pixels(subject: MetricSubject) -> str:
    """Predictions where the target is 255 do not change a row."""
    prediction, target = subject.planes
    ignored = target == IGNORE
    others = {"foreground": prediction | ignored, "background": prediction & ~ignored}
    for name, other in others.items():
        found = subject.measured(other, target)
        _expect_same_rows(subject, found, f"with {name} predicted on all ignored pixels")
    return f"{int(ignored.sum()):,} ignored pixels"


@CHECKS.add("measure")
def extremes(subject: MetricSubject) -> str:
    """Empty, full and completely ignored masks give finite numbers."""
    for marked, predicted in itertools.product((0, 1, IGNORE), (False, True)):
        target = torch.full((1, 12, 20), marked, dtype=torch.uint8)
        found = subject.measured(torch.full(target.shape, predicted), target)
        for name, values in found.items():
            expected = f"a finite {name} of masks that are empty, full or ignored"
            seen = f"{values.tolist()} for a target of {marked} and a prediction of {predicted:d}"
            expect(bool(torch.isfinite(values.double()).all()), expected, seen)
    return "6 pairs, all finite"


@CHECKS.add("measure")
def prediction_matters(subject: MetricSubject) -> str:
    """Rows differ among a perfect prediction, its opposite, and one cut into stripes."""
    _, target = subject.planes
    right = subject.measured(target == 1, target)
    stripes = torch.arange(target.shape[-1]) // 4 % 2 == 0
    others = [subject.measured(p, target) for p in (target != 1, (target == 1) & stripes)]
    differ = [n for n in right if any(not torch.equal(right[n], each[n]) for each in others)]
    expected = "other rows for a perfect prediction than for its opposite or one cut into stripes"
    expect(bool(differ), expected, "the same rows for all three")
    return f"{', '.join(differ)} differ"


@CHECKS.add("measure", "summarise")
def purity(subject: MetricSubject) -> str:
    """Measuring and summarising change no argument and do not use the global generators."""
    prediction, target = (plane.clone() for plane in subject.planes)
    rows = subject.rows.copy(deep=True)
    with expect_unchanged_generators():
        subject.metric.measure(prediction, target)
        subject.metric.summarise(rows)
    same = torch.equal(prediction, subject.planes[0]) and torch.equal(target, subject.planes[1])
    expect(same, "unchanged prediction and target", "`measure` changed one")
    expect(rows.equals(subject.rows), "an unchanged table", "`summarise` changed it")
    return "arguments are unchanged"


@CHECKS.add("summarise")
def scores(subject: MetricSubject) -> str:
    """Scores are finite numbers by name and do not depend on the order of the rows."""
    found = subject.metric.summarise(subject.rows)
    expect(bool(found), "at least one score", "none")
    turned = subject.metric.summarise(subject.rows.iloc[::-1].reset_index(drop=True))
    for name, score in found.items():
        finite = isinstance(score, float | int) and math.isfinite(score)
        expect(finite, f"score {name}: a finite number", f"{score!r}")
        other = turned.get(name, math.nan)
        same = math.isclose(other, score, rel_tol=1e-9, abs_tol=1e-9)
        expected, seen = f"the same {name} for any order of the rows", f"{score!r}, and {other!r}"
        expect(same, expected, f"{seen} backwards")
    return ", ".join(f"{name} {score:.4g}" for name, score in found.items())


@CHECKS.add("summarise")
def missing_classes(subject: MetricSubject) -> str:
    """A class without rows, or an empty table, is an FssbenchError: a mean would mislead."""
    summarise, rows = subject.metric.summarise, subject.rows
    expect_error(lambda: summarise(rows, (3, 5, 8, 11)), "a class without rows")
    expect_error(lambda: summarise(rows.iloc[:0], None), "an empty table")
    return "both are refused"


def _expect_same_rows(subject: MetricSubject, found: dict[str, Tensor], how: str) -> None:
    """Compare columns with those of the whole batch."""
    for name, values in subject.measured(*subject.planes).items():
        for row, (a, b) in enumerate(zip(found[name].tolist(), values.tolist(), strict=True)):
            same = math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (a != a and b != b)
            expect(same, f"episode {row}: {name} = {b:g} as in the batch", f"{a:g} {how}")
