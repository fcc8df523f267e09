"""Samplers of training episodes: numbers of episodes, shares of classes, and other epochs."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import attrs
import pytest

from fssbench import dataset
from fssbench.episodes.draw import Draw
from fssbench.episodes.literature.hdmnet import image_once
from fssbench.episodes.literature.lists import image_id, read_pickle
from fssbench.episodes.protocol import class_lists
from fssbench.episodes.sampler import Pool, class_uniform
from fssbench.training.plan import make_plan

SHARED = Path(__file__).parents[3] / "shared" / "data"
HSNET = os.environ.get("FSSBENCH_HSNET_LISTS")


def epoch(sampler, pool, number=0, shots=1):
    return sampler(pool, episodes=None, shots=shots, draw=Draw("training", number))


def check_uniform(counts, total, classes):
    """Assert that counts are within four standard deviations of equal shares."""
    share = 1 / classes
    assert len(counts) == classes
    limit = 4 * (total * share * (1 - share)) ** 0.5
    assert max(abs(count - total * share) for count in counts.values()) < limit


@pytest.fixture
def pool():
    """Three classes in 900, 90 and 9 images; every tenth image shows two of them."""
    lists = {
        3: [f"im{n:04d}" for n in range(900)],
        5: [f"im{n:04d}" for n in range(0, 900, 10)],
        8: [f"im{n:04d}" for n in range(900, 909)],
    }

    class Annotations:
        classes = tuple("abcdefghi")

        def class_pixels(self, image):
            small = {7: 12} if image == "im0000" else {}  # a class of no list
            return {c: 5000 for c, images in lists.items() if image in images} | small

    return Pool(lists=lists, dataset=Annotations())


def test_class_uniform_asks_every_class_equally_often(pool):
    episodes = epoch(class_uniform, pool)
    assert len(episodes) == 909  # different images
    check_uniform(Counter(e.class_id for e in episodes), 909, 3)
    rare = Counter(e.query for e in episodes if e.class_id == 8)
    check_uniform(rare, sum(rare.values()), 9)
    for episode in epoch(class_uniform, pool, shots=5):
        assert {episode.query, *episode.support} <= set(pool.lists[episode.class_id])
        assert len({episode.query, *episode.support}) == 6


def test_image_once_shows_each_image_once_with_one_of_its_classes(pool):
    shares = Counter()
    for number in range(20):
        episodes = epoch(image_once, pool, number, shots=2)
        assert sorted(e.query for e in episodes) == sorted(set().union(*pool.lists.values()))
        for episode in episodes:
            assert {episode.query, *episode.support} <= set(pool.lists[episode.class_id])
            assert len({episode.query, *episode.support}) == 3
        shares.update(e.class_id for e in episodes if e.query in pool.lists[5])
    check_uniform(shares, 20 * 90, 2)


@pytest.mark.parametrize("sampler", [class_uniform, image_once])
def test_epochs_differ_and_are_drawn_again_the_same(pool, sampler):
    assert epoch(sampler, pool) == epoch(sampler, pool)
    assert epoch(sampler, pool) != epoch(sampler, pool, 1)
    assert len(sampler(pool, episodes=40, shots=1, draw=Draw("x"))) == 40


@pytest.mark.parametrize("name", ["class-uniform", "image-once"])
def test_samplers_are_options_of_recipes(job, tmp_path, name):
    """The samples of an epoch depend on seed and epoch, not on processes or interruptions."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'[meta.r]\nbackbone = "pixels"\nepochs = 2\nbatch = 8\nmin_pixels = 400\n'
        f'sampler = "{name}"\noptimiser = {{ kind = "sgd", lr = 1 }}'
    )
    job = attrs.evolve(job, recipe=str(recipe))
    plan = make_plan(job)
    data = dataset("shapes", images_per_split=60)
    images = set().union(*plan.samples.pool.lists.values())
    assert images <= {
        i for i in data.image_ids("train") if max(data.class_pixels(i).values()) > 399
    }
    assert plan.samples.full_size == len(images)
    assert plan.epoch_steps == len(images) // 8
    for number in (0, 1):
        drawn = plan.samples.epoch(number)
        assert len(drawn) == len(images)
        assert drawn == make_plan(attrs.evolve(job, devices=2)).samples.epoch(number)
        assert drawn != make_plan(attrs.evolve(job, seed=1)).samples.epoch(number)
    assert plan.samples.epoch(0) != plan.samples.epoch(1)


def test_coco_photographs_are_asked_by_class():
    """Fold 1: with each pair once, "person" is a fifth of the episodes, not one of 60 classes."""
    if not (SHARED / "coco_mini").is_dir():
        pytest.skip("no photographs beside the checkout (../shared/data)")
    coco = dataset("coco20i", SHARED / "coco_mini", overlaps="painted")
    base = tuple(sorted(set(range(80)) - set(coco.fold_classes(1))))
    lists = {c: i for c, i in class_lists(coco, "train", base, 2048).items() if len(i) > 1}
    pool = Pool(lists=lists, dataset=coco)
    total = sum(map(len, lists.values()))
    assert len(lists[0]) / total > 0.15
    episodes = epoch(class_uniform, pool)
    assert len(episodes) == len(set().union(*lists.values())) < total
    many = class_uniform(pool, episodes=20 * len(episodes), shots=1, draw=Draw("many"))
    check_uniform(Counter(e.class_id for e in many), len(many), len(lists))
    once = epoch(image_once, pool)
    assert sorted(e.query for e in once) == sorted(set().union(*lists.values()))


@pytest.mark.parametrize(
    ("fold", "images", "pairs"),
    [(0, 62040, None), (1, 74381, 133927), (2, 73035, None), (3, 73808, None)],
)
def test_an_epoch_of_hsnets_lists_of_coco(fold, images, pairs):
    """The authors' epoch has as many episodes as different images, each class 1/60 of them."""
    if not HSNET:
        pytest.skip("FSSBENCH_HSNET_LISTS does not name HSNet's data/splits")
    found = read_pickle(Path(HSNET) / "coco" / "trn" / f"fold{fold}.pkl")
    lists = {c: [image_id(name) for name in names] for c, names in found.items() if names}
    assert pairs in (None, sum(map(len, lists.values())))
    episodes = epoch(class_uniform, Pool(lists=lists, dataset=None))
    assert len(episodes) == images
    check_uniform(Counter(e.class_id for e in episodes), images, 60)
    if fold == 1:
        assert round(100 * len(lists[0]) / pairs, 2) == 29.96  # "person", with each pair once
