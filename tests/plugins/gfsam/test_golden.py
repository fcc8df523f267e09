"""Comparison with numbers of the authors' code, on their features and stand-ins of SAM's masks."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from authors_numbers import Golden

import fssbench
from fssbench import Backbone, Encoder, EpisodeImages, PromptableSam, SamMasks, WeightsInfo
from fssbench_gfsam.config import GfSamConfig
from fssbench_gfsam.graph import components, coverage
from fssbench_gfsam.growth import grow, growth_maps
from fssbench_gfsam.model import GfSam
from fssbench_gfsam.points import best_cells, pixels_of, point_prior
from fssbench_gfsam.selection import component_similarity, merge, select
from fssbench_gfsam.similarity import similarity, units

SHARED = Path(__file__).resolve().parents[3].parent / "shared"
VOC = SHARED / "data/voc_mini/VOC2012/JPEGImages"
DINO = SHARED / "data/weights_found/dinov2_s_fp16.safetensors"
SIDE, GRID = 1024, 37
MAPS = 5e-5  # relative to the largest value
UNSTABLE = 1e-3  # |margin| below which a growth decision compares rounding errors, unless it is 0


@pytest.fixture(scope="module", params=["1shot", "1shot_small", "5shot"])
def golden(request):
    path = SHARED / "golden" / f"gfsam_{request.param}.npz"
    if not path.is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    with np.load(path) as stored:
        arrays = dict(stored)
    return Golden(ast.literal_eval(str(arrays["meta"])), arrays)


def features(golden):
    """Return the features of the references and the target, (K + 1, 384, 37, 37)."""
    tokens = golden.arrays["feat__codes"].astype(np.float32) * golden.arrays["feat__scale"]
    return torch.from_numpy(tokens).transpose(1, 2).reshape(len(tokens), -1, GRID, GRID)


def masks_of(golden):
    """Return SAM's stand-in masks of the points, bool (N, 1024, 1024)."""
    low = golden.bits("sam_masks_lowres")
    return low.repeat_interleave(4, 1).repeat_interleave(4, 2)


def array(golden, name):
    return torch.from_numpy(golden.arrays[name])


def near(found, expected):
    assert (found - expected).abs().max() <= MAPS * expected.abs().max()


@pytest.fixture(scope="module")
def cells(golden):
    """Return the unit vectors of the references and of the target."""
    *references, query = (units(each) for each in features(golden))
    return torch.stack(references), query


@pytest.fixture(scope="module")
def found(golden, cells):
    return similarity(cells[1], cells[0], golden.bits("ref_masks"))


def test_similarity_and_prior(golden, found):
    near(found.positive_max, array(golden, "pos_max_sim")[0])
    near(found.positive_mean, array(golden, "pos_mean_sim")[0])
    near(found.negative_mean, array(golden, "neg_mean_sim")[0])
    near(point_prior(found), array(golden, "point_prior")[0])
    positive, negative = growth_maps(found)
    near(positive, array(golden, "cls_pos_map")[0])
    near(negative, array(golden, "cls_neg_map")[0])


def test_points(golden, found):
    best = best_cells(point_prior(found), 128)
    assert torch.equal(best, array(golden, "points_feature_xy"))
    assert torch.equal(pixels_of(best, GRID, SIDE), array(golden, "points_sam_xy"))


def test_components_growth_and_selection(golden, found, cells):
    masks, points = masks_of(golden), array(golden, "points_feature_xy")
    labels = components(coverage(masks, array(golden, "points_sam_xy")))
    # The authors' numbers of components follow the order of the points as well.
    assert torch.equal(labels, array(golden, "labels_weak").long())
    foreground, scores = grow(masks, labels, *growth_maps(found))
    margin = array(golden, "fg_margin_float64")
    stable = (margin == 0) | (margin.abs() >= UNSTABLE)
    official = array(golden, "fgbg_labels").bool()
    assert torch.equal(foreground[stable], official[stable])
    torch.testing.assert_close(scores, array(golden, "cls_scores"), rtol=1e-4, atol=1e-4)
    unions = torch.stack([masks[labels == each].any(0) for each in labels.unique()])
    near(component_similarity(cells[1], unions), array(golden, "union_mean_sim"))
    selection = select(cells[1], masks, labels, official, points)
    assert torch.equal(selection, array(golden, "selected"))
    assert torch.equal(merge(masks, selection, scores), golden.bits("pred"))


def test_fallback(golden):
    masks, scores = masks_of(golden), array(golden, "cls_scores")
    selection = array(golden, "fallback_labels")
    assert torch.equal(merge(masks, selection, scores), golden.bits("fallback_pred"))
    nothing = torch.zeros_like(selection)
    assert torch.equal(merge(masks, nothing, scores), golden.bits("fallback_pred_alllabels0"))


class StoredFeatures(Backbone):
    """Features of images whose only colour is their number."""

    def __init__(self, maps):
        super().__init__()
        self.maps, self.weights = maps, WeightsInfo(source="none")
        layer = fssbench.LayerInfo(channels=384, stride=14)
        self.info = fssbench.BackboneInfo(
            name="stored", layers={"last": layer}, image_size=518, multiple=14
        )

    def forward(self, images, layers):
        numbers = (images[:, 0, 0, 0] * 255).round().long()
        return dict.fromkeys(layers, self.maps[numbers])


class StoredMasks(PromptableSam):
    """Masks by the order of the points."""

    def __init__(self, masks, points):
        torch.nn.Module.__init__(self)
        self.masks, self.points = masks, points
        self.side, self.weights = SIDE, WeightsInfo(source="none")

    def embed(self, images):
        return images.new_zeros(1, 256, 64, 64)

    def predict(self, embedding, image_size, *, points, labels):
        assert (embedding.shape[1:], tuple(image_size)) == ((64, 64), (SIDE, SIDE))
        assert (labels == 1).all()
        (where,) = torch.where((self.points[:, None] == points[:, 0]).all(2).T)[1:]
        logits = self.masks[where][:, None].float() - 0.5
        return SamMasks(logits=logits, iou=logits[:, :, 0, 0], low_resolution=logits)


@torch.no_grad()
def test_the_whole_method(golden):
    encoders = {
        "features": StoredFeatures(features(golden)),
        "masks": StoredMasks(masks_of(golden), array(golden, "points_sam_xy")),
    }
    matcher = GfSam(
        config=GfSamConfig(),
        encoders={role: Encoder(role, role, module) for role, module in encoders.items()},
    )
    supports = golden.bits("ref_masks").to(torch.uint8)
    images = [torch.full((3, 8, 8), n, dtype=torch.uint8) for n in range(len(supports))]
    query = torch.full((3, SIDE, SIDE), len(supports), dtype=torch.uint8)
    episode = EpisodeImages(query=query, images=tuple(images), masks=tuple(supports))
    wrong = int(((matcher.predict(episode) > 0) != golden.bits("pred")).sum())
    assert wrong <= golden.arrays["pred_pixels_resting_on_unstable"][1]


@pytest.mark.slow
@torch.no_grad()
def test_preprocessing_and_encoder(golden):
    if not VOC.is_dir() or not DINO.is_file():
        pytest.skip("no images or weights beside the checkout (../shared/data)")
    matcher = fssbench.image_matcher(
        "gf-sam",
        {"features": "dinov2-s", "masks": "promptable-tiny-sam"},
        {"features": DINO, "masks": "random"},
        image_size=SIDE,
    )
    assert matcher.layer == "blocks.11"
    names = [*golden.run["refs"], golden.run["target"]]
    for n, name in enumerate(names):
        image = torch.as_tensor(fssbench.read_image(VOC / f"{name}.jpg"))
        stats = golden.arrays["dino_prenorm__stats"][n]
        found = matcher._features(image)
        first = found[:8, 0, 0] - array(golden, "dino_prenorm__first8")[n]
        assert first.abs().max() <= 1e-4 * stats[3]
        assert abs(found.std(correction=0) - stats[2]) <= 1e-4 * stats[3]
    square = fssbench.Geometry(518).image(matcher._resized(image))
    encoder = matcher.encoders["features"].module
    pixels = ((square - encoder.mean) / encoder.std)[:, ::37, ::37]
    torch.testing.assert_close(pixels, array(golden, "encoder_input_target__s37"))
