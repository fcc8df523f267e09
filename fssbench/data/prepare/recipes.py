"""The datasets that can be prepared: their archives, what is unpacked, and the complete counts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs

from fssbench.data import pascal_part
from fssbench.data.cross_domain import isic
from fssbench.data.prepare import coco, davis, deepglobe, fss1000, paco, pascal, plain_files
from fssbench.data.prepare.archives import ARCHIVES, Archive
from fssbench.data.prepare.members import Member
from fssbench.errors import FssbenchError, near

Unpack = Callable[[Iterator[Member], Path], Iterator[str]]


@attrs.frozen(kw_only=True)
class Recipe:
    """Steps to prepare a dataset.

    Attributes:
        name: name of the dataset; for COCO with the year.
        unpack: functions that write the files of each archive, by ordered archive key.
        finish: last step; returns counts of the files.
        made: created folders, which must be empty or missing at the start.
        root: folder for ``--data-root``, relative to ``--to``.
        official: counts of the complete dataset.
    """

    name: str
    unpack: Mapping[str, Unpack]
    finish: Callable[[Path], Mapping[str, int]]
    made: tuple[str, ...]
    root: str = "."
    official: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def dataset(self) -> str:
        """Registered name of the dataset."""
        return re.sub(r"-\d{4}$", "", self.name)

    @property
    def archives(self) -> tuple[Archive, ...]:
        """Official archives of the dataset."""
        return ARCHIVES[self.name]


def _coco(year: str, train: int, val: int) -> Recipe:
    return Recipe(
        name=f"coco20i-{year}",
        unpack={
            f"annotations_trainval{year}": coco.unpack_annotations,
            f"val{year}": coco.unpack_images(f"val{year}"),
            f"train{year}": coco.unpack_images(f"train{year}"),
        },
        finish=coco.finish(year),
        made=(f"train{year}", f"val{year}"),
        official={"annotations": 2, f"train{year}": train, f"val{year}": val},
    )


def _one_folder(
    name: str, folder: str, unpack: Mapping[str, Unpack], *, images: str, masks: str,
    official: tuple[int, int],
) -> Recipe:  # fmt: skip
    """Return the recipe of a dataset of images and masks in one folder."""
    return Recipe(
        name=name,
        unpack=unpack,
        finish=plain_files.finish(folder, images=images, masks=masks),
        made=(folder,),
        root=folder,
        official=dict(zip(("images", "masks"), official, strict=True)),
    )


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="pascal5i",
            unpack={"voc": pascal.unpack_voc, "sbd": pascal.unpack_sbd},
            finish=pascal.finish,
            made=(pascal.ROOT,),
            official={
                "JPEGImages": 17_125, "SegmentationClass": 2913, "SegmentationClassAug": 12_031,
                "val.txt": 1449, "train_aug.txt": 10_582,
            },
        ),
        _coco("2014", 82_783, 40_504),
        _coco("2017", 118_287, 5000),
        Recipe(
            name="fss1000",
            unpack={"fss": fss1000.unpack},
            finish=fss1000.finish,
            made=(fss1000.ROOT,),
            root=fss1000.ROOT,
            official={"classes": 1000, "pictures": 10_000, "masks": 10_000},
        ),
        Recipe(
            name="paco-part",
            unpack={
                "paco_lvis_v1": paco.unpack_annotations,
                "val2017": paco.unpack_images("val2017"),
                "train2017": paco.unpack_images("train2017"),
            },
            finish=paco.finish,
            made=(paco.ROOT,),
            root=paco.ROOT,
            official={"annotations": 3, "train2017": 118_287, "val2017": 5000},
        ),
        Recipe(
            name="davis17",
            unpack={"trainval": davis.unpack},
            finish=davis.finish,
            made=(davis.ROOT,),
            root=davis.ROOT,
            official={"val.txt": 30},
        ),
        _one_folder(
            "deepglobe", "DeepGlobe", {"land": deepglobe.unpack_tiles},
            images="images/*.png", masks="masks/*.png", official=(9174, 9174),
        ),
        _one_folder(
            "isic2018", "ISIC2018",
            dict.fromkeys(("images", "masks"), plain_files.unpack("ISIC2018")),
            images=f"{isic.IMAGES}/*.jpg", masks=f"{isic.MASKS}/*.png", official=(2594, 2594),
        ),
        _one_folder(
            "chest-xray", "ChestXray", {"xrays": plain_files.unpack("ChestXray")},
            images="CXR_png/*.png", masks="masks/*.png", official=(800, 704),
        ),
        _one_folder(
            "suim", "SUIM", {"suim": plain_files.unpack("SUIM")},
            images="*/images/*.jpg", masks="*/masks/*.bmp", official=(1635, 1635),
        ),
        _one_folder(
            "isaid5i", "iSAID-5i", {"tiles": plain_files.unpack("iSAID-5i")},
            images="val/images/*.png", masks="val/semantic_png/*.png", official=(6363, 6363),
        ),
        Recipe(
            name="pascal-part",
            unpack=dict.fromkeys(("voc2010", "parts"), plain_files.unpack("Pascal-Part")),
            finish=plain_files.finish(
                "Pascal-Part", JPEGImages=f"{pascal_part.IMAGES}/*.jpg",
                annotations=f"{pascal_part.PARTS}/*.json", lists=pascal_part.LIST,
            ),
            made=("Pascal-Part",),
            root="Pascal-Part",
            official={"JPEGImages": 11_321},
        ),
        Recipe(
            name="lvis92i",
            unpack={
                "lvis_v1_val": coco.unpack_lvis,
                "lvis_v1_train": coco.unpack_lvis,
                "val2017": coco.unpack_images("val2017"),
                "train2017": coco.unpack_images("train2017"),
            },
            finish=coco.finish("2017", "lvis_v1_*.json"),
            made=("train2017", "val2017"),
            official={"annotations": 2, "train2017": 118_287, "val2017": 5000},
        ),
    )
}  # fmt: skip


def find_recipe(dataset: str, year: str = "2014") -> Recipe:
    """Return the recipe of a dataset.

    Raises:
        FssbenchError: the dataset has no recipe.
    """
    name = {"pascal": "pascal5i", "coco": "coco20i"}.get(dataset, dataset)
    if name == "coco20i":
        name = f"{name}-{year}"
    if name not in RECIPES:
        known = list(dict.fromkeys(recipe.dataset for recipe in RECIPES.values()))
        raise FssbenchError(
            f"{dataset!r} cannot be prepared; {near(dataset, known)}known: {', '.join(known)}"
        )
    return RECIPES[name]
