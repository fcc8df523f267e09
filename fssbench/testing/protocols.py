"""What every protocol promises: a manifest can be made of it, and always the same."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs

from fssbench import build, registry
from fssbench.data.dataset import Dataset
from fssbench.episodes.protocol import build_manifest
from fssbench.errors import FssbenchError
from fssbench.specs import DatasetSpec, ProtocolSpec, SamplerSpec
from fssbench.testing.check import Checks, NotCheckedError, expect

CHECKS = Checks("protocol")


@attrs.frozen(kw_only=True, eq=False, slots=False)
class ProtocolSubject:
    """A registered protocol.

    Attributes:
        name: the registered name.
        root: its dataset's folder, if that has one.
        given: its dataset's options.
    """

    name: str
    root: Path | None = None
    given: Mapping[str, Any] = attrs.field(factory=dict)

    @cached_property
    def spec(self) -> ProtocolSpec:
        """Its spec."""
        return registry.registry().get(ProtocolSpec, self.name)

    @property
    def thing(self) -> Any:
        """A protocol is its spec."""
        return self.spec

    @cached_property
    def dataset(self) -> Dataset:
        """Its dataset.

        Raises:
            NotCheckedError: it, or the protocol, needs files.
        """
        if self.spec.lists:
            raise NotCheckedError("reads authors' list files: fssbench episodes build --lists")
        spec = registry.registry().get(DatasetSpec, self.spec.dataset)
        if self.root is None and spec.layout:
            raise NotCheckedError(f"needs the files of {spec.name}")
        return build.dataset(spec.name, self.root, **self.given)


@CHECKS.add()
def names(subject: ProtocolSubject) -> str:
    """Dataset, sampler and reader of lists are there."""
    spec, known = subject.spec, registry.registry()
    dataset = known.get(DatasetSpec, spec.dataset)
    sampler = known.get(SamplerSpec, spec.sampler)
    registry.load(sampler)
    if spec.lists:
        registry.load_lists(spec)
    return f"{dataset.name}, {sampler.name}"


@CHECKS.add()
def manifests(subject: ProtocolSubject) -> str:
    """Each fold gives a 1-shot manifest, and the same one again."""
    spec, dataset, sizes = subject.spec, subject.dataset, []
    for fold in range(dataset.folds):
        try:
            first, again = (build_manifest(spec, dataset, fold=fold, shots=1) for _ in range(2))
        except FssbenchError as error:
            expect(False, f"a 1-shot manifest of fold {fold}", str(error), spec.factory)
            raise
        expect(
            first.digest == again.digest,
            f"the same manifest of fold {fold} again",
            f"digests {first.digest[:8]}… and {again.digest[:8]}…",
            spec.sampler,
        )
        sizes.append(len(first.episodes))
    return f"folds of {', '.join(map(str, sizes))} episodes"
