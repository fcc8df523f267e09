"""Details of a row: classes, provenance, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fssbench.board.labels import code_label, encoder_labels, training_label
from fssbench.board.tables import Row
from fssbench.board.text import count, milliseconds, one_line
from fssbench.results.method import training_facts

LONGEST = 300
PANELS = 24
"""Maximum number of linked pictures of a fold."""

Link = Callable[[str], str]


def details(row: Row, panels: Mapping[int, list[str]], link: Link) -> dict[str, Any]:
    """Return the details as JSON values, which the page's script inserts as text.

    Args:
        row: row of a table.
        panels: qualitative panels by fold, as paths below the board.
        link: function from a path below the board to its address.
    """
    return {
        "label": f"{one_line(row.method)} on {one_line(row.backbone)}",
        "folds": [
            {
                "fold": fold,
                "miou": record.scores["miou"],
                "episodes": record.manifest.episodes,
                "record": link(row.links[fold]),
                "panels": [[path.rpartition("/")[2], link(path)] for path in panels[fold][:PANELS]],
                "classes": [
                    [one_line(entry.name), entry.episodes, round(entry.iou, 4)]
                    for entry in record.per_class
                ],
            }
            for fold, record in row.records.items()
        ],
        "facts": [[name, one_line(text, LONGEST)] for name, text in _facts(row).items() if text],
    }


def hardware(row: Row) -> str:
    """Return the hardware of a row's folds."""
    environments = (record.environment for record in row.records.values())
    return _different(e.get("hardware") or e.get("device") for e in environments)


def _facts(row: Row) -> dict[str, str]:
    records = list(row.records.values())
    record = records[0]
    weights, flops = record.weights, record.cost.flops_per_episode
    environments = [r.environment for r in records]
    selected_on = training_facts(record).get("selected_on")
    checkpoints = (
        f"fold {fold} {r.checkpoint.sha256[:12]} {r.checkpoint.address}".strip()
        for fold, r in row.records.items()
        if r.checkpoint
    )
    return {
        "Backbone": f"{row.backbone}, {count(record.cost.backbone_parameters)} parameters",
        "Weights": " ".join(filter(None, (weights.source, weights.name, weights.sha256[:8]))),
        "Encoders": "; ".join(encoder_labels(record)),
        "Uses": ", ".join(use.replace("_", " ") for use in record.uses),
        "Options": json.dumps(dict(record.config), ensure_ascii=False) if record.config else "",
        "Training": ", ".join(training_label(record)),
        "Selected on": f"{selected_on} classes" if selected_on in ("base", "novel") else "",
        "Checkpoints": ", ".join(checkpoints),
        "Learnable": f"{count(row.parameters)} parameters",
        "Operations": "" if flops is None else f"{flops / 1e9:.1f} GFLOPs per episode",
        "Time": f"{milliseconds(row.seconds)} ms per episode",
        "Hardware": hardware(row),
        "Precision": _different(environment.get("precision") for environment in environments),
        "fssbench": _different(map(_version, environments)),
        "Code": _different(map(code_label, records)) or "unknown",
        "Measured": ", ".join(sorted({r.created[:10] for r in records})),
    }


def _version(environment: Mapping[str, Any]) -> str:
    version, commit = environment.get("fssbench", ""), str(environment.get("commit") or "")[:8]
    changed = ", changed" if environment.get("dirty") else ""
    return f"{version} ({commit}{changed})" if commit else str(version)


def _different(values: Iterable[Any]) -> str:
    """Return the different values, in order of appearance."""
    return "; ".join(dict.fromkeys(str(value) for value in values if value))
