"""Repeat the training of a record's checkpoint, and compare the file's hash with the record's.

    python tools/remake_checkpoint.py RECORD --out last.safetensors

A checkpoint's header names versions, hardware and code, so the training's own file has the record's
hash in the same environment only. This tool writes the trained weights with the record's header:
the file has the hash if, and only if, the weights are the same bit for bit. Exit code 0 if so.
Otherwise the exit code is 1, the file at --out is not written, and the differences of the two
headers are printed. An interrupted training is resumed by the same command.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import safetensors.torch
import torch
from rich.console import Console
from torch import Tensor

from fssbench.cli.options import PATH, data_options
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically
from fssbench.hub import file_or_address
from fssbench.matchers.checkpoint import DIGEST, HEADER, digest, file_content, read_checkpoint
from fssbench.options import from_record
from fssbench.registry import registry
from fssbench.results.record import RECORD_FILE, Record, folder_of
from fssbench.specs import MatcherSpec
from fssbench.training.progress import TrainingProgress
from fssbench.training.train import train
from fssbench.training.training import Training


@click.command()
@click.argument("record", type=PATH)
@click.option("--out", type=PATH, required=True, help="Checkpoint to write, a .safetensors file.")
@click.option("--init", type=file_or_address, help="Checkpoint of the previous stage.")
@click.option("--weights", default="pretrained", show_default=True, help="Weights of the encoder.")
@data_options
@click.option("--trainings", type=PATH, default=Path("trainings"), show_default=True,
              help="Folder for training directories.")  # fmt: skip
def remake(record: Path, out: Path, trainings: Path, **given: Any) -> None:
    """Repeat the training of RECORD's checkpoint, and compare the file's hash with the record's.

    RECORD is a record.json, or its folder.
    """
    recorded = Record.read(folder_of(record) / RECORD_FILE)
    checkpoint = recorded.checkpoint
    if checkpoint is None or "settings" not in checkpoint.header:
        raise FssbenchError(f"{record}: its matcher was not trained by fssbench")
    header = checkpoint.header
    if header["selected_on"] != "nothing":
        raise FssbenchError(f"{record}: validation selected its checkpoint; give another record")
    if (header["init"] is None) != (given["init"] is None):
        wanted = "has no" if header["init"] is None else "needs the previous stage's checkpoint by"
        raise FssbenchError(f"{record}: its training {wanted} --init")
    torch.set_num_threads(header["environment"]["threads"])
    settings = training_of(header, out=trainings, resume=True, **given)
    report = TrainingProgress(Console(stderr=True))
    try:
        last = train(settings, observers=lambda run: [report]).last
    finally:
        report.close()
    for content in contents(safetensors.torch.load_file(last), header):
        if hashlib.sha256(content).hexdigest() == checkpoint.sha256:
            write_atomically(out, content)
            click.echo(f"{out}: the file of the record, sha256 {checkpoint.sha256}")
            return
    click.echo(f"{last}: the weights are not the record's. Differences of the headers:")
    for line in differences(header, read_checkpoint(last).header):
        click.echo(f"  {line}")
    click.echo(
        "Measure it, and compare the rows by fssbench board compare:\n"
        f"  fssbench evaluate --checkpoint {last} --protocol {recorded.protocol} "
        f"--fold {recorded.fold} --shots {recorded.shots}"
    )
    sys.exit(1)


def training_of(header: Mapping[str, Any], **given: Any) -> Training:
    """Return the training of a checkpoint's header, without validation."""
    settings, environment = header["settings"], header["environment"]
    recipe, *changes = header["recipe"].split()  # e.g. "shapes steps=2 lr=0.001"
    changed = {each.partition("=")[0] for each in changes}
    return Training(
        matcher=header["matcher"],
        stage=header["stage"],
        dataset=header["dataset"],
        fold=header["fold"],
        recipe=recipe,
        backbone=header["backbone"],
        options=from_record(registry().get(MatcherSpec, header["matcher"]), header["config"]),
        epochs=settings["epochs"] if "epochs" in changed else None,
        steps=settings["steps"] if "steps" in changed else None,
        batch_size=settings["batch"] if "batch" in changed else None,
        lr=settings["optimiser"]["lr"] if "lr" in changed else None,
        shots=settings["shots"],
        seed=header["seed"],
        device=environment["device"],
        devices=environment["processes"],
        precision=environment["precision"],
        accumulate=environment["accumulate"],
        validation_episodes=0,
        **given,
    )


def contents(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield the files that any version of fssbench may have written.

    Early versions wrote no digest, and later ones the metadata in a random order.
    """
    described = {HEADER: json.dumps(dict(header))}
    checked = {DIGEST: digest(described[HEADER], tensors.items())}
    for metadata in (described | checked, checked | described, described):
        yield file_content(tensors, metadata)


def differences(then: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield the different values of two headers; of the code, only hashes."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for key in {**then, **now}:
            yield from differences(then.get(key), now.get(key), f"{name}.{key}".lstrip("."))
    elif then != now and (not name.startswith("code.") or name.endswith(".sha256")):
        yield f"{name}: {str(then)[:60]} -> {str(now)[:60]}"


if __name__ == "__main__":
    try:
        remake()
    except FssbenchError as error:
        print(f"remake_checkpoint: error: {error}", file=sys.stderr)
        sys.exit(2)
