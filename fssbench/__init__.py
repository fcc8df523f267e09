"""A plugin-based benchmark framework for few-shot semantic segmentation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fssbench._version import __version__ as __version__
from fssbench.errors import FssbenchError
from fssbench.hookspecs import hookimpl
from fssbench.specs import (
    BackboneSpec,
    DatasetSpec,
    MatcherSpec,
    MetricSpec,
    ProtocolSpec,
    SamplerSpec,
)

if TYPE_CHECKING:
    from fssbench.backbones.backbone import Backbone, BackboneInfo, LayerInfo, WeightsInfo
    from fssbench.backbones.weights import read_tensors
    from fssbench.build import backbone, dataset, matcher, metric
    from fssbench.data.dataset import Dataset
    from fssbench.data.geometry import Geometry
    from fssbench.data.images import read_image
    from fssbench.episodes.draw import Draw
    from fssbench.episodes.episode import Episode
    from fssbench.episodes.manifest import Manifest
    from fssbench.episodes.protocol import build_manifest
    from fssbench.episodes.sampler import Pool
    from fssbench.evaluation.evaluate import evaluate
    from fssbench.evaluation.evaluation import Evaluation
    from fssbench.evaluation.run import Run
    from fssbench.files import sha256
    from fssbench.importing import Imported
    from fssbench.inference.pipeline import choose_device
    from fssbench.inference.predictor import Prediction, Predictor
    from fssbench.matchers.matcher import FeatureRequest, Matcher
    from fssbench.metrics.metric import Metric
    from fssbench.results.record import Record
    from fssbench.training.recipe import Recipe
    from fssbench.training.run import TrainingRun
    from fssbench.training.stage import (
        EpisodeBatch,
        ImageBatch,
        LabelledBatch,
        ParameterGroup,
        Stage,
        StageContext,
    )
    from fssbench.training.store import FeatureStore
    from fssbench.training.train import train
    from fssbench.training.training import Training

# Imported on first access: most of them need torch, and modules with specs must not import it.
_LAZY = {
    name: f"fssbench.{module}"
    for module, names in {
        "backbones.backbone": "Backbone BackboneInfo LayerInfo WeightsInfo",
        "backbones.weights": "read_tensors",
        "build": "backbone dataset matcher metric",
        "data.dataset": "Dataset",
        "data.geometry": "Geometry",
        "data.images": "read_image",
        "episodes.draw": "Draw",
        "episodes.episode": "Episode",
        "episodes.manifest": "Manifest",
        "episodes.protocol": "build_manifest",
        "episodes.sampler": "Pool",
        "evaluation.evaluate": "evaluate",
        "evaluation.evaluation": "Evaluation",
        "evaluation.run": "Run",
        "files": "sha256",
        "importing": "Imported",
        "inference.pipeline": "choose_device",
        "inference.predictor": "Prediction Predictor",
        "matchers.matcher": "FeatureRequest Matcher",
        "metrics.metric": "Metric",
        "results.record": "Record",
        "training.recipe": "Recipe",
        "training.run": "TrainingRun",
        "training.stage": "EpisodeBatch ImageBatch LabelledBatch ParameterGroup StageContext Stage",
        "training.store": "FeatureStore",
        "training.train": "train",
        "training.training": "Training",
    }.items()
    for name in names.split()
}

__all__ = [
    "Backbone",
    "BackboneInfo",
    "BackboneSpec",
    "Dataset",
    "DatasetSpec",
    "Draw",
    "Episode",
    "EpisodeBatch",
    "Evaluation",
    "FeatureRequest",
    "FeatureStore",
    "FssbenchError",
    "Geometry",
    "ImageBatch",
    "Imported",
    "LabelledBatch",
    "LayerInfo",
    "Manifest",
    "Matcher",
    "MatcherSpec",
    "Metric",
    "MetricSpec",
    "ParameterGroup",
    "Pool",
    "Prediction",
    "Predictor",
    "ProtocolSpec",
    "Recipe",
    "Record",
    "Run",
    "SamplerSpec",
    "Stage",
    "StageContext",
    "Training",
    "TrainingRun",
    "WeightsInfo",
    "backbone",
    "build_manifest",
    "choose_device",
    "dataset",
    "evaluate",
    "hookimpl",
    "matcher",
    "metric",
    "read_image",
    "read_tensors",
    "sha256",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'fssbench' has no attribute {name!r}")
