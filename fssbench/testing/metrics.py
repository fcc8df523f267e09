"""What every metric promises; see `fssbench.Metric`."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import attrs
import pandas
import torch
from torch import Tensor
from torch.nn import functional

from fssbench import build, registry
from fssbench.data.dataset import IGNORE
from fssbench.errors import FssbenchError, one_line
from fssbench.metrics.metric import Metric
from fssbench.specs import MetricSpec
from fssbench.testing.check import Checks, expect
from fssbench.testing.random_state import Watch
from fssbench.testing.synthetic import picture

CHECKS = Checks("metric")

_EPISODES = 6
_TAKEN = {"index", "class_id", "query"}


@attrs.frozen(kw_only=True, eq=False, slots=False)
class MetricSubject:
    """A registered metric.

    Attributes:
        name: the registered name.
    """

    name: str

    @cached_property
    def spec(self) -> MetricSpec:
        """Its spec."""
        return registry.registry().get(MetricSpec, self.name)

    @cached_property
    def thing(self) -> Any:
        """Its class, or the function that makes it."""
        return registry.load(self.spec)

    @cached_property
    def metric(self) -> Metric:
        """It."""
        return build.metric(self.name)

    @cached_property
    def planes(self) -> tuple[Tensor, Tensor]:
        """Predictions bool (B, 48, 64) and targets uint8 (B, 48, 64) with ignored pixels."""
        shown = [picture(number, 48, 64) for number in range(_EPISODES)]
        targets = torch.stack([each.with_other(IGNORE).mask for each in shown])
        # Shifted each by more, so that no two episodes are equally good.
        marked = [t.roll(2 * n, 1) == 1 for n, t in enumerate(targets)]
        return torch.stack(marked), targets

    def measured(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Columns; the arguments are copies, whatever the metric does to them."""
        return dict(self.metric.measure(prediction.clone(), target.clone()))

    @cached_property
    def rows(self) -> pandas.DataFrame:
        """A table of the planes' episodes, of three classes."""
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
    expect(
        bool(names) and len(set(names)) == len(names) and not _TAKEN & set(names),
        "names of columns, each once, none of index, class_id and query",
        f"columns = {names}",
    )
    found = subject.measured(*subject.planes)
    expect(set(found) == set(names), f"the columns {', '.join(names)}", f"{', '.join(found)}")
    for name, values in found.items():
        expect(
            values.dtype in (torch.int64, torch.float64) and tuple(values.shape) == (_EPISODES,),
            f"column {name}: int64 or float64 ({_EPISODES},)",
            f"{values.dtype} {tuple(values.shape)}",
        )
    return ", ".join(f"{name} {str(found[name].dtype).removeprefix('torch.')}" for name in names)


@CHECKS.add("measure")
def rows_stand_alone(subject: MetricSubject) -> str:
    """An episode's row is the same alone, in a batch, and in a batch padded with 255."""
    prediction, target = subject.planes
    together = subject.measured(prediction, target)
    for n in range(_EPISODES):
        _same(subject.measured(prediction[n : n + 1], target[n : n + 1]), together, n, "alone")
    padded = subject.measured(
        functional.pad(prediction, (0, 9, 0, 5)),
        functional.pad(target, (0, 9, 0, 5), value=IGNORE),
    )
    for n in range(_EPISODES):
        each = {name: values[n : n + 1] for name, values in padded.items()}
        _same(each, together, n, "padded below and to the right with 255")
    return f"{_EPISODES} episodes, each alone, together and padded"


@CHECKS.add("measure")
def ignored_pixels(subject: MetricSubject) -> str:
    """What is predicted where the target is 255 changes nothing."""
    prediction, target = subject.planes
    expected = subject.measured(prediction, target)
    for name, other in (
        ("foreground", prediction | (target == IGNORE)),
        ("background", prediction & (target != IGNORE)),
    ):
        found = subject.measured(other, target)
        for n in range(_EPISODES):
            each = {key: values[n : n + 1] for key, values in found.items()}
            _same(each, expected, n, f"with {name} predicted on all ignored pixels")
    return f"{int((target == IGNORE).sum()):,} ignored pixels"


@CHECKS.add("measure")
def extremes(subject: MetricSubject) -> str:
    """Empty and full masks, and one that is ignored as a whole, give finite numbers."""
    none, full = torch.zeros(1, 12, 20, dtype=torch.uint8), torch.ones(1, 12, 20, dtype=torch.uint8)
    for target in (none, full, torch.full_like(none, IGNORE)):
        for prediction in (none == 1, full == 1):
            for name, values in subject.measured(prediction, target).items():
                expect(
                    bool(torch.isfinite(values.double()).all()),
                    f"a finite {name} of masks that are empty, full or ignored",
                    f"{values.tolist()} for a target of {int(target[0, 0, 0])} and a prediction of "
                    f"{int(prediction[0, 0, 0])}",
                )
    return "6 pairs, all finite"


@CHECKS.add("measure")
def prediction_matters(subject: MetricSubject) -> str:
    """A perfect prediction, its opposite, and one torn to stripes do not all give the same row."""
    _, target = subject.planes
    right = subject.measured(target == 1, target)
    stripes = torch.arange(target.shape[-1]) // 4 % 2 == 0
    others = [subject.measured(p, target) for p in (target != 1, (target == 1) & stripes)]
    differ = [
        name for name in right if any(not torch.equal(right[name], each[name]) for each in others)
    ]
    expect(
        bool(differ),
        "other rows for a perfect prediction than for its opposite or one torn to stripes",
        "the same rows for all three",
    )
    return f"{', '.join(differ)} differ"


@CHECKS.add("measure", "summarise")
def purity(subject: MetricSubject) -> str:
    """Measuring and summarising change no argument and draw from no generator of the process."""
    prediction, target = (plane.clone() for plane in subject.planes)
    rows = subject.rows.copy(deep=True)
    watch = Watch()
    subject.metric.measure(prediction, target)
    subject.metric.summarise(rows)
    expect(not watch.moved(), "generators of the process stay where they are",
           f"{watch.moved()} changed")  # fmt: skip
    expect(
        torch.equal(prediction, subject.planes[0]) and torch.equal(target, subject.planes[1]),
        "prediction and target stay as they are",
        "`measure` changed one",
    )
    expect(rows.equals(subject.rows), "the table stays as it is", "`summarise` changed it")
    return "arguments stay as they are"


@CHECKS.add("summarise")
def scores(subject: MetricSubject) -> str:
    """Scores are finite numbers by name, whatever the order of the rows."""
    found = subject.metric.summarise(subject.rows)
    expect(bool(found), "at least one score", "none")
    for name, score in found.items():
        expect(
            isinstance(score, float | int) and math.isfinite(score),
            f"score {name}: a finite number",
            f"{score!r}",
        )
    turned = subject.metric.summarise(subject.rows.iloc[::-1].reset_index(drop=True))
    for name, score in found.items():
        expect(
            math.isclose(turned.get(name, math.nan), score, rel_tol=1e-9, abs_tol=1e-9),
            f"the same {name} whatever the order of the rows",
            f"{score!r}, and {turned.get(name)!r} backwards",
        )
    return ", ".join(f"{name} {score:.4g}" for name, score in found.items())


@CHECKS.add("summarise")
def missing_classes(subject: MetricSubject) -> str:
    """A class without rows, and an empty table, are FssbenchErrors: a mean would mislead."""
    for rows, classes, what in (
        (subject.rows, (3, 5, 8, 11), "class 11 has no row"),
        (subject.rows.iloc[:0], None, "there is no row"),
    ):
        try:
            found = subject.metric.summarise(rows, classes)
        except FssbenchError:
            continue
        except Exception as error:
            expect(False, f"an FssbenchError when {what}", one_line(error))
        else:
            expect(False, f"an FssbenchError when {what}", f"scores {found}")
    return "both are refused"


def _same(found: dict[str, Tensor], all_: dict[str, Tensor], row: int, how: str) -> None:
    for name, values in found.items():
        a, b = float(values[0]), float(all_[name][row])
        expect(
            math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(a) and math.isnan(b)),
            f"episode {row}: {name} = {b:g} as in the batch",
            f"{a:g} {how}",
        )
