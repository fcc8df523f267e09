"""HSNet's lists and episodes, compared with those of its own code."""

from __future__ import annotations

import gzip
import json
import logging
import os
import pickle
import re
from collections import Counter
from pathlib import Path

import attrs
import methods_for_tests
import numpy as np
import pytest
import torch
from PIL import Image

from fssbench import build, registry
from fssbench.cli import _run
from fssbench.data.geometry import Geometry
from fssbench.episodes.episode import Episode
from fssbench.episodes.protocol import build_manifest
from fssbench.errors import FssbenchError
from fssbench.inference.chunk_loader import ChunkTask, load_chunks
from fssbench.results.record import Record
from fssbench.specs import ProtocolSpec

REPOSITORY = Path(__file__).parents[3]

COCO_FOLD0 = (19217, 727, 816, 172, 1203, 699, 805, 709, 142, 655,
              516, 312, 577, 331, 3648, 3722, 200, 389, 773, 170)  # fmt: skip
"""Images of each class in HSNet's ``coco/val/fold0.pkl``."""


def protocol(name):
    return registry.registry().get(ProtocolSpec, name)


@pytest.fixture
def golden():
    """Return (class id, query, supports) of the episodes of HSNet's code for fold 0."""
    folder = REPOSITORY.parent / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")

    def read(dataset, shots):
        name = f"episodes_{dataset}_fold0_{shots}shot.txt.gz"
        lines = gzip.decompress((folder / name).read_bytes()).decode().splitlines()
        found = [(int(c), *images) for c, *images in map(str.split, lines)]
        assert len(found) == 1000
        return found

    return read


@pytest.fixture
def splits():
    """Return HSNet's own ``data/splits``, if the environment names it."""
    folder = os.environ.get("FSSBENCH_HSNET_LISTS")
    if not folder:
        pytest.skip("FSSBENCH_HSNET_LISTS does not name HSNet's data/splits")
    return Path(folder)


def lines_of(manifest):
    return [(e.class_id, e.query, *e.support) for e in manifest.episodes]


def of_coco(lines):
    return [(c, *(re.sub(r".*_(\d{12})\.jpg", r"\1", i) for i in images)) for c, *images in lines]


def write_pascal(folder, pairs, fold=0):
    path = folder / "pascal" / "val" / f"fold{fold}.txt"
    path.parent.mkdir(parents=True)
    path.write_text("".join(f"{image}__{c + 1:02d}\n" for c, image in pairs))
    return path


def write_coco(folder, lists, fold=0):
    path = folder / "coco" / "val" / f"fold{fold}.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(lists, 3))
    return path


def write_fss(folder, text):
    path = folder / "fss" / "test.txt"
    path.parent.mkdir(parents=True)
    path.write_text(text)


# --- the authors' episodes ------------------------------------------------------------------------


@pytest.mark.parametrize("shots", [1, 5])
def test_pascal_episodes_are_those_of_the_authors_code(golden, shots, tmp_path, make_pascal):
    """Queries are in list order, so the first ones are the list itself."""
    wanted = golden("pascal", shots)
    queries = [(c, query) for c, query, *_ in wanted]
    length = queries.index(queries[0], 1)
    assert length == 346
    pairs = queries[:length]
    write_pascal(tmp_path, pairs)
    dataset = make_pascal({image for _, image in pairs})
    manifest = build_manifest(
        protocol("pascal5i/hsnet-1k"), dataset, fold=0, shots=shots, lists=tmp_path
    )
    assert lines_of(manifest) == wanted


@pytest.mark.parametrize("shots", [1, 5])
def test_coco_draws_are_those_of_the_authors_code(golden, shots, tmp_path, make_coco):
    """With the lengths of the lists alone: every position drawn stands for one image, and only it.

    Classes must be equal outright.
    """
    lists = {
        c: [f"{c:06d}{n:06d}" for n in range(length)]
        for c, length in zip(range(0, 80, 4), COCO_FOLD0, strict=True)
    }
    write_coco(
        tmp_path, {c: [f"val2014/COCO_val2014_{i}.jpg" for i in ids] for c, ids in lists.items()}
    )
    dataset = make_coco({image for images in lists.values() for image in images})
    manifest = build_manifest(
        protocol("coco20i/hsnet-1k"), dataset, fold=0, shots=shots, lists=tmp_path
    )
    places: dict[str, str] = {}
    seen = Counter()
    for found, wanted in zip(lines_of(manifest), of_coco(golden("coco", shots)), strict=True):
        assert found[0] == wanted[0]
        for place, image in zip(found[1:], wanted[1:], strict=True):
            assert places.setdefault(place, image) == image
            seen[place] += 1
    assert sum(count > 1 for count in seen.values()) > 100  # often enough to notice
    by_class = Counter((place[:6], image) for place, image in places.items())
    assert set(by_class.values()) == {1}


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("dataset", ["pascal", "coco"])
def test_episodes_from_the_authors_own_files(golden, splits, request, dataset, shots):
    name = {"pascal": "pascal5i", "coco": "coco20i"}[dataset]
    wanted = golden(dataset, shots)
    wanted = of_coco(wanted) if dataset == "coco" else wanted
    # The full dataset has all listed images.
    if dataset == "coco":
        listed = pickle.loads((splits / "coco" / "val" / "fold0.pkl").read_bytes())
        images = {i[-16:-4] for images in listed.values() for i in images}
    else:
        lines = (splits / "pascal" / "val" / "fold0.txt").read_text().split()
        images = {line[:11] for line in lines}
    made = request.getfixturevalue(f"make_{dataset}")(images)
    manifest = build_manifest(protocol(f"{name}/hsnet-1k"), made, fold=0, shots=shots, lists=splits)
    assert lines_of(manifest) == wanted


@pytest.mark.parametrize("shots", [1, 5])
def test_fss_episodes_are_those_of_the_authors_calls(shots, tmp_path, make_fss):
    """Repeat the calls of HSNet's FSS-1000 loader on its paths."""
    classes = ["abe's_flyingfish", "ak47", "bus", "zebra"]
    write_fss(tmp_path, "zebra\r\nbus\r\nak47\r\n")
    manifest = build_manifest(
        protocol("fss1000/hsnet"), make_fss(classes), fold=0, shots=shots, lists=tmp_path
    )
    generator = np.random.RandomState(0)
    wanted = []
    for name in sorted(["zebra", "bus", "ak47"]):
        for query in sorted(f"root/{name}/{n}.jpg" for n in range(1, 11)):
            supports = []
            while len(supports) < shots:
                drawn = generator.choice(range(1, 11), 1, replace=False)[0]
                if f"root/{name}/{drawn}.jpg" != query:
                    supports.append(f"{name}/{drawn}")
            wanted.append((classes.index(name), query[5:-4], *supports))
    assert lines_of(manifest) == wanted
    assert [c for c, _ in manifest.classes] == [1, 2, 3]
    assert [e.query for e in manifest.episodes[:3]] == ["ak47/1", "ak47/10", "ak47/2"]


def test_supports_may_repeat_but_are_never_the_query(tmp_path, make_pascal):
    pairs = [(c, f"{c}_{n}") for c in range(5) for n in range(3)]
    write_pascal(tmp_path, pairs)
    manifest = build_manifest(
        protocol("pascal5i/hsnet-1k"), make_pascal({i for _, i in pairs}), fold=0, shots=3,
        lists=tmp_path,
    )  # fmt: skip
    assert [(e.class_id, e.query) for e in manifest.episodes] == [
        pairs[n % 15] for n in range(1000)
    ]
    assert any(len(set(e.support)) < 3 for e in manifest.episodes)
    for episode in manifest.episodes:
        assert episode.query not in episode.support
        assert {(episode.class_id, image) for image in episode.support} <= set(pairs)


def test_the_seed_counts_and_the_global_generator_is_left_alone(tmp_path, make_pascal):
    pairs = [(c, f"{c}_{n}") for c in range(5) for n in range(9)]
    write_pascal(tmp_path, pairs)

    def digest(seed):
        return build_manifest(
            protocol("pascal5i/hsnet-1k"), make_pascal({i for _, i in pairs}), fold=0, shots=1,
            seed=seed, lists=tmp_path,
        ).digest  # fmt: skip

    np.random.seed(7)  # as a method might
    first = digest(0)
    state = np.random.get_state()[1].copy()
    assert digest(0) == first != digest(1)
    assert (np.random.get_state()[1] == state).all()
    with pytest.raises(FssbenchError, match="--seed -1: NumPy's generator takes 0 to"):
        digest(-1)


# --- wrong lists ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2007_000033 1", r"line 2: '2007_000033 1' is not <image id>__<class number>"),
        ("2007_000033__", r"line 2: '2007_000033__' is not"),
        ("2007_000033__xx", "line 2: "),
        ("__01", "line 2: "),
        ("2007_000033__06", "line 2: class number 06 is not in fold 0, which has 1 to 5"),
        ("2007_000033__00", "line 2: class number 00 is not in fold 0"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(tmp_path, make_pascal, line, message):
    path = write_pascal(tmp_path, [(0, "a")])
    path.write_text(f"a__01\n{line}\n")
    with pytest.raises(FssbenchError, match=rf"fold0\.txt, {message}"):
        build_manifest(
            protocol("pascal5i/hsnet-1k"), make_pascal(["a"]), fold=0, shots=1, lists=tmp_path
        )


def test_lists_that_lack_a_class_an_image_or_a_second_image(tmp_path, make_pascal):
    pairs = [(c, f"{c}_{n}") for c in range(5) for n in range(2)]
    hsnet = protocol("pascal5i/hsnet-1k")
    dataset = make_pascal({i for _, i in pairs})
    path = write_pascal(tmp_path, pairs[:8])
    with pytest.raises(FssbenchError, match=r"fold0\.txt: lists no image of 4$"):
        build_manifest(hsnet, dataset, fold=0, shots=1, lists=tmp_path)
    path.write_text("".join(f"{i}__0{c + 1}\n" for c, i in pairs[:9]))
    with pytest.raises(FssbenchError, match="the lists have one image of 4; its support needs"):
        build_manifest(hsnet, dataset, fold=0, shots=1, lists=tmp_path)
    path.write_text("".join(f"{i}__0{c + 1}\n" for c, i in pairs))
    with pytest.raises(FssbenchError, match="1 listed images, 0_0 for one, are not in split 'val'"):
        build_manifest(
            hsnet, make_pascal({i for _, i in pairs} - {"0_0"}), fold=0, shots=1, lists=tmp_path
        )


def test_other_lists_than_the_official_ones_are_reported(tmp_path, make_pascal, caplog):
    pairs = [(c, f"{c}_{n}") for c in range(5) for n in range(2)]
    write_pascal(tmp_path / "data" / "splits", pairs)  # a checkout of HSNet serves as well
    with caplog.at_level(logging.WARNING):
        build_manifest(
            protocol("pascal5i/hsnet-1k"), make_pascal({i for _, i in pairs}), fold=0, shots=1,
            lists=tmp_path,
        )  # fmt: skip
    assert "lists 10 pairs; the authors' own list has 346" in caplog.text


def test_a_coco_list_without_a_class(tmp_path, make_coco):
    write_coco(tmp_path, {c: ["val2014/COCO_val2014_000000000001.jpg"] for c in range(4, 80, 4)})
    with pytest.raises(FssbenchError, match=r"fold0\.pkl: lists no image of 0$"):
        build_manifest(protocol("coco20i/hsnet-1k"), make_coco([]), fold=0, shots=1, lists=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("bus\nbüs\n", "line 2: 'büs' is no test class"), ("bus\n\nbus\n", "line 3: lists bus")],
)
def test_wrong_classes_of_fss(tmp_path, make_fss, text, message):
    write_fss(tmp_path, text)
    with pytest.raises(FssbenchError, match=rf"test\.txt, {message}"):
        build_manifest(
            protocol("fss1000/hsnet"), make_fss(["bus"]), fold=0, shots=1, lists=tmp_path
        )


def test_a_drawn_order_needs_a_number_of_episodes(tmp_path, make_coco):
    ids = [f"{n:012d}" for n in range(2)]
    paths = [f"val2014/COCO_val2014_{i}.jpg" for i in ids]
    write_coco(tmp_path, dict.fromkeys(range(0, 80, 4), paths))
    endless = attrs.evolve(protocol("coco20i/hsnet-1k"), episodes=None)
    with pytest.raises(FssbenchError, match="hsnet-class-uniform needs a protocol"):
        build_manifest(endless, make_coco(ids), fold=0, shots=1, lists=tmp_path)


# --- scoring --------------------------------------------------------------------------------------


def test_scored_as_hsnet_scores():
    """Input size everywhere; 255 is left out on PASCAL; COCO has painted label maps without it."""
    found = {name: protocol(f"{name}") for name in ("pascal5i/hsnet-1k", "coco20i/hsnet-1k")}
    assert {spec.score_size for spec in found.values()} == {"input"}
    assert [spec.void for spec in found.values()] == ["ignore", "background"]
    assert protocol("fss1000/hsnet").score_size == "input"
    found |= {name: protocol(name) for name in ("pascal5i/hdmnet-1k", "coco20i/hdmnet-10k")}
    for name in ("pascal5i/hdmnet-1k", "coco20i/hdmnet-10k"):
        assert found[name].score_size == "original"
    for name, spec in found.items():
        painted = {"overlaps": "painted"} if name.startswith("coco") else {}
        assert spec.data_options == painted
        assert spec.void == ("background" if painted else "ignore")


def test_the_dataset_of_a_protocol_has_its_options_unless_the_user_overrides_them(tmp_path):
    content = {"images": [], "annotations": [], "categories": []}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances.json").write_text(json.dumps(content))
    made = [
        build.protocol_dataset(name, tmp_path, **options)
        for name, options in (
            ("coco20i/hsnet-1k", {}),
            ("coco20i/hsnet-1k", {"overlaps": "union"}),
            ("coco20i/v1-1k", {}),
        )
    ]
    assert [each.overlaps for each in made] == ["painted", "union", "union"]


@pytest.mark.parametrize(("void", "value"), [("ignore", 255), ("background", 0)])
@pytest.mark.parametrize(("score_size", "side"), [("original", 8), ("input", 16)])
def test_void_pixels_of_the_target(fake, monkeypatch, void, value, score_size, side):
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[:2], mask[2:4] = 1, 255
    monkeypatch.setattr(fake, "mask", lambda image_id, class_id: mask)
    episode = Episode(index=0, class_id=0, query="im000", support=("im008",))
    task = ChunkTask(chunk=0, episodes=(episode,), images=())
    (data,) = load_chunks(
        [task], fake, Geometry(size=16), score_size=score_size, workers=0, void=void
    )
    (target,) = data.targets
    assert target.shape == (side, side)
    assert (target[: side // 4] == 1).all()
    assert (target[side // 4 : side // 2] == value).all()
    assert (target[side // 2 :] == 0).all()
    assert (data.support_masks[0, 0][4:8] == 255).all()  # a support's void is the method's affair


# --- command line ---------------------------------------------------------------------------------


@pytest.fixture
def small_fss(tmp_path):
    """Write two classes of ten pictures with a bright disc, and HSNet's list of one class."""
    generator = np.random.default_rng(0)
    for name in ("bus", "coin"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(1, 11):
            mask = np.zeros((24, 32), np.uint8)
            mask[4:16, number : number + 12] = 255
            image = generator.integers(0, 60, (24, 32, 3), np.uint8) + (mask[..., None] // 2)
            Image.fromarray(image).save(tmp_path / "data" / name / f"{number}.jpg")
            Image.fromarray(mask).save(tmp_path / "data" / name / f"{number}.png")
    write_fss(tmp_path / "splits", "coin\nbus\n")
    return tmp_path


def test_building_and_evaluating_with_lists(small_fss, capsys, monkeypatch):
    monkeypatch.chdir(small_fss)
    data = ["--protocol", "fss1000/hsnet", "--data-root", "data", "--lists", "splits"]
    assert _run(["episodes", "build", *data, "--shots", "1,5"]) == 0
    assert capsys.readouterr().out.count(": 20 episodes") == 2
    evaluate = ["evaluate", "mixer", "-p", methods_for_tests.__file__, "--backbone", "pixels"]
    assert _run([*evaluate, *data, "--limit", "4", "--workers", "0"]) == 0
    registry.use_plugins([])
    capsys.readouterr()
    (path,) = Path("runs").rglob("record.json")
    record = Record.read(path)
    assert record.score_size == "input"
    assert record.protocol == "fss1000/hsnet"


def test_wrong_lists_end_with_one_line(small_fss, capsys, monkeypatch):
    monkeypatch.chdir(small_fss)
    data = ["--protocol", "fss1000/hsnet", "--data-root", "data"]
    for verb in (["episodes", "build"], ["evaluate", "--backbone", "filterbank"]):
        assert _run([*verb, *data]) == 2
        told = capsys.readouterr().err.strip().splitlines()
        assert "give their folder: --lists FOLDER" in told[-1]
        assert _run([*verb, *data, "--lists", "nowhere"]) == 2
        assert "--lists nowhere: no such folder" in capsys.readouterr().err
        assert _run([*verb, "--lists", "splits"]) == 2
        assert "leave out --lists" in capsys.readouterr().err
