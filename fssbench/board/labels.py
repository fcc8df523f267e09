"""Names of a board's rows: short, and different for each row."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from fssbench.results.method import brings_backbone, training_facts
from fssbench.results.record import Record


class Labels:
    """Labels of the methods of one table.

    Args:
        peers: the first record of each method.
    """

    def __init__(self, peers: Iterable[Record]) -> None:
        firsts: dict[tuple[str, str], dict[str, Any]] = {}
        self._differing: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._weights: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for peer in peers:
            options, kind = _options(peer), (peer.matcher, peer.backbone)
            first = firsts.setdefault(kind, options)
            self._differing[kind] |= {
                key for key in first.keys() | options if first.get(key) != options.get(key)
            }
            if not brings_backbone(peer) and peer.weights.source != "random":
                self._weights[peer.backbone].add((peer.weights.name, peer.weights.sha256))

    def method(self, folds: Sequence[Record]) -> str:
        """Return the matcher, the options that differ from other rows of it, and its checkpoint.

        Args:
            folds: records of the method, the peer first.
        """
        record = folds[0]
        differing = self._differing[record.matcher, record.backbone]
        details = [
            f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
            for key, value in _options(record).items()
            if (key, value) != ("selected_on", "novel")  # always added below
            and not (record.trained_on and key in ("dataset", "fold"))  # likewise
            and value not in ("", None)  # the method's own choice, as without the option
            and key in differing
        ]
        checkpoints = {
            fold.checkpoint.name.replace(f"fold{fold.fold}", "fold*")
            for fold in folds
            if fold.checkpoint
        }
        if record.trained_on:
            details.append(trained_on_label(record))
        if training_facts(record).get("selected_on") == "novel":
            details.append("selected on novel classes")
        details += [f"uses {use.replace('_', ' ')}" for use in record.uses]
        if record.provenance:
            details.append(record.provenance)
        if checkpoints:
            one = len(checkpoints) == 1
            details.append(checkpoints.pop() if one else "one checkpoint per fold")
        return _with_details(record.matcher, details)

    def backbone(self, record: Record) -> str:
        """Return the encoder, and its weights unless all rows have the same pretrained ones.

        A backbone that the method's own training changed is ``trained``.
        """
        weights = record.weights
        if weights.source == "random":
            return f"{record.backbone} (random weights)"
        if brings_backbone(record):
            return f"{record.backbone} (trained)"
        if record.encoders:  # `encoder_labels` names the weights of each
            return record.backbone
        others = self._weights[record.backbone]
        details = []
        if weights.source == "file" or any(name != weights.name for name, _ in others):
            details.append(weights.name or weights.source)
        if any(name == weights.name and sha != weights.sha256 for name, sha in others):
            details.append(weights.sha256[:8] or weights.source)
        return _with_details(record.backbone, details)


def trained_on_label(record: Record) -> str:
    """Return the other dataset that a method was trained on, and the fold if a row has only one."""
    fold = training_facts(record).get("fold")
    return f"trained on {record.trained_on}{'' if fold is None else f' fold {fold}'}"


def encoder_labels(record: Record) -> tuple[str, ...]:
    """Return role, name, weights and size of each encoder of an image matcher."""
    found = []
    for role, encoder in record.encoders.items():
        weights = encoder.weights
        facts = (weights.source, weights.name, weights.sha256[:8])
        known = " ".join(filter(None, facts))
        found.append(f"{role} {encoder.name} ({known}, {encoder.parameters:,} parameters)")
    return tuple(found)


def training_label(record: Record) -> tuple[str, ...]:
    """Return the settings of the checkpoint's training, as far as its header has them."""
    header = record.checkpoint.header if record.checkpoint else {}
    facts = {key: header.get(key) for key in ("dataset", "stage", "recipe", "shots", "seed")}
    environment = header.get("environment")
    if isinstance(environment, dict):
        facts["precision"] = environment.get("precision")
    return tuple(f"{key} {value}" for key, value in facts.items() if value not in ("", None))


def code_label(record: Record) -> str:
    """Return the packages that computed a record with their versions and hashes, or ""."""
    if record.provenance:
        return record.provenance
    facts = (
        (name, code.version, f"({code.sha256[:8]})" if code.sha256 else "")
        for name, code in record.code.items()
    )
    return ", ".join(" ".join(filter(None, each)) for each in facts)


def _options(record: Record) -> dict[str, Any]:
    rounding = {name: record.environment.get(name) for name in ("precision", "features")}
    return {**rounding, **training_facts(record), **record.config}


def _with_details(name: str, details: Sequence[str]) -> str:
    return f"{name} ({', '.join(details)})" if details else name
