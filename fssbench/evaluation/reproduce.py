"""Verifying a result by doing some of it again: do the episodes give the rows that are stored?"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy
import pandas

from fssbench.episodes.chunks import chunks_of
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import build_manifest
from fssbench.errors import FssbenchError
from fssbench.evaluation.evaluate import prepare
from fssbench.evaluation.evaluation import Evaluation
from fssbench.evaluation.evaluator import Evaluator
from fssbench.evaluation.reproduction import (
    ELSEWHERE,
    Reproduction,
    compare_rows,
    conditions,
    conditions_of,
)
from fssbench.files import sha256
from fssbench.matchers.matcher import config_of
from fssbench.results.method import brings_backbone
from fssbench.results.record import Record, folder_of
from fssbench.results.result import FILES, Result, read_result
from fssbench.results.rows import KEYS
from fssbench.results.verify import examine, measured_metrics
from fssbench.runtime.environment import environment


@attrs.frozen(kw_only=True)
class Rerun:
    """What is to be done again, and what a record does not hold but needs for it.

    Attributes:
        episodes: size of the sample; all of them where the manifest has fewer.
        seed: of the sample; None for one that nobody can know beforehand.
        checkpoint: the trained matcher's file, where the record has one.
        weights: of the backbone: ``pretrained``, ``random`` or a file; "" for the record's, which
            must then be no file.
        data_root: folder of the dataset.
        data_options: the dataset's own options, as the evaluation had them.
        lists: folder of authors' list files, for a protocol that reads such.
        device: ``auto``, ``cpu`` or ``cuda``.
        workers: loader processes; None for one less than the cores, at most 8.
        tolerance: share of an image's pixels by which each count may differ; None for 0 where
            `SAME` are, and `ELSEWHERE` otherwise.
    """

    episodes: int = 50
    seed: int | None = None
    checkpoint: Path | None = None
    weights: str = ""
    data_root: Path | None = None
    data_options: Mapping[str, Any] = attrs.field(factory=dict)
    lists: Path | None = None
    device: str = "auto"
    workers: int | None = None
    tolerance: float | None = None


def verify_record(path: Path, rerun: Rerun | None = None) -> Reproduction:
    """Do a random sample of a record's episodes again, and compare their rows with the stored ones.

    The scores must follow from the rows, the episodes must be those that the protocol draws, and
    the sampled rows must come out again, along the same path as in an evaluation.

    Args:
        path: ``record.json``, or the folder that holds it with its rows and its manifest.
        rerun: how much, and with what.

    Raises:
        FssbenchError: files are missing or unreadable; the checkpoint, the weights or the data are
            not those of the record; or a name in it is not registered.
    """
    rerun = rerun or Rerun()
    if rerun.episodes < 1:
        raise FssbenchError(f"--episodes must be at least 1, not {rerun.episodes}")
    result = _complete(folder_of(path))
    record, manifest, rows = result.record, result.manifest(), result.rows()
    found, sound = examine(result, manifest, rows, intervals=False)
    seed = secrets.randbelow(2**32) if rerun.seed is None else rerun.seed
    verdict = Reproduction(
        folder=result.folder, record=record, seed=seed, sample=(),
        then=conditions_of(record), now={}, tolerance=rerun.tolerance or 0.0,
        problems=tuple(found), differences=(),
    )  # fmt: skip
    if not sound:
        return verdict
    bench = prepare(_job(record, rows, rerun))
    _check_parts(bench, record, manifest)
    wrong = list(_differing_protocol(bench, record, manifest))
    if wrong:
        return attrs.evolve(verdict, problems=(*found, *wrong))
    sample = draw_sample(len(manifest.episodes), rerun.episodes, seed)
    again = _measure_again(bench, manifest, sample)
    now = conditions(
        environment(bench.pipeline.device),
        precision=bench.job.precision,
        batch_size=bench.job.batch_size,
        **({"features": "float16"} if bench.job.cache_half else {}),
    )
    verdict = attrs.evolve(verdict, sample=sample, now=now)
    if rerun.tolerance is None and verdict.changed:
        verdict = attrs.evolve(verdict, tolerance=ELSEWHERE)
    differences = compare_rows(rows, again, manifest, verdict.tolerance)
    return attrs.evolve(verdict, differences=tuple(differences))


def draw_sample(total: int, count: int, seed: int) -> tuple[int, ...]:
    """Indices of `count` of `total` episodes, or of all, ascending; each set equally probable.

    Raises:
        FssbenchError: the seed is negative.
    """
    if seed < 0:
        raise FssbenchError(f"--seed must be at least 0, not {seed}")
    generator = numpy.random.default_rng(seed)
    drawn = generator.choice(total, size=min(count, total), replace=False)
    return tuple(sorted(drawn.tolist()))


def _complete(folder: Path) -> Result:
    for name in FILES:
        if not (folder / name).is_file():
            raise FssbenchError(
                f"{folder / name}: missing; a record is verified with {', '.join(FILES)}"
            )
    return read_result(folder)


def _job(record: Record, rows: pandas.DataFrame, rerun: Rerun) -> Evaluation:
    """The evaluation that the record is of."""
    _check_checkpoint_file(record, rerun.checkpoint)
    precision, batch_size = (record.environment.get(name) for name in ("precision", "batch_size"))
    if precision not in ("fp32", "bf16") or type(batch_size) is not int or batch_size < 1:
        raise FssbenchError(
            "the record's environment names no precision and batch size to do it again with"
        )
    return Evaluation(
        matcher=record.matcher,
        backbone=record.backbone,
        protocol=record.protocol,
        data_root=rerun.data_root,
        data_options=rerun.data_options,
        lists=rerun.lists,
        folds=(record.fold,),
        shots=(record.shots,),
        seeds=(record.seed,),
        weights=_weights(record, rerun.weights),
        checkpoint=rerun.checkpoint,
        any_fold=True,
        limit=record.manifest.limit,
        options=record.config,
        device=rerun.device,
        precision=precision,
        workers=rerun.workers,
        batch_size=batch_size,
        cache_half=record.environment.get("features") == "float16",
        metrics=_metrics(rows),
    )


def _metrics(rows: pandas.DataFrame) -> tuple[str, ...]:
    metrics = measured_metrics(rows)
    known = {column for metric in metrics.values() for column in metric.columns}
    unknown = [name for name in rows.columns if name not in known.union(KEYS)]
    if unknown:
        raise FssbenchError(
            f"the rows hold {ascii(', '.join(unknown))[:70]}, which no installed metric measures; "
            "load the plugin that brings it with -p"
        )
    return tuple(metrics)


def _check_checkpoint_file(record: Record, path: Path | None) -> None:
    said = record.checkpoint
    if said is None:
        if path is not None:
            raise FssbenchError(f"--checkpoint {path}: the record is of a method without one")
        return
    which = f"{said.name!a} (sha256 {said.sha256[:12]}…)"
    if path is None:
        raise FssbenchError(f"the record is of the checkpoint {which}; give it with --checkpoint")
    try:
        own = sha256(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FssbenchError(f"--checkpoint {path}: cannot be read: {reason}") from error
    if own != said.sha256:
        raise FssbenchError(
            f"--checkpoint {path}: its sha256 is {own[:12]}…, the record is of {which}; give the "
            "file that was evaluated"
        )


def _weights(record: Record, asked: str) -> str:
    if asked or brings_backbone(record):
        return asked or "pretrained"
    if record.weights.source == "file":
        raise FssbenchError(
            f"the record's backbone has weights of a file, {record.weights.name!a} (sha256 "
            f"{record.weights.sha256[:12]}…); give it with --weights"
        )
    return "random" if record.weights.source == "random" else "pretrained"


def _check_parts(bench: Evaluator, record: Record, manifest: Manifest) -> None:
    """Raise unless encoder, options and data are the record's."""
    own = bench.pipeline.backbone.weights
    if (own.source == "random", own.sha256) != (
        record.weights.source == "random",
        record.weights.sha256,
    ):
        raise FssbenchError(
            f"the backbone's weights are {own.source} {own.name} (sha256 {own.sha256[:12] or '-'})"
            f", the record's {record.weights.source} {record.weights.name!a} (sha256 "
            f"{record.weights.sha256[:12] or '-'}); give --weights"
        )
    config = json.loads(json.dumps(config_of(bench.pipeline.matcher)))
    differing = sorted(
        key
        for key in config.keys() | record.config.keys()
        if config.get(key) != record.config.get(key)
    )
    if differing:
        raise FssbenchError(
            f"{record.matcher}: the options {', '.join(differing)} of the installed version are "
            "not those of the record; install the version that the record names"
        )
    manifest.check_annotations(bench.dataset)


def _differing_protocol(bench: Evaluator, record: Record, manifest: Manifest) -> Iterable[str]:
    """What the record says of its protocol and is not so."""
    drawn = build_manifest(
        bench.protocol,
        bench.dataset,
        fold=record.fold,
        shots=record.shots,
        seed=record.seed,
        limit=record.manifest.limit,
        lists=bench.job.lists,
    )
    if drawn.digest != manifest.digest:
        yield (
            f"the manifest ({manifest.digest[:8]}) is not what {record.protocol} draws from this "
            f"data ({drawn.digest[:8]})"
        )
    if record.score_size != bench.protocol.score_size:
        yield f"score_size is {record.score_size}, the protocol's {bench.protocol.score_size}"


def _measure_again(bench: Evaluator, manifest: Manifest, sample: Sequence[int]) -> pandas.DataFrame:
    """Rows of the sampled episodes.

    An episode is segmented in the batch that it was in, with all others of that batch, because the
    last bits of a number may depend on them.
    """
    size = bench.job.batch_size
    chunks: dict[int, Sequence[Episode]] = {}
    for number, episodes in chunks_of(manifest.episodes).items():
        batches = [episodes[start : start + size] for start in range(0, len(episodes), size)]
        wanted = [batch for batch in batches if any(e.index in sample for e in batch)]
        if wanted:
            chunks[number] = [episode for batch in wanted for episode in batch]
    tables = [rows for _, rows, _, _ in bench.measured(chunks)]
    again: pandas.DataFrame = pandas.concat(tables, ignore_index=True)
    sampled: pandas.DataFrame = again.loc[again["index"].isin(sample)]
    return sampled
