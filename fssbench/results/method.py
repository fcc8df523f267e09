"""The identity of an evaluated method, equal for all its folds."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import cattrs

from fssbench.results.record import Record

TRAINING = ("dataset", "recipe", "stage", "shots", "seed", "selected_on")
"""Entries of a checkpoint's header that distinguish two trainings of one method."""


def method_identity(record: Record) -> dict[str, Any]:
    """Return what the folds of one method have in common, as JSON values.

    Checkpoints differ from fold to fold, so only the `TRAINING` entries of a header count.
    """
    checkpoint = record.checkpoint
    return {
        "matcher": record.matcher,
        "config": cattrs.unstructure(record.config),
        "backbone": record.backbone,
        # The same file is the same weights, whether it came from the hub or from a folder; a
        # backbone that was trained is another one for each fold.
        "weights": (
            "checkpoint"
            if brings_backbone(record)
            else record.weights.sha256 or record.weights.source
        ),
        "precision": record.environment.get("precision"),
        # Present only where features were rounded, so that older identities stay as they are.
        **({"features": record.environment["features"]} if rounded(record) else {}),
        **({"encoders": _encoders(record)} if record.encoders else {}),
        **({"provenance": record.provenance} if record.provenance else {}),
        "training": training_facts(record) if checkpoint else None,
        "protocol": record.protocol,
        "fingerprint": record.dataset.fingerprint,
        "limit": record.manifest.limit,
    }


def _encoders(record: Record) -> dict[str, list[str]]:
    return {
        role: [encoder.name, encoder.weights.sha256 or encoder.weights.source]
        for role, encoder in record.encoders.items()
    }


def rounded(record: Record) -> bool:
    """Return True if features were stored at half the precision of their computation."""
    return "features" in record.environment


def brings_backbone(record: Record) -> bool:
    """Return True if the checkpoint holds the backbone too, because a stage trained it."""
    return record.checkpoint is not None and bool(record.checkpoint.header.get("holds_backbone"))


def training_facts(record: Record) -> dict[str, Any]:
    """Return the `TRAINING` entries of the checkpoint's header; empty without a checkpoint.

    The fold of the training is one of them if it is none of the record's folds: each fold of the
    record could then be tested with a checkpoint of any fold.
    """
    header = record.checkpoint.header if record.checkpoint else {}
    elsewhere = record.trained_fold is None and header.get("fold") is not None
    keys = (*TRAINING, "fold") if elsewhere else TRAINING
    return {key: header[key] for key in keys if key in header}


def method_id(record: Record) -> str:
    """Return the six digits of the method's identity."""
    return short_digest(method_identity(record))


def short_digest(identity: Any) -> str:
    """Return the six hexadecimal digits that name an identity, given as JSON values.

    Run directories, training directories and boards are named with these digits.
    """
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]
