"""Base classes for a plugin's tests; each check becomes one test.

.. code-block:: python

    from fssbench.testing import MatcherConformance


    class TestMine(MatcherConformance):
        plugins = ("fssbench_mine",)
        matcher = "mine"
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.testing import backbones, datasets, matchers, metrics, samplers
from fssbench.testing.backbones import BackboneSubject
from fssbench.testing.check import Check, Checks, NotCheckedError, Subject
from fssbench.testing.datasets import DatasetSubject
from fssbench.testing.matcher_subject import MatcherSubject
from fssbench.testing.metrics import MetricSubject
from fssbench.testing.samplers import SamplerSubject

C = TypeVar("C", bound="type[Conformance]")


class Conformance:
    """Base of the conformance classes: plugins, and one subject for all tests of a class.

    Attributes:
        plugins: modules or files to load, as with ``-p``, whether or not they are installed.
    """

    plugins: ClassVar[Sequence[str]] = ()
    _subject: ClassVar[Subject | None] = None

    @classmethod
    def subject(cls) -> Subject:
        """Return the object to check."""
        raise NotImplementedError

    @classmethod
    def setup_class(cls) -> None:
        """Load the plugins."""
        registry.use_plugins(cls.plugins)
        cls._subject = None

    @classmethod
    def teardown_class(cls) -> None:
        """Unload the plugins."""
        registry.use_plugins(())
        cls._subject = None

    @classmethod
    def _check(cls, check: Check) -> None:
        if cls._subject is None:
            cls._subject = cls.subject()
        try:
            check.run(cls._subject)
        except NotCheckedError as why:
            # pytest knows it, and fssbench needs no pytest.
            raise unittest.SkipTest(str(why)) from why


def _tests_of(checks: Checks) -> Callable[[C], C]:
    """Return a class decorator that adds a test ``test_…`` for each check."""

    def fill(conformance: C) -> C:
        for check in checks:
            setattr(conformance, f"test_{check.name}", _test(check))
        return conformance

    return fill


def _test(check: Check) -> Callable[[Conformance], None]:
    def test(self: Conformance) -> None:
        self._check(check)

    test.__name__ = f"test_{check.name}"
    test.__doc__ = check.summary
    return test


def _named(conformance: type[Conformance], attribute: str) -> str:
    name: str = getattr(conformance, attribute, "")
    if not name:
        raise FssbenchError(
            f"{conformance.__name__}: say what is tested, {attribute} = 'its registered name'"
        )
    return name


@_tests_of(matchers.CHECKS)
class MatcherConformance(Conformance):
    """Tests of a matcher.

    Attributes:
        matcher: its registered name.
        options: its options; they go before those of its recipe for `shapes`.
        backbone: encoder; "" for that of the recipe.
        weights: of the encoder; "" for random ones, which need no download.
        parameter_counts: learnable parameters by backbone, with these options; None for what the
            spec says.
        recipes: by stage the recipe to take a step with; others are chosen.
        part_weights: by stage what ``--weights PART=…`` would give.
    """

    matcher: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    backbone: ClassVar[str] = ""
    weights: ClassVar[str] = ""
    parameter_counts: ClassVar[Mapping[str, int] | None] = None
    recipes: ClassVar[Mapping[str, str]] = {}
    part_weights: ClassVar[Mapping[str, Mapping[str, str]]] = {}

    @classmethod
    def subject(cls) -> Subject:
        """The matcher on its encoder."""
        return MatcherSubject(
            name=_named(cls, "matcher"), backbone_name=cls.backbone, weights=cls.weights,
            given=cls.options, counts=cls.parameter_counts, recipes=cls.recipes,
            part_weights=cls.part_weights,
        )  # fmt: skip


@_tests_of(datasets.CHECKS)
class DatasetConformance(Conformance):
    """Tests of a dataset.

    Attributes:
        dataset: its registered name.
        root: its folder, if it has one.
        options: its options.
    """

    dataset: ClassVar[str] = ""
    root: ClassVar[str | Path | None] = None
    options: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def subject(cls) -> Subject:
        """The dataset."""
        root = None if cls.root is None else Path(cls.root)
        return DatasetSubject(name=_named(cls, "dataset"), root=root, given=cls.options)


@_tests_of(backbones.CHECKS)
class BackboneConformance(Conformance):
    """Tests of a backbone.

    Attributes:
        backbone: its registered name.
        weights: "" for random ones, or its own if it has no random ones.
    """

    backbone: ClassVar[str] = ""
    weights: ClassVar[str] = ""

    @classmethod
    def subject(cls) -> Subject:
        """The backbone."""
        return BackboneSubject(name=_named(cls, "backbone"), weights=cls.weights)


@_tests_of(metrics.CHECKS)
class MetricConformance(Conformance):
    """Tests of a metric.

    Attributes:
        metric: its registered name.
    """

    metric: ClassVar[str] = ""

    @classmethod
    def subject(cls) -> Subject:
        """The metric."""
        return MetricSubject(name=_named(cls, "metric"))


@_tests_of(samplers.CHECKS)
class SamplerConformance(Conformance):
    """Tests of a sampler.

    Attributes:
        sampler: its registered name.
        dataset: whose annotations it draws from; one that needs no files.
        options: the dataset's options.
    """

    sampler: ClassVar[str] = ""
    dataset: ClassVar[str] = "shapes"
    options: ClassVar[Mapping[str, Any]] = {"images_per_split": 120}

    @classmethod
    def subject(cls) -> Subject:
        """The sampler, with lists of the novel classes of fold 0."""
        return SamplerSubject(
            name=_named(cls, "sampler"), dataset_name=cls.dataset, given=cls.options
        )
