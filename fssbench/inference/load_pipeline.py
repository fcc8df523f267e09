"""Loading of a model as a pipeline."""

from __future__ import annotations

import torch

from fssbench.inference.image_pipeline import ImagePipeline
from fssbench.inference.pipeline import Pipeline
from fssbench.model import ModelSource
from fssbench.runtime.device import Precision


def load_pipeline(
    source: ModelSource,
    *,
    device: torch.device,
    precision: Precision = "fp32",
    half: bool = False,
    encode_batch: int | None = None,
) -> Pipeline | ImagePipeline:
    """Build the model of a source, load its weights, and return its pipeline.

    Args:
        source: source of the model.
        device: device of the pipeline.
        precision: precision of the pipeline.
        half: as for `Pipeline`; not used for an image matcher.
        encode_batch: as for `Pipeline`; not used for an image matcher.

    Raises:
        FssbenchError: weights are missing or do not fit.
    """
    if source.encoders is not None:
        return ImagePipeline(source.load_images(), device=device, precision=precision)
    return Pipeline(
        *source.load(), device=device, precision=precision, half=half, encode_batch=encode_batch
    )
