"""Reading authors' list files, and errors for wrong ones."""

from __future__ import annotations

import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path

import attrs
import pytest

from fssbench import registry
from fssbench.episodes.literature.lists import image_id, read_lines, read_pickle
from fssbench.episodes.protocol import build_manifest
from fssbench.errors import FssbenchError
from fssbench.specs import ProtocolSpec

LITERATURE = [
    "pascal5i/hsnet-1k",
    "coco20i/hsnet-1k",
    "fss1000/hsnet",
    "isaid5i/insid3",
    "pascal5i/hdmnet-1k",
    "coco20i/hdmnet-10k",
]


class Touch:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_lists_is_read_in_its_order(tmp_path, protocol):
    wanted = {4: ["b", "a", "b"], 0: ["c"] * 300, 1: []}
    (tmp_path / "fold0.pkl").write_bytes(pickle.dumps(wanted, protocol))
    found = read_pickle(tmp_path / "fold0.pkl")
    assert found == wanted
    assert list(found) == [4, 0, 1]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(tmp_path, protocol):
    made = tmp_path / "made"
    path = tmp_path / "fold0.pkl"
    path.write_bytes(pickle.dumps({0: ["a", Touch(made)]}, protocol))
    with pytest.raises(FssbenchError, match=r"fold0\.pkl: asks for .*mkdir.*nothing of it was run"):
        read_pickle(path)
    assert not made.exists()
    pickle.loads(path.read_bytes())
    assert made.exists()  # so it is malicious indeed


def test_harmless_classes_and_outside_objects_are_refused_too(tmp_path):
    path = tmp_path / "fold0.pkl"
    path.write_bytes(pickle.dumps(OrderedDict({0: ["a"]})))
    with pytest.raises(FssbenchError, match=r"asks for collections\.OrderedDict"):
        read_pickle(path)
    path.write_bytes(b"Pelsewhere\n.")  # PERSID
    assert next(pickletools.genops(path.read_bytes()))[0].name == "PERSID"
    with pytest.raises(FssbenchError, match="asks for an object outside of the file"):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps({0: ["a"]})[:-3], b"\x80\x04"])
def test_a_broken_pickle_is_reported_in_one_line(tmp_path, content):
    (tmp_path / "fold0.pkl").write_bytes(content)
    with pytest.raises(FssbenchError, match=r"fold0\.pkl: is no pickle, or a broken one") as error:
        read_pickle(tmp_path / "fold0.pkl")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [["a"], {"0": ["a"]}, {0: "a"}, {0: [1]}, {0: [b"a"]}, {True: ["a"]}, {0: [""]}, None],
)
def test_a_pickle_of_something_else(tmp_path, content):
    (tmp_path / "fold0.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(FssbenchError, match="must hold a dictionary: class number to list"):
        read_pickle(tmp_path / "fold0.pkl")


def test_lines_keep_their_numbers(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa\r\n\r\n b \r\n".encode())
    assert read_lines(tmp_path / "list.txt") == [(1, "a"), (3, "b")]


@pytest.mark.parametrize(
    ("content", "message"), [(b"\n \n", "lists nothing"), (b"\xff\xfe\x00", "not a text file")]
)
def test_lists_without_lines(tmp_path, content, message):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(FssbenchError, match=message):
        read_lines(tmp_path / "list.txt")
    with pytest.raises(FssbenchError, match="cannot be read"):
        read_lines(tmp_path / "other.txt")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("2007_000033", "2007_000033"),
        ("../VOC2012/JPEGImages/2007_000033.jpg", "2007_000033"),
        ("val2014/COCO_val2014_000000000042.jpg", "000000000042"),
        ("COCO_train2014_000000000042.jpg", "000000000042"),
    ],
)
def test_ids_of_listed_paths(name, wanted):
    assert image_id(name) == wanted


@pytest.mark.parametrize("name", LITERATURE)
def test_a_protocol_of_the_literature_asks_for_its_lists(name, tmp_path, make_pascal):
    protocol = attrs.evolve(registry.registry().get(ProtocolSpec, name), dataset="pascal5i")
    if name.startswith("fss"):
        protocol = attrs.evolve(protocol, split="val")
    with pytest.raises(
        FssbenchError, match=f"{name} reads its authors' list files.*--lists FOLDER"
    ):
        build_manifest(protocol, make_pascal([]), fold=0, shots=1)
    with pytest.raises(FssbenchError, match="no such folder"):
        build_manifest(protocol, make_pascal([]), fold=0, shots=1, lists=tmp_path / "none")
    with pytest.raises(FssbenchError, match=r"no file \S+ or (data/splits|lists|splits)/\S+ in it"):
        build_manifest(protocol, make_pascal([]), fold=0, shots=1, lists=tmp_path)


def test_a_protocol_of_fssbench_refuses_lists(make_pascal):
    protocol = registry.registry().get(ProtocolSpec, "pascal5i/v1-1k")
    with pytest.raises(FssbenchError, match="lists the images of the dataset; leave out --lists"):
        build_manifest(protocol, make_pascal([]), fold=0, shots=1, lists=Path("lists"))
