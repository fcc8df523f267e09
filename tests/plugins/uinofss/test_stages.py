"""Training of UINO-FSS: recipes, episodes, distillation, SAM's weights."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import sam_for_tests
import torch
from PIL import Image

import fssbench
from fssbench import FssbenchError, registry
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench.specs import MatcherSpec
from fssbench.training.recipe import find_recipe

GOLDEN = Path(__file__).resolve().parents[1] / "fsdino" / "sam_decoder.npz"
NAMES = ("uinofss", "uinofss-comp", "uinofss-comp-frozen")
SMALL = {
    "width": "32", "adapter_width": "16", "adapter_inner": "16", "channels": "4",
    "query_places": "4", "support_places": "4", "query_block": "2", "support_block": "2",
    "decode": "8,4,4", "prompt_inner": "8",
}  # fmt: skip


def weights(path):
    return dict(read_checkpoint(path).weights)


@pytest.fixture
def meta(tmp_path):
    """Two steps on episodes of few pictures."""
    return fssbench.Training(
        matcher="uinofss", stage="meta", data_options={"images_per_split": "60"}, options=SMALL,
        device="cpu", workers=0, validation_episodes=0, steps=2, batch_size=2,
        out=tmp_path / "trainings",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dataset", ["pascal5i", "coco20i"])
def test_recipes_are_those_of_section_v_b(name, dataset):
    recipe = find_recipe(registry.registry().get(MatcherSpec, name), "meta", dataset=dataset)
    assert (recipe.backbone, recipe.batch) == ("dinov2-b", 8)
    optimiser = recipe.optimiser
    assert (optimiser.kind, optimiser.lr, optimiser.weight_decay) == ("adamw", 1e-3, 5e-4)
    assert recipe.schedule.kind == "poly"
    of_fsdino = find_recipe(registry.registry().get(MatcherSpec, "fsdino"), "meta", dataset=dataset)
    of_hdmnet = find_recipe(registry.registry().get(MatcherSpec, "hdmnet"), "meta", dataset=dataset)
    assert recipe.augment == of_fsdino.augment == of_hdmnet.augment
    for each in (recipe, of_fsdino):
        assert (each.min_pixels, each.train_filter) == (2048, "base-only")
        assert each.sampler == "image-once"
    assert fssbench.matcher(name, "dinov2-b", **recipe.options).request().size == 518


@pytest.mark.parametrize("pixels", [126, 252, 518])
def test_recipes_of_distillation(pixels):
    spec = registry.registry().get(MatcherSpec, "uinofss")
    recipe = find_recipe(spec, f"distill-{pixels}", dataset="images")
    assert (recipe.size, recipe.epochs, recipe.batch) == (pixels, 15, 8)
    assert (recipe.optimiser.kind, recipe.optimiser.lr) == ("adamw", 1e-3)
    assert recipe.optimiser.weight_decay == 5e-4


def test_trains_on_shapes_and_segments_afterwards(meta, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = fssbench.train(meta, options={**SMALL, "adapter": "frozen"})
    assert "adapter has random weights and is frozen" in caplog.text
    assert "decoder has random weights; give --weights sam=FILE" in caplog.text
    start = fssbench.matcher("uinofss", "tiny-vit", **SMALL)
    after = weights(result.last)
    assert set(after) == set(start.state_dict())
    (evaluated,) = fssbench.evaluate(
        checkpoint=result.last, data_options={"images_per_split": "60"}, folds=(0,), limit=4,
        shots=(2,), workers=0, device="cpu", out=tmp_path / "runs",
    )  # fmt: skip
    assert 0 <= evaluated.record.scores["miou"] <= 100


@pytest.mark.parametrize(
    ("name", "options", "moves"),
    [
        ("uinofss", {"adapter": "frozen"}, ("semantic", "hypercorrelation", "prior", "decoder")),
        ("uinofss", {"adapter": "trained"}, ("adapter", "semantic", "prior", "decoder")),
        ("uinofss-comp", {"adapter": "frozen"}, ("semantic", "decoder", "downscaling")),
        ("uinofss-comp-frozen", {"adapter": "frozen"}, ("semantic",)),
    ],
)
def test_each_variant_trains_its_own_parts(meta, tmp_path, name, options, moves):
    job = {"matcher": name, "options": {**SMALL, **options}, "lr": 1e-2}
    long = weights(fssbench.train(meta, **job).last)
    short = weights(fssbench.train(meta, **job, steps=1, out=tmp_path / "short").last)
    changed = {part.split(".")[0] for part in long if not torch.equal(long[part], short[part])}
    assert set(moves) <= changed
    assert ("adapter" in changed) == (options["adapter"] == "trained")
    if name == "uinofss-comp-frozen":
        assert changed == {"semantic"}
    quality = [part for part in long if part.startswith("decoder.iou_prediction_head")]
    assert quality
    assert all(torch.equal(long[part], short[part]) for part in quality)


def test_the_decoder_starts_from_sams_file(meta, tmp_path):
    path = tmp_path / "sam_vit_x.pth"
    state = sam_for_tests.golden_state(GOLDEN)
    torch.save(state, path)
    result = fssbench.train(
        meta, matcher="uinofss-comp-frozen", options={"width": "256", "prompt_inner": "8"},
        part_weights={"sam": str(path)}, steps=1, batch_size=1,
    )  # fmt: skip
    found = weights(result.last)
    for theirs, ours in (
        ("mask_decoder.mask_tokens.weight", "decoder.mask_tokens.weight"),
        ("prompt_encoder.mask_downscaling.6.bias", "downscaling.6.bias"),
    ):
        assert torch.equal(found[ours], state[theirs])
    assert read_checkpoint(result.last).header["parts"]["sam"]["name"] == path.name


@pytest.fixture
def distilled(tmp_path):
    """Checkpoint of two steps of distillation with FS-DINO, and its options."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(6):
        Image.new("RGB", (48, 40), (40 * n, 90, 255 - 40 * n)).save(folder / f"{n}.png")
    options = {"width": "256", "adapter_width": "16", "adapter_inner": "16"}
    return fssbench.train(
        matcher="fsdino", stage="distill-126", recipe="tiny", dataset="images",
        data_root=str(folder), options={**options, "teacher": "tiny-sam"},
        part_weights={"teacher": "random"}, device="cpu", workers=0, steps=2, batch_size=2,
        out=tmp_path / "distilled",
    ).last  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, "fsdino"])
def test_one_distilled_adapter_starts_every_method_and_ablation(meta, distilled, name):
    """Three rows of FS-DINO's table 4 and the siblings, from one adapter."""
    own = {**SMALL, "width": "256"} if name != "fsdino" else {
        "width": "256", "adapter_width": "16", "adapter_inner": "16", "correlation_width": "16",
        "correlation_channels": "4,4,4",
    }  # fmt: skip
    rows = {"fsdino": {"correlation": "4d"}, "uinofss": {"hypercorrelation": "cp4d"}}
    options = {**own, **rows.get(name, {}), "adapter": "frozen"}
    result = fssbench.train(meta, matcher=name, options=options, init=distilled, steps=1)
    before, after = weights(distilled), weights(result.last)
    adapter = [tensor for tensor in before if tensor.startswith("adapter.")]
    assert adapter
    assert all(torch.equal(before[tensor], after[tensor]) for tensor in adapter)


def test_other_stages_of_a_sibling_are_refused(meta, distilled, tmp_path):
    meta_of_fsdino = fssbench.train(
        meta, matcher="fsdino", init=distilled, steps=1, out=tmp_path / "fsdino",
        options={"width": "256", "adapter_width": "16", "adapter_inner": "16",
                 "correlation": "prototype"},
    ).last  # fmt: skip
    with pytest.raises(FssbenchError, match="trained as matcher 'fsdino', not 'uinofss'"):
        fssbench.train(meta, init=meta_of_fsdino)


def test_sams_initial_prompt_is_never_trained(meta, tmp_path):
    path = tmp_path / "sam_vit_x.pth"
    state = sam_for_tests.golden_state(GOLDEN)
    torch.save(state, path)
    result = fssbench.train(
        meta, matcher="uinofss-comp", options={"width": "256", "prompts": "initial"},
        part_weights={"sam": str(path)}, lr=0.1, batch_size=1,
    )  # fmt: skip
    found = weights(result.last)["initial.weight"]
    assert torch.equal(found, state["prompt_encoder.not_a_point_embed.weight"])
    with pytest.raises(FssbenchError, match="nothing is left to train"):
        fssbench.train(
            meta, matcher="uinofss-comp-frozen", part_weights={"sam": str(path)},
            options={"width": "256", "prompts": "initial", "adapter": "frozen"},
        )  # fmt: skip
