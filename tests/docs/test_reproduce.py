"""The commands of docs/reproduce.md: each one is resolved on tiny data in the real layouts.

``train`` and ``evaluate`` run with ``--dry-run``. Encoders have whatever weights memory holds, and
no hash of them; the step of a training is left out: these take minutes at the papers' sizes. The
source of a package is hashed once for all commands. A checkpoint exists for later commands if an
earlier training of the page would write it. Loops and long lists of seeds run for their first
value.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import json
import pickle
import re
import shlex
from pathlib import Path

import attrs
import click
import numpy as np
import pytest
import torch
from docs_pages import DOCS, blocks
from PIL import Image
from sam_for_tests import sams_own

import fssbench.model
from fssbench.backbones import weights as weight_files
from fssbench.backbones.backbone import WeightsInfo
from fssbench.cli import _run, cli
from fssbench.data.coco_masks import CATEGORIES
from fssbench.errors import FssbenchError
from fssbench.inference import feature_files
from fssbench.matchers.checkpoint import Checkpoint
from fssbench.runtime import code
from fssbench.training import dry_run, plan

PAGES = [DOCS / "reproduce.md"]
PARSED_ONLY = {"data prepare", "data check", "data index", "board build", "board page", "doctor"}
"""Verbs that download or read the whole dataset, or read the records of finished runs."""

SIDE, IMAGES = 64, 8
"""Side of the tiny images in pixels, and their number for each class and split."""


# --- tiny data in the real layouts ----------------------------------------------------------------


def jpeg(path: Path) -> bytes:
    Image.new("RGB", (SIDE, SIDE)).save(path)
    return path.read_bytes()


def pascal(voc: Path) -> None:
    """Write VOC2012 with one class in each image, and PFENet's list beside it."""
    folders = [voc / name for name in ("JPEGImages", "SegmentationClassAug")]
    lists = voc / "ImageSets" / "Segmentation"
    for folder in (*folders, lists):
        folder.mkdir(parents=True)
    content = jpeg(voc / "one.jpg")
    names: dict[str, list[str]] = {"train_aug": [], "val": []}
    for split, year in (("train_aug", 2008), ("val", 2007)):
        for number in range(20 * IMAGES):
            name = f"{year}_{number:06d}"
            labels = np.zeros((SIDE, SIDE), np.uint8)
            labels[: SIDE - 8] = number % 20 + 1
            (folders[0] / f"{name}.jpg").write_bytes(content)
            Image.fromarray(labels).save(folders[1] / f"{name}.png")
            names[split].append(name)
        (lists / f"{split}.txt").write_text("\n".join(names[split]))


def coco(root: Path) -> None:
    """Write COCO 2014 with one class in each image."""
    (root / "annotations").mkdir(parents=True)
    content = jpeg(root / "one.jpg")
    box = [0, 0, SIDE, 0, SIDE, SIDE - 8, 0, SIDE - 8]
    for split, start in (("train", 0), ("val", 10_000)):
        (root / f"{split}2014").mkdir()
        images, annotations = [], []
        for index in range(len(CATEGORIES) * IMAGES):
            number, category = start + index, list(CATEGORIES)[index % len(CATEGORIES)]
            name = f"COCO_{split}2014_{number:012d}.jpg"
            (root / f"{split}2014" / name).write_bytes(content)
            images.append({"id": number, "file_name": name, "height": SIDE, "width": SIDE})
            annotations.append({
                "id": number, "image_id": number, "category_id": category, "iscrowd": 0,
                "segmentation": [box],
            })  # fmt: skip
        categories = [{"id": number, "name": name} for number, name in CATEGORIES.items()]
        path = root / "annotations" / f"instances_{split}2014.json"
        content_ = {"images": images, "annotations": annotations, "categories": categories}
        path.write_text(json.dumps(content_))


def fss(root: Path, lists: Path) -> None:
    """Write FSS-1000 with fewer classes, and HSNet's lists of them."""
    lists.mkdir(parents=True)
    for split in ("trn", "val", "test"):
        classes = [f"{split}{number}" for number in range(12)]
        (lists / f"{split}.txt").write_text("\n".join(classes) + "\n")
        for name in classes:
            (root / name).mkdir(parents=True)
            content = jpeg(root / name / "1.jpg")
            Image.new("L", (SIDE, SIDE), 255).save(root / name / "1.png")
            mask = (root / name / "1.png").read_bytes()
            for number in range(1, 11):
                (root / name / f"{number}.jpg").write_bytes(content)
                (root / name / f"{number}.png").write_bytes(mask)


def hsnet(splits: Path) -> None:
    """Write HSNet's validation lists of the tiny PASCAL and COCO."""
    for name in ("pascal", "coco"):
        (splits / name / "val").mkdir(parents=True)
    for fold in range(4):
        pairs = [(n, n % 20) for n in range(20 * IMAGES) if n % 20 // 5 == fold]
        lines = [f"2007_{number:06d}__{class_id + 1:02d}\n" for number, class_id in pairs]
        (splits / "pascal" / "val" / f"fold{fold}.txt").write_text("".join(lines))
        of_class = {
            c: [f"val2014/COCO_val2014_{10_000 + c + 80 * n:012d}.jpg" for n in range(IMAGES)]
            for c in range(fold, 80, 4)
        }
        (splits / "coco" / "val" / f"fold{fold}.pkl").write_bytes(pickle.dumps(of_class))


def davis(root: Path) -> None:
    """Write DAVIS-17 with one video of one object."""
    for part in ("JPEGImages", "Annotations"):
        (root / part / "480p" / "bear").mkdir(parents=True)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("bear\n")
    for number in range(4):
        jpeg(root / "JPEGImages" / "480p" / "bear" / f"{number:05d}.jpg")
        mask = Image.new("P", (SIDE, SIDE), 1)
        mask.putpalette([0, 0, 0, 128, 0, 0])
        mask.save(root / "Annotations" / "480p" / "bear" / f"{number:05d}.png")


@pytest.fixture(scope="module")
def disk(tmp_path_factory) -> Path:
    """The folder in which the pages' commands run, after its downloads."""
    folder = tmp_path_factory.mktemp("disk")
    pascal(folder / "DATA" / "VOC2012")
    coco(folder / "DATA")
    fss(folder / "DATA" / "fss1000", folder / "hsnet" / "data" / "splits" / "fss")
    hsnet(folder / "hsnet" / "data" / "splits")
    lists = folder / "PFENet" / "lists" / "pascal"
    lists.mkdir(parents=True)
    lines = (
        f"JPEGImages/2008_{n:06d}.jpg SegmentationClassAug/2008_{n:06d}.png" for n in range(140)
    )
    (lists / "voc_sbd_merge_noduplicate.txt").write_text("\n".join(lines))
    davis(folder / "DATA" / "DAVIS")
    (folder / "DATA" / "SA1B").mkdir()
    for number in range(240):
        jpeg(folder / "DATA" / "SA1B" / f"{number}.jpg")
    torch.save(sams_own()[2], folder / "sam_vit_h_4b8939.pth")  # the decoder alone
    return folder


# --- commands -------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    """Return the words of each command of a page, of loops for the first value alone."""
    found = []
    for block in blocks(text, "console"):
        for line in re.findall(r"^\$ (.+)$", block.replace("\\\n", " "), re.MULTILINE):
            loop = re.fullmatch(r"for (\w+) in (\S+) [^;]*; do (.+); done", line)
            if loop:
                line = re.sub(rf"\${loop[1]}\b", loop[2], loop[3])
            found += [shlex.split(part, comments=True) for part in line.split("; ")]
    return [words for words in found if words]


def verb_of(words: list[str]) -> str:
    """Return the verb of a command, e.g. ``data prepare``, after parsing all its options."""
    command: click.Command = cli
    names, rest = [], words[1:]
    while isinstance(command, click.Group):
        name, *rest = rest
        inner = command.get_command(click.Context(command), name)
        assert inner is not None, f"{' '.join(words)}: there is no {name}"
        command = inner
        names.append(name)
    command.make_context(" ".join(names), list(rest))
    return " ".join(names)


class Planned(Exception):
    """The plan of a training, in place of its step."""

    def __init__(self, made: plan.Plan) -> None:
        super().__init__("planned")
        self.plan = made


class Trainings:
    """The checkpoints that the trainings of a page would write, by path."""

    def __init__(self) -> None:
        self.made: dict[str, Checkpoint] = {}

    def add(self, made: plan.Plan) -> None:
        folder = made.settings.out / made.folder_name()
        header = {**made.facts(), "shots": made.recipe.shots, "selected_on": "novel"}
        if made.stage.trains_backbone or (made.init is not None and made.init.holds_backbone):
            header["holds_backbone"] = True
        for name in ("last", "best") if made.validates else ("last",):
            path = folder / f"{name}.safetensors"
            assert str(path) not in self.made, f"{path}: two commands train the same; give --out"
            digest = hashlib.sha256(str(path).encode()).hexdigest()
            weights = made.matcher.state_dict()
            self.made[str(path)] = Checkpoint(
                path=path, sha256=digest, header=header, weights=weights
            )

    def expand(self, word: str) -> str:
        """Return the only path that a pattern of the shell matches."""
        if "*" not in word or not word.endswith(".safetensors"):
            return word
        matching = fnmatch.filter(self.made, word)
        assert len(matching) == 1, f"{word}: matches {matching or list(self.made)}"
        return matching[0]

    def copy(self, source: str, target: str) -> None:
        self.made[target] = attrs.evolve(self.read(Path(source)), path=Path(target))

    def read(self, path: str | Path, option: str = "--checkpoint") -> Checkpoint:
        del option
        if str(path) not in self.made:
            raise FssbenchError(f"{path}: no command of the page writes this checkpoint")
        return self.made[str(path)]


@pytest.fixture
def trainings(disk, monkeypatch) -> Trainings:
    made = Trainings()
    own_resolve, own_build = weight_files.resolve, weight_files.build

    def resolve(weights, *, backbone, tag="", url="", shipped=None):
        if weights == weight_files.NONE:
            return own_resolve(weights, backbone=backbone)
        source = weights if weights in ("pretrained", "random") else "file"
        name = tag if source == "pretrained" else Path(weights).name
        digest = hashlib.sha256(f"{backbone} {weights}".encode()).hexdigest()
        return weight_files.Source(info=WeightsInfo(source=source, name=name, sha256=digest))

    def build(make, source, *, backbone, rename=dict):
        if source.info.source == weight_files.NONE:
            return own_build(make, source, backbone=backbone)
        with torch.device("meta"), monkeypatch.context() as patch:
            # Slow without memory, and their values are dropped below.
            for name in ("uniform_", "normal_", "erfinv_", "clamp_"):
                patch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor)
            module = make()
        return module.to_empty(device="cpu")

    def planned(plan_, *arguments, **keywords):
        raise Planned(plan_)

    monkeypatch.chdir(disk)
    monkeypatch.setattr(code, "_describe", functools.cache(code._describe))
    monkeypatch.setattr(feature_files, "_encoder_identity", lambda name, _: {"backbone": name})
    monkeypatch.setattr(weight_files, "resolve", resolve)
    monkeypatch.setattr(weight_files, "build", build)
    monkeypatch.setattr(plan, "read_checkpoint", made.read)
    monkeypatch.setattr(fssbench.model, "read_checkpoint", made.read)
    monkeypatch.setattr(dry_run, "Trainer", planned)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_every_command_resolves(path, trainings, capsys):
    seen = set()
    for words in commands(path.read_text()):
        words = [trainings.expand(word) for word in words]
        if words[0] == "cp":
            trainings.copy(*words[1:])
        if words[0] != "fssbench":
            continue
        words = [re.sub(r"^0,1,2,.*", "0", word) for word in words]  # of many seeds the first one
        verb = verb_of(words)
        seen.add(verb)
        line = shlex.join(words)
        if verb == "train":
            try:
                status = _run([*words[1:], "--dry-run", "--workers", "0"])
            except Planned as found:
                trainings.add(found.plan)
                continue
            pytest.fail(f"{line}: {status}, {capsys.readouterr().err}")
        elif verb == "evaluate":
            status = _run([*words[1:], "--dry-run", "--device", "cpu", "--workers", "0"])
            assert status == 0, f"{line}: {capsys.readouterr().err}"
            assert " episodes, " in capsys.readouterr().out
        elif verb not in PARSED_ONLY:
            assert _run(words[1:]) == 0, f"{line}: {capsys.readouterr().err}"
    assert {"train", "evaluate"} <= seen


def test_the_test_finds_wrong_commands(trainings):
    """A page whose checkpoint is of another training, or of two, is refused."""
    assert commands(
        "```console\n$ for f in 2 3; do fssbench train x \\\n --fold $f; done\n```"
    ) == [["fssbench", "train", "x", "--fold", "2"]]
    with pytest.raises(FssbenchError, match="no command of the page writes"):
        trainings.read(Path("trainings/none/last.safetensors"))
    for name in ("a", "b"):
        trainings.made[f"trained/{name}/last.safetensors"] = None
    with pytest.raises(AssertionError, match="matches"):
        trainings.expand("trained/*/last.safetensors")
    assert trainings.expand("trained/a*/last.safetensors") == "trained/a/last.safetensors"
