"""How many folds a dataset has, as far as this installation knows."""

from __future__ import annotations

from fssbench.data.dataset import Dataset
from fssbench.errors import FssbenchError


def known_folds(dataset: str) -> int | None:
    """Number of folds that the class of a registered dataset declares.

    None for a dataset that is not installed, and for one whose class declares none: `Dataset`'s
    own 1 is then only a default, which an object may replace.
    """
    from fssbench import registry
    from fssbench.specs import DatasetSpec

    try:
        found = registry.load(registry.registry().get(DatasetSpec, dataset))
    except FssbenchError:
        return None
    bases = [base for base in getattr(found, "__mro__", ()) if base is not Dataset]
    declared = [vars(base)["folds"] for base in bases if isinstance(vars(base).get("folds"), int)]
    return declared[0] if declared else None
