"""GF-SAM with small encoders, and its prompts compared with the predictor of SAM's authors."""

from __future__ import annotations

import pytest
import sam_for_tests
import torch
from discs_for_tests import episode
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

import fssbench
from fssbench import FssbenchError, PromptableSam
from fssbench.testing import ImageMatcherConformance

TINY = {"features": "tiny-vit", "masks": "promptable-tiny-sam"}
WEIGHTS = {"features": "pretrained", "masks": "random"}


class TestConformance(ImageMatcherConformance):
    matcher = "gf-sam"


def make(encoders=TINY, **options):
    torch.manual_seed(0)
    return fssbench.image_matcher("gf-sam", encoders, WEIGHTS, **options)


@pytest.fixture(scope="module")
def matcher():
    return make()


@pytest.mark.parametrize(("shots", "empty"), [(1, False), (3, False), (2, True)])
@torch.no_grad()
def test_logits_are_a_mask_of_the_querys_size(matcher, shots, empty):
    given = episode(shots, empty=empty)
    logits = matcher.predict(given)
    assert (logits.shape, logits.dtype) == ((120, 96), torch.float32)
    assert (logits.min(), logits.max()) == (-0.5, 0.5)
    assert torch.equal(logits, matcher.predict(given))
    (prior,) = matcher.maps(given).values()
    assert prior.shape == (20, 20)
    assert 0 <= prior.min() < prior.max() <= 1


@torch.no_grad()
def test_a_mask_of_the_squares_size_is_not_resized(matcher):
    assert matcher.predict(episode(size=(160, 160))).abs().eq(0.5).all()


@torch.no_grad()
def test_the_mask_is_that_of_the_points_on_the_object(matcher, monkeypatch):
    """With discs around the points instead of SAM's masks, it overlaps the red disc."""

    def discs(image, pixels):
        del image
        y, x = torch.meshgrid(torch.arange(160), torch.arange(160), indexing="ij")
        distance = (x - pixels[:, 0, None, None]) ** 2 + (y - pixels[:, 1, None, None]) ** 2
        return distance < 12**2

    monkeypatch.setattr(matcher, "_masks", discs)
    given = episode()
    mask, red = matcher.predict(given) > 0, given.query[0] > 200
    assert (mask & red).sum() > 0.6 * (mask | red).sum()


@torch.no_grad()
def test_without_a_point_the_mask_is_empty(matcher, monkeypatch):
    """Equal features everywhere: neither map has a range."""
    constant = torch.ones(4, 20, 20)
    monkeypatch.setattr(matcher, "_features", lambda image: constant)
    logits = matcher.predict(episode())
    assert logits.shape == (120, 96)
    assert logits.eq(-0.5).all()


@torch.no_grad()
def test_prompts_are_those_of_the_authors_predictor(monkeypatch, tmp_path):
    """The authors give the predictor the square, and its points as integers."""
    parts = PromptableSam("tiny-sam")
    modules = (parts.image_encoder, parts.prompt_encoder, parts.mask_decoder)
    authors = Sam(*modules).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in authors.state_dict().items()}
    authors.load_state_dict(sam_for_tests.filled(shapes))
    torch.save(authors.state_dict(), tmp_path / "sam.pth")
    matcher = fssbench.image_matcher(
        "gf-sam", TINY, {"features": "random", "masks": tmp_path / "sam.pth"}
    )
    image = episode(size=(90, 60)).query
    square = (matcher._resized(image) * 255).round().byte()
    predictor = SamPredictor(authors)
    predictor.transform.target_length = authors.image_encoder.img_size
    predictor.set_image(square.permute(1, 2, 0).numpy())
    cells = torch.cartesian_prod(torch.arange(0, 20, 2), torch.arange(0, 20, 2))  # two batches
    pixels = cells * 8
    points = predictor.transform.apply_coords(cells.numpy(), (20, 20))
    assert (points.astype(int) == pixels.numpy()).all()
    expected = predictor.predict_torch(
        pixels.int()[:, None], torch.ones(len(pixels), 1).int(), multimask_output=False
    )[0][:, 0]
    found = matcher._masks(image, pixels)
    assert 0.05 < found.float().mean() < 0.95
    assert (found != expected).sum() <= 10  # of 2.56 million: colours are normalised in [0, 1]


@pytest.mark.parametrize(
    ("encoder", "layer"),
    [("tiny-vit", "blocks.4"), ("tiny-resnet", "layer4.1"), ("tiny-sam", "neck")],
)
@torch.no_grad()
def test_features_are_those_of_the_last_block_before_the_norm(encoder, layer):
    matcher = fssbench.image_matcher("gf-sam", {**TINY, "features": encoder}, "random")
    assert matcher.layer == layer
    assert matcher.predict(episode()).shape == (120, 96)


def test_encoders_are_no_parameters_of_the_method(matcher):
    assert not list(matcher.parameters())


@torch.no_grad()
def test_sizes_and_number_of_points(monkeypatch):
    matcher = make(image_size=96, feature_size=80, points=3)
    given, seen = episode(), []
    masks = matcher._masks
    monkeypatch.setattr(matcher, "_masks", lambda *a: seen.append((a[1], masks(*a))) or seen[-1][1])
    matcher.predict(given)
    ((pixels, found),) = seen
    assert found.shape == (3, 96, 96)
    assert pixels.max() < 96
    assert torch.isin(pixels, torch.arange(10) * 96 // 10).all()
    assert matcher.maps(given)["prior of points"].shape == (10, 10)


def test_a_feature_size_that_the_encoder_does_not_take():
    with pytest.raises(FssbenchError, match="-o feature_size=100: tiny-vit takes .* of 8"):
        make(feature_size=100)


@pytest.mark.parametrize(
    ("role", "name", "message"),
    [
        ("features", "promptable-tiny-sam", "gf-sam needs a backbone, for instance dinov2-l"),
        ("masks", "tiny-vit", "gf-sam needs a promptable SAM, for instance promptable-sam-vit-h"),
    ],
)
def test_encoders_of_the_wrong_kind(role, name, message):
    with pytest.raises(FssbenchError, match=f"--encoder {role}={name}: {message}"):
        fssbench.image_matcher("gf-sam", {**TINY, role: name}, "random")
