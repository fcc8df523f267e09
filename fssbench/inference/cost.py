"""Parameters, operations and memory of a method."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

import torch
from torch import nn

from fssbench.backbones.encoder import no_cache
from fssbench.errors import one_line
from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.pipeline import Pipeline
from fssbench.matchers.image_matcher import EpisodeImages
from fssbench.nn.flops import flop_counter

log = logging.getLogger(__name__)


def learnable_parameters(pipeline: Pipeline | ImagePipeline) -> int:
    """Return the number of learnable parameters of the matcher."""
    return sum(p.numel() for p in pipeline.matcher.parameters() if p.requires_grad)


def backbone_parameters(pipeline: Pipeline | ImagePipeline) -> int:
    """Return the number of parameters of the frozen encoders."""
    return sum(p.numel() for module in pipeline.frozen for p in module.parameters())


def flops_per_episode(pipeline: Pipeline, shots: int, ways: int = 1) -> int | None:
    """Return the floating-point operations of one K-shot episode with nothing cached.

    A multiply-add counts as two. Matrix products, convolutions, attention and selective scans are
    counted; element-wise operations are not. None if the counter fails, as it does on control flow
    of torch and on some operations of other libraries.
    """
    size = pipeline.request.size
    image = torch.full((1, 3, size, size), 128, dtype=torch.uint8)
    mask = torch.zeros(size, size, dtype=torch.uint8)
    mask[size // 4 : size // 2, size // 4 : size // 2] = 1
    keep = [mask] if pipeline.request.mask_support else None
    try:
        with flop_counter() as encoding:
            features = pipeline.encode(image, keep)[0]
        with _without_gradients(pipeline.matcher), flop_counter() as matching:
            masks = mask.expand(shots, -1, -1)
            supports = [pipeline.support_of([features] * shots, masks) for _ in range(ways)]
            pipeline.logits_of([features], *supports)
    except (RuntimeError, NotImplementedError) as error:
        _warn(error)
        return None
    # An evaluation pads its batches, so the cost of an image is its share of a full batch.
    each = encoding.get_total_flops() // pipeline.encode_batch
    return (ways * shots + 1) * each + matching.get_total_flops()


def flops_of(pipeline: ImagePipeline, *ways: EpisodeImages) -> int | None:
    """Return the floating-point operations of an episode with nothing cached.

    None if the counter fails; see `flops_per_episode`.
    """
    caches = {role: encoder.cache for role, encoder in pipeline.encoders.items()}
    pipeline.use(no_cache)
    try:
        with flop_counter() as counter:
            pipeline.predict(ways) if len(ways) == 1 else pipeline.predict_ways(ways)
        return counter.get_total_flops()
    except (RuntimeError, NotImplementedError) as error:
        _warn(error)
        return None
    finally:
        for role, encoder in pipeline.encoders.items():
            encoder.cache = caches[role]


def _warn(error: Exception) -> None:
    log.warning("the operations of an episode cannot be counted: %s", one_line(error))


@contextlib.contextmanager
def _without_gradients(module: nn.Module) -> Iterator[None]:
    """Freeze all parameters: the counter fails on views of parameters that require a gradient."""
    learnable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learnable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learnable:
            parameter.requires_grad_(True)


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory so far: allocated on a GPU, resident in the process otherwise.

    It is 0 on Windows, where Python does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
