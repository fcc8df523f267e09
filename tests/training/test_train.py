"""Training: files, header, hooks, and that its result depends on the settings alone."""

from __future__ import annotations

import json
import math

import attrs
import pandas
import pytest
import safetensors
import torch
import trainable_for_tests
from training_commands import command, command_line

from fssbench import FssbenchError, build, evaluate, registry, train
from fssbench.inference.pipeline import Pipeline
from fssbench.matchers.checkpoint import TRAINED_IMAGES, read_checkpoint
from fssbench.training.step import set_modes

LOSSES = ["total", "bce", "size"]


def weights(path):
    with safetensors.safe_open(path, framework="pt") as file:
        names = set(file.keys()) - {TRAINED_IMAGES}
        return {name: file.get_tensor(name) for name in names}


def same(first, second):
    one, two = weights(first), weights(second)
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def metrics(result):
    return pandas.read_csv(result.folder / "metrics.csv")


class Recorder:
    def __init__(self, stop=None):
        self.calls = []
        self.stop = stop

    def fssbench_training_started(self, run):
        self.calls.append(("started", run.done))

    def fssbench_step_finished(self, run, step, losses, lr, gradient_norm):
        assert (run.fold, run.stage, run.epoch_steps, run.steps) == (0, "meta", 5, 10)
        assert math.isclose(losses["total"], losses["bce"] + 0.5 * losses["size"], rel_tol=1e-5)
        assert gradient_norm > 0
        self.calls.append(("step", step))
        if step == self.stop:
            raise KeyboardInterrupt

    def fssbench_validation_finished(self, step, scores, best):
        self.calls.append(("validation", step))
        assert 0 <= scores["miou"] <= 100

    def fssbench_training_finished(self, run, checkpoint):
        self.calls.append(("finished", checkpoint.name))


def test_files_and_header(job):
    result = train(job)
    names = {p.name for p in result.folder.iterdir() if not p.name.startswith(".")}
    expected = {"last.safetensors", "best.safetensors", "metrics.csv", "state.pt", "training.json"}
    assert expected <= names
    assert names - expected <= {"tensorboard"}
    header = read_checkpoint(result.last).header
    assert (header["matcher"], header["backbone"]) == ("trainable", "pixels")
    assert header["config"] == {"width": 8, "dropout": 0.0, "fail": "", "at": -1}
    assert header["weights"] == {"source": "none", "name": "", "sha256": ""}
    assert (header["stage"], header["recipe"], header["fold"]) == ("meta", "shapes", 0)
    assert (header["shots"], header["seed"], header["dataset"]) == (1, 0, "shapes")
    assert header["settings"]["optimiser"]["lr"] == 0.1
    assert len(header["fingerprint"]) == 64
    assert (header["step"], header["epoch"]) == (10, 2.0)
    assert header["train_filter"] == "keep"
    assert header["environment"]["packages"]["torch"] == torch.__version__
    assert header["selected_on"] == "nothing"
    assert header["validation"]["on"] == "base"
    assert str(result.folder) not in json.dumps(header)
    best = read_checkpoint(result.best).header
    assert best["selected_on"] == "base"
    assert best["validation"]["miou"] == result.miou


def test_metrics_and_schedule(job):
    table = metrics(train(job))
    steps = table[table["miou"].isna()]
    assert list(steps["step"]) == list(range(1, 11))
    assert list(table[table["miou"].notna()]["step"]) == [5, 10]
    rises = [0.1 * (0.1 + 0.9 * t / 3) for t in range(3)]
    falls = [0.1 * (1 - (t - 3) / 7) ** 0.9 for t in range(3, 10)]
    assert list(steps["lr"]) == pytest.approx(rises + falls)
    assert (steps["total"].iloc[-3:].mean()) < steps["total"].iloc[:3].mean()


def test_hooks_are_called_in_order(job):
    recorder = Recorder()
    train(job, observers=lambda run: [recorder])
    steps = [("step", n) for n in range(1, 11)]
    assert recorder.calls == [
        ("started", 0), *steps[:5], ("validation", 5), *steps[5:], ("validation", 10),
        ("finished", "last.safetensors"),
    ]  # fmt: skip


def test_each_image_and_its_mirror_image_is_encoded_once(job, monkeypatch, tmp_path):
    job = attrs.evolve(job, recipe="flips", validation_episodes=0)
    encoder = type(build.backbone("pixels"))
    forward, seen = encoder.forward, []

    def counting(self, images, layers):
        seen.extend(image.clone() for image in images)
        return forward(self, images, layers)

    monkeypatch.setattr(encoder, "forward", counting)
    cached = train(job)
    different = {image.numpy().tobytes() for image in seen}
    assert len(seen) == len(different)
    assert sum(image.flip(-1).numpy().tobytes() in different for image in seen) > 0
    monkeypatch.setattr("fssbench.training.plan.CACHE_BYTES", 0)
    count = len(seen)
    uncached = train(job, out=tmp_path / "uncached")
    assert len(seen) - count > count
    for name, tensor in weights(cached.last).items():
        assert torch.allclose(tensor, weights(uncached.last)[name], atol=1e-5), name


@pytest.mark.parametrize(
    "stop", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in (4, 8)), 5, 10]
)
def test_interrupted_and_resumed_equals_straight(job, stop, tmp_path):
    """Bit for bit, with dropout, momentum, warm-up and augmentation."""
    job = attrs.evolve(job, options={"dropout": "0.3"}, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        train(job, observers=lambda run: [Recorder(stop)])
    recorder = Recorder()
    resumed = train(job, resume=True, observers=lambda run: [recorder])
    assert recorder.calls[0] == ("started", {1: 0, 4: 2, 5: 4, 8: 6, 10: 8}[stop])
    straight = train(job, out=tmp_path / "straight")
    assert same(resumed.last, straight.last)
    assert same(resumed.best, straight.best)
    assert metrics(resumed).equals(metrics(straight))


def test_killed_and_resumed_equals_straight(job, tmp_path):
    """kill -9 from a hook in a process of its own."""
    killer = tmp_path / "killer.py"
    killer.write_text(
        "import os, signal\n"
        "def fssbench_step_finished(step):\n"
        "    if step == 7:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = command_line(*command(job), "--save-every", "3", "-p", str(killer))
    assert killed.returncode == -9, killed.stderr
    resumed = train(job, save_every=3, resume=True)
    straight = train(job, out=tmp_path / "straight")
    assert same(resumed.last, straight.last)
    assert metrics(resumed).equals(metrics(straight))


def test_a_finished_training_is_not_repeated(job):
    first = train(job)
    before = first.last.read_bytes()
    with pytest.raises(FssbenchError, match="10 steps of this training; continue with --resume"):
        train(job)
    again = train(job, resume=True)
    assert (again.steps, again.miou) == (first.steps, first.miou)
    assert again.last.read_bytes() == before


def test_a_damaged_state_is_one_line(job):
    result = train(job)
    (result.folder / "state.pt").write_bytes(b"no state")
    with pytest.raises(FssbenchError, match=r"state\.pt: this state is damaged"):
        train(job, resume=True)


def test_a_folder_of_another_training(job):
    result = train(job)
    identity = json.loads((result.folder / "training.json").read_text())
    (result.folder / "training.json").write_text(json.dumps({**identity, "seed": 7}))
    with pytest.raises(FssbenchError, match="holds a training that differs in seed"):
        train(job, resume=True)


def test_other_settings_go_to_another_folder(job):
    first = train(job, steps=1, validation_episodes=0)
    for change in ({"seed": 1}, {"lr": 0.2}, {"fold": 1}, {"options": {"width": "4"}}):
        other = train(job, **{"steps": 1, "validation_episodes": 0, **change})
        assert other.folder != first.folder
        assert not same(other.last, first.last)


@pytest.mark.parametrize("change", [{"workers": 2}, {"save_every": 1, "keep_every": 2}])
def test_how_it_is_done_changes_nothing(job, change, tmp_path):
    one = train(job)
    other = train(job, out=tmp_path / "other", **change)
    assert same(one.last, other.last)
    assert metrics(one).equals(metrics(other))


def test_micro_batches_give_the_same_losses(job, tmp_path):
    one = train(job)
    parts = train(job, out=tmp_path / "parts", accumulate=4)
    difference = (metrics(one)[LOSSES] - metrics(parts)[LOSSES]).abs().max().max()
    assert difference < 1e-5


def test_two_processes_give_the_same_losses(job, tmp_path):
    """1 process x 8 samples against 2 gloo processes x 4: ten steps, to 1e-5."""
    one = train(job)
    two = attrs.evolve(job, out=tmp_path / "two")
    done = command_line(*command(two), "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("last.safetensors") == 1
    (path,) = (tmp_path / "two").rglob("metrics.csv")
    table = pandas.read_csv(path)
    assert len(table) == 12
    difference = (metrics(one)[[*LOSSES, "miou"]] - table[[*LOSSES, "miou"]]).abs().max().max()
    assert difference < 1e-5
    (last,) = (tmp_path / "two").rglob("last.safetensors")
    for name, tensor in weights(one.last).items():
        torch.testing.assert_close(weights(last)[name], tensor, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_torchrun(job, tmp_path):
    one = train(job)
    two = attrs.evolve(job, out=tmp_path / "two")
    done = command_line(
        *command(two),
        start=["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fssbench"],
    )
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "two").rglob("metrics.csv")
    table = pandas.read_csv(path)
    assert (metrics(one)[LOSSES] - table[LOSSES]).abs().max().max() < 1e-5


def test_saves_and_permanent_checkpoints(job):
    result = train(job, keep_every=4)
    kept = sorted(p.name for p in result.folder.glob("step-*"))
    assert kept == ["step-0000004.safetensors", "step-0000008.safetensors"]
    assert read_checkpoint(result.folder / kept[0]).header["step"] == 4


def test_frozen_parameters_and_own_groups(job, plugins):
    result = train(job, steps=2, validation_episodes=0)
    assert torch.equal(weights(result.last)["unused"], torch.ones(3))
    assert result.best is None
    assert result.miou is None


@pytest.mark.parametrize("stage", ["base", "plain"])
def test_other_feeds(job, stage):
    result = train(job, stage=stage)
    header = read_checkpoint(result.last).header
    assert (header["dropped_images"] > 0) == (stage == "base")
    assert (result.best is None) == (stage == "base")
    assert set(weights(result.last)) == {
        "mix.weight", "mix.bias", "norm.weight", "norm.bias", "out.weight", "out.bias", "unused",
    }  # fmt: skip


def test_base_stage_resumes_its_own_head(job, tmp_path):
    job = attrs.evolve(job, stage="base", save_every=1)

    class Stop:
        def fssbench_step_finished(self, step):
            if step == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(job, observers=lambda run: [Stop()])
    resumed = train(job, resume=True)
    straight = train(job, out=tmp_path / "straight")
    assert same(resumed.last, straight.last)


def test_a_stage_can_start_from_another(job):
    base = train(job, stage="base")
    job = attrs.evolve(job, init=base.last, steps=1, lr=1e-30, validation_episodes=0)
    result = train(job)
    for name, tensor in weights(base.last).items():
        torch.testing.assert_close(weights(result.last)[name], tensor)
    header = read_checkpoint(result.last).header
    assert header["init"]["name"] == "last.safetensors"
    assert header["init"]["sha256"] == read_checkpoint(base.last).sha256
    with pytest.raises(FssbenchError, match="--init .*trained for fold 0, so it has seen"):
        train(job, fold=1)
    with pytest.raises(FssbenchError, match="--init .*trained as backbone 'pixels', not 'tints'"):
        train(job, backbone="tints")


def test_a_trained_backbone_is_in_the_checkpoint(job):
    result = train(job, stage="tuned")
    assert {"backbone.weight", "backbone.bias"} <= set(weights(result.last))
    before = registry.registry()
    assert before is registry.registry()
    (record,) = (
        r.record
        for r in evaluate(
            matcher="trainable", checkpoint=result.last, limit=20, workers=0, device="cpu",
            data_options=job.data_options, out=job.out / "runs",
        )
    )  # fmt: skip
    assert record.backbone == "tints"
    assert record.weights.source == "file"


def test_a_trained_backbone_is_in_later_checkpoints(job):
    tuned = train(job, stage="tuned", steps=3, validation_episodes=0)
    result = train(job, backbone="tints", init=tuned.last, steps=2)
    for path in (result.last, result.best):
        for name in ("backbone.weight", "backbone.bias"):
            assert torch.equal(weights(path)[name], weights(tuned.last)[name])
    assert read_checkpoint(result.last).header["weights"]["source"] == "file"
    assert not same(tuned.last, result.last)
    untouched = train(job, backbone="tints", steps=2, validation_episodes=0)
    assert "backbone.weight" not in weights(untouched.last)


def test_batch_norms_of_a_trained_backbone_follow_the_stage():
    backbone = build.backbone("tiny-resnet")
    matcher = build.matcher("prototype", backbone)
    stage = trainable_for_tests.Tuned()
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    others = [m for m in backbone.modules() if not isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) > 10
    for updates in (True, False):
        stage.updates_batch_norm = updates
        set_modes(stage, matcher, backbone)
        assert matcher.training
        assert [norm.training for norm in norms] == [updates] * len(norms)
        assert not any(module.training for module in others)
    stage.updates_batch_norm, stage.trains_backbone = True, False
    set_modes(stage, matcher, backbone)
    assert not any(norm.training for norm in norms)
    stage.trains_backbone = True
    set_modes(stage, matcher, backbone)
    Pipeline(matcher, backbone, device=torch.device("cpu"))  # what validation measures with
    assert not any(norm.training for norm in norms)


def test_more_shots(job):
    result = train(job, shots=3, steps=2)
    assert read_checkpoint(result.last).header["shots"] == 3


def test_bf16(job):
    one = train(job, steps=2, validation_episodes=0)
    half = train(job, steps=2, validation_episodes=0, precision="bf16")
    assert not same(one.last, half.last)
    assert metrics(half)["total"].to_numpy() == pytest.approx(metrics(one)["total"], abs=0.05)
    assert all(t.dtype == torch.float32 for t in weights(half.last).values())
