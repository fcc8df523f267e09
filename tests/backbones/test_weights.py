"""Weights from the hub, from files and at random, and their errors."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from fssbench import hub
from fssbench.backbones import fssbench_backbones, timm_any, timm_models, tiny, weights
from fssbench.backbones.backbone import Backbone, WeightsInfo
from fssbench.backbones.tiny import TinyResNet
from fssbench.errors import FssbenchError

IMAGES = torch.rand(1, 3, 32, 64)


def load_tiny(given: str | Path) -> Backbone:
    return tiny.shipped_resnet(weights=str(given))


def features(backbone: Backbone) -> Tensor:
    return backbone(IMAGES, ["layer4.1"])["layer4.1"]


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return dict(TinyResNet().state_dict())


@pytest.fixture
def expected(state: dict[str, Tensor], tmp_path: Path) -> Tensor:
    safetensors.torch.save_file(state, tmp_path / "reference.safetensors")
    return features(load_tiny(tmp_path / "reference.safetensors"))


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: {"state_dict": state, "epoch": 7},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: state | {"fc.weight": torch.zeros(9, 128), "fc.bias": torch.zeros(9)},
        lambda state: {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")},
    ],
    ids=["plain", "state_dict", "model", "module.", "with a head", "without counters"],
)
def test_pickled_files(
    suffix: str,
    wrap: Callable[[dict[str, Tensor]], Any],
    state: dict[str, Tensor],
    expected: Tensor,
    tmp_path: Path,
) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(state), path)
    backbone = load_tiny(path)
    assert torch.equal(features(backbone), expected)
    assert backbone.weights == WeightsInfo(source="file", name=path.name, sha256=hash_of(path))


def test_npz_files(state: dict[str, Tensor], expected: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **{name: value.numpy() for name, value in state.items()})
    backbone = load_tiny(path)
    assert torch.equal(features(backbone), expected)
    assert backbone.weights.sha256 == hash_of(path)


def test_half_precision_files_give_float_encoders(
    state: dict[str, Tensor], expected: Tensor, tmp_path: Path
) -> None:
    path = tmp_path / "half.safetensors"
    halves = {name: v.half() if v.is_floating_point() else v for name, v in state.items()}
    safetensors.torch.save_file(halves, path)
    backbone = load_tiny(path)
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())
    torch.testing.assert_close(features(backbone), expected, rtol=0.05, atol=0.05)


class _OwnLoader(nn.Linear):
    def _load_from_state_dict(self, state: Any, prefix: str, *_: Any) -> None:
        self.weight.data.copy_(state[prefix + "weight"])
        self.bias.data.copy_(state[prefix + "bias"])


class _Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positions", torch.zeros(3, 4))
        self.line = nn.Conv2d(3, 5, 2).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("make", [lambda: _OwnLoader(3, 4), _Positions, lambda: nn.BatchNorm2d(6)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.float32])
def test_modules_have_the_values_of_the_file_and_their_own_dtypes_and_strides(
    make: Callable[[], nn.Module], dtype: torch.dtype, tmp_path: Path
) -> None:
    own = make()
    state = {
        name: nn.Parameter(torch.rand(*value.shape[::-1], dtype=dtype).T)
        if value.ndim == 2
        else torch.rand(value.shape).to(dtype if value.is_floating_point() else value.dtype)
        for name, value in own.state_dict().items()
    }
    torch.save(state, tmp_path / "file.pth")
    source = weights.resolve(str(tmp_path / "file.pth"), backbone="own")
    loaded = weights.build(make, source, backbone="own")
    for name, value in own.state_dict().items():
        found = loaded.state_dict()[name]
        assert (found.dtype, found.device.type, found.stride()) == (
            value.dtype, "cpu", value.stride(),
        )  # fmt: skip
        assert torch.equal(found, state[name].to(value.dtype))
    assert not any(buffer.requires_grad for buffer in loaded.buffers())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    copy.deepcopy(loaded)


def test_the_authors_swin_file(tmp_path: Path) -> None:
    def make() -> SwinTransformer:
        return SwinTransformer(
            img_size=64, window_size=4, embed_dim=16, depths=(2, 2, 2), num_heads=(1, 2, 4),
            num_classes=0, strict_img_size=False,
        )  # fmt: skip

    ours = make()
    theirs = {}
    for name, value in ours.state_dict().items():
        for stage in (1, 2):
            name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.DOWN")
        theirs[name.replace("DOWN", "downsample")] = value
    theirs["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 16, 16)
    theirs["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    theirs["head.weight"] = torch.zeros(1000, 64)
    torch.save({"model": theirs}, tmp_path / "swin.pth")
    source = weights.resolve(str(tmp_path / "swin.pth"), backbone="swin")
    loaded = weights.build(make, source, backbone="swin", rename=timm_models._swin_names)
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.eval()(images), ours.eval()(images))


def test_the_authors_dinov2_file(tmp_path: Path) -> None:
    options = {"name": "dinov2-s", "tag": "vit_small_patch14_dinov2.lvd142m"}
    random = timm_any.encoder(weights="random", **options)
    theirs = dict(random.model.state_dict()) | {"mask_token": torch.zeros(1, 384)}
    torch.save(theirs, tmp_path / "dinov2.pth")
    loaded = timm_any.encoder(weights=str(tmp_path / "dinov2.pth"), **options)
    images = torch.rand(1, 3, 28, 42)
    assert torch.equal(loaded(images, ["norm"])["norm"], random(images, ["norm"])["norm"])


# --- files that are refused -----------------------------------------------------------------------


class Harmful:
    """An object whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def refusal(given: str | Path) -> str:
    with pytest.raises(FssbenchError) as error:
        load_tiny(given)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_pickles_of_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Harmful(tmp_path / "harm")}, tmp_path / "bad.pth")
    assert "bad.pth: not readable as a plain weight file" in refusal(tmp_path / "bad.pth")
    np.savez(tmp_path / "bad.npz", weights=np.array([Harmful(tmp_path / "harm")], dtype=object))
    assert "bad.npz: not readable as a plain weight file" in refusal(tmp_path / "bad.npz")
    assert not (tmp_path / "harm").exists()


def test_a_missing_file() -> None:
    assert "nowhere.pth: there is no such file" in refusal("nowhere.pth")


@pytest.mark.parametrize("given", ["pretraind", "weights.ckpt", "weights.onnx", ""])
def test_an_unknown_kind_of_file(given: str) -> None:
    assert "give pretrained, random or a file that ends in .safetensors" in refusal(given)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin", ".npz"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04broken", b"\x80\x02}q."])
def test_a_file_that_is_something_else(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"download{suffix}"
    path.write_bytes(content)
    assert f"download{suffix}: " in refusal(path)


def test_a_truncated_file(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    safetensors.torch.save_file(state, path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "not readable as a plain weight file" in refusal(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_weights(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "empty.pth")
    assert "holds no tensors" in refusal(tmp_path / "empty.pth")


def test_weights_of_something_else(state: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.bn1.bias"):
        state[f"stem.{name}"] = state.pop(name)
    state["layer4.1.bn2.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "other.pth")
    message = refusal(tmp_path / "other.pth")
    assert "other.pth: not weights of tiny-resnet" in message
    assert "4 missing (conv1.weight, bn1.weight, bn1.bias, …)" in message
    assert "4 unexpected (stem.conv1.weight" in message
    assert "1 of another shape (layer4.1.bn2.bias (5,) for (128,))" in message


# --- random ---------------------------------------------------------------------------------------


def test_random_weights_are_the_same_every_time(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        one = load_tiny("random")
    assert torch.equal(torch.get_rng_state(), before)
    assert "backbone tiny-resnet has random weights" in caplog.text
    torch.manual_seed(2)
    two = load_tiny("random")
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    assert one.weights == WeightsInfo(source="random")


# --- pretrained -----------------------------------------------------------------------------------


def test_shipped_weights(
    state: dict[str, Tensor],
    expected: Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiny, "SHIPPED", tmp_path)
    assert "tiny-resnet.safetensors: there is no such file" in refusal("pretrained")
    path = tmp_path / "tiny-resnet.safetensors"
    safetensors.torch.save_file(state, path)
    backbone = load_tiny("pretrained")
    assert torch.equal(features(backbone), expected)
    assert backbone.weights == WeightsInfo(
        source="pretrained", name="tiny-resnet.safetensors", sha256=hash_of(path)
    )
    assert torch.equal(backbone.mean, torch.full((3, 1, 1), 0.5))


RESNET18 = {"name": "resnet18", "tag": "resnet18.tv_in1k"}


@pytest.fixture
def empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path


def cached_file(cache: Path, repository: str, state: dict[str, Tensor]) -> Path:
    """Write the file of a repository where the hub's client caches it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    path = folder / "snapshots" / ("0" * 40) / "model.safetensors"
    path.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    safetensors.torch.save_file(state, path)
    return path


def test_cached_hub_weights_need_no_network(
    empty_hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_answers", lambda url: pytest.fail("asked the network"))
    random = timm_models.resnet(weights="random", **RESNET18)
    path = cached_file(empty_hub_cache, "timm/resnet18.tv_in1k", random.model.state_dict())
    backbone = timm_models.resnet(weights="pretrained", **RESNET18)
    assert backbone.weights == WeightsInfo(
        source="pretrained", name="resnet18.tv_in1k", sha256=hash_of(path)
    )
    assert torch.equal(
        backbone(IMAGES, ["layer4.1"])["layer4.1"], random(IMAGES, ["layer4.1"])["layer4.1"]
    )


def refused_download() -> str:
    with pytest.raises(FssbenchError) as error:
        timm_models.resnet(weights="pretrained", **RESNET18)
    message = str(error.value)
    assert "\n" not in message
    assert "pretrained weights of resnet18 cannot be downloaded" in message
    assert "fetch model.safetensors of timm/resnet18.tv_in1k" in message
    assert "--weights FILE" in message
    assert "--weights random" in message
    return message


@pytest.mark.usefixtures("empty_hub_cache")
def test_no_network_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # accepts and never answers, as some firewalls do
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr(hub, "_PATIENCE", 0.3)
        start = time.perf_counter()
        assert "the hub does not answer" in refused_download()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)  # now closed
    assert "the hub does not answer" in refused_download()
    assert time.perf_counter() - start < 5


@pytest.mark.usefixtures("empty_hub_cache")
def test_offline_mode_does_not_touch_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_answers", lambda url: pytest.fail("asked the network"))
    assert "HF_HUB_OFFLINE is set" in refused_download()


@pytest.mark.usefixtures("empty_hub_cache")
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("reset by peer"), "(the connection broke; run the same command again)"),
        (ValueError("no size\nand more"), "ValueError: no size and more)"),
    ],
)
def test_a_download_that_breaks(
    error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*, local_files_only: bool = False, **_: object) -> str:
        if local_files_only:
            raise FileNotFoundError
        raise error

    monkeypatch.setattr(hub, "_answers", lambda url: True)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert reason in refused_download()


def test_weights_of_an_address_are_downloaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    """The file's name ends in the first digits of its SHA-256, which torch's hub compares."""
    source = tmp_path / "source.pth"
    torch.save(state, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    shown = tmp_path / f"tiny-{digest[:8]}.pth"
    source.rename(shown)
    found = weights.resolve("pretrained", backbone="tiny", url=shown.as_uri())
    assert found.info == WeightsInfo(source="pretrained", name=shown.name, sha256=digest)
    shown.unlink()
    again = weights.resolve("pretrained", backbone="tiny", url=shown.as_uri())
    assert again.info == found.info
    assert found.state is not None
    assert found.state.keys() == weights.without_head(state).keys()


def test_an_address_that_does_not_answer_or_has_another_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    other = tmp_path / "tiny-00000000.pth"
    for words in ("cannot be downloaded (URLError", "cannot be downloaded (RuntimeError"):
        with pytest.raises(FssbenchError) as raised:
            weights.resolve("pretrained", backbone="tiny", url=other.as_uri())
        message = str(raised.value)
        assert words in message
        assert "\n" not in message
        assert f"fetch {other.as_uri()} on a machine with a network" in message
        torch.save(state, other)  # a file of another SHA-256


def test_encoders_of_dcamas_readme_have_its_files() -> None:
    specs = {spec.name: spec for spec in fssbench_backbones()}
    assert specs["resnet50_a1h"].arguments["url"].endswith("/resnet50_a1h-35c100f8.pth")
    # timm's tag of that name has another file; that of ResNet-101 has the authors'.
    assert "a1h-35c100f8" not in weights.hub_entry("resnet50.a1h_in1k").url
    assert weights.hub_entry("resnet101.a1h_in1k").url.endswith("/resnet101_a1h-36d3f2aa.pth")
    plain = weights.hub_entry(specs["swin-b-in1k"].arguments["tag"]).url
    assert plain.endswith("/swin_base_patch4_window12_384.pth")  # that of scripts/train.sh
    readme = weights.hub_entry(specs["swin-b"].arguments["tag"]).url
    assert readme.endswith("/swin_base_patch4_window12_384_22kto1k.pth")


def named(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "model": {"state_dict": state}},
        lambda state: named("_orig_mod.", state),
        lambda state: named("module._orig_mod.", state),
        lambda state: named("net.encoder.", state),
        lambda state: {**named("module.", state), "loss.weight": torch.ones(3)},
        lambda state: {"model": {**named("encoder.", state), "decoder.weight": torch.ones(2)}},
        lambda state: {"teacher": named("backbone.", state), "optimizer": {"lr": 0.1}},
    ],
    ids=["nested", "compiled", "ddp compiled", "net.encoder", "beside", "autoencoder", "dinov2"],
)
def test_prefixes_of_wrappers_are_removed_by_name_and_shape(
    tmp_path: Path, state: dict[str, Tensor], expected: Tensor, wrap: Callable[[Any], Any]
) -> None:
    torch.save(wrap(state), tmp_path / "wrapped.pth")
    assert torch.equal(features(load_tiny(tmp_path / "wrapped.pth")), expected)


def test_two_encoders_in_a_file_are_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    both = {**named("teacher.", state), **named("student.", state)}
    torch.save(both, tmp_path / "both.pth")
    with pytest.raises(FssbenchError, match=r"both\.pth: not weights of tiny-resnet"):
        load_tiny(tmp_path / "both.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_one_line(
    tmp_path: Path, state: dict[str, Tensor], value: float
) -> None:
    name = next(name for name in state if name.endswith("weight"))
    state[name].view(-1)[0] = value
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(FssbenchError, match=rf"tensor {name} has values that are NaN or infinite"):
        load_tiny(tmp_path / "broken.pth")


# --- models of other libraries --------------------------------------------------------------------


def linear(given: str | Path, **arguments: Any) -> Any:
    return weights.pretrained_module(
        lambda: torch.nn.Linear(3, 2), str(given), name="line", **arguments
    )


def test_a_module_with_weights_of_a_repository(
    empty_hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_answers", lambda url: pytest.fail("asked the network"))
    state = {"old.weight": torch.ones(2, 3), "old.bias": torch.ones(2)}
    path = cached_file(empty_hub_cache, "someone/line", state)
    module = linear(
        "pretrained",
        repository="someone/line",
        rename=lambda read: {name.removeprefix("old."): value for name, value in read.items()},
    )
    assert module.weights == WeightsInfo(
        source="pretrained", name="someone/line", sha256=hash_of(path)
    )
    assert torch.equal(module.weight, torch.ones(2, 3))


def test_a_module_with_weights_of_a_folder(tmp_path: Path) -> None:
    state = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    with pytest.raises(FssbenchError, match=r"model.safetensors: there is no such file"):
        linear(tmp_path)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    module = linear(tmp_path)
    assert module.weights == WeightsInfo(source="file", name=path.name, sha256=hash_of(path))
    assert torch.equal(module.weight, torch.ones(2, 3))


def test_a_module_without_pretrained_weights() -> None:
    with pytest.raises(FssbenchError, match="line was never trained: give --weights random"):
        linear("pretrained")
    state = torch.get_rng_state()
    assert torch.equal(linear("random").weight, linear("random").weight)
    assert torch.equal(torch.get_rng_state(), state)
