"""Choice of the device, and the warning of a precision that it emulates."""

from __future__ import annotations

import logging

import pytest
import torch

from fssbench import FssbenchError
from fssbench.runtime import device as devices
from fssbench.runtime.device import choose_device


@pytest.mark.parametrize("name", ["mps", "xpu", "meta", "hpu", "vulkan", "cuda:99", "", "nothing"])
def test_devices_that_are_not_here_are_one_line(name):
    with pytest.raises(FssbenchError, match=f"^--device {name}: "):
        choose_device(name)


def test_the_cpu_has_no_number():
    assert choose_device("cpu:1") == torch.device("cpu")


@pytest.mark.parametrize("emulated", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_bf16_on_a_cpu_that_emulates_it_is_a_warning(monkeypatch, caplog, emulated, precision):
    monkeypatch.setattr(devices, "emulates_bf16", lambda: emulated)
    with caplog.at_level(logging.WARNING, logger="fssbench"):
        choose_device("cpu", precision)
    found = [record.message for record in caplog.records]
    if emulated and precision == "bf16":
        assert len(found) == 1
        assert found[0].startswith("--precision bf16: this CPU has no fast instructions for bf16")
    else:
        assert found == []


def test_a_cpu_with_avx512_does_not_emulate_bf16():
    level = torch.backends.cpu.get_cpu_capability()
    if level != "AVX512":
        pytest.skip(f"this CPU has {level}")
    assert not devices.emulates_bf16()
