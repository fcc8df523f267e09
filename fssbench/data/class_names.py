"""Class names that mean the same in several datasets."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SYNONYMS = (
    # PASCAL VOC and COCO; RePRI's src/dataset/classes.py has one name for each of these pairs.
    # iSAID's class is called plane.
    ("airplane", "aeroplane", "plane"),
    ("motorcycle", "motorbike"),
    ("couch", "sofa"),
    ("tv", "tvmonitor", "television", "televisionset"),
    # COCO and LVIS: lvis-dataset/lvis-api, data/coco_to_synset.json, and the names that LVIS v1
    # has for these synsets. FSS-1000 has some of these names too.
    ("firehydrant", "fireplug"),
    ("tie", "necktie"),
    ("skis", "ski"),
    ("sportsball", "ball"),
    ("donut", "doughnut"),
    ("pottedplant", "flowerpot"),
    ("laptop", "laptopcomputer"),
    ("remote", "remotecontrol"),
    ("keyboard", "computerkeyboard"),
    ("cellphone", "cellulartelephone"),
    ("microwave", "microwaveoven"),
    ("hairdrier", "hairdryer"),
    # COCO and FSS-1000: the names in juhongm999/hsnet, data/splits/fss.
    ("mouse", "computermouse"),
    ("teddybear", "teddy"),
    ("frisbee", "flyingdisc"),
)
_FIRST = {name: group[0] for group in _SYNONYMS for name in group}


def same_name(name: str) -> str:
    """Return a text that is equal for all names of a class in the bundled datasets.

    Case, separators and a qualifier in brackets at the end, as in LVIS's ``car_(automobile)``, do
    not matter: ``dining table`` is ``diningtable``. A kind of a class is another class:
    ``african_elephant`` is no ``elephant``.
    """
    plain = re.sub(r"[\W_]+", "", re.sub(r"\([^()]*\)\s*$", "", name.casefold())) or name
    return _FIRST.get(plain, plain)


def common_names(names: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    """Return those of the names whose class is also among the others, in order."""
    known = {same_name(other) for other in others}
    return tuple(name for name in names if same_name(name) in known)
