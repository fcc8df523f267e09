"""Cache of what encoders compute of images, in memory and on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fssbench.backbones.encoder import FEATURES, Encoder
from fssbench.inference.feature_files import FeatureFiles
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.lookahead_cache import LookaheadCache
from fssbench.matchers.image_matcher import ImageMatcher
from fssbench.matchers.matcher import config_of
from fssbench.runtime.code import code_of, identities

_ALONE = "result"
"""Name, in files, of a result that is one tensor."""


class EncoderCache:
    """Cache of what the encoders of an image matcher compute of images.

    Images with a name (of a dataset) are recognised by identity, so that the value whose next use
    is farthest in the future is evicted; other images, which a method made, by their pixels.

    Args:
        pipeline: matcher and encoders; their results are cached from now on.
        budget: size limit in bytes.
        folder: folder of results on disk, shared with other runs; None for none.
        limit: size limit in bytes of the folder.
    """

    def __init__(
        self,
        pipeline: ImagePipeline,
        budget: int,
        *,
        folder: Path | None = None,
        limit: int | None = None,
    ) -> None:
        self.memory = LookaheadCache(budget)
        # The images are held too, so that no other tensor gets the same identity.
        self._named: dict[int, tuple[str, Tensor]] = {}
        self._files: dict[str, FeatureFiles] = {}
        if folder is not None:
            facts = {"precision": pipeline.precision, "device": pipeline.device.type}
            self._files = {
                role: FeatureFiles(encoder.module, facts, folder, limit, name=encoder.name)
                for role, encoder in pipeline.encoders.items()
            }
            self._method = _method_identity(pipeline.matcher)
        pipeline.use(self)

    def expect(self, times: Mapping[str, list[int]]) -> None:
        """Set the times (ascending) at which the images of each name will be used."""
        self.memory.expect(_Uses(times))

    def recognise(self, images: Mapping[str, Tensor]) -> None:
        """Set the images, by name, that are recognised by identity."""
        self._named = {id(image): (name, image) for name, image in images.items()}

    def __call__(
        self, encoder: Encoder, image: Tensor, purpose: Hashable, compute: Callable[[Tensor], Any]
    ) -> Any:
        """Return ``compute(image)``, or its earlier result; see `Encoder.cached`."""
        name, _ = self._named.get(id(image), ("", None))
        return self.memory.get_or_make(
            (encoder.role, purpose, name or _digest(image)),
            lambda: self._from_disk(encoder, image, purpose, compute),
        )

    def _from_disk(
        self, encoder: Encoder, image: Tensor, purpose: Hashable, compute: Callable[[Tensor], Any]
    ) -> Any:
        files = self._files.get(encoder.role)
        if files is None:
            return compute(image)
        own = isinstance(purpose, tuple) and purpose[:1] == (FEATURES,)
        key = b"" if own else self._method  # functions of the method
        key += f"{purpose!r} {_digest(image)}".encode()
        found = files.read(key)
        if found is None:
            result = compute(image)
            plain = {_ALONE: result} if isinstance(result, Tensor) else result
            if isinstance(plain, dict) and all(isinstance(t, Tensor) for t in plain.values()):
                files.write(key, plain)
            return result
        there = {name: tensor.to(image.device) for name, tensor in found.items()}
        return there[_ALONE] if there.keys() == {_ALONE} else there


def _method_identity(matcher: ImageMatcher) -> bytes:
    """Return everything that functions of a method may depend on: class, options, state, code."""
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in matcher.state_dict().items():
        state.update(f"{name} {_digest(tensor)}".encode())
    kind = type(matcher)
    code = identities(code_of(matcher.modules()))
    options = json.dumps(config_of(matcher), sort_keys=True)
    facts = kind.__module__, kind.__qualname__, options, state.hexdigest(), sorted(code.items())
    return repr(facts).encode()


@attrs.frozen
class _Uses:
    """Times at which the values of an image are used, by keys of the cache."""

    times: Mapping[str, list[int]]

    def get(self, key: Any, default: list[int]) -> list[int]:
        """Return the times of a key ``(role, purpose, name of the image)``."""
        return self.times.get(key[2], default)


def _digest(image: Tensor) -> str:
    plain = image.detach().cpu().contiguous()
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
    digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
