"""SAM with prompts, compared with the predictor of SAM's authors."""

from __future__ import annotations

import pytest
import sam_for_tests
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

import fssbench
from fssbench import FssbenchError
from fssbench.backbones.sam import _SIZES, _parts

SIZE = (90, 60)  # of the original image; 160 x 107 in the square
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def authors(tmp_path_factory):
    """Return SAM's own model at test size with drawn weights, and a file of them."""
    model = Sam(**dict(_parts(*_SIZES["tiny-sam"]).items())).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(sam_for_tests.filled(shapes))
    path = tmp_path_factory.mktemp("sam") / "sam_vit_tiny.pth"
    torch.save(model.state_dict(), path)
    return model, path


@pytest.fixture(scope="module")
def image():
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def predictor(authors, image):
    """Return the authors' predictor for the image."""
    predictor = SamPredictor(authors[0])
    resized = torch.nn.functional.interpolate(
        255 * image[None], (160, 107), mode="bilinear", antialias=True
    )
    predictor.set_torch_image(resized, SIZE)
    return predictor


@pytest.fixture(scope="module")
def sam(authors):
    return fssbench.PromptableSam("tiny-sam", authors[1])


POINTS = torch.tensor([[[5.0, 8.0], [50.0, 80.0]], [[30.0, 45.0], [0.0, 0.0]], [[59, 89], [1, 2]]])
LABELS = torch.tensor([[1, 0], [1, -1], [1, 1]])
BOXES = torch.tensor([[3.0, 5.0, 40.0, 70.0], [0, 0, 60, 90], [20, 20, 30, 31]])
MASKS = torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "kinds",
    [("points",), ("boxes",), ("masks",), ("points", "boxes"), ("points", "boxes", "masks")],
    ids="+".join,
)
def test_masks_equal_those_of_the_authors_predictor(sam, predictor, image, kinds, count, multimask):
    points, labels = (POINTS[:count], LABELS[:count]) if "points" in kinds else (None, None)
    boxes = BOXES[:count] if "boxes" in kinds else None
    masks = MASKS[:count] if "masks" in kinds else None
    with torch.no_grad():
        found = sam.predict(
            sam.embed(image[None])[0], SIZE,
            points=points, labels=labels, boxes=boxes, masks=masks, multimask=multimask,
        )  # fmt: skip
    logits, iou, low = predictor.predict_torch(
        None if points is None else predictor.transform.apply_coords_torch(points, SIZE),
        labels,
        None if boxes is None else predictor.transform.apply_boxes_torch(boxes, SIZE),
        None if masks is None else masks[:, None],
        multimask_output=multimask,
        return_logits=True,
    )
    assert found.logits.shape == (count, 3 if multimask else 1, *SIZE)
    assert logits.std() > 0.1
    torch.testing.assert_close(found.logits, logits, **TOLERANCE)
    torch.testing.assert_close(found.iou, iou, **TOLERANCE)
    torch.testing.assert_close(found.low_resolution, low, **TOLERANCE)


def test_the_embedding_is_that_of_the_authors_and_of_the_encoder(sam, authors, image, predictor):
    square = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        found = sam.embed(torch.stack([image, 1 - image]))
        neck = fssbench.backbone("tiny-sam", authors[1])(square, ["neck"])["neck"]
        torch.testing.assert_close(sam.embed(square), neck, rtol=1e-4, atol=1e-4)
    assert found.shape == (2, 256, 10, 10)
    torch.testing.assert_close(found[:1], predictor.get_image_embedding(), **TOLERANCE)


def test_an_image_as_the_authors_read_it(sam, predictor, authors, image):
    """The authors resize 8-bit images, which is a rounding away."""
    pixels = (255 * image).round().byte()
    theirs = SamPredictor(authors[0])
    theirs.set_image(pixels.permute(1, 2, 0).numpy())
    with torch.no_grad():
        found = sam.embed(pixels[None].float() / 255)
    expected = theirs.get_image_embedding()
    assert (found - expected).abs().mean() < 0.05 * expected.std()


def test_prompts_are_independent(sam, image):
    with torch.no_grad():
        embedding = sam.embed(image[None])[0]
        together = sam.predict(embedding, SIZE, boxes=BOXES).logits
        for box, logits in zip(BOXES, together, strict=True):
            alone = sam.predict(embedding, SIZE, boxes=box[None]).logits[0]
            torch.testing.assert_close(alone, logits, **TOLERANCE)
    assert (together[0] - together[2]).abs().max() > 0.1


def test_masks_of_the_original_size_and_of_an_earlier_answer(sam, image):
    with torch.no_grad():
        embedding = sam.embed(image[None])[0]
        first = sam.predict(embedding, SIZE, boxes=BOXES)
        again = sam.predict(embedding, SIZE, masks=first.low_resolution[:, 0])
        mask = torch.full((1, *SIZE), -4.0)
        mask[:, :45] = 4
        found = sam.predict(embedding, SIZE, masks=mask)
        # 90 x 60 pixels are 40 x 27 cells of the square of 40 x 40.
        square = torch.zeros(1, 40, 40)
        square[:, :, :27] = -4
        square[:, :20, :27] = 4
        expected = sam.predict(embedding, SIZE, masks=square)
    assert again.logits.shape == (3, 1, *SIZE)
    assert (again.logits - first.logits).abs().max() > 1e-3
    torch.testing.assert_close(found.logits, expected.logits, rtol=0.05, atol=0.05)


def test_logits_at_another_size(sam, authors, image):
    with torch.no_grad():
        embedding = sam.embed(image[None])[0]
        whole = sam.predict(embedding, SIZE, boxes=BOXES)
        small = sam.predict(embedding, SIZE, boxes=BOXES, size=(45, 30))
    assert small.logits.shape == (3, 1, 45, 30)
    assert torch.equal(small.iou, whole.iou)
    expected = authors[0].postprocess_masks(whole.low_resolution, (160, 107), (45, 30))
    torch.testing.assert_close(small.logits, expected, **TOLERANCE)


def test_gradients_reach_the_prompts_and_the_decoder(sam, image):
    boxes = BOXES.clone().requires_grad_()
    with torch.no_grad():
        embedding = sam.embed(image[None])[0]
    sam.predict(embedding, SIZE, boxes=boxes).logits.sum().backward()
    assert boxes.grad.abs().min() > 0
    assert sam.mask_decoder.mask_tokens.weight.grad.abs().sum() > 0
    sam.zero_grad()


def test_random_weights_and_files(authors, tmp_path, caplog):
    first, second = (fssbench.PromptableSam("tiny-sam") for _ in range(2))
    assert "tiny-sam has random weights" in caplog.text
    assert not first.training
    assert first.weights.source == "random"
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    loaded = fssbench.PromptableSam("tiny-sam", authors[1])
    assert list(loaded.state_dict()) == list(authors[0].state_dict())
    assert loaded.weights.name == "sam_vit_tiny.pth"
    assert len(loaded.weights.sha256) == 64

    state = authors[0].state_dict()
    del state["mask_decoder.iou_token.weight"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(FssbenchError, match=r"1 missing \(mask_decoder.iou_token.weight\)"):
        fssbench.PromptableSam("tiny-sam", tmp_path / "part.pth")
    with pytest.raises(FssbenchError, match="the hub has the image encoder alone"):
        fssbench.PromptableSam("sam-vit-b", "pretrained")
    with pytest.raises(FssbenchError, match="no SAM is called 'sam-vit-a'; did you mean"):
        fssbench.PromptableSam("sam-vit-a")


# From SAM's paper and files: 94 M, 312 M and 641 M with the prompt encoder and the decoder.
@pytest.mark.parametrize(
    ("name", "count"),
    [("sam-vit-b", 93_735_472), ("sam-vit-l", 312_342_832), ("sam-vit-h", 641_090_608)],
)
def test_full_sizes(name, count):
    with torch.device("meta"):
        parts = _parts(*_SIZES[name])
    assert sum(parameter.numel() for parameter in parts.parameters()) == count


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "no prompt: give points with labels, boxes or masks"),
        ({"points": POINTS}, "points and labels are given together"),
        ({"points": POINTS, "labels": LABELS[:, :1]}, r"labels: a tensor of \(3, 2\) was expected"),
        ({"boxes": BOXES[0]}, r"boxes: a tensor of \(4, 4\) was expected, not \(4,\)"),
        (
            {"boxes": BOXES, "masks": MASKS[:2]},
            r"masks: a tensor of \(3, 90, 60\) or \(3,",
        ),
    ],
)
def test_wrong_prompts(sam, prompts, message):
    with pytest.raises(FssbenchError, match=message):
        sam.predict(torch.zeros(256, 10, 10), SIZE, **prompts)
    with pytest.raises(FssbenchError, match=r"embedding: a tensor of \(256, 10, 10\)"):
        sam.predict(torch.zeros(1, 256, 10, 10), SIZE, boxes=BOXES)
