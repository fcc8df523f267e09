"""Checkpoints: a matcher's weights in one safetensors file whose header says what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import safetensors
import safetensors.torch
from torch import Tensor

from fssbench.errors import FssbenchError
from fssbench.files import sha256, write_atomically
from fssbench.matchers.matcher import Matcher

_KEY = "fssbench"


@attrs.frozen(kw_only=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        name: file name, without its folder.
        sha256: hash of the file.
        header: what training wrote: at least ``matcher``, ``config``, ``backbone``.
        weights: the matcher's state.
    """

    name: str
    sha256: str
    header: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def load_into(self, matcher: Matcher) -> None:
        """Give a matcher these weights.

        Raises:
            FssbenchError: names or shapes differ.
        """
        own = matcher.state_dict()
        missing, unexpected = (
            sorted(own.keys() - self.weights.keys()),
            sorted(self.weights.keys() - own.keys()),
        )
        wrong = [
            f"{name} {tuple(self.weights[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in own.items()
            if name in self.weights and self.weights[name].shape != tensor.shape
        ]
        for what, names in (("lacks", missing), ("has unknown", unexpected), ("has", wrong)):
            if names:
                raise FssbenchError(
                    f"{self.name}: the checkpoint does not fit the matcher: it {what} "
                    f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if names[3:] else ''}"
                )
        matcher.load_state_dict(dict(self.weights))


def write_checkpoint(path: Path, matcher: Matcher, header: Mapping[str, Any]) -> None:
    """Write a matcher's weights, by rename.

    Args:
        path: the file, usually ``….safetensors``.
        matcher: whose weights.
        header: JSON values that say what they are: ``matcher`` (registered name), ``config``,
            ``backbone``, ``fold``, ``dataset``, ….
    """
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in matcher.state_dict().items()
    }
    write_atomically(path, safetensors.torch.save(state, {_KEY: json.dumps(dict(header))}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        FssbenchError: it cannot be read or is no checkpoint of fssbench.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(header, dict) or not {"matcher", "config", "backbone"} <= header.keys():
            raise ValueError("incomplete header")
        return Checkpoint(name=path.name, sha256=sha256(path), header=header, weights=weights)
    except FileNotFoundError as error:
        raise FssbenchError(f"--checkpoint {path}: there is no such file") from error
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise FssbenchError(
            f"--checkpoint {path}: this is no checkpoint of fssbench; authors' own files must be "
            "imported first"
        ) from error
