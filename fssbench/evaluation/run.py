"""A running evaluation, as passed to hooks."""

from __future__ import annotations

from pathlib import Path

import attrs

from fssbench.data.dataset import Dataset
from fssbench.episodes.manifest import Manifest
from fssbench.inference.episode_maps import EpisodeMaps


@attrs.frozen(kw_only=True)
class Run:
    """A running evaluation.

    Attributes:
        matcher: name of the matcher.
        backbone: name of the backbone.
        manifest: episodes of the evaluation.
        dataset: dataset of the episodes.
        folder: run directory.
        done: number of episodes that an earlier, interrupted run measured.
        maps: computation of intermediate maps; None if no panels were requested.
    """

    matcher: str
    backbone: str
    manifest: Manifest
    dataset: Dataset
    folder: Path
    done: int
    maps: EpisodeMaps | None = None
