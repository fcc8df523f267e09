"""URLs, sizes and published digests of the official archives.

The official sites publish no digests. Those below are checked by public tools and mirrors: VOC and
SBD (MD5) torchvision, SBD (SHA-256) torchvision's prototypes, VOC, COCO and LVIS (SHA-256 and
size) TensorFlow Datasets, ISIC (SHA-256) torch-em. PACO publishes a SHA-256.
FSS-1000, DAVIS, DeepGlobe, the chest X-rays, SUIM, iSAID-5i and PASCAL-Part have none.
"""

from __future__ import annotations

import attrs

GB = 1 << 30


@attrs.frozen(kw_only=True)
class Archive:
    """An official archive.

    Attributes:
        key: short name, e.g. ``sbd``.
        file: official file name.
        url: address of the download.
        holds: prefix of member names that identifies the archive; "" if it is identified by
            `matches`, or by folders of numbered images.
        matches: regular expression of a member's name that identifies the archive, or "".
        size: size of the official file in bytes, or None if it is not published.
        sha256, md5: published digests (hex), or "" if there is none.
        most_bytes: maximum total size of the unpacked members, about twice the real size.
        most_members: maximum number of members.
    """

    key: str
    file: str
    url: str
    holds: str
    matches: str = ""
    size: int | None = None
    sha256: str = ""
    md5: str = ""
    most_bytes: int
    most_members: int

    @property
    def digest(self) -> tuple[str, str] | None:
        """Published (algorithm, hex digest) of the file, or None."""
        if self.sha256:
            return "sha256", self.sha256
        return ("md5", self.md5) if self.md5 else None


def _coco(name: str, size: int, most: int, sha256: str) -> Archive:
    annotations = name.startswith("annotations")
    folder = "annotations" if annotations else "zips"
    return Archive(
        key=name,
        file=f"{name}.zip",
        url=f"http://images.cocodataset.org/{folder}/{name}.zip",
        holds=f"annotations/instances_train{name[-4:]}" if annotations else f"{name}/",
        size=size,
        sha256=sha256,
        most_bytes=most * GB,
        most_members=400_000,
    )


def _lvis(split: str, size: int, most: int, sha256: str) -> Archive:
    return Archive(
        key=f"lvis_v1_{split}",
        file=f"lvis_v1_{split}.json.zip",
        url=f"https://dl.fbaipublicfiles.com/LVIS/lvis_v1_{split}.json.zip",
        holds=f"lvis_v1_{split}.json",
        size=size,
        sha256=sha256,
        most_bytes=most * GB,
        most_members=10,
    )


def _drive(key: str) -> str:
    """Return the address of a file on the authors' Google Drive; large files need confirm=t."""
    return f"https://drive.usercontent.google.com/download?id={key}&export=download&confirm=t"


_VAL_2017 = _coco(
    "val2017", 815_585_330, 2, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"
)
_TRAIN_2017 = _coco(
    "train2017", 19_336_861_798, 40,
    "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
)  # fmt: skip

ARCHIVES: dict[str, tuple[Archive, ...]] = {
    "pascal5i": (
        Archive(
            key="voc",
            file="VOCtrainval_11-May-2012.tar",
            url="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            holds="VOCdevkit/VOC2012/",
            size=1_999_639_040,
            sha256="e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            md5="6cd6e144f989b92b3379bac3b3de84fd",
            most_bytes=4 * GB,
            most_members=120_000,
        ),
        Archive(
            key="sbd",
            file="benchmark.tgz",
            url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/"
            "semantic_contours/benchmark.tgz",
            holds="benchmark_RELEASE/",
            sha256="6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
            md5="82b4d87ceb2ed10f6038a1cba92111cb",
            most_bytes=6 * GB,
            most_members=120_000,
        ),
    ),
    "coco20i-2014": (
        _coco("annotations_trainval2014", 252_872_794, 4,
            "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009"),
        _coco("val2014", 6_645_013_297, 14,
            "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0"),
        _coco("train2014", 13_510_573_713, 28,
            "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),
    ),
    "coco20i-2017": (
        _coco("annotations_trainval2017", 252_907_541, 4,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268"),
        _VAL_2017,
        _TRAIN_2017,
    ),
    "fss1000": (
        Archive(
            key="fss",
            file="fewshot_data.zip",
            url=_drive("16TgqOeI_0P41Eh3jWQlxlRXG9KIqtMgI"),
            holds="",
            most_bytes=4 * GB,
            most_members=80_000,
        ),
    ),
    "lvis92i": (
        _lvis("val", 64_026_968, 1,
            "5cae9a3c79aadb667550c2b5dcf7f4d86e059a41ec91ef690225b667e28e9ba5"),
        _lvis("train", 350_264_821, 2,
            "334a4caa374030a7817cf050364525e910f7960f9b6968cef47cffbf3893f8ba"),
        _VAL_2017,
        _TRAIN_2017,
    ),
    # The digest is that of facebookresearch/paco, README.md.
    "paco-part": (
        Archive(
            key="paco_lvis_v1",
            file="paco_lvis_v1.zip",
            url="https://dl.fbaipublicfiles.com/paco/annotations/paco_lvis_v1.zip",
            holds="paco_lvis_v1",
            sha256="02ac4edb22c251e07853e6231d69aec3fad0a180f03de2f8c880650322debc80",
            most_bytes=8 * GB,
            most_members=1000,
        ),
        _VAL_2017,
        _TRAIN_2017,
    ),
    "davis17": (
        Archive(
            key="trainval",
            file="DAVIS-2017-trainval-480p.zip",
            url="https://data.vision.ee.ethz.ch/csergi/share/davis/DAVIS-2017-trainval-480p.zip",
            holds="DAVIS/",
            most_bytes=4 * GB,
            most_members=40_000,
        ),
    ),
    "deepglobe": (
        Archive(
            key="land",
            file="deepglobe-land-cover-classification-dataset.zip",
            url="https://www.kaggle.com/datasets/balraj98/"
            "deepglobe-land-cover-classification-dataset",
            holds="",
            matches=r"(?:.*/)?\d+_(?:sat\.jpg|mask\.png)",
            most_bytes=8 * GB,
            most_members=8000,
        ),
    ),
    "isic2018": (
        Archive(
            key="images",
            file="ISIC2018_Task1-2_Training_Input.zip",
            url="https://isic-archive.s3.amazonaws.com/challenges/2018/"
            "ISIC2018_Task1-2_Training_Input.zip",
            holds="ISIC2018_Task1-2_Training_Input/",
            sha256="80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
            most_bytes=24 * GB,
            most_members=6000,
        ),
        Archive(
            key="masks",
            file="ISIC2018_Task1_Training_GroundTruth.zip",
            url="https://isic-archive.s3.amazonaws.com/challenges/2018/"
            "ISIC2018_Task1_Training_GroundTruth.zip",
            holds="ISIC2018_Task1_Training_GroundTruth/",
            sha256="99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
            most_bytes=GB,
            most_members=6000,
        ),
    ),
    "chest-xray": (
        Archive(
            key="xrays",
            file="chest-xray-masks-and-labels.zip",
            # The address of INSID3's docs/data.md.
            url="https://www.kaggle.com/api/v1/datasets/download/nikhilpandey360/"
            "chest-xray-masks-and-labels",
            holds="",
            matches=r"(?:.*/)?Lung Segmentation/.*",
            most_bytes=24 * GB,
            most_members=12_000,
        ),
    ),
    # The address of caoql98/SDM, README.md; name and folders of INSID3's docs/data.md.
    "isaid5i": (
        Archive(
            key="tiles",
            file="iSAID_5i.zip",
            url=_drive("17PQ1iKCbaj2OjwBdCn_VBh09ntI4lxgL"),
            holds="",
            matches=r"(?:.*/)?(?:iSAID_patches/.*|(?:train|val)/"
            r"(?:images/P\d+_[\d_]+|semantic_png/[\w-]+_instance_color_RGB)\.png)",
            most_bytes=16 * GB,
            most_members=120_000,
        ),
    ),
    # The addresses of Matcher, datasets/README.md.
    "pascal-part": (
        Archive(
            key="voc2010",
            file="VOCtrainval_03-May-2010.tar",
            url="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/VOCtrainval_03-May-2010.tar",
            holds="VOCdevkit/VOC2010/",
            most_bytes=4 * GB,
            most_members=120_000,
        ),
        Archive(
            key="parts",
            file="pascal.zip",
            url=_drive("1WaM0VM6I9b3u3v3w-QzFLJI8d3NRumTK"),
            holds="",
            matches=r"(?:.*/)?(?:all_obj_part_to_image\.json"
            r"|Annotations_Part_json_merged_part_classes/.*)",
            most_bytes=4 * GB,
            most_members=60_000,
        ),
    ),
    "suim": (
        Archive(
            key="suim",
            file="SUIM.zip",
            url="https://irvlab.cs.umn.edu/resources/suim-dataset",
            holds="",
            matches=r"(?:.*/)?(?:train_val|TEST)/(?:images|masks)/.*",
            most_bytes=12 * GB,
            most_members=20_000,
        ),
    ),
}  # fmt: skip
"""Archives by dataset; names of COCO include the year."""
