"""Checkpoints on the Hugging Face hub: upload with a model card, and download."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fssbench import hub, registry
from fssbench.errors import FssbenchError
from fssbench.files import sha256, write_atomically
from fssbench.matchers.checkpoint import (
    SUFFIX,
    Checkpoint,
    parse_checkpoint_address,
    read_checkpoint,
)
from fssbench.results.privacy import own_names, private_facts
from fssbench.results.record import Record, folder_of
from fssbench.results.result import read_result
from fssbench.results.verify import problems
from fssbench.specs import MatcherSpec

CARD = "README.md"
_SHOWN = ("stage", "recipe", "shots", "seed", "step", "selected_on")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")


def push_checkpoint(
    file: Path, to: str, *, records: Sequence[Path] = (), licence: str = ""
) -> hub.Address:
    """Upload a checkpoint with a model card, and return its address with the commit.

    The card has one section for each checkpoint of the repository: this one's is written, others
    are left as they are.

    Args:
        file: checkpoint to upload.
        to: repository, ``hf://USER/NAME``, created if there is none.
        records: records of this checkpoint, whose scores the card prints.
        licence: identifier of the weights' licence on the hub, e.g. ``apache-2.0``; "" if it is
            not stated.

    Raises:
        FssbenchError: the file is no checkpoint or holds private data, a record is of another file
            or does not verify, or the upload failed. Nothing is uploaded then.
    """
    address = hub.parse_address(to, "hf://USER/NAME")
    checkpoint = read_checkpoint(file, "FILE")
    if not file.name.endswith(SUFFIX):
        raise FssbenchError(f"{file}: checkpoints on the hub are {SUFFIX} files; rename it")
    target = parse_checkpoint_address(f"{address}/{file.name}")
    if licence and not _LICENCE.fullmatch(licence):
        raise FssbenchError(
            f"--licence {licence}: no licence of the hub; give its identifier, e.g. apache-2.0"
        )
    for fact in private_facts(checkpoint.header, own_names()):
        raise FssbenchError(f"{file}: {fact}; checkpoints are public: train again without it")
    measured = [_record_of(checkpoint, path) for path in records]
    section = _section(checkpoint, target, measured, licence)

    def card(newest: hub.Address) -> dict[str, bytes]:
        try:
            before = hub.fetch(_file(newest, CARD)).read_text()
        except hub.NotOnHubError:  # a new repository, or one without a card
            before = _head(checkpoint, address, licence)
        except FssbenchError as error:
            raise FssbenchError(f"{address}: {error}") from error
        return {CARD: _with_section(before, file.name, section).encode()}

    done = hub.upload(address, {file.name: file}, more=card)
    return _file(done, file.name)


def pull_checkpoint(given: str, out: Path | None = None) -> tuple[Path, Checkpoint]:
    """Download a checkpoint, check it, and write it to a file.

    Args:
        given: address ``hf://USER/NAME/FILE@REVISION``.
        out: file to write; None for the file's name in the current folder.

    Raises:
        FssbenchError: the download failed, the file is damaged or no checkpoint, or another file
            has the name.
    """
    parse_checkpoint_address(given)
    checkpoint = read_checkpoint(given, "checkpoint")
    path = out or Path(checkpoint.name)
    if path.exists() and (path.is_dir() or sha256(path) != checkpoint.sha256):
        raise FssbenchError(f"{path}: exists, with another content; choose a name with --out")
    write_atomically(path, checkpoint.path.read_bytes())
    return path, checkpoint


def _file(address: hub.Address, name: str) -> hub.Address:
    return hub.Address(repository=address.repository, file=name, revision=address.revision)


def _record_of(checkpoint: Checkpoint, path: Path) -> Record:
    """Return a record, and check that it verifies and is of the checkpoint."""
    folder = folder_of(path)
    for problem in problems(folder, intervals=False):
        raise FssbenchError(f"--record {problem}")
    record = read_result(folder).record
    if record.checkpoint is None or record.checkpoint.sha256 != checkpoint.sha256:
        raise FssbenchError(
            f"--record {path}: it is of another checkpoint than {checkpoint.name}; give the "
            "records that were evaluated with this file"
        )
    return record


def _head(checkpoint: Checkpoint, address: hub.Address, licence: str) -> str:
    """Return the head of a new card."""
    return "\n".join(
        [
            "---",
            *([f"license: {licence}"] if licence else []),
            "library_name: fssbench",
            "pipeline_tag: image-segmentation",
            "tags:",
            "- few-shot-segmentation",
            f"- {json.dumps(checkpoint.header['matcher'])}",
            "---",
            "",
            f"# {address.repository.partition('/')[2]}",
            "",
            "Checkpoints of methods for few-shot semantic segmentation, in the format of fssbench: "
            "safetensors with a descriptive header, which hold no code.",
            "",
        ]
    )


def _with_section(card: str, name: str, section: str) -> str:
    """Return a card in which the section of a file is replaced, or added at the end."""
    start, end = f"<!-- fssbench: {name} -->\n", f"<!-- /fssbench: {name} -->\n"
    before, found, rest = card.partition(start)
    after = rest.partition(end)[2] if found else ""
    return f"{before if found else before.rstrip() + chr(10) * 2}{start}{section}{end}{after}"


def _section(
    checkpoint: Checkpoint, address: hub.Address, records: Sequence[Record], licence: str
) -> str:
    """Return the section of a checkpoint: origin, scores, and commands to evaluate it."""
    lines = [f"## {checkpoint.name}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in _facts(checkpoint, licence)]
    if records:
        lines += [
            "",
            "| protocol | fold | shots | seed | episodes | mIoU (95 % interval) | FB-IoU "
            "(95 % interval) |",
            "|---|---|---|---|---|---|---|",
            *map(_score_line, records),
        ]
    option = f"--checkpoint {address}"
    protocol = records[0].protocol if records else "PROTOCOL"
    lines += [
        "",
        "Evaluate it, or verify a record of it, with fssbench installed, and the method's plugin "
        "if fssbench does not bundle it:",
        "",
        "```console",
        f"$ fssbench evaluate {option} --protocol {protocol}",
        f"$ fssbench board verify RECORD {option}",
        "```",
        "",
    ]
    return "\n".join(lines)


def _facts(checkpoint: Checkpoint, licence: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of a section's table; facts that the header does not have are left out."""
    header = checkpoint.header
    yield "method", header["matcher"]
    yield "encoder", header["backbone"]
    weights = header.get("weights")
    if isinstance(weights, Mapping):
        yield "encoder weights", " ".join(str(weights.get(k) or "") for k in ("source", "name"))
    yield "weights of the encoder included", "yes" if checkpoint.holds_backbone else "no"
    if header.get("dataset") is not None:
        yield "trained on", header["dataset"]
    if header.get("fold") is not None:
        yield "fold whose classes are novel", header["fold"]
    for name in _SHOWN:
        if header.get(name) is not None:
            yield name.replace("_", " "), header[name]
    if header["config"]:
        yield "options", json.dumps(header["config"])
    yield "sha256", checkpoint.sha256
    yield "licence of these weights", licence or "not stated"
    spec = registry.registry().specs(MatcherSpec).get(header["matcher"])
    if spec is not None and spec.licence:
        yield "licence of the method's code", spec.licence


def _score_line(record: Record) -> str:
    cells = [record.protocol, record.fold, record.shots, record.seed, record.manifest.episodes]
    return f"| {' | '.join(map(_cell, [*cells, *(_score(record, n) for n in _SCORES)]))} |"


_SCORES = ("miou", "fb_iou")


def _score(record: Record, name: str) -> str:
    low, high = record.intervals[name]
    return f"{record.scores[name]:.2f} ({low:.2f} to {high:.2f})"


def _cell(value: Any) -> str:
    """Return a value as the text of a cell in a markdown table, without any mark-up."""
    return re.sub(r"([\\`*_\[\]<>|&~])", r"\\\1", " ".join(str(value).split()))
