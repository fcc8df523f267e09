"""Checks of protocols: a manifest can be built, and is always the same."""

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
from fssbench.testing.check import Checks, NonconformityError, NotCheckedError, Subject, expect

CHECKS = Checks("protocol")


@attrs.frozen(kw_only=True, eq=False, slots=False)
class ProtocolSubject(Subject):
    """A registered protocol.

    Attributes:
        root: folder of its dataset, if required.
        given: options of its dataset.
    """

    spec_class = ProtocolSpec
    root: Path | None = None
    given: Mapping[str, Any] = attrs.field(factory=dict, alias="options")

    @property
    def thing(self) -> Any:
        """The spec: a protocol has no code of its own."""
        return self.spec

    @cached_property
    def dataset(self) -> Dataset:
        """Dataset of the protocol.

        Raises:
            NotCheckedError: the dataset or the protocol requires files.
        """
        if self.spec.lists:
            raise NotCheckedError("reads authors' list files: fssbench episodes build --lists")
        spec = registry.registry().get(DatasetSpec, self.spec.dataset)
        if self.root is None and spec.layout:
            raise NotCheckedError(f"needs the files of {spec.name}")
        return build.dataset(spec.name, self.root, **{**self.spec.data_options, **self.given})


@CHECKS.add()
def names(subject: ProtocolSubject) -> str:
    """The dataset, the sampler and the reader of lists exist."""
    spec, known = subject.spec, registry.registry()
    dataset = known.get(DatasetSpec, spec.dataset)
    sampler = known.get(SamplerSpec, spec.sampler)
    registry.load(sampler)
    if spec.lists:
        registry.load_lists(spec)
    return f"{dataset.name}, {sampler.name}"


@CHECKS.add()
def manifests(subject: ProtocolSubject) -> str:
    """Each fold gives a 1-shot manifest, the same one every time."""
    spec, dataset, sizes = subject.spec, subject.dataset, []
    for fold in range(dataset.folds):
        expected = f"a 1-shot manifest of fold {fold}"
        try:
            first, again = (build_manifest(spec, dataset, fold=fold, shots=1) for _ in range(2))
        except FssbenchError as error:
            raise NonconformityError(expected, str(error), spec.factory) from error
        digests = f"digests {first.digest[:8]}… and {again.digest[:8]}…"
        expect(first.digest == again.digest, f"{expected}, always the same", digests, spec.sampler)
        sizes.append(len(first.episodes))
    return f"folds of {', '.join(map(str, sizes))} episodes"
