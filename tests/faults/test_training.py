"""Trainings that are killed anywhere end with the weights of those that are not."""

from __future__ import annotations

import random
import shutil
import sys

import attrs
import pytest
import trainable_for_tests
from faults_for_tests import flipped, kill_until_it_ends, start

from fssbench import FssbenchError, Training, registry, train
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench.training import metrics

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")


@pytest.fixture
def training(tmp_path, monkeypatch, plugin):
    """Ten steps, the state saved every second one."""
    import methods_for_tests

    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    registry.use_plugins([methods_for_tests.__file__, trainable_for_tests.__file__])
    return Training(
        matcher="trainable", stage="meta", data_options={"images_per_split": "60"}, device="cpu",
        workers=0, validation_episodes=0, save_every=2, out=tmp_path / "trainings",
    )  # fmt: skip


def weights(out):
    (path,) = out.rglob("last.safetensors")
    return {name: tensor.tolist() for name, tensor in read_checkpoint(path).weights.items()}


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(training, tmp_path, kills):
    generator = random.Random(kills)
    straight = attrs.evolve(training, out=tmp_path / "straight")
    whole = start(lambda: train(straight)).spent()
    expected, killed = weights(straight.out), 0
    while killed < kills:
        killed += kill_until_it_ends(
            lambda: train(training, resume=True),
            most=kills - killed, whole=whole, generator=generator,
        )  # fmt: skip
        train(training, resume=True)
        assert weights(training.out) == expected
        shutil.rmtree(training.out)


def test_a_flipped_bit_in_the_state(training):
    train(training, steps=2)
    (state,) = training.out.rglob("state.pt")
    whole = state.read_bytes()
    state.write_bytes(flipped(whole, 4 * len(whole)))
    with pytest.raises(FssbenchError, match="this state is damaged; remove it and start again"):
        train(training, steps=2, resume=True)
