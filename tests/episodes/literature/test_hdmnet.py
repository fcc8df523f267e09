"""HDMNet's lists and the distribution of its episodes."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path
from zlib import crc32

import pytest

from fssbench import dataset, registry
from fssbench.cli import _run
from fssbench.episodes.literature.hdmnet import read_lists
from fssbench.episodes.protocol import build_manifest, class_lists
from fssbench.errors import FssbenchError
from fssbench.specs import ProtocolSpec

# Image n has class n % 5, and every third image also a few pixels of the next class.
IMAGES = {
    f"2008_{n:06d}": {n % 5: 5000} | ({(n + 1) % 5: 3} if n % 3 == 0 else {}) for n in range(60)
}


@pytest.fixture
def hdmnet():
    return registry.registry().get(ProtocolSpec, "pascal5i/hdmnet-1k")


def write(folder, images=IMAGES, classes=None, name="pascal"):
    below = folder / name / "fss_list" / "val"
    below.mkdir(parents=True, exist_ok=True)
    pairs = {
        i: (f"../VOC/JPEGImages/{i}.jpg", f"../VOC/SegmentationClassAug/{i}.png") for i in images
    }
    (below / "data_list_0.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs.values()))
    if classes is None:
        classes = {c + 1: [] for c in range(5)}
        for image, pixels in images.items():
            for c, count in pixels.items():
                if count >= 2048:
                    classes[c + 1].append(pairs[image])
    (below / "sub_class_file_list_0.txt").write_text(str(classes))
    return below


@pytest.mark.parametrize("shots", [1, 5])
def test_the_law(hdmnet, tmp_path, make_pascal, shots):
    shuffled = dict(sorted(IMAGES.items(), key=lambda item: crc32(item[0].encode())))
    write(tmp_path, shuffled)
    dataset = make_pascal(IMAGES)
    manifest = build_manifest(hdmnet, dataset, fold=0, shots=shots, lists=tmp_path)
    order = list(shuffled)
    assert [e.query for e in manifest.episodes] == [order[n % 60] for n in range(1000)]
    asked = Counter()
    for episode in manifest.episodes:
        present = IMAGES[episode.query]
        assert episode.class_id in present
        if len(present) == 2:
            asked[present[episode.class_id] == 3] += 1
        assert len(set(episode.support)) == shots
        assert episode.query not in episode.support
        for image in episode.support:
            assert IMAGES[image][episode.class_id] >= 2048  # small objects are asked, not shown
    # A class with three pixels is as likely as the other; 3.5 standard deviations of a fair coin.
    total = sum(asked.values())
    assert abs(asked[True] - total / 2) < 3.5 * (total / 4) ** 0.5


def test_supports_are_uniform_and_seeds_differ(hdmnet, tmp_path, make_pascal):
    write(tmp_path)
    dataset = make_pascal(IMAGES)
    first, second = (
        build_manifest(hdmnet, dataset, fold=0, shots=1, seed=seed, lists=tmp_path)
        for seed in (0, 510)
    )
    assert first.digest != second.digest
    assert len({image for e in first.episodes for image in e.support}) == 60


def test_lists_that_fssbench_writes_are_read_back(hdmnet, tmp_path, capsys):
    """On photographs of VOC: an image counts for a class of 2,048 pixels, as in BAM's lists."""
    root = Path(__file__).parents[4] / "shared" / "data" / "voc_mini"
    if not root.is_dir():
        pytest.skip("no photographs beside the checkout (../shared/data)")
    pascal = dataset("pascal5i", root)
    arguments = ["pascal5i", "--data-root", str(root), "--fold", "2", "--out", str(tmp_path)]
    assert _run(["episodes", "lists", *arguments]) == 0
    assert "images, " in capsys.readouterr().out
    listed = read_lists(tmp_path, pascal, 2)
    expected = class_lists(pascal, "val", pascal.fold_classes(2), 2048)
    assert listed.lists == expected
    assert [image for _, image in listed.queries] == sorted(set().union(*expected.values()))
    manifest = build_manifest(hdmnet, pascal, fold=2, shots=1, lists=tmp_path)
    assert len(manifest.episodes) == 1000
    # For training: base classes, and no image that also shows a novel one.
    assert _run(["episodes", "lists", *arguments, "--split", "train"]) == 0
    below = tmp_path / "pascal" / "fss_list" / "train"
    classes = ast.literal_eval((below / "sub_class_file_list_2.txt").read_text())
    assert set(classes) == set(range(1, 21)) - set(range(11, 16))
    for class_number, pairs in classes.items():
        for image, label in pairs:
            shown = pascal.class_pixels(Path(image).stem)
            assert shown[class_number - 1] >= 2048
            assert not set(shown) & set(pascal.fold_classes(2))
            assert (pascal.folder / image).is_file()
            assert (pascal.folder / label).is_file()
    assert _run(["episodes", "lists", "shapes", "--fold", "0", "--out", str(tmp_path)]) == 2


def test_coco_lists_and_ten_thousand_episodes(tmp_path, make_coco):
    ids = [f"{n:012d}" for n in range(40)]
    images = {i: dict.fromkeys(range(0, 80, 4), 5000) for i in ids}
    paths = [(f"val2014/COCO_val2014_{i}.jpg", f"annotations/val2014/{i}.png") for i in ids]
    classes = {c + 1: paths for c in range(0, 80, 4)}
    below = write(tmp_path / "lists", {}, classes, "coco")
    (below / "data_list_0.txt").write_text("".join(f"{a} {b}\n" for a, b in paths))
    spec = registry.registry().get(ProtocolSpec, "coco20i/hdmnet-10k")
    manifest = build_manifest(spec, make_coco(images), fold=0, shots=1, lists=tmp_path)
    assert len(manifest.episodes) == 10000
    shares = Counter(e.class_id for e in manifest.episodes)
    assert set(shares) == set(range(0, 80, 4))
    assert max(abs(count - 500) for count in shares.values()) < 4 * 500**0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').mkdir('made')", "is not one Python dictionary"),
        ("{1: [('a', 'b')]", "is not one Python dictionary"),
        ("[1]", "is not one Python dictionary"),
        ("{'x': []}", "is not one Python dictionary"),
        ("{1: ['a']}", "is not one Python dictionary"),
        ("{1: [('a.jpg', 'a.png')]}", "has the class numbers 1; fold 0 has 1, 2, 3, 4, 5"),
        ("{1: [], 2: [], 3: [], 4: [], 5: []}", "lists no image of 0, 1, 2, 3, 4"),
    ],
)
def test_wrong_class_lists(hdmnet, tmp_path, make_pascal, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path) / "sub_class_file_list_0.txt"
    path.write_text(text)
    with pytest.raises(FssbenchError, match=rf"sub_class_file_list_0\.txt: {message}"):
        build_manifest(hdmnet, make_pascal(IMAGES), fold=0, shots=1, lists=tmp_path)
    assert not (tmp_path / "made").exists()


def test_a_wrong_line_is_named_with_its_number(hdmnet, tmp_path, make_pascal):
    path = write(tmp_path) / "data_list_0.txt"
    path.write_text("a.jpg a.png\nb.jpg\n")
    with pytest.raises(FssbenchError, match=r"data_list_0\.txt, line 2: 'b\.jpg' is not the paths"):
        build_manifest(hdmnet, make_pascal(IMAGES), fold=0, shots=1, lists=tmp_path)


def test_too_few_images_and_a_query_without_a_class(hdmnet, tmp_path, make_pascal):
    write(tmp_path)
    with pytest.raises(FssbenchError, match="12 images of 0; 12-shot needs 13"):
        build_manifest(hdmnet, make_pascal(IMAGES), fold=0, shots=12, lists=tmp_path)
    empty = make_pascal({**IMAGES, "2008_000000": {7: 100}})
    with pytest.raises(FssbenchError, match="image 2008_000000, which has no class of the fold"):
        build_manifest(hdmnet, empty, fold=0, shots=1, lists=tmp_path)
