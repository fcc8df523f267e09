"""Checkpoints: a matcher's weights in one safetensors file whose header says what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fssbench.backbones.backbone import Backbone
from fssbench.backbones.weights import BACKBONE_PREFIX
from fssbench.errors import FssbenchError
from fssbench.files import sha256, write_atomically
from fssbench.matchers.matcher import Matcher

_KEY = "fssbench"
_DIGEST = "fssbench_sha256"
_HOLDS_BACKBONE = "holds_backbone"


@attrs.frozen(kw_only=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: the file.
        sha256: hash of the file.
        header: what training wrote: at least ``matcher``, ``config``, ``backbone``.
        weights: the matcher's state.
    """

    path: Path
    sha256: str
    header: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @property
    def name(self) -> str:
        """File name, without its folder."""
        return self.path.name

    @property
    def holds_backbone(self) -> bool:
        """Whether the file brings the weights of its backbone too."""
        return bool(self.header.get(_HOLDS_BACKBONE))

    def backbone_weights(self, asked: str) -> str:
        """Where to take the backbone's weights from: the checkpoint itself, if it brings them.

        Args:
            asked: what the user gave: ``pretrained`` (the default), ``random`` or a file.

        Raises:
            FssbenchError: the user gave others than those the checkpoint brings.
        """
        if not self.holds_backbone:
            return asked
        if asked != "pretrained":
            raise FssbenchError(
                f"--weights {asked}: the checkpoint {self.name} brings the weights of its "
                "backbone; leave --weights out"
            )
        return str(self.path)

    def check_is(self, what: str, asked: str) -> None:
        """Raise an `FssbenchError` unless it was trained as what the user asks for.

        Args:
            what: ``matcher`` or ``backbone``.
            asked: the registered name that was given.
        """
        if self.header[what] != asked:
            raise FssbenchError(
                f"--checkpoint {self.name}: it was trained as {what} {self.header[what]!r}, not "
                f"{asked!r}"
            )

    def check_weights(self, backbone: Backbone) -> None:
        """Raise an `FssbenchError` unless these are the backbone's weights of the training.

        A matcher must not meet features of other weights than those it was trained on.
        """
        trained = self.header.get("weights")
        if not isinstance(trained, dict) or self.holds_backbone:
            return
        own = backbone.weights
        random = "random" in (trained.get("source"), own.source)
        if trained.get("sha256") != own.sha256 or (random and trained.get("source") != own.source):
            raise FssbenchError(
                f"--checkpoint {self.name}: it was trained on {trained.get('source')} weights "
                f"{trained.get('name') or ''} of its backbone, and these are {own.source} "
                f"{own.name}; give --weights"
            )

    def load_into(self, matcher: Matcher, parts: Sequence[str] = ()) -> None:
        """Give a matcher these weights.

        Args:
            matcher: whose weights are replaced.
            parts: only tensors whose names start with one of these; () for all.

        Raises:
            FssbenchError: names or shapes differ.
        """
        own, weights = (
            {n: t for n, t in tensors.items() if not parts or n.startswith(tuple(parts))}
            for tensors in (matcher.state_dict(), self.weights)
        )
        missing, unexpected = (
            sorted(own.keys() - weights.keys()),
            sorted(weights.keys() - own.keys()),
        )
        wrong = [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in weights and weights[name].shape != tensor.shape
        ]
        for what, names in (("lacks", missing), ("has unknown", unexpected), ("has", wrong)):
            if names:
                raise FssbenchError(
                    f"{self.name}: the checkpoint does not fit the matcher: it {what} "
                    f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}"
                )
        matcher.load_state_dict(weights, strict=not parts)


def write_checkpoint(
    path: Path,
    matcher: Matcher,
    header: Mapping[str, Any],
    backbone: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a matcher's weights, by rename.

    Args:
        path: the file, usually ``….safetensors``.
        matcher: whose weights.
        header: JSON values that say what they are: ``matcher`` (registered name), ``config``,
            ``backbone``, ``fold``, ``dataset``, ….
        backbone: weights of the backbone, by the names in its own weight files, for a checkpoint
            that is to bring them.
    """
    state = matcher.state_dict()
    if backbone:
        header = {**header, _HOLDS_BACKBONE: True}
        state |= {f"{BACKBONE_PREFIX}{name}": tensor for name, tensor in backbone.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    text = json.dumps(dict(header))
    digest = _digest(text, tensors.items())
    write_atomically(path, safetensors.torch.save(tensors, {_KEY: text, _DIGEST: digest}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        FssbenchError: it cannot be read, is no checkpoint of fssbench, or has changed since it was
            written.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata[_KEY])
            names = [n for n in file.keys() if not n.startswith(BACKBONE_PREFIX)]  # noqa: SIM118
            weights = {name: file.get_tensor(name) for name in names}
            # Files that were written before there were digests have none.
            if _DIGEST in metadata:
                tensors = ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
                if _digest(metadata[_KEY], tensors) != metadata[_DIGEST]:
                    raise FssbenchError(
                        f"--checkpoint {path}: the content does not fit its digest, so it was "
                        "changed or is damaged; copy the file again"
                    )
        if not _is_header(header):
            raise ValueError("incomplete header")
        return Checkpoint(path=path, sha256=sha256(path), header=header, weights=weights)
    except FileNotFoundError as error:
        raise FssbenchError(f"--checkpoint {path}: there is no such file") from error
    except (
        OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise FssbenchError(
            f"--checkpoint {path}: this is no checkpoint of fssbench; authors' own files must be "
            "imported first"
        ) from error


def _is_header(header: Any) -> bool:
    """Whether a header has what is used of it, as values of the right kind."""
    kinds = {
        "matcher": str, "backbone": str, "config": dict, "dataset": str | None, "fold": int | None,
    }  # fmt: skip
    return (
        isinstance(header, dict)
        and {"matcher", "config", "backbone"} <= header.keys()
        and all(isinstance(header.get(name), kind) for name, kind in kinds.items())
    )


def _digest(header: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Sha256 (hex) of a header and of tensors with their names, types and shapes, in any order."""
    each = sorted(
        (name, str(tensor.dtype), list(tensor.shape), _sha256(tensor)) for name, tensor in tensors
    )
    return hashlib.sha256(json.dumps([header, each]).encode()).hexdigest()


def _sha256(tensor: Tensor) -> str:
    values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(values.data).hexdigest()
