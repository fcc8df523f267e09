"""Samples and their loading: base classes only, one order for all, images encoded once."""

from __future__ import annotations

import attrs
import pytest
import torch

from fssbench import FssbenchError, dataset
from fssbench.training import frozen_features
from fssbench.training.loader import load_batches, portions_of
from fssbench.training.plan import make_plan
from fssbench.training.step import TrainingStep


@pytest.fixture
def plan(job):
    return make_plan(job)


def test_epochs_are_drawn_of_base_classes_by_seed_and_epoch(plan, job):
    first = plan.samples.epoch(0)
    assert len(first) == 40
    assert first == make_plan(job).samples.epoch(0)
    assert first != plan.samples.epoch(1)
    assert first != make_plan(attrs.evolve(job, seed=1)).samples.epoch(0)
    assert all(sample.class_id >= 5 for sample in first)  # fold 0 holds out classes 0 to 4
    assert {i.partition("-")[0] for s in first for i in (s.query, *s.support)} == {"train"}


def test_an_epoch_without_a_size_asks_for_each_class_of_each_image(job, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        '[meta.r]\nbackbone = "pixels"\nepochs = 1\nbatch = 8\nmin_pixels = 400\n'
        'optimiser = { kind = "sgd", lr = 1 }'
    )
    plan = make_plan(attrs.evolve(job, recipe=str(recipe)))
    data = dataset("shapes", images_per_split=60)
    pairs = {
        (c, image)
        for image in data.image_ids("train")
        for c, pixels in data.class_pixels(image).items()
        if c >= 5 and pixels >= 400
    }
    asked = [(s.class_id, s.query) for s in plan.samples.epoch(0)]
    rare = {c for c in range(20) if sum(c == other for other, _ in pairs) < 2}
    assert sorted(asked) == sorted(pair for pair in pairs if pair[0] not in rare)


def test_the_train_filter_drops_images_with_novel_classes(job):
    plan = make_plan(attrs.evolve(job, stage="base"))
    data = dataset("shapes", images_per_split=60)
    kept = set(plan.samples.images)
    for image in data.image_ids("train"):
        novel = any(c < 5 for c in data.class_pixels(image))
        assert (image in kept) != novel
    assert plan.samples.dropped == 60 - len(kept) > 0


@pytest.mark.parametrize(("filter_", "novel_alone"), [("keep", False), ("all", True)])
def test_labelled_stages_may_train_on_images_of_novel_classes_alone(
    job, tmp_path, filter_, novel_alone
):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'[base.r]\nbackbone = "pixels"\nepochs = 1\nbatch = 8\ntrain_filter = "{filter_}"\n'
        'optimiser = { kind = "sgd", lr = 1 }'
    )
    images = {"images_per_split": "300"}
    plan = make_plan(attrs.evolve(job, stage="base", recipe=str(recipe), data_options=images))
    shown = {i: set(plan.dataset.class_pixels(i)) for i in plan.dataset.image_ids("train")}
    novel = {image for image, classes in shown.items() if max(classes) < 5}
    assert novel
    assert set(plan.samples.images) == set(shown) - (set() if novel_alone else novel)
    assert plan.samples.dropped == 0
    labels = plan.loader._labels(min(novel))
    assert labels.unique().tolist() == [0]


@pytest.mark.parametrize("stage", ["meta", "base"])
def test_pixels_of_novel_classes_can_be_ignored(job, tmp_path, stage):
    recipe = tmp_path / "r.toml"
    text = (
        '[{}.r]\nbackbone = "pixels"\nepochs = 1\nbatch = 8\ntrain_filter = "{}"\n'
        'optimiser = {{ kind = "sgd", lr = 1 }}'
    )
    job = attrs.evolve(job, stage=stage, recipe=str(recipe))
    loaded = {}
    for name in ("keep", "ignore"):
        recipe.write_text(text.format(stage, name))
        plan = make_plan(job)
        loaded[name] = plan.samples.epoch(0), plan.loader
    (samples, plain), (same, ignoring) = loaded["keep"], loaded["ignore"]
    assert samples == same
    data = plan.dataset
    images = {image for s in samples for image in ([s] if stage == "base" else [s.query])}
    mixed = sorted(i for i in images if min(data.class_pixels(i)) < 5)
    assert mixed
    for image in mixed:
        shown = data.class_pixels(image)
        base = max(shown)
        novel = torch.stack([data.mask(image, c) == 1 for c in shown if c < 5]).any(0)
        before, after = (
            (each._labels(image) if stage == "base" else each._mask(image, base))
            for each in (plain, ignoring)
        )
        assert torch.equal(after[~novel], before[~novel])
        # where objects of both overlap, the base class stays
        assert torch.equal(after[novel], before[novel].masked_fill(before[novel] == 0, 255))
        assert (before[novel] == 0).any()


@pytest.mark.parametrize("matcher", ["dcama", "hsnet"])
def test_losses_that_count_ignored_pixels_cannot_ignore_novel_classes(job, tmp_path, matcher):
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        '[meta.r]\nbackbone = "tiny-resnet"\nepochs = 1\nbatch = 8\ntrain_filter = "ignore"\n'
        'optimiser = { kind = "sgd", lr = 1 }'
    )
    job = attrs.evolve(job, matcher=matcher, stage="meta", recipe=str(recipe), backbone="")
    with pytest.raises(FssbenchError, match=f"stage meta of {matcher} counts ignored pixels"):
        make_plan(job)


def test_plain_images_are_all_images(job):
    plan = make_plan(attrs.evolve(job, stage="plain"))
    assert sorted(plan.samples.epoch(3)) == sorted(plan.dataset.image_ids("train"))


def test_shares_of_processes_are_the_whole_batch():
    samples = [str(n) for n in range(35)]
    whole = portions_of(samples, first_step=1, batch=8, parts=1, rank=0, world=1)
    assert [p.first for p in whole] == [8, 16, 24]
    for parts, world in ((1, 2), (2, 1), (2, 2), (4, 2)):
        shares = [
            portions_of(samples, first_step=1, batch=8, parts=parts, rank=rank, world=world)
            for rank in range(world)
        ]
        for step, portion in enumerate(whole):
            rows = slice(step * parts, (step + 1) * parts)
            together = sorted((p for share in shares for p in share[rows]), key=lambda p: p.first)
            assert [s for p in together for s in p.samples] == portion.samples


def load(plan, count=8, epoch=0, **loader):
    portion = portions_of(
        plan.samples.epoch(epoch), first_step=0, batch=count, parts=1, rank=0, world=1
    )[:1]
    (batch,) = load_batches(
        attrs.evolve(plan.loader, **loader), epoch, portion, workers=0, pin=False
    )
    return batch


def without_chance(plan):
    recipe = attrs.evolve(plan.loader.augmentation.recipe, scale=None, rotate=None, blur=0, flip=0)
    return attrs.evolve(plan.loader.augmentation, recipe=recipe)


def test_episodes_are_loaded_as_evaluation_would(plan):
    batch = load(plan, augmentation=without_chance(plan))
    geometry = plan.loader.augmentation.geometry
    assert batch.masks.shape == (8, 2, 64, 64)
    for row, sample in enumerate(batch.samples):
        assert batch.class_ids[row] == sample.class_id
        for place, image in enumerate((sample.query, *sample.support)):
            shown = batch.images[batch.image_indices[row, place]]
            assert torch.equal(shown, geometry.image(plan.dataset.image(image)))
            mask = plan.dataset.mask(image, sample.class_id)
            assert torch.equal(batch.masks[row, place], geometry.mask(mask))


def test_images_of_a_batch_are_encoded_once(plan):
    batch = load(plan, count=40, augmentation=without_chance(plan))
    images = {i for s in batch.samples for i in (s.query, *s.support)}
    assert len(batch.images) == len(images) < 80
    step = TrainingStep(plan)
    before = plan.backbone.seen
    step(batch)
    assert plan.backbone.seen - before == len(images)
    assert len(load(plan, count=40).images) == 80  # augmented, each looks different


def test_features_on_disk_are_read_instead_of_encoded(plan, tmp_path):
    loader = attrs.evolve(plan.loader, augmentation=without_chance(plan), caches=True)
    settings = attrs.evolve(plan.settings, cache_dir=tmp_path / "features")
    plan = attrs.evolve(plan, loader=loader, settings=settings)
    batch = loader.load(0, 0, plan.samples.epoch(0)[:8])

    def encoded(**changes):
        changed = attrs.evolve(plan, settings=attrs.evolve(settings, **changes))
        before = plan.backbone.seen
        found = TrainingStep(changed)._batch(batch)
        return plan.backbone.seen - before, found.query["cells4"]

    count, features = encoded()
    assert count == len(batch.images) == len(list(settings.cache_dir.glob("*.safetensors")))
    again, read = encoded()
    assert again == 0
    assert torch.equal(read, features)
    damaged = next(settings.cache_dir.glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    again, read = encoded()
    assert again == 1
    assert torch.equal(read, features)
    assert encoded(precision="bf16")[0] == encoded(cache_dir=None)[0] == count


def test_the_limit_in_memory_is_for_features_on_disk(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen_features, "CACHE_BYTES", 0)
    loader = attrs.evolve(plan.loader, augmentation=without_chance(plan), caches=True)
    batch = loader.load(0, 0, plan.samples.epoch(0)[:8])
    for folder in (None, tmp_path / "features"):
        settings = attrs.evolve(plan.settings, cache_dir=folder)
        step = TrainingStep(attrs.evolve(plan, loader=loader, settings=settings))
        before = plan.backbone.seen
        first, second = step._batch(batch), step._batch(batch)
        assert plan.backbone.seen - before == len(batch.images)
        assert torch.equal(first.query["cells4"], second.query["cells4"])


def test_a_cache_folder_that_cannot_be_used_is_named(job, tmp_path, caplog):
    make_plan(attrs.evolve(job, cache_dir=tmp_path / "features"))
    assert "--cache-dir is not used: the recipe augments images" in caplog.text
    assert not (tmp_path / "features").exists()


def test_supports_are_hidden_and_the_stage_sees_them_whole(plan):
    batch = load(plan, augmentation=without_chance(plan), hide=True)
    assert sum(mask is not None for mask in batch.keep) == 8
    step = TrainingStep(plan)
    found = step._batch(batch)
    whole = step._batch(load(plan, augmentation=without_chance(plan)))
    assert torch.equal(found.support_images, whole.support_images)
    assert torch.equal(found.query["cells4"], whole.query["cells4"])
    assert not torch.equal(found.support["cells4"], whole.support["cells4"])
    background = torch.nn.functional.max_pool2d(found.support_masks.float().flatten(0, 1), 4) == 0
    hidden = found.support["cells4"].flatten(0, 1).movedim(1, -1)[background]
    assert hidden.abs().max() < 1e-6  # the mean is what the encoder sees as zero
    assert found.query_images.shape == (8, 3, 64, 64)
    assert 0 <= found.query_images.min() <= found.query_images.max() <= 1


def test_labels_name_base_classes(job):
    plan = make_plan(attrs.evolve(job, stage="base"))
    loader = attrs.evolve(plan.loader, augmentation=without_chance(plan))
    for image in plan.samples.images[:5]:
        labels = loader._labels(image)
        for class_id in range(20):
            mask = plan.dataset.mask(image, class_id)
            assert bool(((labels == class_id - 4) == (mask == 1)).all()) or class_id < 5
        present = {c - 4 for c in plan.dataset.class_pixels(image)}
        assert set(labels.unique().tolist()) == {0, *present}
