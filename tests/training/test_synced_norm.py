"""Batch norm over two processes gives what one process gives on the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed
from timm.layers import BatchNormAct2d
from torch import nn

from fssbench.training.synced_norm import sync_batch_norm


def network() -> nn.Module:
    torch.manual_seed(0)
    norms = nn.BatchNorm2d(8), nn.BatchNorm2d(8, momentum=None), BatchNormAct2d(8)
    layers = [layer for norm in norms for layer in (nn.LazyConv2d(8, 3, bias=False), norm)]
    made = nn.Sequential(*layers)
    made(torch.zeros(1, 3, 11, 11))
    for norm in norms:
        norm.reset_running_stats()
    return made.train()


def loss(maps: torch.Tensor) -> torch.Tensor:
    return (maps + torch.linspace(0, 1, 8).view(-1, 1, 1)).pow(3).mean()


def images() -> torch.Tensor:
    return torch.randn(4, 3, 11, 11, generator=torch.Generator().manual_seed(1)) * 3 + 5


def train_half(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    whole = network()
    sync_batch_norm(whole)
    parallel = nn.parallel.DistributedDataParallel(whole)
    loss(parallel(images()[2 * rank : 2 * rank + 2])).backward()
    gradients = {name: p.grad for name, p in whole.named_parameters()}
    evaluated = whole.eval()(images())
    torch.save((whole.state_dict(), gradients, evaluated), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_process_with_twice_the_batch(tmp_path):
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    # Processes started by torch cannot import this file: pytest imports it by its path alone.
    command = [sys.executable, __file__]
    halves = [subprocess.Popen([*command, str(rank), str(port), str(tmp_path)]) for rank in (0, 1)]
    assert [half.wait() for half in halves] == [0, 0]
    alone = network()
    loss(alone(images())).backward()
    gradients = {name: p.grad for name, p in alone.named_parameters()}
    expected = alone.state_dict(), gradients, alone.eval()(images())
    for rank in (0, 1):
        state, found, evaluated = torch.load(tmp_path / f"{rank}.pt")
        assert state.keys() == alone.state_dict().keys()
        torch.testing.assert_close(state, dict(expected[0]))
        torch.testing.assert_close(found, gradients, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(evaluated, expected[2])


def test_the_activation_and_the_type_of_a_norm_remain():
    made = network()
    sync_batch_norm(made)
    sync_batch_norm(made)  # again changes nothing
    assert [type(layer).__name__ for layer in made[1::2]] == [
        "BatchNorm2d", "BatchNorm2d", "BatchNormAct2d",
    ]  # fmt: skip
    assert isinstance(made[5], BatchNormAct2d)
    assert (made.eval()(images()) >= 0).all()
    with pytest.raises(ValueError, match="Default process group"):
        made.train()(images())  # statistics of all processes, or an error


if __name__ == "__main__":
    train_half(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
