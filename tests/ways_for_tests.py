"""A plugin that tests load with ``-p``: methods that segment several classes at once."""

from __future__ import annotations

import methods_for_tests
import torch

from fssbench import ImageMatcher, MatcherSpec


def fssbench_matchers():
    return [
        MatcherSpec(
            name="constant", summary="for tests", factory="ways_for_tests:Constant",
        ),
        MatcherSpec(
            name="first-base", summary="for tests", factory="ways_for_tests:FirstBase",
            config="methods_for_tests:LearnerConfig",
        ),
        MatcherSpec(
            name="stepper", summary="for tests", factory="ways_for_tests:Stepper",
            config="methods_for_tests:LearnerConfig", uses=("gradients",),
        ),
        MatcherSpec(
            name="shifted", summary="for tests", factory="ways_for_tests:Shifted",
        ),
        *(
            MatcherSpec(
                name=name, summary="for tests", factory=f"ways_for_tests:{cls}", encoders={},
            )
            for name, cls in (("darkest", "Darkest"), ("darkest-at-once", "DarkestAtOnce"))
        ),
    ]  # fmt: skip


class Constant(methods_for_tests.Mixer):
    """The second way everywhere."""

    def segment_ways(self, query, supports):
        planes = [torch.full((len(query["cells4"]), 8, 8), float(n)) for n in range(len(supports))]
        return torch.stack(planes, 1)


class Stepper(methods_for_tests.Learner):
    """Changes its parameters before it segments, as gradient steps at test time do."""

    def segment(self, query, support):
        with torch.no_grad():
            self.bias += 0.0625
        return super().segment(query, support)


class Shifted(methods_for_tests.Mixer):
    """The same without state."""

    def segment(self, query, support):
        return super().segment(query, support) + 0.25


class FirstBase(methods_for_tests.Learner):
    """The first of 15 base classes everywhere, as far as no support is more certain."""

    def segment(self, query, support):
        return super().segment(query, support).clamp(max=0.05)

    def base_logits(self, query):
        logits = torch.full((len(query["cells4"]), 15, 4, 4), -1.0)
        logits[:, 0] = 0.1
        return logits


class Darkest(ImageMatcher):
    """Pixels as dark as the mean of the class."""

    def predict(self, episode):
        image, mask = episode.images[0].float().mean(0), episode.masks[0] == 1
        return 30 - (episode.query.float().mean(0) - image[mask].mean()).abs()


class DarkestAtOnce(Darkest):
    def predict_ways(self, ways):
        assert all(torch.equal(way.query, ways[0].query) for way in ways)
        return torch.stack([self.predict(way) for way in ways])
