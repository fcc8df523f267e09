"""Official image counts of the public datasets, for comparison with a dataset on the disk.

The sources are independent of fssbench: PASCAL on a public copy of SegmentationClassAug
(its images of at least 2 * 32 * 32 pixels of a class are the 365, 467, 734 and 357 of the lists of
BAM and HDMNet), COCO 2014 on HSNet's lists (by the same rule of 2 * 32 * 32 pixels), DAVIS 2017 on
the results that its evaluation code publishes, one mask for each frame. ISIC 2018 on PATNet's list
class_id.csv; chest X-rays on the files of the Kaggle set, of which the Shenzhen masks are named
``_mask``; SUIM on its authors' README (1,525 and 110 images); LVIS v1 on the converter of
DatasetNinja (dataset-ninja/lvis, SUMMARY.md and src/settings.py); the tiles of iSAID-5i on INSID3's
docs/data.md.
"""

from __future__ import annotations

import attrs

from fssbench.data.dataset import Dataset

_PASCAL_VAL = (
    90, 79, 103, 72, 96, 74, 127, 119, 123, 71, 75, 128, 79, 76, 446, 85, 57, 90, 84, 74,
)  # fmt: skip
_PASCAL_TRAIN = (
    586, 486, 698, 461, 654, 385, 1086, 1000, 1081, 264, 528, 1177, 444, 482, 3898, 487,
    299, 491, 500, 548,
)  # fmt: skip
_COCO_VAL_2014 = (
    19217, 748, 2754, 1073, 727, 1213, 1257, 1565, 816, 572, 411, 385, 172, 1379, 713, 1291,
    1203, 925, 456, 616, 699, 335, 655, 839, 805, 1135, 998, 154, 709, 270, 434, 272, 142,
    404, 173, 159, 655, 804, 687, 1351, 516, 1733, 419, 470, 312, 1577, 551, 298, 577, 380,
    521, 397, 331, 916, 423, 790, 3648, 1375, 1198, 1272, 3722, 1116, 1416, 1070, 200, 302,
    619, 446, 389, 925, 38, 1097, 773, 1159, 803, 676, 170, 644, 37, 94,
)  # fmt: skip
# Tiles by PATNet's script: classes by IFA (issue 14), images by readers of PATNet (issue 17).
_DEEPGLOBE = (6891, 4189, 4333, 1564, 1370, 2195)


@attrs.frozen(kw_only=True)
class Known:
    """Counts of a split of the complete dataset.

    Attributes:
        images: number of images, or None.
        classes: number of images with at least `pixels` pixels of each class id; () if unknown.
        pixels: minimum number of pixels of a class in a counted image.
        each: number of images of every class, or None if the numbers differ.
    """

    images: int | None = None
    classes: tuple[int, ...] = ()
    pixels: int = 1
    each: int | None = None


_KNOWN = {
    "pascal5i SegmentationClassAug val": Known(images=1449, classes=_PASCAL_VAL),
    "pascal5i SegmentationClassAug train": Known(images=10_582, classes=_PASCAL_TRAIN),
    "pascal5i SegmentationClass val": Known(images=1449, classes=_PASCAL_VAL),
    "pascal5i SegmentationClass train": Known(images=1464),
    "coco20i 2014 val": Known(images=40_504, classes=_COCO_VAL_2014, pixels=2 * 32 * 32),
    "coco20i 2014 train": Known(images=82_783),
    "coco20i 2017 val": Known(images=5000),
    "coco20i 2017 train": Known(images=118_287),
    "fss1000 lists train": Known(images=5200, each=10),
    "fss1000 lists val": Known(images=2400, each=10),
    "fss1000 lists test": Known(images=2400, each=10),
    "fss1000 all train": Known(images=10_000, each=10),
    "fss1000 all val": Known(images=10_000, each=10),
    "fss1000 all test": Known(images=10_000, each=10),
    # facebookresearch/paco, docs/PACO_DATASET.md
    "paco-part  train": Known(images=45_790),
    "paco-part  val": Known(images=2410),
    "paco-part  test": Known(images=9443),
    "davis17  val": Known(images=1999),
    "deepglobe tiles test": Known(images=9174, classes=_DEEPGLOBE),
    "deepglobe folders test": Known(images=sum(_DEEPGLOBE), classes=_DEEPGLOBE),
    "isic2018  test": Known(images=2594, classes=(1867, 208, 519)),
    "chest-xray shenzhen test": Known(images=566, each=566),
    "chest-xray montgomery test": Known(images=138, each=138),
    "chest-xray all test": Known(images=704, each=704),
    "suim parts test": Known(images=1635),
    "isaid5i  val": Known(images=6363),
    "lvis92i  val": Known(images=19_809),
    "lvis92i  train": Known(images=100_170),
}


def known(dataset: Dataset, split: str) -> Known | None:
    """Return the official counts of a split, or None if the dataset has none."""
    kinds = {
        "pascal5i": getattr(dataset, "labels", ""),
        "coco20i": getattr(dataset, "year", ""),
        "fss1000": "all" if getattr(dataset, "lists", None) is None else "lists",
        "deepglobe": getattr(dataset, "layout", ""),
        "chest-xray": getattr(dataset, "source", ""),
        "suim": getattr(dataset, "layout", ""),
    }
    return _KNOWN.get(f"{dataset.name} {kinds.get(dataset.name, '')} {split}")
