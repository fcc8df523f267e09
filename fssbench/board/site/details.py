"""What the page shows of a row when a reader asks for more: classes, provenance, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from fssbench.board.tables import Row
from fssbench.board.text import count, milliseconds, one_line
from fssbench.results.method import training_facts
from fssbench.results.record import Record

LONGEST = 300
PANELS = 24
"""No more pictures than this are linked for a fold."""

Link = Callable[[str], str]


def details(
    row: Row, records: Mapping[int, Record], panels: Mapping[int, list[str]], link: Link
) -> dict[str, Any]:
    """Everything as JSON has it; the page's script puts it in as text.

    Args:
        row: of a table.
        records: of its folds.
        panels: qualitative panels by fold, as paths below the board.
        link: address of a path below the board.
    """
    return {
        "label": f"{one_line(row.method)} on {one_line(row.backbone)}",
        "folds": [
            {
                "fold": fold,
                "miou": record.scores["miou"],
                "episodes": record.manifest.episodes,
                "record": link(row.records[fold]),
                "panels": [[path.rpartition("/")[2], link(path)] for path in panels[fold][:PANELS]],
                "classes": [
                    [one_line(entry.name), entry.episodes, round(entry.iou, 4)]
                    for entry in record.per_class
                ],
            }
            for fold, record in records.items()
        ],
        "facts": [[name, one_line(text, LONGEST)] for name, text in _facts(row, records) if text],
    }


def _facts(row: Row, records: Mapping[int, Record]) -> list[tuple[str, str]]:
    record = records[min(records)]
    weights = record.weights
    environments = [r.environment for r in records.values()]
    return [
        ("Backbone", f"{row.backbone}, {count(record.cost.backbone_parameters)} parameters"),
        ("Weights", " ".join(filter(None, (weights.source, weights.name, weights.sha256[:8])))),
        ("Options", json.dumps(dict(record.config), ensure_ascii=False) if record.config else ""),
        ("Training", ", ".join(row.training)),
        ("Selected on", _selected(record)),
        (
            "Checkpoints",
            ", ".join(f"fold {fold} {sha[:12]}" for fold, sha in row.checkpoints.items()),
        ),
        ("Learnable", f"{count(row.parameters)} parameters"),
        ("Operations", _operations(record.cost.flops_per_episode)),
        ("Time", f"{milliseconds(row.seconds)} ms per episode"),
        ("Hardware", hardware(records)),
        ("Precision", _different(environment.get("precision") for environment in environments)),
        ("fssbench", _different(_version(environment) for environment in environments)),
        ("Measured", ", ".join(sorted({r.created[:10] for r in records.values()}))),
    ]


def _selected(record: Record) -> str:
    """On which classes the checkpoint was chosen among others, if it was."""
    classes = training_facts(record).get("selected_on")
    return f"{classes} classes" if classes in ("base", "novel") else ""


def hardware(records: Mapping[int, Record]) -> str:
    """On what a row was measured; several things where its folds differ."""
    found = (r.environment.get("hardware") or r.environment.get("device") for r in records.values())
    return _different(found)


def _version(environment: Mapping[str, Any]) -> str:
    version, commit = environment.get("fssbench", ""), str(environment.get("commit") or "")[:8]
    changed = ", changed" if environment.get("dirty") else ""
    return f"{version} ({commit}{changed})" if commit else str(version)


def _different(values: Any) -> str:
    return "; ".join(dict.fromkeys(str(value) for value in values if value))


def _operations(flops: int | None) -> str:
    return "" if flops is None else f"{flops / 1e9:.1f} GFLOPs per episode"
