"""Checkpoints: a matcher's weights in one safetensors file with a descriptive header."""

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
from torch import Tensor, nn

from fssbench import hub
from fssbench.backbones.backbone import Backbone
from fssbench.backbones.weights import BACKBONE_PREFIX
from fssbench.errors import FssbenchError
from fssbench.files import sha256, write_atomically

SUFFIX = ".safetensors"
HEADER = "fssbench"
DIGEST = "fssbench_sha256"
"""Entries of a file's metadata: header, and digest of header and tensors."""
_HOLDS_BACKBONE = "holds_backbone"
TRAINED_IMAGES = "fssbench.trained_images"
"""Name of a tensor of the file that is no weight of the matcher."""
UNKNOWN_IMAGES = "unknown_images"
"""Key of the header, true if a training started from weights whose images are unknown."""


@attrs.frozen(kw_only=True)
class Checkpoint:
    """A checkpoint read from a file.

    Attributes:
        path: checkpoint file.
        sha256: hash of the file.
        address: address with its commit, if the file is from the Hugging Face hub; otherwise "".
        header: JSON values that describe the weights: at least ``matcher``, ``config``,
            ``backbone``.
        weights: state of the matcher.
        trained_images: hashes of the images of its training, int64 (N,), see
            `fssbench.data.image_digest.short_hashes`; None in older and imported files.
    """

    path: Path
    sha256: str
    header: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    address: str = ""
    trained_images: Tensor | None = None

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return self.path.name

    def reference(self) -> dict[str, str]:
        """Return name, hash and, if the file is from the hub, address."""
        address = {"address": self.address} if self.address else {}
        return {"name": self.name, "sha256": self.sha256, **address}

    @property
    def holds_backbone(self) -> bool:
        """True if the file also holds the weights of its backbone."""
        return bool(self.header.get(_HOLDS_BACKBONE))

    def backbone_weights(self, asked: str) -> str:
        """Return the source of the backbone's weights: the checkpoint itself, if it holds them.

        Args:
            asked: choice of the user: ``pretrained`` (the default), ``random`` or a file.

        Raises:
            FssbenchError: the checkpoint holds the weights, and the user chose others.
        """
        if not self.holds_backbone:
            return asked
        if asked != "pretrained":
            raise FssbenchError(
                f"--weights {asked}: the checkpoint {self.name} holds the weights of its "
                "backbone; leave --weights out"
            )
        return str(self.path)

    def check_is(self, what: str, asked: str, option: str = "--checkpoint") -> None:
        """Raise an `FssbenchError` if another matcher or backbone was trained.

        Args:
            what: entry of the header, ``matcher`` or ``backbone``.
            asked: registered name that the user gave.
            option: option of the command line that named the checkpoint.
        """
        if self.header[what] != asked:
            raise FssbenchError(
                f"{option} {self.name}: it was trained as {what} {self.header[what]!r}, not "
                f"{asked!r}"
            )

    def check_weights(self, backbone: Backbone) -> None:
        """Raise an `FssbenchError` if the matcher was trained on other weights of the backbone.

        A matcher is only valid on features of the weights that it was trained on.
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

    def load_into(self, matcher: nn.Module, parts: Sequence[str] = ()) -> None:
        """Load the weights into a matcher.

        Args:
            matcher: matcher to change.
            parts: prefixes of the names of the tensors to load; () for all tensors.

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
    matcher: nn.Module,
    header: Mapping[str, Any],
    backbone: Mapping[str, Tensor] | None = None,
    trained_images: Tensor | None = None,
) -> None:
    """Write a matcher's weights atomically.

    Args:
        path: file to write, usually ``….safetensors``.
        matcher: matcher with the weights.
        header: JSON values that describe the weights: ``matcher`` (registered name), ``config``,
            ``backbone``, ``fold``, ``dataset``, ``base_classes`` (names), ….
        backbone: weights of the backbone, by the names in its own weight files, to include.
        trained_images: hashes of the images of the training, see `Checkpoint`.
    """
    state = matcher.state_dict()
    if trained_images is not None:
        state |= {TRAINED_IMAGES: trained_images}
    if backbone:
        header = {**header, _HOLDS_BACKBONE: True}
        state |= {f"{BACKBONE_PREFIX}{name}": tensor for name, tensor in backbone.items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    text = json.dumps(dict(header))
    metadata = {HEADER: text, DIGEST: digest(text, tensors.items())}
    write_atomically(path, file_content(tensors, metadata))


def locate_checkpoint(given: str | Path, option: str = "--checkpoint") -> tuple[Path, str]:
    """Return the local file of a checkpoint, and its address on the Hugging Face hub or "".

    Args:
        given: file, or address ``hf://USER/NAME/FILE@REVISION``, which is downloaded to the cache
            of the hub's client. The returned address has the commit as its revision.
        option: option of the command line that named the checkpoint.

    Raises:
        FssbenchError: the address is malformed, or the download failed.
    """
    if not hub.is_address(given):
        return Path(given), ""
    address = parse_checkpoint_address(str(given))
    try:
        path = hub.fetch(address)
    except FssbenchError as error:
        raise FssbenchError(f"{option} {given}: {error}") from error
    return path, str(hub.pinned(address, path))


def parse_checkpoint_address(given: str) -> hub.Address:
    """Return the parts of a checkpoint's address.

    Raises:
        FssbenchError: the address is malformed, or names a file of another format.
    """
    address = hub.parse_address(given, "hf://USER/NAME/FILE.safetensors@REVISION")
    if not address.file.endswith(SUFFIX):
        raise FssbenchError(f"{given}: checkpoints on the hub are {SUFFIX} files; name one")
    return address


def read_checkpoint(given: str | Path, option: str = "--checkpoint") -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Args:
        given: file, or address on the Hugging Face hub; see `locate_checkpoint`.
        option: option of the command line that named the checkpoint.

    Raises:
        FssbenchError: the file cannot be read or downloaded, is no checkpoint of fssbench, or has
            changed since it was written.
    """
    path, address = locate_checkpoint(given, option)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            header = json.loads(metadata[HEADER])
            names = [n for n in file.keys() if not n.startswith(BACKBONE_PREFIX)]  # noqa: SIM118
            weights = {name: file.get_tensor(name) for name in names}
            trained_images = weights.pop(TRAINED_IMAGES, None)
            if trained_images is not None:
                _check_hashes(trained_images)
            # Files of versions before digests were introduced have none.
            if DIGEST in metadata:
                tensors = ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
                if digest(metadata[HEADER], tensors) != metadata[DIGEST]:
                    cached = f"delete {path.resolve()} and run the same command again"
                    raise FssbenchError(
                        f"{option} {given}: the content does not fit its digest, so it was "
                        f"changed or is damaged; {cached if address else 'copy the file again'}"
                    )
        if not _is_header(header):
            raise ValueError("incomplete header")
        return Checkpoint(
            path=path,
            sha256=sha256(path),
            header=header,
            weights=weights,
            address=address,
            trained_images=trained_images,
        )
    except FileNotFoundError as error:
        raise FssbenchError(f"{option} {given}: there is no such file") from error
    except (
        OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError,
    ) as error:  # fmt: skip
        raise FssbenchError(
            f"{option} {given}: this is no checkpoint of fssbench; authors' own files must be "
            "imported first"
        ) from error


def trained_encoder(weights: str, matcher: Checkpoint | None) -> Checkpoint | None:
    """Return the checkpoint of another training that is given as the weights of an encoder.

    None for other weights, and if they are those that the matcher's own checkpoint holds.

    Args:
        weights: ``pretrained``, ``random`` or a file.
        matcher: checkpoint of the matcher, or None.

    Raises:
        FssbenchError: the checkpoint is damaged.
    """
    path = Path(weights).expanduser()
    if matcher is not None and path == matcher.path:
        return None
    if path.suffix != SUFFIX or not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            ours = HEADER in (file.metadata() or {})
    except (OSError, safetensors.SafetensorError):
        return None  # the reader of weights names the reason
    return read_checkpoint(path, "--weights") if ours else None


def known_images(checkpoints: Iterable[Checkpoint]) -> tuple[Tensor, bool]:
    """Return hashes of the images that checkpoints were trained on, and True if these are all.

    Returns:
        int64 (N,), with repeats; False if the images of some training are unknown.
    """
    found, complete = [torch.empty(0, dtype=torch.int64)], True
    for each in checkpoints:
        known = each.trained_images
        complete &= known is not None and not each.header.get(UNKNOWN_IMAGES)
        found += [] if known is None else [known]
    return torch.cat(found), complete


def file_content(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file with its metadata in order: safetensors writes a random one."""
    content = safetensors.torch.save(dict(tensors), dict(metadata))
    size = int.from_bytes(content[:8], "little")
    fields = json.loads(content[8 : 8 + size]) | {"__metadata__": dict(metadata)}
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the tensors
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def _check_hashes(tensor: Tensor) -> None:
    if tensor.dtype != torch.int64 or tensor.ndim != 1:
        raise ValueError(f"{TRAINED_IMAGES} is {tensor.dtype} {tuple(tensor.shape)}")


def _is_header(header: Any) -> bool:
    """Return True if a header has all required entries with values of the right types."""
    kinds = {
        "matcher": str, "backbone": str, "config": dict, "dataset": str | None, "fold": int | None,
        "folds_of": str | None, "base_classes": list | None,
    }  # fmt: skip
    return (
        isinstance(header, dict)
        and {"matcher", "config", "backbone"} <= header.keys()
        and all(isinstance(header.get(name), kind) for name, kind in kinds.items())
    )


def digest(header: str, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the order-independent sha256 (hex) of a header and of named tensors."""
    each = sorted(
        (name, str(tensor.dtype), list(tensor.shape), _sha256(tensor)) for name, tensor in tensors
    )
    return hashlib.sha256(json.dumps([header, each]).encode()).hexdigest()


def _sha256(tensor: Tensor) -> str:
    values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(values.data).hexdigest()
