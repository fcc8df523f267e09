"""Record of an evaluation: setting, scores, cost and provenance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import cattrs
import pandas

from fssbench import strict
from fssbench.errors import FssbenchError, one_line
from fssbench.files import MIB, read_within, write_atomically
from fssbench.results.frame import flat_fields, record_html

SCHEMA = 1
DIGEST = "digest"
"""Key of the digest of all other fields, which is in the file but no attribute of `Record`."""
RECORD_FILE = "record.json"
ROWS_FILE = "rows.csv.gz"
MANIFEST_FILE = "manifest.jsonl.gz"
MOST_BYTES = 16 * MIB
"""Maximum size of a record; one of a thousand classes takes a quarter of a MiB."""


def trained_fold(header: Mapping[str, Any], folds_of: str) -> int | None:
    """Return the fold that a checkpoint was trained for.

    None if the header has no fold, or one of other folds. A header without a dataset is assumed to
    be of these folds.

    Args:
        header: header of the checkpoint.
        folds_of: name of the dataset whose folds are meant, see `Dataset.folds_of`.
    """
    known = header.get("folds_of") or header.get("dataset")
    return header.get("fold") if known in (None, folds_of) else None


def first_few(names: Sequence[str]) -> str:
    """Return the first names, separated by commas, and the number of the others."""
    more = f" and {len(names) - 10} more" if names[10:] else ""
    return f"{', '.join(names[:10])}{more}"


def folder_of(path: Path) -> Path:
    """Return the run directory of a path, which is the directory or the ``record.json`` in it.

    Raises:
        FssbenchError: the directory has no record.
    """
    folder = path.parent if path.name == RECORD_FILE else path
    if (folder / RECORD_FILE).is_file():
        return folder
    if not folder.is_dir():
        raise FssbenchError(f"{path}: name a {RECORD_FILE}, or the run directory that holds one")
    if (folder / MANIFEST_FILE).is_file():
        raise FssbenchError(f"{folder}: this run is not finished; run the same command again")
    below = sorted(folder.rglob(RECORD_FILE))
    hint = f"name one of the {len(below)} below it, e.g. {below[0]}" if below else "finish a run"
    raise FssbenchError(f"{folder}: no {RECORD_FILE} in it; {hint}")


@attrs.frozen(kw_only=True)
class ManifestInfo:
    """The measured episodes.

    Attributes:
        digest: SHA-256 of the manifest: equal digests, equal episodes.
        episodes: number of episodes.
        classes: class ids of the episodes.
        dropped: names of the fold's classes that were left out because they have too few images.
        limit: number of episodes that the manifest was cut to; such a record never ranks.
    """

    digest: str
    episodes: int
    classes: tuple[int, ...]
    dropped: tuple[str, ...] = ()
    limit: int | None = None


@attrs.frozen(kw_only=True)
class DatasetInfo:
    """The data.

    Attributes:
        name: name of the dataset.
        split: split of the images.
        fingerprint: hash of the split's annotations.
        images: hash of the content of the manifest's images; "" in older records.
        folds_of: name of the dataset whose folds divide the classes; "" in older records, for its
            own folds.
    """

    name: str
    split: str
    fingerprint: str
    images: str = ""
    folds_of: str = ""


@attrs.frozen(kw_only=True)
class CodeInfo:
    """The code of one package that computed the rows; see `fssbench.runtime.code.Code`."""

    distribution: str = ""
    version: str = ""
    commit: str = ""
    dirty: bool | None = None
    sha256: str = ""


@attrs.frozen(kw_only=True)
class Weights:
    """Source of the backbone's weights; see `fssbench.backbones.backbone.WeightsInfo`."""

    source: str
    name: str = ""
    sha256: str = ""


@attrs.frozen(kw_only=True)
class EncoderInfo:
    """An encoder of an image matcher: registered name, weights, number of parameters."""

    name: str
    weights: Weights
    parameters: int


@attrs.frozen(kw_only=True)
class CheckpointInfo:
    """The trained matcher.

    Attributes:
        name: file name, without its folder.
        sha256: hash of the file.
        header: header written by the training.
        address: address ``hf://USER/NAME/FILE@COMMIT`` if the file is from the Hugging Face hub;
            otherwise "".
    """

    name: str
    sha256: str
    header: Mapping[str, Any] = attrs.field(factory=dict)
    address: str = ""


@attrs.frozen(kw_only=True)
class ClassScore:
    """IoU of a class over its episodes in percent, foreground and background."""

    class_id: int
    name: str
    episodes: int
    iou: float
    background_iou: float


@attrs.frozen(kw_only=True)
class Cost:
    """Size, operations, time and memory of an evaluation; None where unknown.

    Attributes:
        learnable_parameters: number of trainable parameters of the matcher.
        backbone_parameters: number of parameters of the frozen encoder.
        flops_per_episode: floating-point operations (two per multiply-add) of one episode with
            nothing cached: K+1 images encoded, supports embedded, query segmented.
        seconds_per_episode: wall time of the whole run (loading, encoding, matching, counting, with
            the run's caches) divided by the episodes. Times of an interrupted run are added up.
        peak_memory_mib: peak resident memory of the process, or on a GPU peak allocated memory.
    """

    learnable_parameters: int | None
    backbone_parameters: int | None
    flops_per_episode: int | None
    seconds_per_episode: float | None
    peak_memory_mib: float | None


@attrs.frozen(kw_only=True)
class Record:
    """One evaluation: one matcher, one manifest.

    Attributes:
        schema: version of this layout.
        protocol, fold, shots, seed: setting of the manifest.
        score_size: predictions were scored at the ``original`` size of the image or at the
            matcher's ``input`` size, as the protocol defines.
        dataset: the data.
        manifest: the episodes.
        matcher: name of the matcher.
        config: all its options, also those left at their defaults; without options that were added
            in a later version and have the value that they had before.
        checkpoint: its trained weights, or None for a training-free method.
        backbone: name of the backbone; for an image matcher the names of its encoders, with ``+``.
        weights: the backbone's weights; for an image matcher with source ``encoders``, or
            ``random`` if those of any encoder are.
        features: features that the matcher requested (layers, input size, resizing); empty for an
            image matcher.
        scores: scores by name, in percent (``miou``, ``fb_iou``, ``episode_miou``, …).
        intervals: 95 % confidence intervals (low, high) of the IoU scores, by bootstrap over query
            images.
        per_class: IoU of each class.
        cost: parameters, operations, time, memory.
        environment: versions, commit, hardware, precision, batch size.
        created: UTC time, ISO 8601.
        predictions: SHA-256 of the uncompressed predicted masks, or "" if they were not saved.
        code: code of matcher, backbone, dataset, metrics and sampler, by package; empty in older
            records.
        unaccounted: parameters from neither a checkpoint nor a declared encoder, and values of the
            matcher from the global random generators; such a record never ranks.
        encoders: encoders of an image matcher by role.
        uses: input beyond images and masks: ``class_names``, or ``gradients`` at test time.
        provenance: ``imported`` if another program predicted the masks; see
            `fssbench.evaluation.import_masks`. Otherwise "".
        ways: number of classes that each episode asks for, with base classes if it has some.
        overlap: names of the novel classes that matcher or encoder were trained on; such a record
            never ranks. None without a checkpoint, if the classes of a training are unknown, and in
            older records.
        tested_images: number of the manifest's images that matcher or encoder were trained on,
            compared by content; such a record never ranks. None without a checkpoint, in older
            records, and instead of 0 if some of the training's images are unknown.
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
    code: Mapping[str, CodeInfo] = attrs.field(factory=dict)
    unaccounted: tuple[str, ...] = ()
    provenance: str = ""
    encoders: Mapping[str, EncoderInfo] = attrs.field(factory=dict)
    uses: tuple[str, ...] = ()
    ways: int = 1
    overlap: tuple[str, ...] | None = None
    tested_images: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(0))
    )

    @property
    def trained_on(self) -> str:
        """The name of the dataset that the checkpoint was trained on, if it is another one."""
        name = self.checkpoint.header.get("dataset") if self.checkpoint else None
        return name if isinstance(name, str) and name != self.dataset.name else ""

    @property
    def trained_fold(self) -> int | None:
        """The fold that the checkpoint was trained for, if it is one of the record's folds."""
        header = self.checkpoint.header if self.checkpoint else {}
        return trained_fold(header, self.dataset.folds_of or self.dataset.name)

    @property
    def rankable(self) -> str:
        """Reason why the record must not rank on a board, or ""."""
        if self.overlap:
            return f"trained on tested classes: {first_few(self.overlap)}"
        if self.tested_images:
            return f"trained on {self.tested_images} of the tested images"
        if self.weights.source == "random":
            return "random weights"
        if self.manifest.limit is not None:
            return f"only the first {self.manifest.episodes} episodes"
        if self.unaccounted:
            return f"unaccounted: {'; '.join(self.unaccounted)}"
        old = not self.code and not self.provenance
        if old and not self.checkpoint and self.cost.learnable_parameters:
            return f"{self.cost.learnable_parameters:,} parameters without a checkpoint"
        if self.trained_on and self.overlap is None:
            return f"trained on unknown classes of {self.trained_on}, maybe on tested ones"
        return ""

    def to_frame(self) -> pandas.DataFrame:
        """Return a table of one line: setting, options, scores, intervals (low, high), cost.

        `fssbench.load_records` returns the lines of many records, `fssbench.load_rows` the
        episodes, which are in a file beside the record.
        """
        return pandas.DataFrame([flat_fields(self)])

    def _repr_html_(self) -> str:
        return record_html(self)

    def to_json(self) -> str:
        """Return the record as JSON text: the attributes in order, then the digest.

        Raises:
            ValueError: a number is NaN or infinite.
        """
        fields = json.loads(json.dumps(cattrs.unstructure(self), allow_nan=False))
        return json.dumps({**fields, DIGEST: _digest(fields)}, indent=2) + "\n"

    def write(self, folder: Path) -> Path:
        """Write ``record.json`` into a folder atomically."""
        path = folder / RECORD_FILE
        write_atomically(path, self.to_json().encode())
        return path

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a record.

        The digest detects damage and careless edits; the first records have none. It is no
        signature: `fssbench.results.verify` compares scores with the rows.

        Raises:
            FssbenchError: the file cannot be read, is no record of this schema, or does not match
                its digest.
        """
        try:
            fields = json.loads(read_within(path, MOST_BYTES))
        except OSError as error:
            reason = error.strerror or str(error)
            raise FssbenchError(f"{path}: cannot read this record: {reason}") from error
        except (ValueError, RecursionError) as error:
            reason = one_line(error)
            raise FssbenchError(f"{path}: this is no record: not JSON ({reason})") from error
        schema = fields.get("schema") if isinstance(fields, dict) else None
        if schema != SCHEMA:
            found = ascii(schema)[:20]
            raise FssbenchError(f"{path}: a record of schema {found}; this fssbench reads {SCHEMA}")
        try:
            # The digest is of the file's fields, also those that a newer version may have added.
            if DIGEST in fields and fields.pop(DIGEST) != _digest(fields):
                problem = "the content does not fit its digest, so it was changed or is damaged"
                advice = "copy the file again, or remove its folder and evaluate again"
                raise FssbenchError(f"{path}: {problem}; {advice}")
            record = strict.structure(fields, cls)
            record.to_json()  # raises for NaN and infinity
        except (cattrs.BaseValidationError, TypeError, ValueError, RecursionError) as error:
            reason = strict.reasons(error)
            raise FssbenchError(f"{path}: this record is damaged: {reason}") from error
        return record


def _digest(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of the canonical JSON text of a record without its digest."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
