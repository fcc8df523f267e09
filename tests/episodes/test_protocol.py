"""Building manifests of protocols."""

from __future__ import annotations

from collections import Counter

import attrs
import pytest

from fssbench.episodes.protocol import build_manifest
from fssbench.errors import FssbenchError
from fssbench.specs import ProtocolSpec

PROTOCOL = ProtocolSpec(
    name="fake/v1", summary="", dataset="fake", split="val", sampler="class-balanced",
    episodes=100, min_pixels=1000,
)  # fmt: skip


def test_episodes_are_balanced_and_prefixes_too(fake):
    manifest = build_manifest(PROTOCOL, fake, fold=1, shots=1)
    classes = [episode.class_id for episode in manifest.episodes]
    assert set(classes) == {4, 5, 6, 7}
    assert Counter(classes) == dict.fromkeys((4, 5, 6, 7), 25)
    for start in range(0, 100, 4):
        assert set(classes[start : start + 4]) == {4, 5, 6, 7}


def test_queries_return_only_after_all_were_asked(fake):
    manifest = build_manifest(PROTOCOL, fake, fold=0, shots=1)
    for class_id in range(4):
        queries = [e.query for e in manifest.episodes if e.class_id == class_id]
        assert len(set(queries[:10])) == 10  # each class has ten images
        assert sorted(queries[:10]) == sorted(queries[10:20])


@pytest.mark.parametrize("shots", [1, 5, 9])
def test_supports_are_distinct_hold_the_class_and_are_never_the_query(fake, shots):
    for episode in build_manifest(PROTOCOL, fake, fold=0, shots=shots).episodes:
        assert len(set(episode.support)) == shots
        assert episode.query not in episode.support
        for image in (episode.query, *episode.support):
            assert episode.class_id in fake.class_pixels(image)


def test_small_objects_are_not_listed(fake):
    strict = attrs.evolve(PROTOCOL, min_pixels=4000)
    for episode in build_manifest(strict, fake, fold=0, shots=1).episodes:
        assert fake.class_pixels(episode.query)[episode.class_id] >= 4000


def test_the_same_arguments_give_the_same_manifest_and_others_another(fake):
    digest = build_manifest(PROTOCOL, fake, fold=0, shots=1).digest
    assert build_manifest(PROTOCOL, fake, fold=0, shots=1).digest == digest
    others = [
        build_manifest(PROTOCOL, fake, fold=1, shots=1),
        build_manifest(PROTOCOL, fake, fold=0, shots=2),
        build_manifest(PROTOCOL, fake, fold=0, shots=1, seed=1),
        build_manifest(PROTOCOL, fake, fold=0, shots=1, limit=99),
        build_manifest(attrs.evolve(PROTOCOL, name="fake/v2"), fake, fold=0, shots=1),
    ]
    assert len({digest, *(m.digest for m in others)}) == 6


def test_every_image_once_where_no_count_is_given(fake):
    exhaustive = attrs.evolve(PROTOCOL, episodes=None)
    manifest = build_manifest(exhaustive, fake, fold=0, shots=1)
    asked = Counter((e.class_id, e.query) for e in manifest.episodes)
    assert len(asked) == 40
    assert set(asked.values()) == {1}


def test_a_limit_is_a_prefix(fake):
    whole = build_manifest(PROTOCOL, fake, fold=0, shots=1)
    part = build_manifest(PROTOCOL, fake, fold=0, shots=1, limit=10)
    assert part.episodes == whole.episodes[:10]
    assert part.limit == 10
    assert build_manifest(PROTOCOL, fake, fold=0, shots=1, limit=100).limit is None


def test_class_with_too_few_images_is_an_error_that_names_it(make_fake):
    images = {f"im{i}": dict.fromkeys(range(4), 5000) for i in range(6)}
    images["im9"] = {0: 5000}
    dataset = make_fake(images, 4)
    build_manifest(PROTOCOL, dataset, fold=0, shots=5)
    with pytest.raises(FssbenchError, match=r"needs 7 images .* too few: class1 \(6\)"):
        build_manifest(PROTOCOL, dataset, fold=0, shots=6)
    dropping = attrs.evolve(PROTOCOL, rare="drop")
    manifest = build_manifest(dropping, dataset, fold=0, shots=6)
    assert manifest.dropped == ((1, "class1"),)
    assert manifest.class_ids == (0,)
    with pytest.raises(FssbenchError, match="too few: class0"):
        build_manifest(dropping, dataset, fold=0, shots=7)


def test_rare_classes_are_dropped_for_all_shots_alike(make_fake):
    images = {f"im{i}": {0: 5000} for i in range(9)} | {f"om{i}": {1: 5000} for i in range(5)}
    dropping = attrs.evolve(PROTOCOL, rare="drop")
    for shots in (1, 5):
        manifest = build_manifest(dropping, make_fake(images, 4), fold=0, shots=shots)
        assert manifest.dropped == ((1, "class1"),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": 2, "shots": 1}, "no fold 2; it has folds 0 to 1"),
        ({"fold": 0, "shots": 0}, "shots must be at least 1"),
        ({"fold": 0, "shots": 1, "limit": 0}, "limit must be at least 1"),
    ],
)
def test_wrong_arguments(fake, arguments, message):
    with pytest.raises(FssbenchError, match=message):
        build_manifest(PROTOCOL, fake, **arguments)


def test_another_dataset_or_split(fake):
    with pytest.raises(FssbenchError, match="is for coco20i, the dataset is fake"):
        build_manifest(attrs.evolve(PROTOCOL, dataset="coco20i"), fake, fold=0, shots=1)
    with pytest.raises(FssbenchError, match="no split 'holdout'"):
        build_manifest(attrs.evolve(PROTOCOL, split="holdout"), fake, fold=0, shots=1)


def test_wrong_mask_is_the_same_episodes_with_other_masks(fake):
    control = attrs.evolve(PROTOCOL, name="fake/control", sampler="wrong-mask", draw_key="fake/v1")
    ordinary = build_manifest(PROTOCOL, fake, fold=0, shots=3).episodes
    changed = build_manifest(control, fake, fold=0, shots=3).episodes
    assert tuple(attrs.evolve(e, support_classes=()) for e in changed) == ordinary
    for episode in changed:
        assert len(episode.support_classes) == 3
        for image, shown in episode.supports():
            assert shown != episode.class_id
            assert shown in fake.class_pixels(image)


def test_wrong_mask_needs_images_of_several_classes(make_fake):
    dataset = make_fake({f"im{i}": {i % 2: 5000} for i in range(20)}, 4)
    one_fold = attrs.evolve(PROTOCOL, sampler="wrong-mask")
    with pytest.raises(FssbenchError, match="holds one class only"):
        build_manifest(one_fold, dataset, fold=0, shots=1)


def test_shared_class_is_the_same_queries_with_supports_that_hold_a_second_class(make_fake):
    images = {f"im{i:02}": {c: 5000 for c in range(4) if i >> c & 1} for i in range(1, 16)}
    images |= {f"om{i}": {0: 5000, 1 + i % 3: 5000} for i in range(9)}
    images |= {f"pm{i}": {1: 5000, 2 * (i % 2): 5000} for i in range(8)}
    images = {name: held for name, held in images.items() if len(held) > 1}
    dataset = make_fake(images, 4)
    control = attrs.evolve(PROTOCOL, name="fake/shared", sampler="shared-class", draw_key="fake/v1")
    ordinary = build_manifest(PROTOCOL, dataset, fold=0, shots=2).episodes
    changed = build_manifest(control, dataset, fold=0, shots=2).episodes
    assert [(e.class_id, e.query) for e in changed] == [(e.class_id, e.query) for e in ordinary]
    others = set()
    for episode in changed:
        assert len({episode.query, *episode.support}) == 3
        common = set.intersection(
            *(set(dataset.class_pixels(image)) for image in (episode.query, *episode.support))
        )
        assert episode.class_id in common
        assert len(common) > 1
        others |= common - {episode.class_id}
    assert others == set(range(4))


def test_shared_class_needs_images_that_share_two(make_fake):
    dataset = make_fake({f"im{i}": {i % 2: 5000} for i in range(20)}, 4)
    one_fold = attrs.evolve(PROTOCOL, sampler="shared-class")
    with pytest.raises(FssbenchError, match="no 2 images of class . hold the same second"):
        build_manifest(one_fold, dataset, fold=0, shots=1)


def test_a_failing_dataset_class_is_checked_again_after_sampling(fake):
    few = attrs.evolve(PROTOCOL, episodes=2)
    with pytest.raises(FssbenchError, match="no episode asks for"):
        build_manifest(few, fake, fold=0, shots=1)
