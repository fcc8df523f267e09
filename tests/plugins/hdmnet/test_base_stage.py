"""Training of the base learner: recipe of BAM, trained parameters, checkpoint."""

from __future__ import annotations

import math

import pytest
import safetensors
import torch
from torch.nn import functional
from training_commands import command_line

from fssbench import FssbenchError, LabelledBatch, Training, build, registry, train
from fssbench.matchers.checkpoint import TRAINED_IMAGES, read_checkpoint
from fssbench.nn import PspHead, cross_entropy
from fssbench.specs import MatcherSpec
from fssbench.training.recipe import find_recipe
from fssbench_hdmnet.stages import Base


@pytest.mark.parametrize(
    ("dataset", "epochs", "encoder", "learner", "classes"),
    [("pascal5i", 100, 2.5e-4, 2.5e-3, 15), ("coco20i", 20, 2.5e-3, 2.5e-3, 60)],
)
def test_recipes_are_those_of_bam(dataset, epochs, encoder, learner, classes):
    spec = registry.registry().get(MatcherSpec, "hdmnet")
    recipe = find_recipe(spec, "base", dataset=dataset)
    assert (recipe.backbone, recipe.epochs, recipe.batch) == ("resnet50-psp", epochs, 12)
    assert (recipe.size, recipe.train_filter) == (417, "all")
    assert recipe.data_options == ({"overlaps": "painted"} if dataset == "coco20i" else {})
    assert recipe.options["base_classes"] == classes
    optimiser, augment = recipe.optimiser, recipe.augment
    assert (optimiser.kind, optimiser.momentum, optimiser.weight_decay) == ("sgd", 0.9, 1e-4)
    assert not optimiser.nesterov
    assert optimiser.lr == encoder
    assert optimiser.lr * optimiser.lr_scales.get("base", 1) == pytest.approx(learner)
    assert (recipe.schedule.kind, recipe.schedule.power, recipe.schedule.warmup) == ("poly", 0.9, 0)
    assert (recipe.schedule.ahead, augment.crop_retries) == (1, 31)
    assert (augment.resize, augment.scale, augment.crop) == ("none", (0.5, 2.0), "random")
    assert (augment.rotate, augment.rotate_probability) == ((-10, 10), 0.5)
    assert (augment.blur, augment.flip) == (0.5, 0.5)


def weights(path):
    with safetensors.safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in set(file.keys()) - {TRAINED_IMAGES}}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Four steps on sixty scenes; options are the recipe's."""
    return Training(
        matcher="hdmnet",
        stage="base",
        data_options={"images_per_split": "60"},
        device="cpu",
        workers=0,
        steps=4,
        batch_size=6,
        out=tmp_path_factory.mktemp("trainings"),
    )


@pytest.fixture(scope="module")
def trained(job, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSSBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train(job)


LAYERS = "layer2.2,layer3.2,layer3.2"  # of the recipe for shapes


def test_encoder_and_base_learner_are_trained_and_nothing_else(trained):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before = build.matcher("hdmnet", "tiny-resnet", layers=LAYERS).state_dict()
    shipped = build.backbone("tiny-resnet").model.state_dict()
    after = weights(trained.last)
    own = {n: t for n, t in after.items() if not n.startswith("backbone.")}
    assert own.keys() == before.keys()
    for name, tensor in own.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, before[name]) != name.startswith("base."), name
    encoder = {n.removeprefix("backbone."): t for n, t in after.items() if n not in own}
    assert encoder.keys() == shipped.keys()
    # Batch norm works as in training: its statistics move, as its parameters do.
    for name in ("bn1.running_mean", "layer3.2.bn2.running_var", "conv1.weight", "bn1.weight"):
        assert not torch.equal(encoder[name], shipped[name]), name
    counted = encoder["bn1.num_batches_tracked"] - shipped["bn1.num_batches_tracked"]
    assert counted == trained.steps == 4


@pytest.mark.slow
def test_two_processes_train_the_base_learner(tmp_path):
    """Batch norm is that of the whole batch, and nobody waits for gradients of the last stage."""
    found = {}
    for devices in ("1", "2"):
        done = command_line(
            "train", "hdmnet", "--stage", "base", "-d", "images_per_split=60", "--device", "cpu",
            "--workers", "0", "--devices", devices, "--steps", "1", "--batch-size", "6",
            "--out", str(tmp_path / devices),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (path,) = (tmp_path / devices).rglob("last.safetensors")
        found[devices] = weights(path)
    before, after = build.backbone("tiny-resnet").model.state_dict(), found["2"]
    idle = [name for name in before if name.startswith("layer4.")]
    assert idle
    assert all(torch.equal(before[name], after[f"backbone.{name}"]) for name in idle)
    assert not torch.equal(before["conv1.weight"], after["backbone.conv1.weight"])
    statistics = [name for name in after if name.endswith(("running_mean", "running_var"))]
    assert {"backbone", "base"} <= {name.partition(".")[0] for name in statistics}
    for name in statistics:
        torch.testing.assert_close(after[name], found["1"][name], msg=lambda m, n=name: f"{n} {m}")


def test_the_header_of_the_checkpoint(trained):
    assert trained.best is None  # nothing can be segmented yet
    header = read_checkpoint(trained.last).header
    assert (header["stage"], header["fold"], header["train_filter"]) == ("base", 0, "keep")
    assert header["config"]["base_classes"] == 15
    assert header["holds_backbone"]


MATCHING = f"""
[meta.tiny]
backbone = "tiny-resnet"
options = {{ layers = "{LAYERS}" }}
steps = 1
batch = 2
optimiser = {{ kind = "adamw", lr = 1e-3 }}
"""


def test_matching_starts_from_the_base_checkpoint_with_its_encoder(job, trained, tmp_path):
    recipe = tmp_path / "matching.toml"
    recipe.write_text(MATCHING)
    meta = train(
        job, stage="meta", recipe=str(recipe), init=trained.last, steps=None, batch_size=None,
        validation_episodes=0,
    )  # fmt: skip
    base, after = weights(trained.last), weights(meta.last)
    assert base.keys() == after.keys()
    changed = {name.partition(".")[0] for name in base if not torch.equal(base[name], after[name])}
    assert not changed & {"backbone", "base"}
    assert {"pyramid", "decoder"} <= changed


def test_another_number_of_classes_is_reported_on_one_line(job):
    with pytest.raises(FssbenchError, match="15 base classes; give -o base_classes=15") as error:
        train(job, options={"base_classes": "7"})
    assert "\n" not in str(error.value)


def batch(labels, features):
    images = torch.rand(len(labels), 3, *labels.shape[1:])
    return LabelledBatch(
        images=images, labels=labels, features={"deep": features}, classes=(3, 4, 9)
    )


def test_the_loss_is_that_of_logits_at_the_size_of_the_labels():
    learner = PspHead(8, 4, width=16).eval()
    stage = Base(learner=learner, layer="deep")
    features, labels = torch.rand(2, 8, 5, 5), torch.randint(0, 4, (2, 17, 17))
    labels[:, :, :6] = 255
    logits = functional.interpolate(
        learner(features), (17, 17), mode="bilinear", align_corners=True
    )
    expected = functional.cross_entropy(logits[..., 6:], labels[..., 6:])
    losses = stage.losses(None, batch(labels, features))
    assert list(losses) == ["ce"]
    torch.testing.assert_close(losses["ce"], expected)
    labels[:] = 255
    assert stage.losses(None, batch(labels, features))["ce"] == 0


def test_the_loss_falls():
    """Labels that the features spell out are learned in a few steps."""
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (4, 6, 6))
    features = functional.one_hot(labels, 8).permute(0, 3, 1, 2).float()
    learner = PspHead(8, 4, width=32)
    optimiser = torch.optim.SGD(learner.parameters(), 0.1, momentum=0.9)
    for _ in range(60):
        loss = cross_entropy(learner(features), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1 * math.log(4)
    assert (learner.eval()(features).argmax(1) == labels).float().mean() > 0.9
