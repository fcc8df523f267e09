"""Verification of a result: a sample of its episodes is evaluated again."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy
import pandas

from fssbench.backbones.backbone import WeightsInfo
from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluate import prepare
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.evaluator import Evaluator
from fssbench.evaluation.reproduction import (
    ELSEWHERE,
    Reproduction,
    compare_rows,
    conditions,
)
from fssbench.files import sha256
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.matchers.checkpoint import locate_checkpoint
from fssbench.matchers.matcher import config_of
from fssbench.options import from_record
from fssbench.registry import registry
from fssbench.results.method import brings_backbone
from fssbench.results.record import Record, Weights, folder_of
from fssbench.results.result import FILES, Result, read_result
from fssbench.results.rows import KEYS, NOVEL, WAY, confusion_columns
from fssbench.results.verify import examine, measured_metrics
from fssbench.runtime.environment import environment
from fssbench.specs import MatcherSpec


@attrs.frozen(kw_only=True)
class Rerun:
    """Settings of a verification, and inputs that a record does not contain.

    Attributes:
        episodes: size of the sample; all episodes if the manifest has fewer.
        seed: seed of the sample; None for an unpredictable one.
        checkpoint: checkpoint of the trained matcher, if the record has one: a file, or its
            address ``hf://…`` on the hub.
        weights: backbone weights: ``pretrained``, ``random`` or a file; "" for those of the
            record, unless they are a file.
        encoder_weights: weights of an image matcher's encoders by role, likewise.
        data_root: folder of the dataset.
        data_options: options of the dataset, as in the evaluation.
        lists: folder of authors' list files, for a protocol that reads them.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: loader processes; None for one less than the cores, at most 8.
        tolerance: share of an image's pixels by which each count may differ; None for 0 if all
            conditions of `SAME` are equal, and `ELSEWHERE` otherwise.
    """

    episodes: int = 50
    seed: int | None = None
    checkpoint: str | Path | None = None
    weights: str = ""
    encoder_weights: Mapping[str, str] = attrs.field(factory=dict)
    data_root: Path | None = None
    data_options: Mapping[str, Any] = attrs.field(factory=dict)
    lists: Path | None = None
    device: str = "auto"
    workers: int | None = None
    tolerance: float | None = None


def verify_record(path: Path, rerun: Rerun | None = None) -> Reproduction:
    """Evaluate a random sample of a record's episodes again, and compare with the stored rows.

    The scores must follow from the rows, the episodes must be those that the protocol draws, and
    the sampled rows must be reproduced by the code path of an evaluation.

    Args:
        path: ``record.json``, or its folder with the rows and the manifest.
        rerun: settings of the verification.

    Raises:
        FssbenchError: files are missing or unreadable; the checkpoint, the weights or the data are
            not those of the record; or a name in it is not registered.
    """
    rerun = rerun or Rerun()
    if rerun.episodes < 1:
        raise FssbenchError(f"--episodes must be at least 1, not {rerun.episodes}")
    result = _computed_result(path)
    folder, record, manifest, rows = result.folder, result.record, result.manifest(), result.rows()
    found, sound = examine(result, manifest, rows, intervals=False)
    seed = secrets.randbelow(2**32) if rerun.seed is None else rerun.seed
    outcome = Reproduction(
        folder=folder, record=record, seed=seed, sample=(),
        then=conditions(record.environment), now={}, tolerance=rerun.tolerance or 0.0,
        problems=tuple(found), differences=(),
    )  # fmt: skip
    if not sound:
        return outcome
    rerun = attrs.evolve(rerun, checkpoint=_checked_file(record, rerun.checkpoint))
    evaluator = prepare(_evaluation(record, rows, rerun))
    _check_model_and_data(evaluator, record, manifest)
    wrong = list(_differing_protocol(evaluator, record, manifest))
    if wrong:
        return attrs.evolve(outcome, problems=(*found, *wrong))
    sample = draw_sample(len(manifest.episodes), rerun.episodes, seed)
    again = _measure_again(evaluator, manifest, sample)
    now = {
        **environment(evaluator.pipeline.device),
        "precision": evaluator.settings.precision,
        "batch_size": evaluator.settings.batch_size,
        **({"features": "float16"} if evaluator.settings.cache_half else {}),
    }
    outcome = attrs.evolve(outcome, sample=sample, now=conditions(now))
    if rerun.tolerance is None and outcome.changed:
        outcome = attrs.evolve(outcome, tolerance=ELSEWHERE)
    differences = compare_rows(rows, again, manifest, outcome.tolerance)
    return attrs.evolve(outcome, differences=tuple(differences))


def evaluation_of(path: Path, rerun: Rerun, *, check: bool) -> tuple[Evaluation, Record]:
    """Return the evaluation that produces a record again, and the record.

    Args:
        path: ``record.json``, or its folder with the rows and the manifest.
        rerun: inputs that the record does not contain.
        check: True to raise unless these inputs and the installed code give the record's model and
            episodes. Otherwise files that are not given have their names in the record.

    Raises:
        FssbenchError: as for `verify_record`, if `check`; or a name is not registered.
    """
    result = _computed_result(path)
    record, rows = result.record, result.rows()
    if check or rerun.checkpoint:
        _checked_file(record, rerun.checkpoint)
    elif record.checkpoint:
        rerun = attrs.evolve(
            rerun, checkpoint=record.checkpoint.address or Path(record.checkpoint.name)
        )
    if not check:
        rerun = attrs.evolve(rerun, encoder_weights={
            **{role: encoder.weights.name for role, encoder in record.encoders.items()
               if encoder.weights.source == "file" and not rerun.weights},
            **rerun.encoder_weights,
        })  # fmt: skip
        if record.weights.source == "file" and not brings_backbone(record):
            rerun = attrs.evolve(rerun, weights=rerun.weights or record.weights.name)
    evaluation = _evaluation(record, rows, rerun)
    evaluation = attrs.evolve(
        evaluation,
        any_fold=record.trained_fold not in (None, record.fold),
        save_predictions=bool(record.predictions),
    )
    if check:
        evaluator, manifest = prepare(evaluation), result.manifest()
        _check_model_and_data(evaluator, record, manifest)
        for problem in _differing_protocol(evaluator, record, manifest):
            raise FssbenchError(f"{path}: {problem}; give the dataset's options with -d")
    return evaluation, record


def _computed_result(path: Path) -> Result:
    """Return a complete result whose masks fssbench computed."""
    folder = folder_of(path)
    for name in FILES:
        if not (folder / name).is_file():
            raise FssbenchError(f"{folder / name}: missing; verification needs {', '.join(FILES)}")
    result = read_result(folder)
    if result.record.provenance:
        raise FssbenchError(
            f"{folder}: masks of another program, which cannot be computed again; fssbench board "
            "check compares the scores with the rows, fssbench score the rows with the masks"
        )
    return result


def draw_sample(total: int, count: int, seed: int) -> tuple[int, ...]:
    """Draw the indices of `count` of `total` episodes, or of all, ascending and without bias.

    Raises:
        FssbenchError: the seed is negative.
    """
    if seed < 0:
        raise FssbenchError(f"--seed must be at least 0, not {seed}")
    generator = numpy.random.default_rng(seed)
    drawn = generator.choice(total, size=min(count, total), replace=False)
    return tuple(sorted(drawn.tolist()))


def _evaluation(record: Record, rows: pandas.DataFrame, rerun: Rerun) -> Evaluation:
    """Return the evaluation that produced the record."""
    precision, batch_size = (record.environment.get(name) for name in ("precision", "batch_size"))
    if precision not in ("fp32", "bf16") or type(batch_size) is not int or batch_size < 1:
        raise FssbenchError(
            "the record's environment lacks the precision and batch size of the evaluation"
        )
    same = ("data_root", "data_options", "lists", "checkpoint", "device", "workers")
    given: dict[str, Any] = {name: getattr(rerun, name) for name in same}
    return Evaluation(
        **given,
        matcher=record.matcher,
        backbone="" if record.encoders else record.backbone,
        encoders={role: encoder.name for role, encoder in record.encoders.items()},
        encoder_weights={
            role: rerun.encoder_weights.get(role)
            or rerun.weights
            or _of_source(encoder.weights, f"{role}=")
            for role, encoder in record.encoders.items()
        },
        protocol=record.protocol,
        folds=(record.fold,),
        shots=(record.shots,),
        seeds=(record.seed,),
        weights=_weights(record, rerun.weights),
        any_fold=True,
        limit=record.manifest.limit,
        options=from_record(registry().get(MatcherSpec, record.matcher), record.config),
        precision=precision,
        batch_size=batch_size,
        cache_half=record.environment.get("features") == "float16",
        metrics=_metrics(rows, record.ways),
    )


def _metrics(rows: pandas.DataFrame, ways: int) -> tuple[str, ...]:
    metrics = measured_metrics(rows)
    known = {*KEYS, *(column for metric in metrics.values() for column in metric.columns)}
    known |= {WAY, NOVEL, *confusion_columns(ways)} if ways > 1 else set()
    unknown = [name for name in rows.columns if name not in known]
    if unknown:
        raise FssbenchError(
            f"the rows have {ascii(', '.join(unknown))[:70]}, which no installed metric measures; "
            "load the plugin of the metric with -p"
        )
    return tuple(metrics)


def _checked_file(record: Record, given: str | Path | None) -> Path | None:
    """Return the checkpoint's local file, and check that it is the record's."""
    checkpoint = record.checkpoint
    if checkpoint is None:
        if given is not None:
            raise FssbenchError(f"--checkpoint {given}: the record is of a method without one")
        return None
    which = f"{checkpoint.name!a} (sha256 {checkpoint.sha256[:12]}…)"
    if given is None:
        address = f" {checkpoint.address!a}" if checkpoint.address else ""
        raise FssbenchError(
            f"the record is of the checkpoint {which}; give it with --checkpoint{address}"
        )
    path, _ = locate_checkpoint(given)
    try:
        own = sha256(path)
    except OSError as error:
        raise FssbenchError(
            f"--checkpoint {given}: cannot be read: {error.strerror or error}"
        ) from error
    if own != checkpoint.sha256:
        raise FssbenchError(
            f"--checkpoint {given}: its sha256 is {own[:12]}…, the record is of {which}; give the "
            "file that was evaluated"
        )
    return path


def _weights(record: Record, asked: str) -> str:
    if asked or brings_backbone(record) or record.encoders:
        return asked or "pretrained"
    return _of_source(record.weights)


def _of_source(weights: Weights, role: str = "") -> str:
    if weights.source == "file":
        what = f"encoder {role[:-1]}" if role else "backbone"
        raise FssbenchError(
            f"the record's {what} has weights of a file, {weights.name!a} (sha256 "
            f"{weights.sha256[:12]}…); give it with --weights {role}FILE"
        )
    return "random" if weights.source == "random" else "pretrained"


def _check_model_and_data(evaluator: Evaluator, record: Record, manifest: Manifest) -> None:
    """Raise unless encoder, options and data are those of the record."""
    pipeline = evaluator.pipeline
    if isinstance(pipeline, ImagePipeline):
        for role, encoder in pipeline.encoders.items():
            _check_weights(encoder.weights, record.encoders[role].weights, f"{role}=")
    else:
        _check_weights(pipeline.weights, record.weights)
    config = json.loads(json.dumps(config_of(evaluator.pipeline.matcher)))
    keys = config.keys() | record.config.keys()
    differing = sorted(key for key in keys if config.get(key) != record.config.get(key))
    if differing:
        raise FssbenchError(
            f"{record.matcher}: the options {', '.join(differing)} of the installed version are "
            "not those of the record; install the version that the record names"
        )
    manifest.check_annotations(evaluator.dataset)
    images = evaluator.hashes.digest(manifest.image_ids())
    if record.dataset.images and record.dataset.images != images:
        raise FssbenchError(
            f"{record.dataset.name}: images have another content than those of the record, under "
            "the same names; give the record's images with --data-root"
        )


def _check_weights(own: WeightsInfo, true: Weights, role: str = "") -> None:
    if (own.source == "random", own.sha256) != (true.source == "random", true.sha256):
        what = f"encoder {role[:-1]}" if role else "backbone"
        raise FssbenchError(
            f"the {what}'s weights are {own.source} {own.name} (sha256 {own.sha256[:12] or '-'})"
            f", the record's {true.source} {true.name!a} (sha256 {true.sha256[:12] or '-'}); give "
            f"--weights {role}FILE"
        )


def _differing_protocol(evaluator: Evaluator, record: Record, manifest: Manifest) -> Iterable[str]:
    """Yield the deviations of the record from its protocol."""
    (drawn,) = evaluator.manifests()
    if drawn.digest != manifest.digest:
        yield (
            f"the manifest ({manifest.digest[:8]}) is not what {record.protocol} draws from this "
            f"data ({drawn.digest[:8]})"
        )
    if record.score_size != evaluator.protocol.score_size:
        yield f"score_size is {record.score_size}, the protocol's {evaluator.protocol.score_size}"
    overlap = evaluator.training.classes(manifest)
    if record.overlap is not None and record.overlap != overlap:
        yield f"overlap is {list(record.overlap)}, the checkpoint's {list(overlap or ())}"
    images = evaluator.training.images(manifest)
    if record.tested_images != images:
        yield f"tested_images is {record.tested_images}, the checkpoint's {images}"


def _measure_again(
    evaluator: Evaluator, manifest: Manifest, sample: Sequence[int]
) -> pandas.DataFrame:
    """Return the rows of the sampled episodes.

    Each episode is segmented in its original batch, because the last bits of a number may depend
    on the other episodes of the batch.
    """
    size = evaluator.settings.batch_size
    chunks: dict[int, Sequence[Episode]] = {}
    for number, episodes in chunks_of(manifest.episodes).items():
        batches = [episodes[start : start + size] for start in range(0, len(episodes), size)]
        wanted = [batch for batch in batches if any(e.index in sample for e in batch)]
        if wanted:
            chunks[number] = list(itertools.chain(*wanted))
    again = pandas.concat([result.rows for result in evaluator.measure(chunks)], ignore_index=True)
    sampled: pandas.DataFrame = again.loc[again["index"].isin(sample)]
    return sampled
