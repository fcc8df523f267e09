"""Whatever a file of a stranger holds, it is read or it is one line of error."""

from __future__ import annotations

import gzip
import json
import pickle
import string

import attrs
import pandas
import pytest
from faults_for_tests import peak
from hypothesis import given
from hypothesis import strategies as st
from parsers_for_fuzz import COCO, MANIFEST, PARSERS, RECORD, ROWS, parse

from fssbench.data import run_lengths
from fssbench.data.coco_masks import read_annotations
from fssbench.episodes.episode import Episode
from fssbench.episodes.literature.lists import read_pickle
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.files import read_within
from fssbench.results.record import Record
from fssbench.results.rows import read_rows, write_rows

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "../x", "/etc/passwd", "\x1b[2J", "\ud800", "nan", 10**400, -1, 1e999])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(string.ascii_lowercase, max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)
DEEP = [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 500 + b"]" * 500]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def places(value, path=()):
    """Paths to all values inside of a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from places(item, (*path, key))


def replaced(value, path, new):
    """A JSON value with another one at a path."""
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


@pytest.mark.parametrize("name", PARSERS)
def test_the_seeds_are_valid(name, folder):
    for seed in PARSERS[name].seeds:
        assert parse(name, seed, folder) is not None


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=200), raw=st.booleans())
def test_any_bytes(name, folder, data, raw):
    parse(name, data, folder, raw=raw)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
def test_a_valid_file_with_other_bytes_in_it(name, folder, data):
    parser = PARSERS[name]
    seed = data.draw(st.sampled_from(parser.seeds))
    start = data.draw(st.integers(0, len(seed)))
    end = data.draw(st.integers(start, min(len(seed), start + 8)))
    new = data.draw(st.binary(max_size=8) | st.sampled_from([b"9" * 30, b"\n", b"-", b"1e999"]))
    parse(name, seed[:start] + new + seed[end:], folder)


@pytest.mark.parametrize("name", [name for name, parser in PARSERS.items() if parser.values])
@given(data=st.data())
def test_a_valid_file_with_another_value_in_it(name, folder, data):
    lines = [json.loads(line) for line in PARSERS[name].seeds[0].splitlines()]
    number = data.draw(st.integers(0, len(lines) - 1))
    path = data.draw(st.sampled_from(list(places(lines[number]))))
    lines[number] = replaced(lines[number], path, data.draw(JSON))
    parse(name, "\n".join(map(json.dumps, lines)).encode(), folder)


@pytest.mark.parametrize("name", PARSERS)
def test_nesting_that_would_end_the_interpreter(name, folder):
    for text in (*DEEP, b"(" * 50_000, b"-" * 50_000 + b"1", b"1+" * 50_000 + b"1"):
        parse(name, text, folder)


def test_nesting_below_a_valid_top(folder):
    deep = "[" * 50_000 + "]" * 50_000
    text = json.dumps({**RECORD, "config": {"a": 0}}).replace('"a": 0', f'"a": {deep}')
    assert parse("record", text.encode(), folder) is None
    text = json.dumps({**COCO, "info": 0}).replace('"info": 0', f'"info": {deep}')
    assert parse("coco", text.encode(), folder) is None


# --- what is read is what was written -------------------------------------------------------------

NAMES = st.text(min_size=1, max_size=6)
SMALL = st.integers(0, 2**31)


@st.composite
def manifests(draw):
    shots = draw(st.integers(1, 3))
    classes = draw(st.dictionaries(st.integers(0, 50), NAMES, min_size=1, max_size=4))
    names = st.lists(NAMES, min_size=shots, max_size=shots).map(tuple)
    shown = st.lists(SMALL, min_size=shots, max_size=shots).map(tuple)
    drawn = draw(
        st.lists(
            st.tuples(st.sampled_from(sorted(classes)), NAMES, names, st.just(()) | shown),
            max_size=4,
        )
    )
    return attrs.evolve(
        MANIFEST, protocol=draw(NAMES), seed=draw(SMALL), shots=shots,
        limit=draw(st.none() | SMALL), classes=tuple(sorted(classes.items())),
        episodes=tuple(
            Episode(index=i, class_id=c, query=q, support=s, support_classes=k)
            for i, (c, q, s, k) in enumerate(drawn)
        ),
    )  # fmt: skip


@given(manifest=manifests())
def test_a_manifest_comes_back(folder, manifest):
    for name in ("m.jsonl", "m.jsonl.gz"):
        manifest.write(folder / name)
        assert Manifest.read(folder / name) == manifest


@given(
    rows=st.lists(
        st.tuples(
            SMALL, SMALL, st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_rows_come_back_to_the_last_bit(folder, rows):
    table = pandas.DataFrame(rows, columns=["index", "class_id", "query", "union_fg", "share"])
    table["query"] = table["query"].map(lambda text: text.replace("\r", " ").replace("\0", " "))
    write_rows(table, folder / "rows.csv.gz")
    found = read_rows(folder / "rows.csv.gz")
    assert [list(row) for row in found.itertuples(index=False)] == [
        list(row) for row in table.itertuples(index=False)
    ]


@given(score=st.floats(allow_nan=False, allow_infinity=False), config=JSON)
def test_a_record_comes_back_or_is_refused(folder, score, config):
    text = json.dumps({**RECORD, "scores": {"miou": score}, "config": {"a": config}})
    record = parse("record", text.encode(), folder)
    finite = not any(word in text for word in ("NaN", "Infinity"))
    assert (record is not None) == finite
    if record is not None:
        assert record.scores == {"miou": score}
        record.write(folder)
        assert Record.read(folder / "record.json") == record


@given(
    lists=st.dictionaries(st.integers(), st.lists(st.text(min_size=1)), max_size=5),
    protocol=st.integers(0, pickle.HIGHEST_PROTOCOL),
)
def test_pickled_lists_come_back(folder, lists, protocol):
    (folder / "lists.pkl").write_bytes(pickle.dumps(lists, protocol))
    assert read_pickle(folder / "lists.pkl") == lists


@given(
    box=st.tuples(st.integers(0, 29), st.integers(0, 19), st.integers(1, 30), st.integers(1, 20))
)
def test_a_rectangle_has_its_area(folder, box):
    x, y, right, below = box
    right, below = min(30, x + right), min(20, y + below)
    corners = [x, y, right, y, right, below, x, below]
    content = {**COCO, "annotations": [{**COCO["annotations"][0], "segmentation": [corners]}]}
    (folder / "coco.json").write_text(json.dumps(content))
    masks = read_annotations(folder / "coco.json")
    found = masks.class_pixels("000000000042")
    assert sum(found.values()) == (right - x) * (below - y)
    mask = masks.decode("000000000042", 16)
    assert mask[y:below, x:right].all()
    assert mask.sum() == (right - x) * (below - y)


# --- what once was read, and must not be ----------------------------------------------------------


def test_the_position_of_an_episode_is_its_line(tmp_path):
    """An index in the line itself is not part of the digest, and would have been believed."""
    MANIFEST.write(tmp_path / "m.jsonl")
    text = (tmp_path / "m.jsonl").read_text().replace('{"class_id":0', '{"index":1,"class_id":0')
    (tmp_path / "m.jsonl").write_text(text)
    assert Manifest.read(tmp_path / "m.jsonl") == MANIFEST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shots": 3}, "episode 0 has 2 supports"),
        ({"classes": ((0, "cat"),)}, "the class of episode 1 is not in the header"),
        ({"fold": -1}, "fold -1"),
        ({"shots": 0}, "shots 0"),
    ],
)
def test_manifests_of_no_protocol(tmp_path, change, message):
    attrs.evolve(MANIFEST, **change).write(tmp_path / "m.jsonl")
    with pytest.raises(FssbenchError, match=f"inconsistent manifest: .*{message}"):
        Manifest.read(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    ("field", "value"),
    [("fold", 1.9), ("fold", "1"), ("fold", True), ("matcher", 3), ("shots", None)],
)
def test_a_record_is_not_converted(folder, field, value):
    assert parse("record", json.dumps({**RECORD, field: value}).encode(), folder) is None


@pytest.mark.parametrize("score", ["NaN", "Infinity", "1e999", '"nan"'])
def test_scores_that_are_no_numbers(folder, score):
    text = json.dumps(RECORD).replace("50.5", score)
    assert score in text
    assert parse("record", text.encode(), folder) is None


@pytest.mark.parametrize(
    "text",
    [
        "index,class_id,query\n0,1,a,9\n",  # pandas would take the first column for names
        "index,class_id,query,x\n0,1,a,many\n",
        "index,class_id,query\n0.5,1,a\n",
        "index,class_id,query\nzero,1,a\n",
        "index,query\n0,a\n",
        "",
    ],
)
def test_rows_that_are_no_table_of_numbers(folder, text):
    assert parse("rows", text.encode(), folder) is None


@pytest.mark.parametrize("number", ["1e999", "1.0", "True", "'1'", "b'1'", "None"])
def test_class_numbers_that_are_none(folder, number):
    """`int` would make 1 of some of them, and no whole number at all of infinity."""
    text = PARSERS["hdmnet-classes"].seeds[0].replace(b"1:", number.encode() + b":")
    assert parse("hdmnet-classes", text, folder) is None


def test_a_float_of_a_row_is_read_as_it_was_written(tmp_path):
    write_rows(ROWS, tmp_path / "rows.csv.gz")
    assert read_rows(tmp_path / "rows.csv.gz")["region_j"].tolist() == [0.1, 1 / 3]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"file_name": "../../secret.jpg"}, "is no file name"),
        ({"file_name": "/etc/passwd"}, "is no file name"),
        ({"file_name": "..\\secret.jpg"}, "is no file name"),
        ({"file_name": "C:/secret.jpg"}, "is no file name"),
        ({"file_name": "a\0b"}, "is no file name"),
        ({"file_name": "\ud800"}, "surrogates not allowed"),
        ({"file_name": ""}, "is no file name"),
        ({"file_name": 7}, "is no file name"),
        ({"height": 10**6, "width": 10**6}, "is no size of an image"),
        ({"height": 0}, "is no size of an image"),
        ({"width": 30.0}, "is no size of an image"),
        ({"id": -1}, "is no number"),
        ({"id": 1.5}, "is no number"),
        ({"id": 10**30}, "is no number"),
    ],
)
def test_images_of_coco_that_make_no_sense(tmp_path, image, message):
    content = {**COCO, "images": [{**COCO["images"][0], **image}], "annotations": []}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(FssbenchError, match=message):
        read_annotations(tmp_path / "coco.json")


def test_an_image_of_coco_that_is_there_twice(tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps({**COCO, "images": COCO["images"] * 2}))
    with pytest.raises(FssbenchError, match="image 42 is there twice"):
        read_annotations(tmp_path / "coco.json")


# --- memory ---------------------------------------------------------------------------------------


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    block, bomb = bytes(1 << 20), tmp_path / "bomb.jsonl.gz"
    with gzip.open(bomb, "wb", compresslevel=9) as file:
        for _ in range(160):
            file.write(block)
    assert bomb.stat().st_size < 200_000
    with pytest.raises(ValueError, match="more than 3 MiB"):
        read_within(bomb, 3 << 20, packed=True)
    assert read_within(bomb, 160 << 20, packed=True) == block * 160
    for read in (Manifest.read, read_rows):
        with pytest.raises(FssbenchError):
            read(bomb)


def test_a_pickle_with_a_memo_of_gigabytes(tmp_path):
    # LONG_BINPUT into place 2**31 - 1: the C unpickler makes a table of 16 GiB, and fills it.
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    before = peak()
    with pytest.raises(FssbenchError, match="is no pickle, or a broken one"):
        read_pickle(tmp_path / "a.pkl")
    assert peak() - before < 200


def test_a_pickle_whose_lists_are_one(tmp_path):
    names = ["a"] * 1000
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(dict.fromkeys(range(1000), names)))
    with pytest.raises(FssbenchError, match="must hold a dictionary"):
        read_pickle(tmp_path / "a.pkl")


def test_a_polygon_that_would_take_gigabytes_to_draw():
    there_and_back = [0, 0, 99_999, 99_999] * 1000
    assert run_lengths._polygon(there_and_back) is None


def test_a_run_length_without_end():
    with pytest.raises(ValueError, match="no number of pixels"):
        run_lengths.run_lengths({"size": [20, 30], "counts": "o" * 10_000_000}, [20, 30])
