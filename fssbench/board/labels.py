"""What a row of a board is called: short, and different from every other row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fssbench.results.method import brings_backbone, training_facts
from fssbench.results.record import Record


def method_label(folds: Sequence[Record], peers: Sequence[Record]) -> str:
    """The matcher, the options in which it differs from its namesakes, and its checkpoint.

    Args:
        folds: the method's records.
        peers: one record of each method in the table.
    """
    record = folds[0]
    options = _options(record)
    namesakes = [
        _options(peer)
        for peer in peers
        if (peer.matcher, peer.backbone) == (record.matcher, record.backbone)
    ]
    details = [
        f"{key}={_compact(value)}"
        for key, value in options.items()
        if (key, value) != ("selected_on", "novel")  # said in any case, below
        and value not in ("", None)  # left to the method, which saying nothing says
        and any(other.get(key) != value for other in namesakes)
    ]
    checkpoints = {
        fold.checkpoint.name.replace(f"fold{fold.fold}", "fold*")
        for fold in folds
        if fold.checkpoint
    }
    if training_facts(record).get("selected_on") == "novel":
        details.append("selected on novel classes")
    if checkpoints:
        details.append(checkpoints.pop() if len(checkpoints) == 1 else "one checkpoint per fold")
    return f"{record.matcher} ({', '.join(details)})" if details else record.matcher


def backbone_label(record: Record, peers: Sequence[Record]) -> str:
    """The encoder; its weights too, where they are not pretrained or others of the table differ.

    A backbone that the method's own training changed is said to be ``trained``.

    Args:
        record: one record of the method.
        peers: one record of each method in the table.
    """
    weights = record.weights
    if weights.source == "random":
        return f"{record.backbone} (random weights)"
    if brings_backbone(record):
        return f"{record.backbone} (trained)"
    others = [
        peer.weights
        for peer in peers
        if peer.backbone == record.backbone
        and peer.weights.source != "random"
        and not brings_backbone(peer)
    ]
    details = []
    if weights.source == "file" or any(other.name != weights.name for other in others):
        details.append(weights.name or weights.source)
    if any(o.name == weights.name and o.sha256 != weights.sha256 for o in others):
        details.append(weights.sha256[:8] or weights.source)
    return f"{record.backbone} ({', '.join(details)})" if details else record.backbone


def training_label(record: Record) -> tuple[str, ...]:
    """How the checkpoint was trained, in the words of `fssbench train`; () if it does not say."""
    header = record.checkpoint.header if record.checkpoint else {}
    environment = header.get("environment")
    precision = environment.get("precision") if isinstance(environment, dict) else None
    facts = {
        "dataset": header.get("dataset"),
        "stage": header.get("stage"),
        "recipe": header.get("recipe"),
        "shots": header.get("shots"),
        "seed": header.get("seed"),
        "precision": precision,
    }
    return tuple(f"{key} {value}" for key, value in facts.items() if value not in ("", None))


def _options(record: Record) -> dict[str, Any]:
    said = {name: record.environment.get(name) for name in ("precision", "features")}
    return {**said, **training_facts(record), **record.config}


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
