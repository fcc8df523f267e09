"""Sources of an encoder's weights: the hub, a file, or a seeded random generator."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fssbench import hub
from fssbench.backbones.backbone import WeightsInfo
from fssbench.backbones.weight_files import SUFFIXES, check_size, parse
from fssbench.errors import FssbenchError
from fssbench.files import sha256

PRETRAINED, RANDOM, NONE = "pretrained", "random", "none"
_DEEPEST = 4  # dots in the prefix of a wrapper
RANDOM_SEED = 0
BACKBONE_PREFIX = "backbone."
HUB_FILE = "model.safetensors"
_HEADS = re.compile(r"(fc|head|classifier|pre_logits)\.")
_RESTORE = "init_non_persistent_buffers"

Rename = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Source:
    """Weights before they are put into a module.

    Attributes:
        info: origin of the weights, for the record.
        state: tensors by name, or None when there is nothing to read (``random``, ``none``).
    """

    info: WeightsInfo
    state: Mapping[str, Tensor] | None = None


def pretrained_module(
    make: Callable[[], nn.Module],
    weights: str,
    *,
    name: str,
    repository: str = "",
    rename: Rename = dict,
) -> nn.Module:
    """Return a module with its weights, for the factory of a `BackboneSpec`.

    The module is on the CPU, and its attribute ``weights`` is the `WeightsInfo` of the record.

    Args:
        make: function that builds the module with random weights.
        weights: ``pretrained``; ``random``, drawn from a fixed seed with torch's global generators
            left as they are; a weight file; or a folder with a ``model.safetensors``.
        name: registered name, for messages.
        repository: repository on the Hugging Face hub whose ``model.safetensors`` has the
            pretrained weights, e.g. ``BAAI/seggpt-vit-large``; "" if there are none.
        rename: function that maps tensors by the names in a file to tensors by the module's names.

    Raises:
        FssbenchError: the weights cannot be read or downloaded, or do not fit the module.
    """
    source = resolve(weights, backbone=name, repository=repository)
    module: Any = build(make, source, backbone=name, rename=rename)
    module.weights = source.info
    made: nn.Module = module
    return made


def resolve(
    weights: str,
    *,
    backbone: str,
    tag: str = "",
    repository: str = "",
    url: str = "",
    shipped: Path | None = None,
) -> Source:
    """Resolve the user's choice of weights to tensors.

    Args:
        weights: ``pretrained``; ``random`` (the same on every machine, and never to be ranked);
            ``none`` (nothing is read or drawn, only names and shapes are of interest); a
            ``.safetensors``, ``.pth``, ``.pt``, ``.bin`` or ``.npz`` file; or a folder with a
            ``model.safetensors``.
        backbone: name of the backbone, for messages.
        tag: name of the pretrained weights on the hub, as in timm.
        repository: repository of the pretrained weights on the hub, for weights without a `tag`.
        url: address of the pretrained weights' file, if they are not on the hub; its name ends in
            the first digits of its SHA-256, as torch's hub requires.
        shipped: file of the pretrained weights, if fssbench ships it.

    Raises:
        FssbenchError: the file does not exist, it contains no weights, the download failed, or no
            pretrained weights exist.
    """
    if weights == NONE:
        return Source(info=WeightsInfo(source=NONE))
    if weights == RANDOM:
        return Source(info=WeightsInfo(source=RANDOM))
    if weights != PRETRAINED:
        given = Path(weights).expanduser()
        path, source = given / HUB_FILE if weights and given.is_dir() else given, "file"
        name = path.name
    elif shipped is not None:
        path, source, name = shipped, PRETRAINED, shipped.name
    elif url:
        path, source, name = _from_url(url, backbone), PRETRAINED, url.rpartition("/")[2]
    elif tag or repository:
        path = _from_hub(repository or _repository(tag), backbone)
        source, name = PRETRAINED, tag or repository
    else:
        raise FssbenchError(f"{backbone} was never trained: give --weights random, or a file")
    return Source(state=read(path), info=WeightsInfo(source=source, name=name, sha256=sha256(path)))


def read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of an encoder's weight file by name.

    If a file has tensors with names in ``backbone.``, such as a checkpoint that includes its
    encoder, only these are returned.

    Raises:
        FssbenchError: the file is missing, of another kind, damaged, or holds no weights.
    """
    tensors = read_tensors(path)
    inside = {
        name.removeprefix(BACKBONE_PREFIX): value
        for name, value in tensors.items()
        if name.startswith(BACKBONE_PREFIX)
    }
    if not without_head(inside or tensors):
        raise FssbenchError(
            f"weights {path}: holds no tensors of an encoder; give a file with a state dict"
        )
    return inside or tensors


def without_head(state: Mapping[str, Tensor], expected: Container[str] = ()) -> dict[str, Tensor]:
    """Return an encoder's tensors without those of its classifier.

    Args:
        state: tensors by name.
        expected: names of the encoder's own tensors, which remain.
    """
    return {k: value for k, value in state.items() if k in expected or not _HEADS.match(k)}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a weight file by name, without the usual wrappings.

    Nothing in the file is executed: pickles are read with torch's ``weights_only``. Nor does it
    take more memory than a weight file may; see `fssbench.backbones.weight_files`.

    Raises:
        FssbenchError: the file is missing, of another kind, damaged, or would unpack to too much.
    """
    kinds = f"give pretrained, random or a file that ends in {', '.join(SUFFIXES)}"
    if not path.is_file():
        raise FssbenchError(f"weights {path}: there is no such file; {kinds}")
    if path.suffix not in SUFFIXES:
        raise FssbenchError(f"weights {path}: unknown kind of file; {kinds}")
    try:
        tensors = _unwrap(parse(path))
        check_size(path, tensors.values())
    except MemoryError:
        raise
    # The parsers of three formats meet a file of unknown origin here: anything may be raised.
    except Exception as error:
        raise FssbenchError(
            f"weights {path}: not readable as a plain weight file ({_first_line(error)}); "
            "save the state dict alone, with safetensors or torch.save"
        ) from error
    return tensors


def hub_entry(tag: str) -> Any:
    """Return timm's metadata of pretrained weights: ``mean``, ``std``, ``hf_hub_id``, ….

    Raises:
        FssbenchError: timm has no weights of that tag.
    """
    import timm
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(tag, allow_unregistered=False)
    except RuntimeError as error:
        message = f"timm {timm.__version__} has no weights {tag}; install a newer timm"
        raise FssbenchError(message) from error


def build(
    make: Callable[[], nn.Module],
    source: Source,
    *,
    backbone: str,
    rename: Rename = dict,
) -> nn.Module:
    """Make an encoder and fill in its weights.

    Args:
        make: function that builds the module with random weights, without a classifier.
        source: the weights.
        backbone: name of the backbone, for messages.
        rename: function that maps the names in authors' own files to the names of the module.

    Returns:
        The module; on the meta device (shapes without values) when `source` is ``none``.

    Raises:
        FssbenchError: the tensors do not fit the module.
    """
    if source.info.source == RANDOM:
        _log.warning("backbone %s has random weights", backbone)
        return _drawn(make)
    with torch.device("meta"), _NoDraws():
        module = make()
    if source.state is None:
        return module
    expected = module.state_dict()
    state = _peeled(expected, source.state, rename)
    fitting = _fit(expected, state, source.info.name, backbone)
    for tensor_name, tensor in fitting.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise FssbenchError(
                f"weights {source.info.name}: tensor {tensor_name} has values that are NaN or "
                "infinite; save the weights of an earlier step"
            )
    # Computed tensors have no values on the meta device. timm's modules compute them again; a model
    # with others is made on the CPU.
    computed = [part for part in module.modules() if _has_computed_tensors(part)]
    if not computed:  # `to_empty` below would import sympy, which takes a second
        copies = {name: _copy(fitting[name], own) for name, own in expected.items()}
        module.load_state_dict(copies, assign=True)
        if not any(each.is_meta for each in (*module.parameters(), *module.buffers())):
            return module  # a module that overrides the loading may keep its own tensors
    if all(hasattr(part, _RESTORE) for part in computed):
        module = module.to_empty(device="cpu")
        for part in module.modules():
            getattr(part, _RESTORE, lambda: None)()
    else:
        module = _drawn(make)
    module.load_state_dict(fitting)
    return module


def _copy(tensor: Tensor, like: Tensor) -> Tensor:
    """Copy a tensor to the CPU, with the dtype and strides of another one."""
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).copy_(tensor.detach())


class _NoDraws(TorchFunctionMode):
    """Skip initialisations and random draws of tensors without values.

    Torch computes nothing for them but imports its compiler, which takes two seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (
            func in (Tensor.uniform_, Tensor.normal_)
            or getattr(func, "__module__", "") == "torch.nn.init"
        ):
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


def _drawn(make: Callable[[], nn.Module]) -> nn.Module:
    """Make an encoder with random weights of a fixed seed, on the CPU."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(RANDOM_SEED)  # leaves those of GPUs alone
        return make()


def _has_computed_tensors(part: nn.Module) -> bool:
    """Return True for a module with tensors that are not in its state dict."""
    return bool(part._non_persistent_buffers_set) or any(
        isinstance(value, Tensor) for value in vars(part).values()
    )


def _unwrap(content: Any) -> dict[str, Tensor]:
    for wrapping in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping):
        return {}
    if not any(isinstance(value, Tensor) for value in content.values()):
        content = _flat(content)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _flat(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings, by names joined with dots."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        nested = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def _peeled(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], rename: Rename
) -> Mapping[str, Tensor]:
    """Return the tensors that fit without the prefix of a wrapper, such as ``module.``.

    A prefix counts only if all tensors below it fit by name and shape. If none or several do, the
    tensors are returned as they are.
    """
    prefixes = {""}
    for name in state:
        parts = name.split(".")[:-1]
        prefixes |= {".".join(parts[: n + 1]) + "." for n in range(min(len(parts), _DEEPEST))}
    fitting = []
    for prefix in sorted(prefixes):
        below = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
        if len(below) >= len(expected) // 2:
            with contextlib.suppress(FssbenchError):  # of formats that must be complete
                renamed = rename(without_head(below, expected))
                if not mismatch(expected, _with_counters(expected, renamed)):
                    if not prefix:
                        return renamed  # the usual file
                    fitting.append(renamed)
    return fitting[0] if len(fitting) == 1 else rename(without_head(state, expected))


def _with_counters(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Add batch counters, which files from before PyTorch 0.4.1 lack and inference does not use."""
    counters = {
        name: torch.zeros((), dtype=torch.long)
        for name in expected
        if name.endswith(".num_batches_tracked")
    }
    return counters | dict(state)


def _fit(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], file: str, backbone: str
) -> dict[str, Tensor]:
    state = _with_counters(expected, state)
    reasons = mismatch(expected, state)
    if reasons:
        raise FssbenchError(
            f"weights {file}: not weights of {backbone}, whose {len(expected)} tensors they do not "
            f"match: {reasons}; give a file that was saved from that architecture"
        )
    return state


def mismatch(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Describe differences in name and shape: counts and examples; "" if there are none."""
    wrong = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [name for name in state if name not in expected],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} for {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    return "; ".join(f"{len(n)} {how} ({_some(n)})" for how, n in wrong.items() if n)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()[:1]
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _from_url(url: str, backbone: str) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            digits = path.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(url, str(path), digits, progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: another SHA-256
            raise FssbenchError(
                f"pretrained weights of {backbone} cannot be downloaded ({_first_line(error)}): "
                f"fetch {url} on a machine with a network and give --weights FILE, or use "
                "--weights random for a trial"
            ) from error
    return path


def _repository(tag: str) -> str:
    repository: str = hub_entry(tag).hf_hub_id
    if not repository:
        raise FssbenchError(
            f"timm has no weights {tag} on the Hugging Face hub; give --weights random, or a file"
        )
    return repository


def _from_hub(repository: str, backbone: str) -> Path:
    try:
        return hub.fetch(hub.Address(repository=repository, file=HUB_FILE), prefer_cache=True)
    except FssbenchError as error:
        raise FssbenchError(
            f"pretrained weights of {backbone} cannot be downloaded ({error}): fetch {HUB_FILE} of "
            f"{repository} from the Hugging Face hub on a machine with a network and give "
            "--weights FILE, or copy that machine's Hugging Face cache, or use --weights random "
            "for a trial"
        ) from error
