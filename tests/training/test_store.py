"""Features on disk: found again, checked, resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fssbench import FssbenchError
from fssbench.training.store import CHECKS_FILE, FEATURES_FILE, FeatureStore

IDS = ["a", "folder/b", "ç"]
SHAPE = (4, 3, 3)


def store(folder, ids=IDS, **identity):
    return FeatureStore({"teacher": "t", **identity}, ids, SHAPE, folder)


def maps(seed=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_what_was_written_is_found_again_by_another_process(tmp_path):
    first = store(tmp_path)
    assert len(first) == 0
    assert first.read("a") is None
    first.write("ç", maps(1))
    first.write("a", maps(2))
    again = store(tmp_path)
    assert len(again) == 2
    assert torch.equal(again.read("ç"), maps(1).half())
    assert torch.equal(again.read("a"), maps(2).half())
    assert again.read("folder/b") is None


def test_other_features_or_other_images_are_another_folder(tmp_path):
    store(tmp_path).write("a", maps())
    assert store(tmp_path, size=160).read("a") is None
    assert store(tmp_path, ids=IDS[:2]).read("a") is None
    assert store(tmp_path).read("a") is not None


@pytest.mark.parametrize("file", [FEATURES_FILE, CHECKS_FILE])
def test_damage_is_seen_and_mended(tmp_path, file):
    kept = store(tmp_path)
    kept.write("a", maps())
    kept.write("folder/b", maps(1))
    path = kept.folder / file
    content = bytearray(path.read_bytes())
    content[1] ^= 0x40
    path.write_bytes(content)
    assert kept.read("a") is None
    assert torch.equal(kept.read("folder/b"), maps(1).half())
    kept.write("a", maps())
    assert torch.equal(kept.read("a"), maps().half())


def test_a_row_that_was_cut_off_counts_as_missing(tmp_path):
    kept = store(tmp_path)
    kept.write("ç", maps())
    path = kept.folder / FEATURES_FILE
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    assert store(tmp_path).read("ç") is None


@pytest.mark.parametrize("wrong", [maps()[:2], maps() * float("nan"), maps() * 1e6])
def test_what_cannot_be_kept_is_refused(tmp_path, wrong):
    with pytest.raises(FssbenchError, match="features of a"):
        store(tmp_path).write("a", wrong)


def test_files_are_as_large_as_all_images(tmp_path):
    kept = store(tmp_path)
    assert (kept.folder / FEATURES_FILE).stat().st_size == 3 * 2 * int(np.prod(SHAPE))
    assert (kept.folder / CHECKS_FILE).stat().st_size == 3 * 8
