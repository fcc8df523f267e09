"""What can go wrong: each time one line, with what to do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from training_commands import command

from fssbench import FssbenchError, train
from fssbench.cli import main
from fssbench.training.dry_run import dry_run
from fssbench.training.loss_monitor import LossMonitor, memory_advice


@pytest.mark.parametrize(
    ("fail", "what"), [("nan", "loss bce is NaN"), ("inf", "loss bce is (NaN|infinite)")]
)
def test_a_loss_that_is_not_finite_names_step_and_batch(job, fail, what):
    # The seventh micro-batch is the first half of the fourth step.
    options = {"fail": fail, "at": "6"}
    message = (
        rf"step 4 \(epoch 1\): {what}; batch: class \d+ query train-\d+ support train-\d+; .* "
        r"and 1 more; lower --lr"
    )
    with pytest.raises(FssbenchError, match=message) as caught:
        train(job, options=options, accumulate=2)
    assert "\n" not in str(caught.value)


def test_an_exploding_loss_stops(job):
    with pytest.raises(FssbenchError, match=r"step 2 .* exploded to .*; batch: class"):
        train(job, recipe="plain", lr=1e18)


def test_loss_watch():
    monitor = LossMonitor()
    assert monitor.check({"a": 900.0, "total": 900.0}) == ""  # large from the start is no news
    assert monitor.check({"total": 1.0}) == ""
    assert "exploded to 1e+06" in monitor.check({"total": 1e6})
    assert monitor.check({"a": float("nan"), "total": 1.0}) == "loss a is NaN"
    assert monitor.check({"a": 1.0, "total": float("inf")}) == "loss total is infinite"
    level = monitor.level
    assert LossMonitor(level).check({"total": 1e6}) == monitor.check({"total": 1e6})


def test_out_of_memory_says_what_to_lower(job):
    message = "out of memory with 4 samples of 64 x 64 pixels at once; give --accumulate 4"
    with pytest.raises(FssbenchError, match=message):
        train(job, options={"fail": "memory", "at": "3"}, accumulate=2)
    with (
        pytest.raises(FssbenchError, match="out of memory with 2 samples"),
        memory_advice(2, 64, 1),
    ):
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")
    with pytest.raises(RuntimeError, match="shapes"), memory_advice(2, 64, 1):
        raise RuntimeError("shapes cannot be multiplied")


def test_a_method_may_complain_itself(job):
    with pytest.raises(FssbenchError, match="this method wants more"):
        train(job, options={"fail": "own", "at": "1"})


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_one_line(job, monkeypatch, workers):
    from fssbench.data.shapes.shapes import Shapes

    def image(self, image_id):
        raise FssbenchError(f"{image_id}: cannot be decoded")

    monkeypatch.setattr(Shapes, "image", image)
    with pytest.raises(FssbenchError, match="cannot be decoded"):
        train(job, workers=workers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matcher": "trainible"}, "no matcher is called 'trainible'; did you mean 'trainable'"),
        ({"matcher": "mixer"}, "mixer has no recipes: it needs no training, or give --recipe"),
        ({"matcher": "untrainable"}, "untrainable has no stage 'meta'; it has none"),
        ({"stage": ""}, "trainable: give --stage, one of meta, base, plain, tuned"),
        ({"stage": "mets"}, r"no recipe \[mets.shapes\]; did you mean 'meta'"),
        ({"recipe": "plane"}, r"no recipe \[meta.plane\]; did you mean 'plain'"),
        ({"recipe": "none.toml"}, "none.toml: cannot read these recipes"),
        ({"backbone": "pixel"}, "no backbone is called 'pixel'; did you mean 'pixels'"),
        ({"dataset": "shape", "recipe": "shapes"}, "no dataset is called 'shape'; did you mean"),
        ({"dataset": "pascal5i"}, r"no recipe \[meta.pascal5i\]; there: meta.shapes"),
        ({"dataset": "pascal5i", "recipe": "shapes", "data_options": {}}, "--data-root"),
        ({"fold": 4}, "shapes has no fold 4; it has folds 0 to 3"),
        ({"options": {"widht": "4"}}, "has no option 'widht'; did you mean 'width'"),
        ({"data_options": {"size": "3"}}, "shapes has no option 'size'"),
        ({"epochs": 1, "steps": 1}, "give --epochs or --steps, not both"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"lr": 0.0}, "--lr must be a finite number above 0"),
        ({"batch_size": 41}, "an epoch has 40 samples, fewer than a batch of 41"),
        ({"accumulate": 3}, "--batch-size 8: 1 processes with --accumulate 3 .* a multiple of 3"),
        ({"shots": 60}, "an epoch has 0 samples"),
        ({"device": "gpu"}, "--device gpu: use auto, cpu or cuda"),
        ({"device": "cuda:77"}, "no such GPU"),
        ({"init": "none"}, "none: there is no such file"),
        ({"weights": "none.pth"}, "pixels has no weight files"),
        ({"workers": -1}, "--workers must be at least 0"),
        ({"keep_every": 0}, "--keep-every must be at least 1"),
    ],
)
def test_wrong_input_is_one_clear_line(job, change, message):
    if change.get("init"):
        change = {"init": job.out / "none"}
    with pytest.raises(FssbenchError, match=message) as caught:
        train(job, **change)
    assert "\n" not in str(caught.value)
    assert not job.out.exists()


def test_two_trainings_in_one_directory(job):
    train(job, steps=1, validation_episodes=0)
    (folder,) = (p.parent for p in job.out.rglob("state.pt"))
    lock = "import filelock, sys, time; l = filelock.FileLock(sys.argv[1]); l.acquire(); print(1); "
    holder = subprocess.Popen(
        [sys.executable, "-c", lock + "sys.stdout.flush(); time.sleep(60)", folder / ".lock"],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout.readline()
        with pytest.raises(FssbenchError, match="another process uses this training folder"):
            train(job, steps=1, validation_episodes=0, resume=True)
    finally:
        holder.kill()
        holder.communicate()


def test_wrong_loss_names_and_shapes(job, tmp_path, plugins):
    import trainable_for_tests

    recipe = tmp_path / "mine.toml"
    table = '[meta.mine]\nbackbone = "pixels"\nsteps = 2\nbatch = 8\n'
    recipe.write_text(f'{table}optimiser = {{kind = "sgd", lr = 0.1}}\nlosses = {{dice = 2}}')
    with pytest.raises(FssbenchError, match="losses names 'dice'; stage meta has bce, size"):
        train(job, recipe=str(recipe))
    recipe.write_text(f'{table}optimiser = {{kind = "sgd", lr = 0.1, lr_scales = {{arm = 2}}}}')
    with pytest.raises(FssbenchError, match="names the group 'arm'; the stage has body, head"):
        train(job, recipe=str(recipe), resume=True)
    original = trainable_for_tests.Meta.losses
    trainable_for_tests.Meta.losses = lambda *_: {}
    try:
        with pytest.raises(FssbenchError, match="losses must be scalars by name"):
            train(job)
    finally:
        trainable_for_tests.Meta.losses = original


def test_dry_run_writes_nothing(job):
    found = dry_run(job)
    assert not job.out.exists()
    assert found.groups == (("body", 8 * 6 + 8 + 16, 0.1), ("head", 9, 0.2))
    assert (found.frozen, found.backbone) == (3, 0)
    assert (found.samples, found.epoch_steps, found.steps, found.dropped) == (40, 5, 10, 0)
    assert set(found.losses) == {"bce", "size", "total"}
    assert set(found.scores) == {"miou", "fb_iou", "episode_miou"}
    # Forward and two products backward: queries of 16 x 16 cells through 6 x 8 and 8 x 1 weights.
    forward = 2 * 8 * 256 * (6 * 8 + 8 * 1)
    assert 2 * forward <= found.step_flops <= 3 * forward


def test_dry_run_of_several_devices_takes_the_step_of_one(job):
    alone, one = dry_run(job, batch_size=4), dry_run(job, devices=2)
    assert (one.epoch_steps, one.steps) == (5, 10)  # of batches of 8
    assert one.step_flops == alone.step_flops
    with pytest.raises(FssbenchError, match="3 processes .* use a multiple of 3"):
        dry_run(job, devices=3)
    assert not job.out.exists()


def test_command_line(job, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([*command(job), *arguments])
        return stopped.value.code, *capsys.readouterr()

    code, text, _ = run("--dry-run")
    assert code == 0
    for part in ("body", "learning rate", "GFLOPs", "10 steps, 5 an epoch of 40", "one chunk"):
        assert part in text
    code, text, _ = run("--dry-run", "--json")
    assert json.loads(text)["steps"] == 10
    code, _, text = run("--stage", "mets")
    assert code == 2
    assert text.startswith("fssbench: error: trainable_recipes.toml has no recipe")
    assert text.count("\n") == 1
    code, text, progress = run("--steps", "2", "--json")
    assert code == 0
    assert json.loads(text)["last"].endswith("last.safetensors")
    assert "trainable meta, fold 0: epoch 0.4, mIoU" in progress
    code, text, _ = run("--steps", "2", "--resume")
    assert code == 0
    assert "Last: " in text
