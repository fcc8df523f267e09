"""SegGPT against the library called directly, on a small model with random weights."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import pytest
import safetensors.torch
import torch
from image_episodes import draw
from PIL import Image

import fssbench
from fssbench import EpisodeImages, FssbenchError, WeightsInfo
from fssbench.testing import ImageMatcherConformance

transformers = pytest.importorskip(
    "transformers", reason="SegGPT is a model of transformers; install fssbench[transformers]"
)

from fssbench_seggpt.model import seggpt as seggpt_model  # noqa: E402


class TestConformance(ImageMatcherConformance):
    matcher = "seggpt"


@pytest.fixture(scope="module")
def seggpt():
    return fssbench.image_matcher("seggpt", {"model": "seggpt-tiny"}, "random")


def predict(matcher, episode):
    with torch.inference_mode():
        return matcher.predict(episode)


def pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("embedding", ["instance", "semantic"])
def test_logits_and_masks_are_the_librarys(seggpt, shots, embedding):
    model = seggpt.encoders["model"].module
    matcher = fssbench.image_matcher("seggpt", seggpt.encoders, embedding=embedding)
    episode = draw(shots)
    processor = transformers.SegGptImageProcessor(size={"height": 112, "width": 112})
    inputs = processor(
        images=[pil(episode.query)] * shots,
        prompt_images=[pil(image) for image in episode.images],
        prompt_masks=[np.uint8(mask.numpy() == 1) for mask in episode.masks],
        num_labels=1,
        return_tensors="pt",
    )
    with torch.inference_mode():
        outputs = model(**inputs, feature_ensemble=shots > 1, embedding_type=embedding)
    segmentation, *_ = processor.post_process_semantic_segmentation(
        outputs, target_sizes=[(70, 110)] * shots, num_labels=1
    )
    logits = predict(matcher, episode)
    assert logits.shape == (70, 110)
    assert 0 < segmentation.float().mean() < 1
    assert torch.equal((logits > 0).long(), segmentation)
    half = outputs.pred_masks[0, :, 112:]
    std, mean = (
        torch.tensor(v)[:, None, None] for v in (processor.image_std, processor.image_mean)
    )
    painted = (half * std + mean).clamp(0, 1).mean(0)
    rows, columns = torch.arange(70) * 112 // 70, torch.arange(110) * 112 // 110
    torch.testing.assert_close(logits + 0.5, painted[rows][:, columns], atol=1e-6, rtol=0)


def test_the_size_of_the_published_model():
    with torch.device("meta"):
        model = seggpt_model(weights="none", name="seggpt-vit-l")
    assert sum(parameter.numel() for parameter in model.parameters()) == 370_723_203
    assert tuple(model.config.image_size) == (896, 448)
    assert transformers.SegGptImageProcessor().size["height"] == 448


def test_images_and_masks_of_the_support_change_the_result(seggpt):
    episode, other = draw(1), draw(1, seed=1)
    logits = predict(seggpt, episode)
    (mask,) = episode.masks
    for change in (
        {"images": other.images},
        {"masks": (torch.where(mask == 255, mask, 1 - mask),)},
        {"query": other.query},
    ):
        changed = predict(seggpt, EpisodeImages(**fields(episode) | change))
        assert (changed - logits).abs().max() > 1e-3, change.keys()


def fields(episode):
    return {name: getattr(episode, name) for name in ("query", "images", "masks")}


def test_ignored_pixels_are_background(seggpt):
    episode = draw(1)
    masks = (torch.where(episode.masks[0] == 255, 0, episode.masks[0]),)
    changed = EpisodeImages(**fields(episode) | {"masks": masks})
    assert torch.equal(predict(seggpt, changed), predict(seggpt, episode))


def test_the_order_of_supports_changes_rounding_and_the_border_only(seggpt):
    episode = draw(3)
    turned = EpisodeImages(
        query=episode.query, images=episode.images[::-1], masks=episode.masks[::-1]
    )
    difference = (predict(seggpt, turned) - predict(seggpt, episode)).abs()
    assert difference[2:].max() < 1e-5


def test_random_weights_are_the_same_every_time_and_leave_the_generator(seggpt):
    state = torch.get_rng_state()
    again = fssbench.image_matcher("seggpt", {"model": "seggpt-tiny"}, "random")
    assert torch.equal(torch.get_rng_state(), state)
    assert again.encoders["model"].weights == WeightsInfo(source="random")
    assert again.encoders["model"].parameters == 212_499
    assert torch.equal(predict(again, draw(1)), predict(seggpt, draw(1)))


def test_weights_of_a_folder_or_file_of_the_library(seggpt, tmp_path):
    changed = copy.deepcopy(seggpt.encoders["model"].module)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.5)
    changed.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for given in (tmp_path, path):
        read = fssbench.image_matcher("seggpt", {"model": "seggpt-tiny"}, given).encoders["model"]
        assert read.weights == WeightsInfo(source="file", name=path.name, sha256=digest)
        for name, value in changed.state_dict().items():
            assert torch.equal(read.module.state_dict()[name], value)


def test_weights_that_do_not_exist_or_do_not_fit_are_one_line(seggpt, tmp_path):
    with pytest.raises(FssbenchError, match="seggpt-tiny was never trained: give --weights random"):
        fssbench.image_matcher("seggpt", {"model": "seggpt-tiny"})
    state = dict(seggpt.encoders["model"].module.state_dict())
    del state["decoder.decoder_pred.head.bias"]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(FssbenchError, match=r"1 missing \(decoder.decoder_pred.head.bias\)"):
        fssbench.image_matcher("seggpt", {"model": "seggpt-tiny"}, tmp_path)


def test_another_encoder_is_refused():
    with pytest.raises(FssbenchError, match="not SegGPT; choose one of seggpt-vit-l, seggpt-tiny"):
        fssbench.image_matcher("seggpt", {"model": "tiny-resnet"})
