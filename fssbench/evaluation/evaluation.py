"""Settings of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fssbench.errors import FssbenchError
from fssbench.runtime.device import Precision

CACHE_LIMIT = 50 << 30
"""Default size limit in bytes of features on disk."""


def at_least(least: int) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Return an attrs validator of an option: each number is `None` or at least `least`."""

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        lowest = min(value, default=least - 1) if isinstance(value, tuple) else value
        if lowest is not None and lowest < least:
            option = attribute.name.replace("_", "-")
            raise FssbenchError(f"--{option} must be at least {least}, not {lowest}")

    return check


def _with_iou(metrics: Sequence[str]) -> tuple[str, ...]:
    return ("iou", *(name for name in metrics if name != "iou"))


@attrs.frozen(kw_only=True)
class Evaluation:
    """Settings of `evaluate`; the options of the command line have the same names.

    Attributes:
        matcher: name of the matcher; "" for the checkpoint's, or ``prototype``.
        backbone: name of the encoder; "" for the checkpoint's, or the matcher's default.
        protocol: protocol id.
        data_root: folder of the dataset.
        data_options: options of the dataset.
        lists: folder of the authors' list files, for protocols that read them.
        folds: fold numbers; None for all, or for the fold that the checkpoint was trained for.
        shots: numbers of shots K, each evaluated separately.
        seeds: seeds of the manifest; benchmarks use 0.
        weights: weights of the encoder: ``pretrained``, ``random`` or a file.
        encoders: names of the encoders of an image matcher by role, instead of its defaults.
        encoder_weights: their weights by role, instead of `weights`.
        checkpoint: file of trained weights of the matcher, or its address
            ``hf://USER/NAME/FILE@REVISION`` on the Hugging Face hub.
        any_fold: True to evaluate a checkpoint on classes that it was trained on; such a record
            never ranks.
        limit: number of first episodes of each manifest to evaluate; None for all.
        out: folder of the run directories.
        options: options of the matcher.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``bf16``.
        devices: number of processes, each with its own GPU (or on the CPU).
        workers: loader processes of each process; None for one less than its cores, at most 8.
        batch_size: episodes that are segmented at once.
        metrics: names of the metrics to measure; ``iou`` is always the first.
        fresh: True to discard the rows of an earlier run in the same directory.
        save_predictions: True to save the predicted masks in the run directory.
        cache_memory: size limit in bytes of the features and prepared values in memory; None for a
            quarter of the device's memory.
        cache_dir: folder of features on disk, shared by runs and processes; None for none.
        cache_limit: size limit in bytes of that folder.
        cache_half: True to round features to float16 in memory and on disk. Rows depend on it.

    Raises:
        FssbenchError: a number is too small.
    """

    matcher: str = ""
    backbone: str = ""
    protocol: str = "shapes/v1-1k"
    data_root: Path | None = None
    data_options: Mapping[str, Any] = attrs.field(factory=dict)
    lists: Path | None = None
    folds: tuple[int, ...] | None = None
    shots: tuple[int, ...] = attrs.field(default=(1,), validator=at_least(1))
    seeds: tuple[int, ...] = (0,)
    weights: str = "pretrained"
    encoders: Mapping[str, str] = attrs.field(factory=dict)
    encoder_weights: Mapping[str, str] = attrs.field(factory=dict)
    checkpoint: str | Path | None = None
    any_fold: bool = False
    limit: int | None = attrs.field(default=None, validator=at_least(1))
    out: Path = Path("runs")
    options: Mapping[str, Any] = attrs.field(factory=dict)
    device: str = "auto"
    precision: Precision = "fp32"
    devices: int = attrs.field(default=1, validator=at_least(1))
    workers: int | None = attrs.field(default=None, validator=at_least(0))
    batch_size: int = attrs.field(default=1, validator=at_least(1))
    metrics: tuple[str, ...] = attrs.field(default=("iou",), converter=_with_iou)
    fresh: bool = False
    save_predictions: bool = False
    cache_memory: int | None = attrs.field(default=None, validator=at_least(0))
    cache_dir: Path | None = None
    cache_limit: int = attrs.field(default=CACHE_LIMIT, validator=at_least(1))
    cache_half: bool = False
