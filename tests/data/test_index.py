from __future__ import annotations

import logging
import os
import pickle
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from fssbench.data import cache, index
from fssbench.data.folder import Folder
from fssbench.data.fss1000 import Fss1000
from fssbench.data.index import ClassIndex
from fssbench.errors import FssbenchError

COUNTS = {"a": {3: 10, 1: 7}, "b": {}, "ü/1 2": {79: 2**31 - 1}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of two images, whose masks mark 1, 2, 3 and 4 pixels."""
    root = tmp_path / "data"
    for number, name in enumerate(("cat/1", "cat/2", "dog/1", "dog/2"), start=1):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / f"{name}.jpg")
        write_mask(root / f"{name}.png", number)
    return root


def write_mask(path: Path, pixels: int) -> None:
    """A mask whose file has the same size for every number of pixels."""
    mask = (np.arange(16) < pixels).astype(np.uint8).reshape(4, 4)
    Image.fromarray(mask).save(path, compress_level=0)


def index_file(folder: Path) -> Path:
    (file,) = folder.glob("indexes-*/*.npz")
    return file


def no_reading(*_: object) -> None:
    raise AssertionError("a file was read again")


def test_counts_come_back(tmp_path: Path) -> None:
    built = ClassIndex.of(COUNTS)
    np.savez(tmp_path / "a.npz", **built.arrays())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        loaded = ClassIndex.from_arrays(dict(arrays))
    for found in (built, loaded):
        assert {name: found[name] for name in COUNTS} == COUNTS
        assert len(found) == 3
        assert "c" not in found
    assert len(ClassIndex.from_arrays(ClassIndex.of({}).arrays())) == 0


def test_arrays_that_do_not_belong_together() -> None:
    arrays = ClassIndex.of(COUNTS).arrays()
    for key in ("image_ids", "starts", "class_ids", "pixels"):
        with pytest.raises(ValueError, match="belong together"):
            ClassIndex.from_arrays({**arrays, key: arrays[key][:1]})


def test_pixels_are_counted_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Folder(root=root)
    assert [first.class_pixels(name) for name in first.image_ids("test")] == [
        {0: 1}, {0: 2}, {1: 3}, {1: 4},
    ]  # fmt: skip
    monkeypatch.setattr(Folder, "count_pixels", no_reading)
    again = Folder(root=root)
    again.prepare("test")
    assert again.class_pixels("dog/2") == {1: 4}


def test_the_fingerprint_depends_on_contents_not_on_paths(root: Path, tmp_path: Path) -> None:
    here = Folder(root=root).fingerprint("test")
    assert len(here) == 64
    shutil.copytree(root, tmp_path / "copy")
    assert Folder(root=tmp_path / "copy").fingerprint("test") == here
    assert Fss1000(root=root).fingerprint("test") != here  # which reads masks in another way
    write_mask(tmp_path / "copy" / "dog" / "2.png", 5)
    assert Folder(root=tmp_path / "copy").fingerprint("test") != here
    write_mask(tmp_path / "copy" / "dog" / "2.png", 4)
    assert Folder(root=tmp_path / "copy").fingerprint("test") == here
    (tmp_path / "copy" / "dog").rename(tmp_path / "copy" / "eel")
    assert Folder(root=tmp_path / "copy").fingerprint("test") != here


def test_a_mask_that_changes_at_once_is_noticed(root: Path) -> None:
    seen = set()
    for pixels in range(1, 9):
        write_mask(root / "cat" / "1.png", pixels)
        folder = Folder(root=root)
        seen.add(folder.fingerprint("test"))
        assert folder.class_pixels("cat/1") == {0: pixels}
    assert len(seen) == 8


def test_the_fingerprint_is_remembered_until_a_file_changes(
    root: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "SETTLED_SECONDS", -1.0)
    found = Folder(root=root).fingerprint("test")
    with monkeypatch.context() as patch:
        patch.setattr(index, "sha256", no_reading)
        assert Folder(root=root).fingerprint("test") == found
    (memo,) = (cache_folder / "fingerprints").iterdir()
    memo.write_text("damaged")
    assert Folder(root=root).fingerprint("test") == found
    mask = root / "cat" / "1.png"
    times = mask.stat().st_atime_ns, mask.stat().st_mtime_ns
    time.sleep(0.02)
    write_mask(mask, 9)
    os.utime(mask, ns=times)  # as if nothing had happened
    assert Folder(root=root).fingerprint("test") != found


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    place = data.index(b"pixels.npy") + 150
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [cut, flip, lambda data: b"", lambda data: b"no index"],
    ids=["cut", "flip", "empty", "text"],
)
def test_a_damaged_file_is_built_anew(
    root: Path, cache_folder: Path, caplog: pytest.LogCaptureFixture, damage
) -> None:
    Folder(root=root).prepare("test")
    file = index_file(cache_folder)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert Folder(root=root).class_pixels("dog/2") == {1: 4}
    assert f"{file} is damaged" in caplog.text
    assert ClassIndex.from_arrays(dict(np.load(file)))["dog/2"] == {1: 4}


def test_no_cache_folder_costs_a_warning(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FSSBENCH_CACHE", str(tmp_path / "file" / "cache"))
    folder = Folder(root=root)
    assert folder.class_pixels("dog/2") == {1: 4}
    assert "kept in memory" in caplog.text
    monkeypatch.setattr(Folder, "count_pixels", no_reading)
    copy = pickle.loads(pickle.dumps(folder))  # takes with it what no cache holds
    assert copy.class_pixels("dog/2") == {1: 4}


def test_a_full_disk_costs_a_warning(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: bytes, *, flush: bool = True) -> None:
        raise FssbenchError(f"{path}: cannot write: No space left on device")

    monkeypatch.setattr(cache, "write_atomically", full)
    assert Folder(root=root).class_pixels("dog/2") == {1: 4}
    assert "No space left on device; it is kept in memory" in caplog.text


def test_errors_leave_nothing_behind(root: Path, cache_folder: Path) -> None:
    (root / "dog" / "2.png").write_bytes(b"no picture")
    with pytest.raises(FssbenchError, match=r"dog/2\.png: cannot be decoded"):
        Folder(root=root).prepare("test")
    assert not list(cache_folder.glob("indexes-*/*.npz"))
    write_mask(root / "dog" / "2.png", 4)
    Folder(root=root).prepare("test")
    assert index_file(cache_folder).stat().st_size < 2000


def test_progress_is_one_line_of_log_without_a_terminal(
    root: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        Folder(root=root).prepare("test")
    assert "Indexing folder test: 4 items" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_the_cache_folder_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSSBENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder().name == "fssbench"
    monkeypatch.setenv("FSSBENCH_CACHE", "~/elsewhere")
    assert cache.cache_folder() == Path.home() / "elsewhere"


BUILDER = """
import sys, time
from pathlib import Path
from typing import ClassVar
import numpy as np
from fssbench.data.cache import saved_or_built

class Built:
    def __init__(self, number):
        self.number = number
    def arrays(self):
        return {"number": np.array(self.number)}

def build():
    with Path(sys.argv[1]).open("a") as log:
        log.write("built ")
    time.sleep(float(sys.argv[2]))
    return Built(5)

built, saved = saved_or_built("race", build, lambda arrays: Built(arrays["number"]))
print(built.number, saved)
"""


def start(log: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILDER, str(log), str(seconds)]
    folder = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_of_two_processes_one_builds(tmp_path: Path) -> None:
    racers = [start(tmp_path / "log", 2) for _ in range(2)]
    answers = [racer.communicate(timeout=60)[0] for racer in racers]
    assert answers == ["5 True\n"] * 2
    assert (tmp_path / "log").read_text() == "built "


def test_a_killed_process_blocks_no_other(tmp_path: Path) -> None:
    killed = start(tmp_path / "log", 600)
    deadline = time.monotonic() + 60
    while not (tmp_path / "log").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    second = start(tmp_path / "log", 0)
    assert second.communicate(timeout=60)[0] == "5 True\n"
    assert (tmp_path / "log").read_text() == "built built "


class Inverted(Folder):
    mask_options: ClassVar[dict[str, bool]] = {"invert": True}

    def _own_mask(self, image_id: str) -> torch.Tensor:
        return 1 - super()._own_mask(image_id)


def test_an_option_that_changes_masks_has_an_index_of_its_own(root: Path) -> None:
    plain, inverted = Folder(root=root), Inverted(root=root)
    assert plain.class_pixels("cat/2") == {0: 2}
    assert inverted.class_pixels("cat/2") == {0: 14}
    assert plain.fingerprint() != inverted.fingerprint()
    # Without such an option the fingerprint is that of earlier versions.
    Inverted.mask_options = {}
    assert Inverted(root=root).fingerprint() == plain.fingerprint()


@pytest.mark.parametrize(
    "content",
    [
        "a b\nç\n".encode(), "a b\r\nç\r\n".encode("utf-8-sig"), "a b\rç\r".encode(),
        "a b\r\nç\r\n".encode("utf-16"), b"\xfe\xff" + "a b\nç\n".encode("utf-16-be"),
    ],
)  # fmt: skip
def test_lists_of_common_encodings_are_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    assert index.list_lines(tmp_path / "list.txt") == ["a b", "ç"]


def test_a_list_of_an_unknown_encoding_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("ab\n".encode("utf-16-le"))
    with pytest.raises(FssbenchError, match=r"list\.txt: it is no text .*; save"):
        index.list_lines(tmp_path / "list.txt")


def test_a_marker_of_another_host_does_not_stop_an_index(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from fssbench.data.cache import VERSION, cache_folder
    from fssbench.runtime import locks

    def no_lock(handle: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks, "_lock", no_lock)
    folder = Folder(root=root)
    lock = cache_folder() / f"indexes-{VERSION}" / f"folder-{folder.fingerprint('test')}.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("71\nnode-a\n")
    assert folder.class_pixels(folder.image_ids("test")[0])
    assert "process 71 on host node-a uses this index" in caplog.text
    assert "is kept in memory" in caplog.text


def test_without_a_home_folder_the_cache_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import tempfile

    import platformdirs

    from fssbench.data import cache

    monkeypatch.delenv("FSSBENCH_CACHE", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def no_home(name: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    for found in (no_home, lambda name: Path("~/.cache") / name):
        cache._temporary_cache.cache_clear()
        monkeypatch.setattr(platformdirs, "user_cache_path", found)
        assert cache.cache_folder().parent == tmp_path
        assert cache.cache_folder().stat().st_mode & 0o777 == 0o700
    cache._temporary_cache.cache_clear()
    assert caplog.text.count("there is no home folder") == 2
