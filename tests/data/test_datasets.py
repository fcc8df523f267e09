from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fssbench.data import fssbench_datasets
from fssbench.data.coco import CocoConfig
from fssbench.data.dataset import Dataset
from fssbench.data.folder import FolderConfig
from fssbench.data.fss1000 import Fss1000Config
from fssbench.data.pascal import PascalConfig
from fssbench.errors import FssbenchError
from fssbench.options import configure, options_class
from fssbench.registry import load

SPECS = {spec.name: spec for spec in fssbench_datasets()}
LAYOUTS = ["coco-json", "coco20i", "davis17", "folder", "fss1000", "labels", "pascal5i",
           "deepglobe", "isic2018", "chest-xray", "suim", "lvis92i", "isaid5i",
           "paco-part", "pascal-part"]  # fmt: skip


def test_the_datasets() -> None:
    assert set(SPECS) == {*LAYOUTS, "images", "shapes"}
    for name in LAYOUTS:
        assert issubclass(load(SPECS[name]), Dataset)
        assert load(SPECS[name]).name == name
        assert SPECS[name].layout


def test_specs_import_nothing_heavy() -> None:
    code = (
        "import sys, fssbench.data; fssbench.data.fssbench_datasets(); "
        "print([name for name in ('numpy', 'torch', 'PIL', 'pycocotools') if name in sys.modules])"
    )
    folder = Path(__file__).resolve().parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert run.stdout == "[]\n", run.stderr


def test_options_are_given_as_text() -> None:
    assert configure(SPECS["coco20i"], {"year": "2017"}) == CocoConfig(year="2017")
    assert configure(SPECS["fss1000"], {"lists": "a/b"}) == Fss1000Config(lists="a/b")
    wanted = PascalConfig(labels="SegmentationClass")
    assert configure(SPECS["pascal5i"], {"labels": "SegmentationClass"}) == wanted
    assert options_class(SPECS["folder"]) is FolderConfig
    with pytest.raises(FssbenchError, match="one of auto, 2014, 2017"):
        configure(SPECS["coco20i"], {"year": "2015"})


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_root_is_needed(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    config = configure(spec, {})
    with pytest.raises(FssbenchError, match=f"^{name} needs --data-root, the folder that holds"):
        load(spec)(root=None, config=config)
    for root in (tmp_path, tmp_path / "no"):
        with pytest.raises(FssbenchError, match="--data-root must name") as raised:
            load(spec)(root=root, config=config)
        assert str(root) in str(raised.value)
