"""One evaluation while it runs, as hooks see it."""

from __future__ import annotations

from pathlib import Path

import attrs

from fssbench.data.dataset import Dataset
from fssbench.episodes.manifest import Manifest
from fssbench.inference.episode_maps import EpisodeMaps


@attrs.frozen(kw_only=True)
class Run:
    """What is evaluated.

    Attributes:
        matcher: name of the matcher.
        backbone: name of the backbone.
        manifest: which episodes.
        dataset: where their images are.
        folder: the run directory.
        done: episodes that an earlier, interrupted run measured already.
        maps: computes what the matcher can show of an episode; None where nothing was asked.
    """

    matcher: str
    backbone: str
    manifest: Manifest
    dataset: Dataset
    folder: Path
    done: int
    maps: EpisodeMaps | None = None
