"""Training of HDMNet's matching: losses, groups, recipes; ablations, trained and measured."""

from __future__ import annotations

import attrs
import pytest
import torch
from hdmnet_features import SIZE, episodes, features, make, masks_of, stage_of
from torch import nn
from torch.nn import functional

import fssbench
from fssbench import FssbenchError, embed_episodes, registry
from fssbench.matchers.checkpoint import read_checkpoint
from fssbench.specs import MatcherSpec
from fssbench.training.recipe import find_recipe
from fssbench_hdmnet.distillation import distillation_losses
from fssbench_hdmnet.stages import margin_loss

IMAGES = {"images_per_split": "60"}


def test_recipes_are_those_of_section_4_and_of_the_code():
    spec = registry.registry().get(MatcherSpec, "hdmnet")
    for dataset, epochs, batch, size, scale in (
        ("pascal5i", 200, 4 * 4, None, (0.9, 1.1)),  # 4 on each of 4 GPUs
        ("coco20i", 50, 4 * 6, 633, (0.8, 1.25)),
    ):
        recipe = find_recipe(spec, "meta", dataset=dataset)
        assert (recipe.epochs, recipe.batch, recipe.shots) == (epochs, batch, 1)
        assert recipe.options.get("size") == size
        optimiser, schedule, augment = recipe.optimiser, recipe.schedule, recipe.augment
        assert (optimiser.kind, optimiser.lr, optimiser.weight_decay) == ("adamw", 1e-4, 0.01)
        assert (schedule.kind, schedule.power, schedule.per) == ("poly", 0.9, "step")
        assert schedule.ahead == 1
        assert (recipe.train_filter, recipe.min_pixels) == ("base-only", 2 * 32 * 32)
        assert recipe.sampler == "image-once"
        assert recipe.data_options == ({"overlaps": "painted"} if dataset == "coco20i" else {})
        assert (augment.scale, augment.rotate, augment.rotate_probability) == (
            scale, (-10, 10), 0.5,
        )  # fmt: skip
        assert (augment.blur, augment.flip, augment.crop) == (0.5, 0.5, "squash")


# --- the stage ------------------------------------------------------------------------------------


def test_modes_and_what_is_trained():
    matcher = make(shots=5)
    stage = stage_of(matcher)
    stage.training_mode(matcher)
    for module in matcher.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not module.training
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            assert module.training
    trained = {id(p) for group in stage.parameters(matcher, None) for p in group.parameters}
    for name, parameter in matcher.named_parameters():
        frozen = name.startswith(("base.", "ensemble.reweight."))
        assert (id(parameter) not in trained) is frozen, name


def test_one_step_lowers_the_losses_and_leaves_batch_norm_alone():
    matcher = make(dropout=0.0, attention_dropout=0.0)
    stage = stage_of(matcher)
    stage.training_mode(matcher)
    for module in matcher.base.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    parameters = [p for group in stage.parameters(matcher, None) for p in group.parameters]
    optimiser = torch.optim.SGD(parameters, lr=0.01)
    statistics = {n: b.clone() for n, b in matcher.named_buffers()}
    before = stage.losses(matcher, episodes())
    assert list(before) == [
        "final",
        "meta",
        "distillation1",
        "distillation2",
        "distillation3",
        "base",
    ]
    assert not before["base"].requires_grad
    sum(before.values()).backward()
    assert all(parameter.grad is not None for parameter in parameters)
    optimiser.step()
    after = stage.losses(matcher, episodes())
    assert sum(after.values()) < sum(before.values())
    assert after["base"] == before["base"]
    for name, buffer in matcher.named_buffers():
        assert torch.equal(buffer, statistics[name])


def test_losses_of_the_outputs():
    matcher = make()
    batch = episodes()
    losses = stage_of(matcher).losses(matcher, batch)
    with torch.no_grad():
        support = embed_episodes(matcher, batch.support, batch.support_masks)
        found = matcher.outputs(
            matcher.prepare_query(batch.query), support, left_out=torch.tensor([2, 2])
        )
    target = (batch.query_masks == 1).long()
    for name in ("final", "meta"):
        whole = functional.interpolate(
            getattr(found, name), (SIZE, SIZE), mode="bilinear", align_corners=True
        )
        torch.testing.assert_close(losses[name].detach(), functional.cross_entropy(whole, target))
    known = found.base.softmax(1)
    left = functional.interpolate(found.base, (8, 8), mode="bilinear", align_corners=True)
    left = left.softmax(1)
    counted = left[:, 1] + left[:, 3] + left[:, 4]  # all but background and the episode's class
    merged = matcher.ensemble(
        found.meta.softmax(1),
        counted[:, None],
        torch.zeros(2, 1, 1, 1),
    )
    assert known.shape == (2, 5, 2, 2)
    torch.testing.assert_close(merged[:, 1], found.final[:, 1])
    with torch.no_grad():
        matcher.ensemble.base_merge.weight.fill_(1.0)
        found = matcher.outputs(
            matcher.prepare_query(batch.query), support, left_out=torch.tensor([2, 2])
        )
    torch.testing.assert_close(found.final[:, 0], found.meta.softmax(1)[:, 0] + counted)


def test_ignored_pixels_are_left_out():
    margins = torch.randn(2, 6, 6)
    masks = torch.randint(0, 2, (2, 6, 6)).to(torch.uint8)
    masks[:, :2] = 255
    two = torch.stack([torch.zeros_like(margins), margins], 1)
    expected = functional.cross_entropy(two, masks.long(), ignore_index=255)
    torch.testing.assert_close(margin_loss(margins, masks), expected)
    assert margin_loss(margins, torch.full_like(masks, 255)) == 0


def test_wrong_number_of_base_classes():
    matcher = make()
    with pytest.raises(FssbenchError, match="give -o base_classes=3, for all stages"):
        stage_of(matcher).losses(matcher, episodes(classes=(1, 7, 8)))


# --- distillation ---------------------------------------------------------------------------------


def spread(plane):
    return plane.flatten(1).softmax(1)


def test_distillation_is_equation_9():
    torch.manual_seed(0)
    fine, coarse = torch.randn(2, 4, 4), torch.randn(2, 2, 2, requires_grad=True)
    masks = torch.zeros(2, 8, 8)
    masks[0, :4] = 1  # the upper half, whole cells of both sizes
    masks[1, 4:, 4:] = 1
    first, second = distillation_losses([fine, coarse], masks, kind="kl-kd", temperature=2.0)
    truth = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0, 1.0]])
    student = spread(coarse / 2)
    entropy = torch.tensor([torch.log(torch.tensor(0.5)), 0.0])
    expected = (entropy - (truth * student.log()).sum(1)).mean()
    torch.testing.assert_close(second, expected / 2)
    teacher = functional.interpolate(coarse[:, None], (4, 4), mode="bilinear")[:, 0].detach()
    told, found = spread(teacher / 2), spread(fine / 2)
    torch.testing.assert_close(first, (told * (told / found).log()).sum(1).mean() / 2)
    assert not first.requires_grad  # the teacher is detached

    (other,) = distillation_losses([coarse], masks, kind="ce", temperature=2.0)
    torch.testing.assert_close(other, -(truth * student.log()).sum(1).mean())


def test_other_losses_of_table_6():
    torch.manual_seed(0)
    fine, coarse = torch.randn(2, 4, 4), torch.randn(2, 2, 2)
    masks = torch.zeros(2, 8, 8)
    masks[:, 2:6, :6] = 1
    ce = distillation_losses([fine, coarse], masks, kind="ce", temperature=1.0)
    both = distillation_losses([fine, coarse], masks, kind="ce-kd", temperature=1.0)
    kl = distillation_losses([fine, coarse], masks, kind="kl-kd", temperature=1.0)
    assert ce[1] == both[1]  # the coarsest has the ground truth alone
    teacher = functional.interpolate(coarse[:, None], (4, 4), mode="bilinear")[:, 0]
    told = spread(teacher)
    entropy = -(told * told.log()).sum(1).mean() / 2
    torch.testing.assert_close(both[0], ce[0] + kl[0] + entropy)


def test_distillation_without_an_object_is_finite():
    maps = [torch.randn(1, 4, 4), torch.randn(1, 2, 2)]
    for kind in ("ce", "ce-kd", "kl-kd"):
        losses = distillation_losses(maps, torch.zeros(1, 8, 8), kind=kind, temperature=1.0)
        assert all(torch.isfinite(loss) for loss in losses)


# --- from the base stage to an evaluation ---------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint of the stage `base`, of one step."""
    return fssbench.train(
        matcher="hdmnet", stage="base", steps=1, batch_size=2, data_options=IMAGES, device="cpu",
        workers=0, out=tmp_path_factory.mktemp("base"),
    ).last  # fmt: skip


def trained(base, folder, **changes):
    """A checkpoint of the stage `meta`, of one step."""
    settings = {
        "matcher": "hdmnet", "stage": "meta", "steps": 1, "batch_size": 2, "device": "cpu",
        "data_options": IMAGES, "workers": 0, "validation_episodes": 0, "init": base,
    }  # fmt: skip
    return fssbench.train(out=folder, **{**settings, **changes}).last


def test_meta_needs_a_base_learner(tmp_path):
    with pytest.raises(FssbenchError, match="train stage base first and give its last.safetensors"):
        trained(None, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": {"shots": 5}}, r"made for 5 shots \(-o shots\) and would be trained with 1"),
        ({"shots": 5}, r"made for 1 shots .* trained with 5 \(--shots\); give both"),
    ],
)
def test_shots_of_the_model_are_those_it_is_trained_with(base, tmp_path, changes, words):
    with pytest.raises(FssbenchError, match=words) as raised:
        trained(base, tmp_path, **changes)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_meta_takes_base_learner_and_backbone_from_the_base_stage(base, tmp_path):
    start = read_checkpoint(base)
    done = read_checkpoint(trained(base, tmp_path))
    assert start.holds_backbone
    assert done.holds_backbone
    encoders = [fssbench.backbone("tiny-resnet", path).state_dict() for path in (base, done.path)]
    assert all(torch.equal(encoders[0][name], encoders[1][name]) for name in encoders[0])
    for name, tensor in done.weights.items():
        if name.startswith("base."):
            assert torch.equal(tensor, start.weights[name])
    moved = [n for n in done.weights if not torch.equal(done.weights[n], start.weights[n])]
    assert "merge_query.project.weight" in moved
    assert done.header["config"]["base_classes"] == 15


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"matching": "cross-attention", "stages": "S1"},
        {"matching": "cosine", "stages": "S2", "distillation": "none"},
        {"matching": "cosine-softmax", "distillation": "ce"},
        {"stages": "S4", "distillation": "ce-kd", "ensemble": False},
        {"distillation_temperature": 2.0, "temperature": 0.2},
        {"support_mask": False},
        {"shots": 3},
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                {"matching": "cross-attention"},
                {"matching": "cosine"},
                {"matching": "cosine-softmax"},
                {"stages": "S1"},
                {"stages": "S2"},
                {"stages": "S4"},
                {"distillation": "none"},
                {"distillation": "ce"},
                {"distillation": "ce-kd"},
                {"ensemble": False},
            )
        ),
    ],
    ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()) or "default",
)
def test_every_ablation_is_trained_and_measured(options, base, tmp_path):
    shots = options.get("shots", 1)
    small = {"grid": 8, **options}
    checkpoint = trained(base, tmp_path / "trainings", options=small, shots=shots)
    (result,) = fssbench.evaluate(
        fssbench.Evaluation(
            checkpoint=checkpoint,
            folds=(0,),
            shots=(shots,),
            limit=2,
            workers=0,
            device="cpu",
            data_options=IMAGES,
            out=tmp_path / "runs",
        )
    )
    assert 0 <= result.record.scores["miou"] <= 100
    for name, value in options.items():
        assert read_checkpoint(checkpoint).header["config"][name] == value


def test_panels_show_the_correlation_map_of_each_stage(base, tmp_path):
    from PIL import Image

    from fssbench.evaluation.panels import Panels

    widths = {}
    for stages in ("S1", "S3"):
        job = fssbench.Evaluation(
            matcher="hdmnet", backbone="tiny-resnet", weights=str(base), folds=(0,), limit=1,
            workers=0, device="cpu", data_options=IMAGES, out=tmp_path / stages,
            options={"stages": stages},
        )  # fmt: skip
        (result,) = fssbench.evaluate(job, observers=lambda run: [Panels(run, 1)])
        (panel,) = (result.folder / "panels").iterdir()
        widths[stages] = Image.open(panel).width
    assert widths["S3"] - widths["S1"] == 2 * (240 + 6)  # two tiles more


def test_maps_by_caption():
    matcher = make()
    support = embed_episodes(matcher, features(1, 1), masks_of(1, 1))
    found = matcher.maps(matcher.prepare_query(features(1)), support)
    assert {caption: tuple(each.shape) for caption, each in found.items()} == {
        "correlation, stage 1": (1, 8, 8),
        "correlation, stage 2": (1, 4, 4),
        "correlation, stage 3": (1, 2, 2),
    }


def test_bf16_is_close_to_fp32():
    matcher = make()
    batch = attrs.evolve(episodes(), query_labels=None)
    stage = stage_of(matcher)
    plain = stage.losses(matcher, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = stage.losses(matcher, batch)
    assert "base" not in plain
    for name, loss in plain.items():
        assert rounded[name].item() == pytest.approx(loss.item(), rel=0.05, abs=0.01)
