"""Manifest arguments of the ``fssbench episodes`` commands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fssbench.data.dataset import Dataset
    from fssbench.episodes.manifest import Manifest

_SETTING = re.compile(r"(?P<protocol>.+)/fold(?P<fold>\d+)-(?P<shots>\d+)shot(-seed(?P<seed>\d+))?")


def read_or_build(
    source: str, *, data_root: Path | None, data_options: Mapping[str, str], lists: Path | None
) -> Manifest:
    """Read or build a manifest.

    Args:
        source: manifest file, run directory, or a setting such as ``shapes/v1-1k/fold0-1shot`` or
            ``shapes/v1-1k/fold0-5shot-seed2``, whose manifest is built.
        data_root: folder of the dataset, for a setting.
        data_options: options of the dataset, for a setting.
        lists: authors' list files, for a setting of a protocol that reads them.

    Raises:
        FssbenchError: the source is invalid, or cannot be read or built.
    """
    return _read_or_build(source, data_root, data_options, lists)[0]


def read_with_dataset(
    source: str, *, data_root: Path | None, data_options: Mapping[str, str], lists: Path | None
) -> tuple[Manifest, Dataset]:
    """Read or build a manifest, see `read_or_build`, and return it with its dataset."""
    from fssbench import build

    manifest, dataset = _read_or_build(source, data_root, data_options, lists)
    if dataset is None:
        dataset = build.protocol_dataset(manifest.protocol, data_root, **data_options)
    return manifest, dataset


def _read_or_build(
    source: str, data_root: Path | None, data_options: Mapping[str, str], lists: Path | None
) -> tuple[Manifest, Dataset | None]:
    """Return a manifest, and the dataset that it was built from if it was built."""
    from fssbench import build, registry
    from fssbench.episodes.manifest import Manifest
    from fssbench.episodes.protocol import build_manifest
    from fssbench.errors import FssbenchError
    from fssbench.results.record import MANIFEST_FILE
    from fssbench.specs import ProtocolSpec

    path = Path(source)
    if path.is_dir():
        return Manifest.read(path / MANIFEST_FILE), None
    if path.exists():
        return Manifest.read(path), None
    setting = _SETTING.fullmatch(source)
    if setting is None:
        raise FssbenchError(
            f"{source}: no such file; name a manifest, a run directory, or a setting such as "
            "shapes/v1-1k/fold0-1shot-seed0"
        )
    spec = registry.registry().get(ProtocolSpec, setting["protocol"])
    dataset = build.protocol_dataset(spec.name, data_root, **data_options)
    numbers = {name: int(setting[name] or 0) for name in ("fold", "shots", "seed")}
    return build_manifest(spec, dataset, lists=lists, **numbers), dataset
