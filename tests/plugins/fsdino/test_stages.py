"""Training of FS-DINO: recipes, episodes, distillation, SAM's weights."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import attrs
import pytest
import sam_for_tests
import torch
from PIL import Image

import fssbench
from fssbench import FssbenchError, registry
from fssbench.cli import _run
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench.specs import MatcherSpec
from fssbench.training import metrics, plan
from fssbench.training.recipe import find_recipe
from fssbench_fsdino import teacher

RULES = ("timm", "dinov2")
GOLDEN = Path(__file__).parent / "sam_decoder.npz"
SMALL = {
    "width": 32, "adapter_width": 16, "adapter_inner": 16, "correlation_width": 16,
    "correlation_channels": (4, 4, 4), "adapter": "trained",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def meta(tmp_path):
    return fssbench.Training(
        matcher="fsdino", stage="meta", data_options={"images_per_split": "60"}, options=SMALL,
        device="cpu", workers=0, validation_episodes=0, steps=4, batch_size=2,
        out=tmp_path / "trainings",
    )  # fmt: skip


@pytest.fixture
def pictures(tmp_path):
    """Twelve pictures of colour gradients, in two folders."""
    folder = tmp_path / "pictures"
    for number in range(12):
        x = torch.linspace(0, 1, 48)
        plane = (x[:, None] * (number % 4) + x[None] * (number % 3)) / 5
        image = torch.stack([plane, plane.flip(0), plane.T * number / 12], -1)
        path = folder / f"part{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image).byte().numpy()).save(path)
    return folder


@pytest.fixture
def distill(tmp_path, pictures):
    return fssbench.Training(
        matcher="fsdino", stage="distill-126", dataset="images", data_root=pictures, recipe="tiny",
        part_weights={"teacher": "random"}, batch_size=4, epochs=2,
        device="cpu", workers=0, out=tmp_path / "trainings",
    )  # fmt: skip


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder in which no teacher has embedded anything yet."""
    monkeypatch.setenv("FSSBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Stop(Exception):
    pass


class Stopper:
    """Breaks a training off after its third step."""

    def fssbench_step_finished(self, step):
        if step == 3:
            raise Stop


def weights(path):
    return dict(read_checkpoint(path).weights)


def held_out(result):
    with (result.folder / "held_out.csv").open() as file:
        return list(csv.DictReader(file))


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "epochs"), [("pascal5i", 100), ("coco20i", 50)])
def test_recipes_are_those_of_section_41(dataset, epochs):
    recipe = find_recipe(registry.registry().get(MatcherSpec, "fsdino"), "meta", dataset=dataset)
    assert (recipe.backbone, recipe.epochs, recipe.batch) == ("dinov2-b", epochs, 8)
    assert (recipe.optimiser.kind, recipe.optimiser.lr) == ("adamw", 1e-3)
    assert fssbench.matcher("fsdino", "dinov2-b").request().size == 518


@pytest.mark.parametrize("pixels", [126, 252, 518])
def test_recipes_of_distillation(pixels):
    spec = registry.registry().get(MatcherSpec, "fsdino")
    recipe = find_recipe(spec, f"distill-{pixels}", dataset="images")
    assert (recipe.size, recipe.epochs, recipe.batch) == (pixels, 15, 8)
    assert (recipe.optimiser.kind, recipe.optimiser.lr) == ("adamw", 1e-3)
    assert not any((recipe.augment.flip, recipe.augment.scale, recipe.augment.rotate))


# --- episodes -------------------------------------------------------------------------------------


def test_trains_on_shapes_and_segments_afterwards(meta, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = fssbench.train(meta, options={**SMALL, "adapter": "frozen"})
    assert "adapter has random weights and is frozen" in caplog.text
    assert "decoder has random weights; give --weights sam=FILE" in caplog.text
    before = fssbench.matcher("fsdino", "tiny-vit", **SMALL).state_dict()
    after = weights(result.last)
    assert set(after) == set(before)
    (evaluated,) = fssbench.evaluate(
        checkpoint=result.last, data_options={"images_per_split": "60"}, folds=(0,), limit=4,
        shots=(2,), workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    assert 0 <= evaluated.record.scores["miou"] <= 100


def test_stored_features_do_not_change_the_weights(meta, tmp_path, monkeypatch):
    kept = weights(fssbench.train(meta).last)
    assert plan.make_plan(meta).loader.caches
    monkeypatch.setattr(plan, "CACHE_BYTES", 0)
    assert not plan.make_plan(meta).loader.caches
    fresh = weights(fssbench.train(meta, out=tmp_path / "fresh").last)
    for name, tensor in kept.items():
        # Encoded singly or 16 at once: the last bits differ, and AdamW's first steps show it.
        torch.testing.assert_close(tensor, fresh[name], rtol=0, atol=3e-4, msg=name)


def test_a_recipe_that_augments_stores_no_features(meta, tmp_path):
    recipe = tmp_path / "scales.toml"
    recipe.write_text(
        '[meta.scales]\nbackbone = "tiny-vit"\nsteps = 2\nbatch = 2\n'
        'optimiser = { kind = "adamw", lr = 1e-3 }\naugment = { scale = [0.9, 1.1] }\n'
    )
    job = fssbench.Training(
        matcher="fsdino", stage="meta", recipe=str(recipe), options=SMALL, device="cpu", workers=0,
        data_options={"images_per_split": "60"}, validation_episodes=0, out=tmp_path / "out",
    )  # fmt: skip
    assert not plan.make_plan(job).loader.caches
    assert fssbench.train(job).steps == 2


def test_an_interrupted_training_ends_with_the_same_weights(meta, tmp_path):
    whole = weights(fssbench.train(meta).last)
    other = tmp_path / "other"

    with pytest.raises(Stop):
        fssbench.train(meta, save_every=2, out=other, observers=lambda run: [Stopper()])
    resumed = weights(fssbench.train(meta, save_every=2, out=other, resume=True).last)
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name


# --- SAM's weights --------------------------------------------------------------------------------


@pytest.fixture
def sam_file(tmp_path):
    path = tmp_path / "sam_vit_x.pth"
    torch.save(
        {**sam_for_tests.golden_state(GOLDEN), "image_encoder.pos_embed": torch.zeros(1, 2, 2, 3)},
        path,
    )
    return path


def test_the_decoder_starts_from_sams_file(meta, sam_file, caplog):
    state = sam_for_tests.golden_state(GOLDEN)
    job = fssbench.Training(
        matcher="fsdino", stage="meta", data_options={"images_per_split": "60"},
        options={**SMALL, "width": 256, "prompts": "initial"}, part_weights={"sam": str(sam_file)},
        device="cpu", workers=0, validation_episodes=0, steps=1, batch_size=1, lr=1e-12,
        out=meta.out,
    )  # fmt: skip
    result = fssbench.train(job)
    assert "random weights: give" not in caplog.text
    found = weights(result.last)
    for theirs, ours in (
        ("mask_decoder.mask_tokens.weight", "decoder.mask_tokens.weight"),
        ("prompt_encoder.mask_downscaling.6.bias", "downscaling.6.bias"),
        ("prompt_encoder.not_a_point_embed.weight", "initial.weight"),
        (
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
            "positions.positional_encoding_gaussian_matrix",
        ),
    ):
        torch.testing.assert_close(found[ours], state[theirs], rtol=0, atol=1e-6)
    parts = read_checkpoint(result.last).header["parts"]
    assert parts["sam"]["name"] == sam_file.name
    assert len(parts["sam"]["sha256"]) == 64


def test_a_file_that_is_not_sams_is_refused(meta, sam_file, tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, other)
    with pytest.raises(FssbenchError, match="no checkpoint of SAM"):
        fssbench.train(meta, part_weights={"sam": str(other)})
    with pytest.raises(FssbenchError, match="leave the option width at 256"):
        fssbench.train(meta, part_weights={"sam": str(sam_file)})
    with pytest.raises(FssbenchError, match="has no part 'sma'; did you mean 'sam'"):
        fssbench.train(meta, part_weights={"sma": str(sam_file)})


def test_sams_file_can_be_imported(sam_file, tmp_path):
    out = tmp_path / "sam.safetensors"
    command = ["checkpoint", "import", "fsdino", str(sam_file), "--backbone", "tiny-vit"]
    assert _run([*command, "--out", str(out)]) == 0
    state = sam_for_tests.golden_state(GOLDEN)
    assert torch.equal(
        weights(out)["decoder.iou_token.weight"], state["mask_decoder.iou_token.weight"]
    )


# --- distillation ---------------------------------------------------------------------------------


def test_distillation_learns_and_trains_the_adapter_alone(distill, own_cache):
    result = fssbench.train(distill, epochs=12)
    rows = held_out(result)
    assert [float(row["epoch"]) for row in rows] == [float(n) for n in range(1, 13)]
    assert float(rows[-1]["mse"]) < float(rows[0]["mse"])
    assert float(rows[-1]["cosine"]) > float(rows[0]["cosine"])
    start = plan.make_plan(distill).matcher.state_dict()
    for name, tensor in weights(result.last).items():
        assert torch.equal(tensor, start[name]) != name.startswith("adapter."), name
    header = read_checkpoint(result.last).header
    assert header["parts"]["teacher"] == "tiny-sam"
    assert header["parts"]["weights"]["source"] == "random"


def test_the_teacher_sees_each_image_once_over_all_stages(distill, own_cache, monkeypatch):
    seen = []
    original = teacher.at_grid

    def counted(maps, grid):
        if maps.shape[1] == 256 and maps.shape[0] == 1 and maps.shape[-1] == 10:
            seen.append(grid)
        return original(maps, grid)

    monkeypatch.setattr(teacher, "at_grid", counted)
    first = fssbench.train(distill)
    assert len(seen) == 12
    second = fssbench.train(distill, stage="distill-252", init=first.last)
    fssbench.train(distill, stage="distill-518", init=second.last)
    assert len(seen) == 12


def test_positions_of_the_student_follow_the_option(distill, own_cache):
    """DINOv2's rule by default; both give other features at the stage's size."""
    plans = {p: plan.make_plan(attrs.evolve(distill, options={"positions": p})) for p in RULES}
    images = torch.rand(1, 3, 40, 40)
    found = [each.backbone(images, ["blocks.0"])["blocks.0"] for each in plans.values()]
    assert [each.backbone.positions for each in plans.values()] == list(RULES)
    assert not torch.allclose(*found, atol=1e-4)
    assert plans["timm"].identity() != plans["dinov2"].identity()


def test_a_letterboxed_teacher_sees_the_image_undistorted(tmp_path, own_cache, monkeypatch):
    """The padding has the mean colour, and the map of the image inside covers the whole grid."""
    folder = tmp_path / "wide"
    folder.mkdir()
    for n in range(3):
        Image.new("RGB", (80, 40), (200, 30, 30 * n)).save(folder / f"{n}.png")
    seen = []
    maps = torch.zeros(1, 256, 10, 10)
    maps[..., :5, :] = torch.arange(10.0)
    job = fssbench.Training(
        matcher="fsdino", stage="distill-518", recipe="tiny", dataset="images", data_root=folder,
        part_weights={"teacher": "random"}, options={"teacher_resize": "letterbox"}, device="cpu",
        batch_size=1,
    )  # fmt: skip
    made = plan.make_plan(job)
    found = made.stage._teacher
    monkeypatch.setattr(
        found.backbone, "forward", lambda x, layers: seen.append(x[0]) or {layers[0]: maps}
    )
    embedding = found.embeddings(made.samples.images[:1], torch.device("cpu"))[0]
    assert torch.allclose(seen[0][:, 80:], found.backbone.mean.expand(3, 80, 160))
    assert (seen[0][0, :80] == 200 / 255).all()
    torch.testing.assert_close(embedding, torch.arange(10.0).expand(256, 10, 10))


def test_resumed_distillation_ends_with_the_same_weights(distill, own_cache):
    whole = weights(fssbench.train(distill, epochs=3).last)

    other = distill.out.with_name("other")
    with pytest.raises(Stop):
        fssbench.train(distill, epochs=3, out=other, observers=lambda run: [Stopper()])
    result = fssbench.train(distill, epochs=3, out=other, resume=True)
    resumed = weights(result.last)
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    assert len(held_out(result)) == 3


def test_meta_starts_from_a_distilled_adapter(distill, own_cache, meta, caplog):
    options = {"adapter_width": "128", "adapter_inner": "64", "correlation": "prototype"}
    distilled = fssbench.train(distill)
    caplog.clear()
    result = fssbench.train(
        meta, options={**options, "width": "256", "adapter": "frozen"}, init=distilled.last,
        steps=1, batch_size=1,
    )  # fmt: skip
    assert "random weights and is frozen" not in caplog.text
    before, after = weights(distilled.last), weights(result.last)
    adapter = [name for name in before if name.startswith("adapter.")]
    assert adapter
    assert all(torch.equal(before[name], after[name]) for name in adapter)


def test_a_teacher_of_another_width_is_refused(distill, own_cache):
    with pytest.raises(FssbenchError, match="the option width=256"):
        fssbench.train(distill, options={"width": "32"})
    with pytest.raises(FssbenchError, match="was never trained"):
        fssbench.train(distill, part_weights={})


def test_augmentation_is_refused_with_a_stored_teacher(distill, own_cache, tmp_path):
    recipe = tmp_path / "scales.toml"
    recipe.write_text(
        '[distill-126.flips]\nbackbone = "tiny-vit"\nsteps = 2\nbatch = 2\nsize = 40\n'
        'options = { teacher = "tiny-sam" }\noptimiser = { kind = "adamw", lr = 1e-3 }\n'
        "augment = { scale = [0.9, 1.1] }\n"
    )
    with pytest.raises(FssbenchError, match="remove augment"):
        fssbench.train(distill, recipe=str(recipe), epochs=None)


def test_weights_option_on_the_command_line(pictures, tmp_path, own_cache, capsys):
    command = [
        "train", "fsdino", "--stage", "distill-126", "--recipe", "tiny", "--dataset", "images",
        "--data-root", str(pictures), "--steps", "1", "--batch-size", "2", "--workers", "0",
        "--device", "cpu", "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert _run([*command, "--weights", "pretrained", "--weights", "teacher=random"]) == 0
    assert "last.safetensors" in capsys.readouterr().out
    assert _run([*command, "--weights", "teacher=random", "--weights", "teacher=x"]) == 2
    assert "given twice" in capsys.readouterr().err
