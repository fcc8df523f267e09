from __future__ import annotations

import json

import attrs
import pytest

from fssbench.episodes.analysis.diff import HEADER, diff
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest


def manifest(asked, **header) -> Manifest:
    """Return a manifest of (class id, query, supports) triples."""
    fields = {
        "protocol": "fake/v1", "dataset": "fake", "split": "val", "fingerprint": "f" * 64,
        "fold": 0, "shots": 1, "seed": 0, "limit": None,
        "classes": ((3, "cat"), (4, "dog"), (5, "hen")), "dropped": (),
    }  # fmt: skip
    episodes = tuple(
        Episode(index=i, class_id=c, query=q, support=s) for i, (c, q, s) in enumerate(asked)
    )
    return Manifest(**{**fields, **header}, episodes=episodes)


ASKED = [(3, "a", ("b",)), (4, "b", ("c",)), (3, "c", ("a",)), (5, "d", ("a",))]


def test_equal_manifests():
    found = diff(manifest(ASKED), manifest(ASKED))
    assert found.equal
    assert found.digest_a == found.digest_b == manifest(ASKED).digest
    assert (found.common, found.in_place, found.common_queries) == (4, 4, 4)
    assert found.first is None
    assert found.shares == ()
    assert [field.name for field in found.fields] == list(HEADER)
    assert all(field.same for field in found.fields)


def test_every_field_of_a_manifest_is_compared_or_counted():
    assert {field.name for field in attrs.fields(Manifest)} - {"episodes"} == set(HEADER)


def test_another_order_keeps_the_episodes():
    found = diff(manifest(ASKED), manifest([ASKED[0], ASKED[2], ASKED[1], ASKED[3]]))
    assert not found.equal
    assert (found.common, found.in_place) == (4, 2)
    assert found.first.index == 1
    assert found.first.a.query == "b"
    assert found.first.b.query == "c"
    assert found.shares == ()


def test_another_support_is_another_episode_but_the_same_query():
    found = diff(manifest(ASKED), manifest([*ASKED[:3], (5, "d", ("b",))]))
    assert (found.common, found.in_place, found.common_queries) == (3, 3, 4)
    assert found.first.index == 3


def test_a_shorter_manifest_differs_at_its_end():
    found = diff(manifest(ASKED), manifest(ASKED[:3], limit=3))
    assert (found.episodes_a, found.episodes_b, found.common) == (4, 3, 3)
    assert found.first.index == 3
    assert found.first.b is None
    assert {field.name for field in found.fields if not field.same} == {"limit"}
    shares = {share.name: (share.a, share.b, share.share_a) for share in found.shares}
    assert shares == {"cat": (2, 2, 50.0), "dog": (1, 1, 25.0), "hen": (1, 0, 25.0)}
    assert found.shares[0].name == "hen"  # by far the largest difference
    assert found.shares[0].share_b == 0.0


def test_a_repeated_episode_counts_as_often_as_both_ask_it():
    found = diff(manifest([ASKED[0]] * 3), manifest([ASKED[0]] * 2 + [ASKED[1]]))
    assert found.common == 2


def test_the_same_questions_of_other_annotations_are_not_equal():
    found = diff(manifest(ASKED), manifest(ASKED, fingerprint="0" * 64))
    assert found.digest_a == found.digest_b
    assert not found.equal


def test_classes_of_different_datasets_are_compared_by_name():
    other = manifest(ASKED, classes=((3, "car"), (4, "dog"), (5, "hen")), dataset="other")
    found = diff(manifest(ASKED), other)
    assert found.common == 2
    assert {share.name for share in found.shares} == {"cat", "car"}


def test_a_control_shows_other_masks():
    plain = manifest(ASKED)
    episodes = tuple(attrs.evolve(e, support_classes=(9,)) for e in plain.episodes)
    found = diff(plain, attrs.evolve(plain, episodes=episodes))
    assert found.common == 0
    assert found.common_queries == 4


def test_json_holds_all_of_it():
    found = diff(manifest(ASKED), manifest(ASKED[1:], seed=1))
    fields = json.loads(json.dumps(found.to_fields()))
    assert fields["equal"] is False
    assert fields["header"]["seed"] == {"same": False, "a": 0, "b": 1}
    assert fields["first_difference"]["a"]["query"] == "a"
    assert fields["first_difference"]["b"]["class_id"] == 4
    assert fields["class_shares"][0]["name"] == "cat"
    assert fields["class_shares"][0]["share_b"] == pytest.approx(100 / 3)
