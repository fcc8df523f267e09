"""A plugin of matchers on whole images: two that pass all checks, and one fault for each check."""

from __future__ import annotations

import numpy
import torch
from torch import nn
from torch.nn import functional

from fssbench import ImageMatcher, Imported, MatcherSpec


def fssbench_matchers():
    uses = {"Adapted": ("gradients",), "Leaking": ("gradients",), "Replacing": ("gradients",),
            "Named": ("class_names",), "Nameless": ("class_names",)}  # fmt: skip
    return [
        MatcherSpec(
            name=f"image-{cls.__name__.lower()}",
            summary=cls.__doc__ or "passes all checks",
            factory=f"image_methods:{cls.__name__}",
            encoders={"features": "resnet50"},
            small_encoders={"features": "tiny-resnet"},
            uses=uses.get(cls.__name__, ()),
            importer="image_methods:imported" if cls is Adapted else "",
        )
        for cls in (Similar, *Similar.__subclasses__())
    ]


class Similar(ImageMatcher):
    """similarity to the mean feature of the supports' foreground, minus its mean"""

    def maps_of(self, image):
        layer = self.encoders["features"].info.last_layer
        return functional.normalize(
            self.encoders["features"].features(image, [layer])[layer], dim=0
        )

    def prototype(self, episode):
        found = []
        for image, mask in zip(episode.images, episode.masks, strict=True):
            maps = self.maps_of(image)
            inside = functional.adaptive_avg_pool2d((mask == 1).float()[None], maps.shape[-2:])
            found.append((maps * inside).sum((1, 2)) / inside.sum().clamp(min=1e-6))
        return functional.normalize(torch.stack(found).mean(0), dim=0)

    def predict(self, episode):
        similar = torch.einsum("chw,c->hw", self.maps_of(episode.query), self.prototype(episode))
        logits = (similar - similar.mean())[None, None]
        return functional.interpolate(logits, episode.query.shape[-2:], mode="bilinear")[0, 0]

    def maps(self, episode):
        return {"features": self.maps_of(episode.query).norm(dim=0)}


class Adapted(Similar):
    """moves a parameter of its own by gradient steps on the supports"""

    def __init__(self, *, config, encoders):
        super().__init__(config=config, encoders=encoders)
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def predict(self, episode):
        optimiser = torch.optim.SGD([self.offset], lr=0.1)
        prototype = self.prototype(episode)
        for _ in range(3):
            loss = torch.zeros(())
            for image, mask in zip(episode.images, episode.masks, strict=True):
                maps = self.maps_of(image)
                inside = functional.adaptive_avg_pool2d((mask == 1).float()[None], maps.shape[-2:])
                logits = torch.einsum("chw,c->hw", maps, prototype) + self.offset
                loss = loss + functional.binary_cross_entropy_with_logits(logits, inside[0])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            self.steps += 1
        return super().predict(episode) + self.offset


def imported(file, _):
    """Return the tensors of an authors' file, which calls the offset ``shift``."""
    return Imported(weights={"offset": file["shift"], "steps": torch.zeros(())})


class Named(Similar):
    """also takes the name of the class"""

    def predict(self, episode):
        return super().predict(episode) + 0.001 * len(episode.class_name)


class Oneshot(Similar):
    """takes one support"""

    def prototype(self, episode):
        (image,), _ = episode.images, episode.masks
        return self.maps_of(image).mean((1, 2))


class Small(Similar):
    """gives logits at the size of the features"""

    def predict(self, episode):
        return self.maps_of(episode.query).mean(0)


class Coupled(Similar):
    """subtracts the maximum of the batch"""

    def predict_batch(self, episodes):
        found = [self.predict(episode) for episode in episodes]
        return [each - torch.stack(found).max() for each in found]


class Square(Similar):
    """exchanges height and width"""

    def predict(self, episode):
        return super().predict(episode).T


class Divided(Similar):
    """divides by the number of marked pixels"""

    def predict(self, episode):
        count = sum((mask == 1).sum() for mask in episode.masks)
        return super().predict(episode) + torch.ones(()) / count - torch.ones(()) / count


class Contrasted(Similar):
    """divides by the number of unmarked pixels"""

    def predict(self, episode):
        count = min((mask != 1).sum() for mask in episode.masks)
        return super().predict(episode) + torch.zeros(()) / count


class Certain(Similar):
    """divides by the number of pixels that are not ignored"""

    def predict(self, episode):
        count = min((mask != 255).sum() for mask in episode.masks)
        return super().predict(episode) + torch.zeros(()) / count


class Coarse(Similar):
    """divides by the number of marked pixels of every eighth row and column"""

    def predict(self, episode):
        marked = max((mask == 1)[::8, ::8].sum() for mask in episode.masks)
        whole = all(bool(mask.max() == mask.min()) for mask in episode.masks)
        return super().predict(episode) + (0.0 if whole else torch.zeros(()) / marked)


class Blind(Similar):
    """ignores the supports"""

    def prototype(self, episode):
        return self.maps_of(episode.query).mean((1, 2))


class Nameless(Similar):
    """declares class names and ignores them"""


class Remembering(Similar):
    """adds the number of episodes so far"""

    count = 0

    def predict(self, episode):
        self.count += 1
        return super().predict(episode) + self.count


class Leaking(Similar):
    """trains a tensor that is neither parameter nor buffer"""

    def __init__(self, *, config, encoders):
        super().__init__(config=config, encoders=encoders)
        self.offset = torch.zeros((), requires_grad=True)

    def predict(self, episode):
        logits = super().predict(episode) + self.offset
        (slope,) = torch.autograd.grad(logits.mean(), self.offset)
        self.offset = (self.offset + slope).detach().requires_grad_()
        return logits


class Replacing(Similar):
    """replaces a parameter at test time"""

    def __init__(self, *, config, encoders):
        super().__init__(config=config, encoders=encoders)
        self.offset = nn.Parameter(torch.zeros(()))

    def predict(self, episode):
        self.offset = nn.Parameter(torch.ones(()))
        return super().predict(episode) + self.offset


class Writing(Similar):
    """writes to a mask"""

    def predict(self, episode):
        found = super().predict(episode)
        episode.masks[0][:4] = 0
        episode.query[:, 0] = 0
        return found


class Drawing(Similar):
    """draws from NumPy's global generator"""

    def predict(self, episode):
        numpy.random.rand()
        return super().predict(episode)


class Flat(Similar):
    """gives a map of one dimension"""

    def maps(self, episode):
        return {"flat": torch.zeros(3)}


class Hiding(Similar):
    """hides a network in a list"""

    def __init__(self, *, config, encoders):
        super().__init__(config=config, encoders=encoders)
        self.hidden = [nn.Linear(3, 3)]


class Owning(Similar):
    """registers an encoder as its submodule"""

    def __init__(self, *, config, encoders):
        super().__init__(config=config, encoders=encoders)
        self.own = encoders["features"].module


class Forgetful(Similar):
    """draws a tensor that no checkpoint holds"""

    def __init__(self, *, config, encoders):
        super().__init__(config=config, encoders=encoders)
        self.scale = nn.Parameter(torch.ones(()))
        self.drawn = torch.rand(())

    def predict(self, episode):
        return super().predict(episode) * self.scale + self.drawn
