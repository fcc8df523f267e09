"""A plugin-based benchmark framework for few-shot semantic segmentation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fssbench._version import __version__ as __version__
from fssbench.errors import FssbenchError as FssbenchError
from fssbench.hookspecs import hookimpl as hookimpl
from fssbench.specs import BackboneSpec as BackboneSpec
from fssbench.specs import DatasetSpec as DatasetSpec
from fssbench.specs import MatcherSpec as MatcherSpec
from fssbench.specs import MetricSpec as MetricSpec
from fssbench.specs import ProtocolSpec as ProtocolSpec
from fssbench.specs import SamplerSpec as SamplerSpec

if TYPE_CHECKING:
    from fssbench.backbones.backbone import Backbone as Backbone
    from fssbench.backbones.backbone import BackboneInfo as BackboneInfo
    from fssbench.backbones.backbone import LayerInfo as LayerInfo
    from fssbench.backbones.backbone import WeightsInfo as WeightsInfo
    from fssbench.backbones.sam import PromptableSam as PromptableSam
    from fssbench.backbones.sam import SamMasks as SamMasks
    from fssbench.backbones.weights import read_tensors as read_tensors
    from fssbench.build import backbone as backbone
    from fssbench.build import dataset as dataset
    from fssbench.build import matcher as matcher
    from fssbench.build import metric as metric
    from fssbench.data.dataset import Dataset as Dataset
    from fssbench.data.geometry import Geometry as Geometry
    from fssbench.data.images import read_image as read_image
    from fssbench.episodes.draw import Draw as Draw
    from fssbench.episodes.episode import Episode as Episode
    from fssbench.episodes.manifest import Manifest as Manifest
    from fssbench.episodes.protocol import build_manifest as build_manifest
    from fssbench.episodes.sampler import Pool as Pool
    from fssbench.evaluation.evaluate import evaluate as evaluate
    from fssbench.evaluation.evaluation import Evaluation as Evaluation
    from fssbench.evaluation.run import Run as Run
    from fssbench.files import sha256 as sha256
    from fssbench.importing import Imported as Imported
    from fssbench.inference.feature_files import FeatureFiles as FeatureFiles
    from fssbench.inference.predictor import Prediction as Prediction
    from fssbench.inference.predictor import Predictor as Predictor
    from fssbench.matchers.matcher import FeatureRequest as FeatureRequest
    from fssbench.matchers.matcher import Matcher as Matcher
    from fssbench.matchers.matcher import SupportSet as SupportSet
    from fssbench.matchers.matcher import embed_episodes as embed_episodes
    from fssbench.metrics.metric import Metric as Metric
    from fssbench.results.record import Record as Record
    from fssbench.runtime.device import choose_device as choose_device
    from fssbench.training.recipe import Recipe as Recipe
    from fssbench.training.stage import EpisodeBatch as EpisodeBatch
    from fssbench.training.stage import ImageBatch as ImageBatch
    from fssbench.training.stage import LabelledBatch as LabelledBatch
    from fssbench.training.stage import ParameterGroup as ParameterGroup
    from fssbench.training.stage import Stage as Stage
    from fssbench.training.stage import StageContext as StageContext
    from fssbench.training.train import train as train
    from fssbench.training.training import Training as Training
    from fssbench.training.training import TrainingRun as TrainingRun

# Imported on first access: most of them need torch, and modules with specs must not import it.
_LAZY = {
    name: f"fssbench.{module}"
    for module, names in {
        "backbones.backbone": "Backbone BackboneInfo LayerInfo WeightsInfo",
        "backbones.sam": "PromptableSam SamMasks",
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
        "inference.feature_files": "FeatureFiles",
        "inference.predictor": "Prediction Predictor",
        "matchers.matcher": "FeatureRequest Matcher SupportSet embed_episodes",
        "metrics.metric": "Metric",
        "results.record": "Record",
        "runtime.device": "choose_device",
        "training.recipe": "Recipe",
        "training.stage": "EpisodeBatch ImageBatch LabelledBatch ParameterGroup StageContext Stage",
        "training.train": "train",
        "training.training": "Training TrainingRun",
    }.items()
    for name in names.split()
}

_SPECS = ("BackboneSpec", "DatasetSpec", "MatcherSpec", "MetricSpec", "ProtocolSpec", "SamplerSpec")

__all__ = sorted([*_LAZY, *_SPECS, "FssbenchError", "hookimpl"])


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'fssbench' has no attribute {name!r}")
