from __future__ import annotations

import pytest

from fssbench.data.class_names import common_names, same_name
from fssbench.data.coco import Coco
from fssbench.data.pascal import CLASSES

PAIRS = [
    ("aeroplane", "airplane"), ("motorbike", "motorcycle"), ("diningtable", "dining table"),
    ("pottedplant", "potted plant"), ("sofa", "couch"), ("tvmonitor", "tv"),
    # COCO and LVIS v1, by the synsets of lvis-api's coco_to_synset.json
    ("car", "car_(automobile)"), ("fire hydrant", "fireplug"), ("tv", "television_set"),
    ("mouse", "mouse_(computer_equipment)"), ("cell phone", "cellular_telephone"),
    # COCO and FSS-1000
    ("donut", "doughnut"), ("hot dog", "hotdog"), ("traffic light", "Traffic_Light"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "other"), PAIRS)
def test_names_of_one_class(name: str, other: str) -> None:
    assert same_name(name) == same_name(other)


def test_other_classes_have_other_names() -> None:
    assert same_name("african_elephant") != same_name("elephant")
    assert same_name("dog/1") != same_name("dog")  # an object of a video
    assert len({same_name(name) for name in CLASSES}) == 20
    assert len({same_name(name) for name in Coco.classes}) == 80
    assert {same_name(name) for name in CLASSES} < {same_name(name) for name in Coco.classes}
    assert [same_name(name) for name in ("+", "(x)", "été")] == ["+", "(x)", "été"]


def test_common_names_are_those_of_the_first() -> None:
    found = common_names(["tv", "sofa", "person"], ["couch", "tvmonitor", "Sofa", "cat"])
    assert found == ("tv", "sofa")
    assert common_names(["a"], []) == ()
