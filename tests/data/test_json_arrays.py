from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fssbench.data import json_arrays
from fssbench.data.json_arrays import top_level
from fssbench.errors import FssbenchError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
SPACES = st.sampled_from([None, 1, "\n\t"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json")


def whole(path: Path) -> dict[str, Any]:
    """The content as `json.loads` returns it."""
    found = {}
    for key, value in top_level(path, "Reading"):
        found[key] = list(value) if hasattr(value, "__next__") else value
    return found


def read(path: Path, content: bytes, block: int) -> dict[str, Any]:
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_arrays, "BLOCK", block)
        return whole(path)


@given(
    content=st.dictionaries(st.text(), VALUES, max_size=5), indent=SPACES,
    block=st.integers(1, 50), encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    escaped=st.booleans(),
)  # fmt: skip
def test_blocks_of_any_size_give_what_the_whole_file_gives(
    folder: Path, content: dict[str, Any], indent: Any, block: int, encoding: str, escaped: bool
) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=escaped)
    data = text.encode(encoding, "surrogatepass")
    assert read(folder / "a.json", data, block) == json.loads(data)


@given(
    content=st.dictionaries(st.text("ab"), VALUES, max_size=4), indent=SPACES,
    block=st.integers(1, 50), at=st.integers(0, 200),
    other=st.sampled_from(["", "[", "]", "{", "}", ",", ":", '"', "1", "-", "x", "\n"]),
    length=st.integers(0, 3),
)  # fmt: skip
def test_errors_are_those_of_the_whole_file(
    folder: Path, content: dict[str, Any], indent: Any, block: int, at: int, other: str, length: int
) -> None:
    text = json.dumps(content, indent=indent)
    at %= len(text)
    text = text[:at] + other + text[at + length :]
    path = folder / "a.json"
    try:
        wanted = json.loads(text)
    except ValueError as error:
        with pytest.raises(FssbenchError) as raised:
            read(path, text.encode(), block)
        if "trailing comma" in str(error):  # Python 3.13 has words of its own for it
            error = raised.value.args[0].partition("(")[2].partition("); ")[0]
        reason = f"is not a complete JSON file ({error}); download or unpack it again"
        assert str(raised.value) == f"{path}: {reason}"
    else:
        assert read(path, text.encode(), block) == (wanted if isinstance(wanted, dict) else {})


def test_entries_that_are_not_consumed_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, [2], 3], "b": [], "c": {"d": 4}, "a": [5]}')
    found = [(key, next(iter(value), None)) for key, value in top_level(tmp_path / "a.json", "")]
    assert found == [("a", 1), ("b", None), ("c", "d"), ("a", 5)]


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null", '"a"'])
def test_a_file_that_is_no_object_has_no_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert list(top_level(tmp_path / "a.json", "")) == []


def test_an_error_in_a_large_file_is_found_without_reading_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a": [1, oops' + b" " * 50_000 + b"\xff")  # the end is no text
    monkeypatch.setattr(json_arrays, "BLOCK", 10)
    with pytest.raises(FssbenchError, match=r"Expecting value: line 1 column 11 \(char 10\)"):
        whole(path)


def test_an_entry_that_does_not_fit_in_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": ["' + "x" * 5000 + '"]}')
    assert len(whole(path)["a"][0]) == 5000
    monkeypatch.setattr(json_arrays, "BLOCK", 10)
    monkeypatch.setattr(json_arrays, "LONGEST", 1000)
    with pytest.raises(FssbenchError, match="has an entry of more than .* MiB; divide the file"):
        whole(path)


def test_a_number_of_too_many_digits(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [' + "1" * 5000 + "]}")
    with pytest.raises(FssbenchError, match="is not a complete JSON file .*digits"):
        whole(tmp_path / "a.json")


def test_deep_arrays_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ' + "[" * 500_000)
    with pytest.raises(FssbenchError, match="is not a complete JSON file"):
        whole(tmp_path / "a.json")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FssbenchError, match="cannot be read: "):
        whole(tmp_path)
