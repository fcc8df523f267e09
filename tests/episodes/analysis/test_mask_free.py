"""The oracle without masks."""

from __future__ import annotations

import pytest
import torch

from fssbench import build
from fssbench.episodes.analysis.mask_free import mask_free
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.episodes.protocol import build_manifest
from fssbench.errors import FssbenchError
from fssbench.registry import registry
from fssbench.specs import ProtocolSpec


def manifest(dataset, *asked) -> Manifest:
    shots = max((len(supports) for _, _, supports in asked), default=1)
    return Manifest(
        protocol="fake/v1", dataset="fake", split="val", fingerprint=dataset.fingerprint(), fold=0,
        shots=shots, seed=0, limit=None, classes=((0, "cat"), (1, "dog")), dropped=(),
        episodes=tuple(
            Episode(index=i, class_id=c, query=q, support=s) for i, (c, q, s) in enumerate(asked)
        ),
    )  # fmt: skip


@pytest.fixture
def painted(make_fake):
    """Images of 10 x 10 pixels from (class, columns) pairs; columns may overlap."""

    def make(plans, ignored=()):
        masks = {}
        for image, plan in plans.items():
            for class_id, columns in plan.items():
                mask = torch.zeros(10, 10, dtype=torch.uint8)
                mask[:, columns] = 1
                masks[image, class_id] = mask
        for image, class_id, column in ignored:
            masks[image, class_id][:, column] = 255
        pixels = {
            image: {c: int((masks[image, c] == 1).sum()) for c in plan}
            for image, plan in plans.items()
        }
        dataset = make_fake(pixels, 4)
        dataset.mask = lambda image, class_id: masks[image, class_id]
        return dataset

    return make


def test_counted_by_hand(painted):
    dataset = painted(
        {
            "q": {0: slice(0, 4), 1: slice(4, 6), 3: slice(8, 10)},
            "r": {1: slice(0, 5)},
            "cat": {0: slice(0, 9)},
            "both": {0: slice(0, 1), 1: slice(1, 2), 2: slice(2, 3)},
        }
    )
    found = mask_free(
        manifest(dataset, (0, "q", ("cat",)), (0, "q", ("both",)), (1, "r", ("both",))), dataset
    )
    # the cat: 40 of 40, then 40 of 60; the dog alone in its image
    assert found.miou == pytest.approx(100 * (80 / 100 + 1) / 2)
    assert found.single == pytest.approx(200 / 3)


def test_every_support_must_hold_the_other_class(painted):
    dataset = painted(
        {
            "q": {0: slice(0, 4), 1: slice(4, 8)},
            "cat": {0: slice(0, 9)},
            "both": {0: slice(0, 1), 1: slice(1, 2)},
        }
    )
    assert mask_free(manifest(dataset, (0, "q", ("both", "cat"))), dataset).miou == 100
    assert mask_free(manifest(dataset, (0, "q", ("both", "both"))), dataset).miou == 50


def test_overlap_and_ignored_pixels_are_counted_once_and_never(painted):
    plans = {"q": {0: slice(0, 4), 1: slice(2, 10)}, "s": {0: slice(0, 1), 1: slice(1, 2)}}
    overlapping = painted(plans)
    assert mask_free(manifest(overlapping, (0, "q", ("s",))), overlapping).miou == 40
    ignoring = painted(plans, [("q", 0, 9), ("q", 0, 0)])
    assert mask_free(manifest(ignoring, (0, "q", ("s",))), ignoring).miou == pytest.approx(300 / 8)


def test_other_annotations_are_refused(painted):
    dataset = painted({"q": {0: slice(0, 4)}, "s": {0: slice(0, 4)}})
    other = painted({"q": {0: slice(0, 5)}, "s": {0: slice(0, 4)}})
    with pytest.raises(FssbenchError, match="these annotations .* are not those of the manifest"):
        mask_free(manifest(dataset, (0, "q", ("s",))), other)


def test_no_episodes_are_refused(painted):
    dataset = painted({"q": {0: slice(0, 4)}})
    with pytest.raises(FssbenchError, match="without episodes"):
        mask_free(manifest(dataset), dataset)


def test_the_shared_class_control_needs_masks_and_its_protocol_hardly():
    dataset = build.dataset("shapes", images_per_split=60)

    def oracle(name):
        spec = registry().get(ProtocolSpec, name)
        return mask_free(build_manifest(spec, dataset, fold=0, shots=1, seed=0, limit=60), dataset)

    assert oracle("shapes/v1-1k-shared-class").single == 0
    assert oracle("shapes/v1-1k-shared-class").miou < oracle("shapes/v1-1k").miou - 15
