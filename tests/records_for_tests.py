"""Records of synthetic rows, and records changed by somebody who can compute digests too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import attrs
import pandas

from fssbench.episodes.manifest import Manifest
from fssbench.metrics.iou import IoU
from fssbench.results.record import (
    ClassScore,
    Cost,
    DatasetInfo,
    ManifestInfo,
    Record,
    Weights,
)
from fssbench.statistics.intervals import score_intervals


def digest_of(fields: dict[str, object]) -> str:
    """The digest of a record's fields, as docs/results.md defines it."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def change_record(folder: Path, *keys: str, value: object) -> None:
    """Put a value into the record of a folder, and make its digest fit.

    Args:
        folder: holds ``record.json``.
        keys: the way to the value, from the outside.
        value: a JSON value.
    """
    path = folder / "record.json"
    fields = json.loads(path.read_text())
    del fields["digest"]
    *outer, last = keys
    inside = fields
    for key in outer:
        inside = inside[key]
    inside[last] = value
    path.write_text(json.dumps({**fields, "digest": digest_of(fields)}, indent=2) + "\n")


def record_of(manifest: Manifest, rows: pandas.DataFrame, **fields: object) -> Record:
    """The record of synthetic rows; `fields` replace its own."""
    table = IoU().per_class(rows, manifest.class_ids)
    record = Record(
        protocol=manifest.protocol,
        fold=manifest.fold,
        shots=manifest.shots,
        seed=manifest.seed,
        score_size="original",
        dataset=DatasetInfo(
            name=manifest.dataset, split=manifest.split, fingerprint=manifest.fingerprint
        ),
        manifest=ManifestInfo(
            digest=manifest.digest,
            episodes=len(manifest.episodes),
            classes=manifest.class_ids,
            dropped=tuple(name for _, name in manifest.dropped),
            limit=manifest.limit,
        ),
        matcher="prototype",
        config={"layers": ["last"], "temperature": 10.0},
        checkpoint=None,
        backbone="resnet50",
        weights=Weights(source="pretrained", name="resnet50.a1_in1k", sha256="ab" * 32),
        features={"layers": ["layer4"], "size": 473},
        scores=IoU().summarise(rows, manifest.class_ids),
        intervals=score_intervals([rows]),
        per_class=tuple(
            ClassScore(
                class_id=int(class_id),
                name=manifest.class_name(int(class_id)),
                episodes=int(line["episodes"]),
                iou=float(line["iou"]),
                background_iou=float(line["background_iou"]),
            )
            for class_id, line in table.iterrows()
        ),
        cost=Cost(
            learnable_parameters=0,
            backbone_parameters=23_508_032,
            flops_per_episode=None,
            seconds_per_episode=0.0123,
            peak_memory_mib=512.0,
        ),
        environment={"device": "cpu", "precision": "fp32", "batch_size": 1},
        created="2026-01-01T00:00:00+00:00",
    )
    return attrs.evolve(record, **fields)
