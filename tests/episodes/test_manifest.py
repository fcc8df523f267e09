"""Manifest files."""

from __future__ import annotations

import gzip
import hashlib
import json

import attrs
import pytest
from parsers_for_fuzz import MANIFEST

from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError

# The canonical content, written out: sorted keys, no spaces, ASCII, one line each.
CANONICAL = """\
{"classes":[[0,"cat"],[3,"d\\u00f6g"]],"dataset":"fake","dropped":[[4,"rare"]],"episodes":2,\
"fold":0,"limit":null,"protocol":"fake/v1","seed":0,"shots":2,"split":"val"}
{"class_id":0,"query":"a","support":["b","c"]}
{"class_id":3,"query":"b","support":["d","e"],"support_classes":[0,1]}"""
DIGEST = hashlib.sha256(CANONICAL.encode()).hexdigest()


def test_digest_is_the_hash_of_the_canonical_content():
    assert MANIFEST.digest == DIGEST


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
def test_files_hold_all_of_it_and_are_the_same_bytes(tmp_path, name):
    path = tmp_path / name
    MANIFEST.write(path)
    first = path.read_bytes()
    MANIFEST.write(path)
    assert path.read_bytes() == first
    assert Manifest.read(path) == MANIFEST
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_digest_covers_everything_except_the_fingerprint():
    assert attrs.evolve(MANIFEST, fingerprint="e" * 64).digest == DIGEST
    changed = attrs.evolve(MANIFEST.episodes[0], support=("c", "b"))
    others = [
        attrs.evolve(MANIFEST, protocol="fake/v2"),
        attrs.evolve(MANIFEST, seed=1),
        attrs.evolve(MANIFEST, classes=((0, "cat"),)),
        attrs.evolve(MANIFEST, dropped=()),
        attrs.evolve(MANIFEST, episodes=MANIFEST.episodes[:1]),
        attrs.evolve(MANIFEST, episodes=(changed, MANIFEST.episodes[1])),
    ]
    assert len({DIGEST, *(m.digest for m in others)}) == 7


def test_a_file_is_readable_by_people(tmp_path):
    MANIFEST.write(tmp_path / "m.jsonl.gz")
    lines = gzip.decompress((tmp_path / "m.jsonl.gz").read_bytes()).decode().splitlines()
    assert json.loads(lines[0])["protocol"] == "fake/v1"
    assert json.loads(lines[1]) == {"class_id": 0, "query": "a", "support": ["b", "c"]}


def damaged(data: bytes) -> list[tuple[str, bytes]]:
    text = gzip.decompress(data)
    return [
        ("cut off gzip", data[: len(data) // 2]),
        ("cut off lines", gzip.compress(b"\n".join(text.splitlines()[:-1]))),
        ("changed query", gzip.compress(text.replace(b'"query":"a"', b'"query":"z"'))),
        ("changed digest", gzip.compress(text.replace(b'"digest":"', b'"digest":"0'))),
        ("another format", gzip.compress(text.replace(b'_manifest":1', b'_manifest":9'))),
        ("no json", gzip.compress(b"hello")),
        ("empty", b""),
        ("a list", gzip.compress(b"[1, 2]")),
        ("field missing", gzip.compress(text.replace(b'"fold":0,', b""))),
        ("wrong types", gzip.compress(text.replace(b'"shots":2', b'"shots":"two"'))),
    ]


def test_damaged_files_are_one_clear_line(tmp_path):
    MANIFEST.write(tmp_path / "m.jsonl.gz")
    for what, data in damaged((tmp_path / "m.jsonl.gz").read_bytes()):
        path = tmp_path / "damaged.jsonl.gz"
        path.write_bytes(data)
        with pytest.raises(FssbenchError, match=r"damaged\.jsonl\.gz: ") as caught:
            Manifest.read(path)
        assert "\n" not in str(caught.value), what


def test_missing_file(tmp_path):
    with pytest.raises(FssbenchError, match="cannot read this manifest: No such file"):
        Manifest.read(tmp_path / "none.jsonl.gz")
