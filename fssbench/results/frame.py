"""Tables of records: pandas DataFrames and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas

if TYPE_CHECKING:
    from fssbench.results.record import Record

_SETTING = ("protocol", "fold", "shots", "seed", "ways", "matcher", "backbone")
_COST = (
    "learnable_parameters", "backbone_parameters", "flops_per_episode", "seconds_per_episode",
    "peak_memory_mib",
)  # fmt: skip


def flat_fields(record: Record) -> dict[str, Any]:
    """Return setting, options, scores, intervals and cost of a record as one line of a table."""
    return {
        **{name: getattr(record, name) for name in _SETTING},
        "dataset": record.dataset.name,
        "weights": record.weights.name or record.weights.source,
        "checkpoint": record.checkpoint.name if record.checkpoint else "",
        "episodes": record.manifest.episodes,
        "manifest": record.manifest.digest,
        "unranked": record.rankable,
        **{f"option.{name}": _cell(value) for name, value in record.config.items()},
        **record.scores,
        **{
            f"{name}_{side}": value
            for name, interval in record.intervals.items()
            for side, value in zip(("low", "high"), interval, strict=True)
        },
        **{name: getattr(record.cost, name) for name in _COST},
        "created": record.created,
    }


def _cell(value: Any) -> Any:
    """Return a scalar; several values as text, because a cell of a table holds one."""
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def html_table(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return an escaped HTML table with a column for each key."""
    with pandas.option_context("display.max_colwidth", None):
        table: str = pandas.DataFrame(lines).to_html(index=False, border=0, na_rep="")
    return table


def record_html(record: Record) -> str:
    """Return setting, scores and classes of a record as HTML."""
    setting = {name: getattr(record, name) for name in _SETTING}
    scores = [
        {
            "score": name,
            "percent": f"{value:.2f}",
            "95 % interval": "{:.2f} to {:.2f}".format(*record.intervals[name])
            if name in record.intervals
            else "",
        }
        for name, value in record.scores.items()
    ]
    classes = [
        {"class": each.name, "episodes": each.episodes, "IoU": f"{each.iou:.2f}"}
        for each in record.per_class
    ]
    parts = [[{**setting, "unranked": record.rankable}], scores, classes]
    return "\n".join(map(html_table, parts))
