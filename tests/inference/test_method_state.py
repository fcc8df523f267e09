"""Results of one method never reach another, and no state outlives an episode or a process."""

from __future__ import annotations

import attrs
import pytest
import torch
from torch import nn

from fssbench import build
from fssbench.errors import FssbenchError
from fssbench.inference.encoder_cache import EncoderCache
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.matchers.image_matcher import EpisodeImages, ImageMatcher
from fssbench.model import model_source
from fssbench.unaccounted import unaccounted_parameters

EPISODE = EpisodeImages(
    query=torch.zeros(3, 64, 64, dtype=torch.uint8),
    images=(torch.zeros(3, 64, 64, dtype=torch.uint8),),
    masks=(torch.ones(64, 64, dtype=torch.uint8),),
)


@attrs.frozen
class Config:
    value: float = 1.0


class First(ImageMatcher):
    sign = 1.0

    def predict(self, episode):
        def plane(image):
            return torch.full(image.shape[-2:], self.sign * self.config.value)

        return self.encoders["f"].cached(episode.query, "plane", plane)


class Second(First):
    sign = -1.0


class Changing(First):
    def predict(self, episode):
        next(self.encoders["f"].module.parameters()).mul_(1.01)
        return super().predict(episode)


def pipeline(kind, config):
    matcher = kind(config=config, encoders={"f": build.encoder("f", "tiny-resnet")})
    return ImagePipeline(matcher, device=torch.device("cpu"))


def test_files_of_another_method_or_option_are_not_read(tmp_path):
    found = []
    for kind, value in ((First, 1.0), (Second, 1.0), (First, 3.0)):
        one = pipeline(kind, Config(value))
        EncoderCache(one, 1 << 20, folder=tmp_path)
        found.append(float(one.predict([EPISODE])[0][0, 0]))
    assert found == [1, -1, 3]


def test_a_changed_encoder_is_an_error():
    with pytest.raises(FssbenchError, match="encoder f was changed"):
        pipeline(Changing, Config()).predict([EPISODE])


def test_untrained_parameters_are_equal_each_time():
    first, second = (model_source("hsnet", "tiny-resnet").load()[0] for _ in range(2))
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_a_network_in_slots_is_found():
    @attrs.frozen
    class Holder:
        net: nn.Module

    one = pipeline(First, Config())
    one.matcher.holder = Holder(nn.Linear(2, 2))
    assert unaccounted_parameters(one.matcher, one.frozen, None)
