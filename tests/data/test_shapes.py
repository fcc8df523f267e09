"""The embedded benchmark: fixed to the bit, and solvable by outline only."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fssbench.data.shapes.bits import Bits
from fssbench.data.shapes.scenes import MIN_VISIBLE, fragments, lay_out, paint
from fssbench.data.shapes.shapes import Shapes, ShapesConfig
from fssbench.data.shapes.silhouettes import SILHOUETTES, silhouette
from fssbench.errors import FssbenchError


def digest(image_id: str) -> str:
    """SHA-256 of an image and of its masks of all classes."""
    shapes = Shapes()
    whole = hashlib.sha256(shapes.image(image_id).numpy().tobytes())
    for class_id in range(len(shapes.classes)):
        whole.update(shapes.mask(image_id, class_id).numpy().tobytes())
    return whole.hexdigest()


# If these change, the images did: published numbers are void, and GENERATOR must go up.
DIGESTS = {
    "train-000000": "143395e229b0da36e2c41d043938f09424b0a000212034637148ff6f2dea842f",
    "train-000017": "e89d952e0023222708105ddc69db35a779a53b28d97423a861b885769d364fb0",
    "val-000000": "7b19724d90d097567125da3138f7d4ffd8d28578f7ae68c16d6bfa7bcb32274d",
    "val-000003": "34e7a257ee309edf781cf6fc9e56c17c4f0fa383b885df881deaebc5eb6c41ca",
    "val-001999": "bce7473da7d327d5cb18380b6e7eac014db2b4dd36d4d4dff186743e76d1866f",
}


@pytest.mark.parametrize("image_id", DIGESTS)
def test_images_and_masks_never_change(image_id: str) -> None:
    assert digest(image_id) == DIGESTS[image_id]


def test_another_process_sees_the_same() -> None:
    code = (
        "import hashlib, fssbench\n"
        "image = fssbench.dataset('shapes').image('val-000003')\n"
        "print(hashlib.sha256(image.numpy().tobytes()).hexdigest())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    image = Shapes().image("val-000003")
    assert done.stdout.strip() == hashlib.sha256(image.numpy().tobytes()).hexdigest()


def test_raw_bits_are_those_of_philox() -> None:
    # The first words of Philox 4x64-10 with counter 1 (NumPy steps before it draws) and key 0.
    words = np.random.Philox(key=np.zeros(2, dtype=np.uint64)).random_raw(128).tolist()
    bits = Bits(high=0, low=0)
    assert [bits.word() for _ in range(3)] == words[:-4:-1]


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return Shapes(ShapesConfig(images_per_split=2000))


def test_an_image_has_its_documented_form(shapes: Shapes) -> None:
    image = shapes.image("train-000017")
    assert image.shape == (3, 160, 160)
    assert image.dtype == torch.uint8
    for class_id in range(20):
        mask = shapes.mask("train-000017", class_id)
        assert mask.shape == (160, 160)
        assert mask.dtype == torch.uint8
        pixels = shapes.class_pixels("train-000017").get(class_id, 0)
        assert int((mask == 1).sum()) == pixels == int(mask.sum())


def test_every_image_has_two_to_four_objects_of_different_classes(shapes: Shapes) -> None:
    templates = [silhouette(name) for name in SILHOUETTES]
    clutter = fragments(seed=0)
    for index in range(150):
        assert 2 <= len(shapes.class_pixels(f"val-{index:06d}")) <= 4
        scene = lay_out(Bits(high=99, low=index), templates, clutter)
        areas = {layer.label: layer.area for layer in scene.layers if layer.label}
        objects = [layer.label for layer in scene.layers if layer.label]
        assert len(objects) == len(areas)
        for label, area in areas.items():
            assert (scene.labels == label).sum() >= MIN_VISIBLE * area


def test_each_class_has_enough_images(
    shapes: Shapes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSSBENCH_CACHE", str(tmp_path))
    shapes.prepare("val")
    counts = np.zeros(20, dtype=int)
    for image_id in shapes.image_ids("val"):
        pixels = shapes.class_pixels(image_id)
        assert min(pixels.values()) >= 400
        counts[list(pixels)] += 1
    assert counts.min() >= 250
    again = Shapes(shapes.config)
    again.prepare("val")
    assert again.class_pixels("val-000042") == Shapes().class_pixels("val-000042")


def test_colour_and_brightness_are_independent_of_the_class(shapes: Shapes) -> None:
    """Between-class differences of mean colour are what chance gives (one-way F test)."""
    means: dict[int, list[np.ndarray]] = {class_id: [] for class_id in range(20)}
    for index in range(500):
        image_id = f"train-{index:06d}"
        image = shapes.image(image_id).numpy().astype(float)
        for class_id in shapes.class_pixels(image_id):
            inside = shapes.mask(image_id, class_id).numpy() == 1
            pixels = image[:, inside]
            means[class_id].append(np.array([*pixels.mean(1), pixels.std(1).mean()]))
    groups = [np.array(values) for values in means.values()]
    everything = np.concatenate(groups)
    between = sum(len(g) * (g.mean(0) - everything.mean(0)) ** 2 for g in groups) / 19
    within = sum(((g - g.mean(0)) ** 2).sum(0) for g in groups) / (len(everything) - 20)
    assert (between / within < 2.0).all()  # the 99 % point of F(19, 1400) is 1.92


def test_painting_does_not_move_anything() -> None:
    templates = [silhouette(name) for name in SILHOUETTES]
    scene = lay_out(Bits(high=5, low=5), templates, fragments(seed=0))
    first, second = paint(Bits(high=6, low=1), scene), paint(Bits(high=6, low=2), scene)
    assert (first != second).any()
    assert (paint(Bits(high=6, low=1), scene) == first).all()


def test_folds_hold_each_class_once(shapes: Shapes) -> None:
    assert sorted(c for fold in range(4) for c in shapes.fold_classes(fold)) == list(range(20))
    with pytest.raises(FssbenchError, match="no fold 4"):
        shapes.fold_classes(4)


@pytest.mark.parametrize("image_id", ["val-002000", "val-3", "test-000000", "", "val-00000x"])
def test_an_unknown_image_is_refused(shapes: Shapes, image_id: str) -> None:
    with pytest.raises(FssbenchError, match="has no image"):
        shapes.image(image_id)


def test_an_unknown_class_is_refused(shapes: Shapes) -> None:
    with pytest.raises(FssbenchError, match="no class 20"):
        shapes.mask("val-000000", 20)


def test_the_fingerprint_depends_on_split_seed_and_length() -> None:
    prints = {
        Shapes(config).fingerprint(split)
        for config in (ShapesConfig(), ShapesConfig(seed=1), ShapesConfig(images_per_split=10))
        for split in ("train", "val")
    }
    assert len(prints) == 6


def test_pickles_for_loader_processes(shapes: Shapes) -> None:
    copy = pickle.loads(pickle.dumps(shapes))
    painted = Shapes.image.__wrapped__(copy, "val-000001")  # not the image that tests keep
    assert (painted == shapes.image("val-000001")).all()
