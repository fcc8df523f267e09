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
from typing import Any, ClassVar

import attrs

from fssbench import registry
from fssbench.errors import FssbenchError
from fssbench.testing import backbones, datasets, image_matchers, matchers, metrics, samplers
from fssbench.testing.check import Check, Checks, NotCheckedError, Subject
from fssbench.testing.matcher_subject import MatcherSubject


class Conformance:
    """Base of the conformance classes, with plugins and one subject for all tests of a class.

    Attributes:
        plugins: modules or files to load, as with ``-p``; they need not be installed.
    """

    plugins: ClassVar[Sequence[str]] = ()
    _kind: ClassVar[str]
    _subject_class: ClassVar[type[Subject]]
    _subject: ClassVar[Subject | None] = None

    def __init_subclass__(
        cls, checks: Checks | None = None, subject_class: type[Subject] = Subject
    ) -> None:
        """Add a test ``test_…`` for each check."""
        super().__init_subclass__()
        if checks is not None:
            cls._kind, cls._subject_class = checks.kind, subject_class
            for check in checks:
                setattr(cls, f"test_{check.name}", _test(check))

    @classmethod
    def subject(cls) -> Subject:
        """Return the object to check, created from the attributes of the class."""
        name = getattr(cls, cls._kind)
        if not name:
            raise FssbenchError(
                f"{cls.__name__}: set the attribute {cls._kind} to the registered name to test"
            )
        _, *fields = (field for field in attrs.fields(cls._subject_class) if field.init)
        return cls._subject_class(name=name, **{f.alias: getattr(cls, f.alias) for f in fields})

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


def _test(check: Check) -> Callable[[Conformance], None]:
    def test(self: Conformance) -> None:
        cls = type(self)
        cls._subject = cls._subject or cls.subject()
        try:
            check.run(cls._subject)
        except NotCheckedError as reason:
            # pytest treats it as a skip, and fssbench does not depend on pytest.
            raise unittest.SkipTest(str(reason)) from reason

    test.__name__ = f"test_{check.name}"
    test.__doc__ = check.summary
    return test


class MatcherConformance(Conformance, checks=matchers.CHECKS, subject_class=MatcherSubject):
    """Tests of a matcher.

    Attributes:
        matcher: its registered name.
        options: its options; they override those of its recipe for `shapes`.
        backbone: encoder; "" for that of the recipe.
        weights: encoder weights; "" for random ones, which need no download.
        parameter_counts: learnable parameters by backbone, with these options; None for those of
            the spec.
        recipes: recipes to take a step with, by stage; other stages use a default.
        part_weights: values of ``--weights PART=…``, by stage.
    """

    matcher: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    backbone: ClassVar[str] = ""
    weights: ClassVar[str] = ""
    parameter_counts: ClassVar[Mapping[str, int] | None] = None
    recipes: ClassVar[Mapping[str, str]] = {}
    part_weights: ClassVar[Mapping[str, Mapping[str, str]]] = {}


class ImageMatcherConformance(
    Conformance, checks=image_matchers.CHECKS, subject_class=image_matchers.ImageMatcherSubject
):
    """Tests of a matcher on whole images.

    Attributes:
        matcher: its registered name.
        encoders: its encoders by role; the ``small_encoders`` of its spec by default.
        weights: weights by role; random by default.
        options: its options.
    """

    matcher: ClassVar[str] = ""
    encoders: ClassVar[Mapping[str, str]] = {}
    weights: ClassVar[Mapping[str, str]] = {}
    options: ClassVar[Mapping[str, Any]] = {}


class DatasetConformance(
    Conformance, checks=datasets.CHECKS, subject_class=datasets.DatasetSubject
):
    """Tests of a dataset.

    Attributes:
        dataset: its registered name.
        root: its folder, if required.
        options: its options.
    """

    dataset: ClassVar[str] = ""
    root: ClassVar[str | Path | None] = None
    options: ClassVar[Mapping[str, Any]] = {}


class BackboneConformance(
    Conformance, checks=backbones.CHECKS, subject_class=backbones.BackboneSubject
):
    """Tests of a backbone.

    Attributes:
        backbone: its registered name.
        weights: its weights; "" for random ones, or pretrained ones if it has no random ones.
    """

    backbone: ClassVar[str] = ""
    weights: ClassVar[str] = ""


class MetricConformance(Conformance, checks=metrics.CHECKS, subject_class=metrics.MetricSubject):
    """Tests of a metric.

    Attributes:
        metric: its registered name.
    """

    metric: ClassVar[str] = ""


class SamplerConformance(
    Conformance, checks=samplers.CHECKS, subject_class=samplers.SamplerSubject
):
    """Tests of a sampler.

    Attributes:
        sampler: its registered name.
        dataset: dataset whose annotations it draws from; it must need no files.
        options: options of the dataset.
    """

    sampler: ClassVar[str] = ""
    dataset: ClassVar[str] = "shapes"
    options: ClassVar[Mapping[str, Any]] = {"images_per_split": 120}
