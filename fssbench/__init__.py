"""fssbench: the plugin-based benchmark framework for few-shot semantic segmentation."""

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
    from fssbench.inference.feature_files import FeatureFiles
    from fssbench.inference.predictor import Prediction, Predictor
    from fssbench.matchers.matcher import FeatureRequest, Matcher, SupportSet, embed_episodes
    from fssbench.metrics.metric import Metric
    from fssbench.results.record import Record
    from fssbench.runtime.device import choose_device
    from fssbench.training.recipe import Recipe
    from fssbench.training.stage import (
        EpisodeBatch,
        ImageBatch,
        LabelledBatch,
        ParameterGroup,
        Stage,
        StageContext,
    )
    from fssbench.training.train import train
    from fssbench.training.training import Training, TrainingRun

# Imported when asked for: most of them need torch, and a page of specs must not.
_LAZY = {
    "Backbone": "fssbench.backbones.backbone",
    "BackboneInfo": "fssbench.backbones.backbone",
    "LayerInfo": "fssbench.backbones.backbone",
    "WeightsInfo": "fssbench.backbones.backbone",
    "backbone": "fssbench.build",
    "dataset": "fssbench.build",
    "matcher": "fssbench.build",
    "metric": "fssbench.build",
    "read_tensors": "fssbench.backbones.weights",
    "Dataset": "fssbench.data.dataset",
    "Geometry": "fssbench.data.geometry",
    "read_image": "fssbench.data.images",
    "Draw": "fssbench.episodes.draw",
    "Episode": "fssbench.episodes.episode",
    "Manifest": "fssbench.episodes.manifest",
    "build_manifest": "fssbench.episodes.protocol",
    "Pool": "fssbench.episodes.sampler",
    "sha256": "fssbench.files",
    "Evaluation": "fssbench.evaluation.evaluation",
    "evaluate": "fssbench.evaluation.evaluate",
    "choose_device": "fssbench.runtime.device",
    "Prediction": "fssbench.inference.predictor",
    "Predictor": "fssbench.inference.predictor",
    "Record": "fssbench.results.record",
    "Run": "fssbench.evaluation.run",
    "Imported": "fssbench.importing",
    "FeatureRequest": "fssbench.matchers.matcher",
    "Matcher": "fssbench.matchers.matcher",
    "SupportSet": "fssbench.matchers.matcher",
    "embed_episodes": "fssbench.matchers.matcher",
    "Recipe": "fssbench.training.recipe",
    "EpisodeBatch": "fssbench.training.stage",
    "ImageBatch": "fssbench.training.stage",
    "LabelledBatch": "fssbench.training.stage",
    "ParameterGroup": "fssbench.training.stage",
    "StageContext": "fssbench.training.stage",
    "Stage": "fssbench.training.stage",
    "Metric": "fssbench.metrics.metric",
    "TrainingRun": "fssbench.training.training",
    "FeatureFiles": "fssbench.inference.feature_files",
    "train": "fssbench.training.train",
    "Training": "fssbench.training.training",
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
    "FeatureFiles",
    "FeatureRequest",
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
    "SupportSet",
    "Training",
    "TrainingRun",
    "WeightsInfo",
    "backbone",
    "build_manifest",
    "choose_device",
    "dataset",
    "embed_episodes",
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
