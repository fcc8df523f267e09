"""CLIPSeg against the library called directly, on a small model with random weights."""

from __future__ import annotations

import hashlib
import json

import pytest
import safetensors.torch
import torch
from image_episodes import draw
from PIL import Image
from torch.nn import functional

import fssbench
from fssbench import EpisodeImages, FssbenchError, WeightsInfo
from fssbench.testing import ImageMatcherConformance

transformers = pytest.importorskip(
    "transformers", reason="CLIPSeg is a model of transformers; install fssbench[transformers]"
)

from fssbench_clipseg.config import ClipSegConfig  # noqa: E402
from fssbench_clipseg.encoder import ClipSegModel  # noqa: E402
from fssbench_clipseg.model import clean_name, visual_prompt  # noqa: E402


class TestConformance(ImageMatcherConformance):
    matcher = "clipseg"


class TestConformanceOfText(ImageMatcherConformance):
    matcher = "clipseg-text"


SIDE = 96
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def make(name, weights="random", **options):
    return fssbench.image_matcher(name, {"model": "clipseg-tiny"}, weights, **options)


@pytest.fixture(scope="module")
def clipseg():
    return make("clipseg")


@pytest.fixture(scope="module")
def text():
    return make("clipseg-text")


def predict(matcher, episode):
    with torch.inference_mode():
        return matcher.predict(episode)


def of_library(model, episode, **prompt):
    """Logits of the library's processor and model at the size of the query."""
    with torch.inference_mode():
        logits = model(pixel_values=processed(episode.query), **prompt).logits
    logits = logits.reshape(1, 1, SIDE, SIDE)
    size = episode.query.shape[-2:]
    return functional.interpolate(logits, size, mode="bilinear", align_corners=True)[0, 0]


def processed(image):
    """The input of the model, by the settings in preprocessor_config.json of the hub."""
    processor = transformers.ViTImageProcessor(
        size={"height": SIDE, "width": SIDE}, image_mean=MEAN, image_std=STD, resample=2
    )
    pil = Image.fromarray(image.permute(1, 2, 0).numpy())
    return processor(pil, return_tensors="pt")["pixel_values"]


def assert_equal(found, expected):
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-6 * float(expected.abs().max()), rtol=0)


# --- image prompts --------------------------------------------------------------------------------


def test_one_shot_is_the_library_with_the_prompt_as_conditional_image(clipseg):
    episode = draw(1)
    prompt = visual_prompt(episode.images[0], episode.masks[0], ClipSegConfig(), SIDE)
    expected = of_library(clipseg.model.model, episode, conditional_pixel_values=processed(prompt))
    assert_equal(predict(clipseg, episode), expected)


def test_three_shots_are_the_library_with_the_mean_embedding(clipseg):
    episode = draw(3)
    model = clipseg.model.model
    prompts = [
        processed(visual_prompt(image, mask, ClipSegConfig(), SIDE))
        for image, mask in zip(episode.images, episode.masks, strict=True)
    ]
    with torch.inference_mode():
        embeddings = model.get_conditional_embeddings(
            batch_size=3, conditional_pixel_values=torch.cat(prompts)
        )
    expected = of_library(model, episode, conditional_embeddings=embeddings.mean(0, keepdim=True))
    assert_equal(predict(clipseg, episode), expected)


def test_the_image_prompt_changes_the_result(clipseg):
    episode, other = draw(1), draw(1, seed=1)
    logits = predict(clipseg, episode)
    for images, masks in ((other.images, episode.masks), (episode.images, (other.masks[0] * 0,))):
        changed = EpisodeImages(query=episode.query, images=images, masks=masks)
        assert (predict(clipseg, changed) - logits).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options", [{"blur": 0}, {"background": 1}, {"context": None}, {"context": 0.5}]
)
def test_each_option_of_the_prompt_changes_the_result(clipseg, options):
    matcher = fssbench.image_matcher("clipseg", clipseg.encoders, **options)
    assert (predict(matcher, draw(1)) - predict(clipseg, draw(1))).abs().max() > 1e-4


def test_the_threshold_moves_the_logits(clipseg):
    matcher = fssbench.image_matcher("clipseg", clipseg.encoders, threshold=0.25)
    difference = predict(matcher, draw(1)) - predict(clipseg, draw(1))
    torch.testing.assert_close(difference, torch.full((70, 110), 1.0986123), atol=1e-4, rtol=0)


def test_the_background_fades_to_the_mean_colour():
    image = torch.full((3, 20, 30), 200, dtype=torch.uint8)
    mask = torch.zeros(20, 30, dtype=torch.uint8)
    mask[5:10, 5:15], mask[0] = 1, 255
    for background in (0, 0.1, 1):
        config = ClipSegConfig(blur=0, background=background, context=None)
        prompt = visual_prompt(image, mask, config, SIDE)
        assert prompt.shape == (3, 20, 30)
        assert prompt.dtype == torch.uint8
        assert (prompt[:, mask == 1] == 200).all()
        for channel, mean in zip(prompt, MEAN, strict=True):
            expected = round(255 * mean + background * (200 - 255 * mean))
            assert (channel[mask != 1] == expected).all()


def test_the_blur_is_a_gaussian_at_the_scale_of_the_model():
    """The response to a bright pixel, at a standard deviation of 3 SIDE / SIDE pixels."""
    image = torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    image[:, 48, 48] = 255
    mask = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
    config = ClipSegConfig(blur=1, background=1, context=None)
    response = visual_prompt(image, mask, config, SIDE)[0].float()
    distances = torch.arange(-3, 4).float()
    weights = torch.exp(-0.5 * distances**2)
    expected = 255 * weights.outer(weights) / weights.sum() ** 2
    assert (response[45:52, 45:52] - expected).abs().max() < 1
    larger = visual_prompt(image, mask, config, SIDE // 2)[0].float()  # twice the deviation
    assert larger[48, 48] < response[48, 48] / 3
    # In the object nothing is blurred.
    assert torch.equal(visual_prompt(image, mask + 1, config, SIDE), image)


def test_the_crop_is_centred_on_the_object_with_a_margin():
    image = torch.arange(40 * 50).remainder(256).byte().reshape(1, 40, 50).expand(3, 40, 50)
    mask = torch.zeros(40, 50, dtype=torch.uint8)
    mask[10:20, 30:50] = 1  # reaches the right border
    config = ClipSegConfig(blur=0, background=1, context=0.1)
    prompt = visual_prompt(image, mask, config, SIDE)
    # Rows 9 to 21, columns 28 to 50; padded from 12 x 22 to 22 x 22.
    assert prompt.shape == (3, 22, 22)
    assert torch.equal(prompt[:, 5:17], image[:, 9:21, 28:50])
    for channel, mean in zip(prompt, MEAN, strict=True):
        assert (channel[:5] == round(255 * mean)).all()
        assert (channel[17:] == round(255 * mean)).all()


@pytest.mark.parametrize(("height", "width", "side"), [(1, 1, 1), (2, 300, 2), (300, 2, 2)])
def test_prompts_of_tiny_and_narrow_images(height, width, side):
    image = torch.full((3, height, width), 7, dtype=torch.uint8)
    mask = torch.zeros(height, width, dtype=torch.uint8)
    assert visual_prompt(image, mask, ClipSegConfig(), SIDE).shape == (3, height, width)
    mask[-1, -1] = 1
    assert visual_prompt(image, mask, ClipSegConfig(), SIDE).shape == (3, side, side)


def test_a_batch_equals_its_episodes(clipseg, text):
    episodes = [draw(1, "dog"), draw(3, "cat", seed=1)]
    for matcher in (clipseg, text):
        with torch.inference_mode():
            batch = matcher.predict_batch(episodes)
        for found, episode in zip(batch, episodes, strict=True):
            assert found.shape == (70, 110)
            expected = predict(matcher, episode)
            tolerance = 1e-5 * float(expected.abs().max())
            torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


# --- text prompts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [1, 3])
def test_text_is_the_library_with_the_tokens_of_the_prompt(text, shots):
    episode = draw(shots, "009.polar_bear")
    ids = torch.tensor([[256, *b"a photo of a polar bear.", 257]])
    expected = of_library(text.model.model, episode, input_ids=ids)
    assert_equal(predict(text, episode), expected)


def test_the_name_changes_the_result_and_the_support_does_not(text):
    logits = predict(text, draw(1, "dog"))
    assert (predict(text, draw(1, "cat")) - logits).abs().max() > 1e-3
    other = draw(1, "dog", seed=1)
    changed = EpisodeImages(
        query=draw(1).query, images=other.images, masks=other.masks, class_name="dog"
    )
    assert torch.equal(predict(text, changed), logits)


def test_the_template_changes_the_result(text):
    other = fssbench.image_matcher("clipseg-text", text.encoders, template="{}")
    ids = torch.tensor([[256, *b"dog", 257]])
    expected = of_library(text.model.model, draw(1), input_ids=ids)
    assert_equal(predict(other, draw(1, "dog")), expected)
    for wrong in ("a photo", "{} and {}"):
        with pytest.raises(FssbenchError, match="write {} once"):
            make("clipseg-text", template=wrong)


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("dog", "dog"),
        ("polar_bear", "polar bear"),
        ("009.polar_bear_2", "polar bear"),
        ("traffic  light", "traffic light"),
        ("t-shirt", "t-shirt"),
        ("bow_(decorative_ribbons)", "bow (decorative ribbons)"),
        ("ab_test2", "ab test2"),
        ("747", "747"),
    ],
)
def test_names_are_cleaned(name, cleaned):
    assert clean_name(name) == cleaned


def test_texts_are_cut_to_the_positions_of_the_model(text):
    longest = 77
    tokens = text.model.tokens("x" * 200)
    assert tokens == [256, *b"x" * (longest - 2), 257]
    assert torch.isfinite(predict(text, draw(1, "x" * 200))).all()


def test_an_episode_without_a_name_is_refused(text):
    with pytest.raises(FssbenchError, match="clipseg-text needs the name of the class"):
        predict(text, draw(1))


# --- weights and vocabulary -----------------------------------------------------------------------


@pytest.fixture
def folder(clipseg, tmp_path):
    """A folder as on the hub: weights as the library saves them, and a small vocabulary of BPE."""
    clipseg.model.model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    positions = {"clip.text_model.embeddings.position_ids": torch.arange(77)[None]}  # until 4.30
    safetensors.torch.save_file(safetensors.torch.load_file(path) | positions, path)
    letters = [chr(c) for c in range(ord("!"), ord("~") + 1)]
    vocabulary = [*letters, *(f"{c}</w>" for c in letters), "do", "dog</w>"]
    vocabulary += [f"unused{i}" for i in range(256 - len(vocabulary))]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    numbers = {token: index for index, token in enumerate(vocabulary)}
    (tmp_path / "vocab.json").write_text(json.dumps(numbers))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nd o\ndo g</w>\n")
    return tmp_path


def test_tokens_of_trained_weights_are_those_of_the_vocabulary_beside_them(folder, text):
    for given in (folder, folder / "model.safetensors"):
        matcher = make("clipseg-text", given)
        tokens = matcher.model.tokens("A  dog.")
        words = list(json.loads((folder / "vocab.json").read_text()))
        assert [words[i] for i in tokens] == [
            "<|startoftext|>", "a</w>", "dog</w>", ".</w>", "<|endoftext|>",
        ]  # fmt: skip
        assert len(matcher.model.tokens("dog " * 100)) == 77
        expected = of_library(
            text.model.model,
            draw(1),
            input_ids=torch.tensor([matcher.model.tokens("a photo of a dog.")]),
        )
        assert_equal(predict(matcher, draw(1, "dog")), expected)


def test_weights_of_a_folder_have_a_hash(folder):
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    info = WeightsInfo(source="file", name="model.safetensors", sha256=digest)
    assert make("clipseg", folder).encoders["model"].weights == info


def test_image_prompts_need_no_vocabulary_and_text_prompts_do(folder):
    (folder / "vocab.json").unlink()
    assert predict(make("clipseg", folder), draw(1)).shape == (70, 110)
    with pytest.raises(FssbenchError, match=r"vocab.json and merges.txt") as error:
        make("clipseg-text", folder)
    assert "\n" not in str(error.value)


def test_a_vocabulary_of_another_model_is_refused(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text())
    del vocabulary["unused0"]
    (folder / "vocab.json").write_text(
        json.dumps({token: index for index, token in enumerate(vocabulary)})
    )
    with pytest.raises(FssbenchError, match="a vocabulary of 257 tokens, but the model has 258"):
        make("clipseg-text", folder)


def test_random_weights_are_the_same_every_time_and_leave_the_generator(clipseg):
    state = torch.get_rng_state()
    again = make("clipseg")
    assert torch.equal(torch.get_rng_state(), state)
    assert again.encoders["model"].weights == WeightsInfo(source="random")
    assert again.encoders["model"].parameters == 102_426
    assert torch.equal(predict(again, draw(1)), predict(clipseg, draw(1)))


def test_the_small_model_has_no_pretrained_weights():
    with pytest.raises(FssbenchError, match="clipseg-tiny was never trained"):
        make("clipseg", "pretrained")


def test_the_size_of_the_published_model():
    with torch.device("meta"):
        model = ClipSegModel(weights="none", name="clipseg-rd64")
    assert sum(parameter.numel() for parameter in model.parameters()) == 150_747_746
    assert model.side == 352


def test_another_encoder_is_refused():
    with pytest.raises(FssbenchError, match="not CLIPSeg; choose one of clipseg-rd64"):
        fssbench.image_matcher("clipseg", {"model": "tiny-resnet"})
