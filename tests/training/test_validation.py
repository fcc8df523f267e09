"""Validation: base classes on images that are not trained on, scored as evaluation scores."""

from __future__ import annotations

import attrs
import pandas
import pytest

from fssbench import FssbenchError, Predictor, dataset
from fssbench.metrics.iou import IoU
from fssbench.training.plan import make_plan
from fssbench.training.train import make_fabric
from fssbench.training.validation import Validation, validation_manifest


@pytest.fixture
def plan(job):
    return make_plan(job)


def manifest(plan, on="base", episodes=30):
    return validation_manifest(plan.dataset, plan.recipe, fold=0, on=on, episodes=episodes)


def test_the_episodes(plan):
    base, novel = manifest(plan), manifest(plan, "novel")
    assert base.protocol == "shapes/validation-base"
    assert {e.class_id for e in base.episodes} <= set(range(5, 20))
    assert {e.class_id for e in novel.episodes} <= set(range(5))
    for each in (base, novel):
        assert len(each.episodes) == 30
        images = {i for e in each.episodes for i in (e.query, *e.support)}
        assert {image.partition("-")[0] for image in images} == {"val"}
    assert base.digest == manifest(plan).digest


def test_images_that_are_trained_on_do_not_count(plan, monkeypatch):
    shapes = type(plan.dataset)
    ids = dataset("shapes", images_per_split=60).image_ids("val")
    monkeypatch.setattr(shapes, "image_ids", lambda self, split: ids)
    with pytest.raises(FssbenchError, match="no base class .* give --validation-episodes 0"):
        manifest(plan)


def test_scores_equal_a_plain_loop(plan):
    episodes = manifest(plan, episodes=24)
    validation = Validation(plan=plan, fabric=make_fabric(plan), manifest=episodes)
    plan.matcher.out.bias.data.fill_(1.0)
    found = validation.scores()
    predictor = Predictor("trainable", "pixels", device="cpu")
    predictor.pipeline.matcher.load_state_dict(plan.matcher.state_dict())
    rows = []
    for episode in episodes.episodes:
        (support,) = episode.support
        predictor.set_support(
            plan.dataset.image(support)[None], plan.dataset.mask(support, episode.class_id)[None]
        )
        mask = predictor.predict(plan.dataset.image(episode.query)).mask
        target = plan.dataset.mask(episode.query, episode.class_id)
        counts = IoU().measure(mask[None], target[None])
        rows.append({"class_id": episode.class_id, **{n: int(c) for n, c in counts.items()}})
    assert found == pytest.approx(IoU().summarise(pandas.DataFrame(rows)))
    assert found["miou"] > 0
    assert set(validation.scores(chunks=1)) == set(found)


def test_never(job):
    plan = make_plan(attrs.evolve(job, validation_episodes=0))
    assert not plan.validates
    assert not make_plan(attrs.evolve(job, stage="base")).validates
