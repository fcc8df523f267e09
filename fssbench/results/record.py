"""The record of one evaluation: what was measured, of what, how, and how far to trust it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import cattrs

from fssbench import strict
from fssbench.errors import FssbenchError, one_line
from fssbench.files import MIB, read_within, write_atomically

SCHEMA = 1
DIGEST = "digest"
"""The key of the file that is no attribute of `Record`: the digest of all others."""
RECORD_FILE = "record.json"
ROWS_FILE = "rows.csv.gz"
MANIFEST_FILE = "manifest.jsonl.gz"
MOST_BYTES = 16 * MIB
"""No record is larger; one of a thousand classes has a quarter of a MiB."""


def trained_fold(header: Mapping[str, Any], dataset: str) -> int | None:
    """The fold of a dataset that a checkpoint was trained for: all others' classes it has seen.

    None when its header names none, or another dataset. A header without a dataset counts as this.
    """
    return header.get("fold") if header.get("dataset") in (None, dataset) else None


def folder_of(path: Path) -> Path:
    """The run directory that a person named, by itself or by the ``record.json`` in it.

    Raises:
        FssbenchError: it holds no record.
    """
    folder = path.parent if path.name == RECORD_FILE else path
    if (folder / RECORD_FILE).is_file():
        return folder
    if not folder.is_dir():
        raise FssbenchError(f"{path}: name a {RECORD_FILE}, or the run directory that holds one")
    if (folder / MANIFEST_FILE).is_file():
        raise FssbenchError(
            f"{folder}: this run is not finished; run the same fssbench evaluate command again"
        )
    below = sorted(folder.rglob(RECORD_FILE))
    hint = f"name one of the {len(below)} below it, e.g. {below[0]}" if below else "finish a run"
    raise FssbenchError(f"{folder}: no {RECORD_FILE} in it; {hint}")


@attrs.frozen(kw_only=True)
class ManifestInfo:
    """Which episodes were measured.

    Attributes:
        digest: sha256 of the manifest: equal digests, equal episodes.
        episodes: how many.
        classes: class ids asked for.
        dropped: names of the fold's classes that were left out for want of images.
        limit: the manifest was cut to its first so many episodes; such a record never ranks.
    """

    digest: str
    episodes: int
    classes: tuple[int, ...]
    dropped: tuple[str, ...] = ()
    limit: int | None = None


@attrs.frozen(kw_only=True)
class DatasetInfo:
    """Which data: name, split, and the hash of the split's annotations."""

    name: str
    split: str
    fingerprint: str


@attrs.frozen(kw_only=True)
class Weights:
    """Where the backbone's weights come from; see `fssbench.backbones.backbone.WeightsInfo`."""

    source: str
    name: str = ""
    sha256: str = ""


@attrs.frozen(kw_only=True)
class CheckpointInfo:
    """The trained matcher: file name, hash of the file, and the header that training wrote."""

    name: str
    sha256: str
    header: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class ClassScore:
    """One class: IoU in percent over its episodes, foreground and background."""

    class_id: int
    name: str
    episodes: int
    iou: float
    background_iou: float


@attrs.frozen(kw_only=True)
class Cost:
    """What the evaluation took.

    Attributes:
        learnable_parameters: of the matcher.
        backbone_parameters: of the frozen encoder.
        flops_per_episode: floating-point operations (two per multiply-add) of one episode with
            nothing cached: K+1 images encoded, supports embedded, query segmented. None if unknown.
        seconds_per_episode: wall time of the whole run (loading, encoding, matching, counting)
            divided by the episodes; caches on, as the run had them. The parts of an interrupted run
            are added up.
        peak_memory_mib: peak resident memory of the process, or on a GPU peak allocated memory.
    """

    learnable_parameters: int
    backbone_parameters: int
    flops_per_episode: int | None
    seconds_per_episode: float
    peak_memory_mib: float


@attrs.frozen(kw_only=True)
class Record:
    """One evaluation: one matcher, one manifest.

    Attributes:
        schema: version of this layout.
        protocol, fold, shots, seed: the manifest's.
        score_size: predictions were scored at the ``original`` size of the image or at the
            matcher's ``input`` size, as the protocol says.
        dataset: which data.
        manifest: which episodes.
        matcher: name of the matcher.
        config: all its options, also those left at their defaults.
        checkpoint: its trained weights, or None for a training-free method.
        backbone: name of the backbone.
        weights: the backbone's weights.
        features: what the matcher asked of the backbone (layers, input size, resizing).
        scores: by name, in percent (``miou``, ``fb_iou``, ``episode_miou``, …).
        intervals: 95 % confidence intervals (low, high) of the IoU scores, by bootstrap over query
            images.
        per_class: IoU of each class.
        cost: parameters, operations, time, memory.
        environment: versions, commit, hardware, precision, batch size.
        created: UTC time, ISO 8601.
        predictions: sha256 of what the file of predicted masks holds, or "" when none were kept.
    """

    schema: int = SCHEMA
    protocol: str
    fold: int
    shots: int
    seed: int
    score_size: str
    dataset: DatasetInfo
    manifest: ManifestInfo
    matcher: str
    config: Mapping[str, Any]
    checkpoint: CheckpointInfo | None
    backbone: str
    weights: Weights
    features: Mapping[str, Any]
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    per_class: tuple[ClassScore, ...]
    cost: Cost
    environment: Mapping[str, Any]
    created: str
    predictions: str = ""

    @property
    def rankable(self) -> str:
        """Why the record must not rank on a board, or "" if it may."""
        if self.weights.source == "random":
            return "random weights"
        if self.manifest.limit is not None:
            return f"only the first {self.manifest.episodes} episodes"
        return ""

    @property
    def digest(self) -> str:
        """Sha256 (hex) of all fields, which the file holds beside them."""
        return _digest(self._fields())

    def to_json(self) -> str:
        """The record as JSON text: keys in the order of the attributes, and the digest."""
        fields = self._fields()
        return json.dumps({**fields, DIGEST: _digest(fields)}, indent=2) + "\n"

    def _fields(self) -> dict[str, Any]:
        """The record as JSON has it; raises a ValueError for NaN and infinity."""
        fields: dict[str, Any] = json.loads(json.dumps(cattrs.unstructure(self), allow_nan=False))
        return fields

    def write(self, folder: Path) -> Path:
        """Write ``record.json`` into a folder, by rename."""
        path = folder / RECORD_FILE
        write_atomically(path, self.to_json().encode())
        return path

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record.

        One without a digest was written before records had any, and is read all the same. The
        digest finds damage and slips of the hand. It is no signature: whether a stranger's scores
        are those of the rows is for `fssbench.results.verify`.

        Raises:
            FssbenchError: it cannot be read, is no record of this schema, or has changed since it
                was written.
        """
        try:
            fields = json.loads(read_within(path, MOST_BYTES))
        except OSError as error:
            reason = error.strerror or str(error)
            raise FssbenchError(f"{path}: cannot read this record: {reason}") from error
        except (ValueError, RecursionError) as error:
            reason = one_line(error) if isinstance(error, RecursionError) else str(error)
            raise FssbenchError(f"{path}: this is no record: not JSON ({reason})") from error
        schema = fields.get("schema") if isinstance(fields, dict) else None
        if schema != SCHEMA:
            raise FssbenchError(
                f"{path}: a record of schema {ascii(schema)[:20]}; this fssbench reads schema "
                f"{SCHEMA}"
            )
        try:
            # Of what the file says, with all that a newer version may have added.
            if DIGEST in fields and fields.pop(DIGEST) != _digest(fields):
                raise FssbenchError(
                    f"{path}: the content does not fit its digest, so it was changed or is "
                    "damaged; copy the file again, or remove its folder and evaluate again"
                )
            record = strict.structure(fields, cls)
            record.to_json()  # raises for what JSON cannot say: NaN, infinity
        except (cattrs.BaseValidationError, TypeError, ValueError, RecursionError) as error:
            raise FssbenchError(
                f"{path}: this record is damaged: {strict.reasons(error)}"
            ) from error
        return record


def _digest(fields: Mapping[str, Any]) -> str:
    """Sha256 (hex) of the canonical text of a record's JSON without its digest."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
