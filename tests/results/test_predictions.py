"""Saved masks: content of the file, interruptions, damage."""

from __future__ import annotations

import gzip
import hashlib
import json

import attrs
import methods_for_tests
import numpy as np
import program
import pytest
import rings_for_tests
import torch
from faults_for_tests import peak
from pycocotools import mask as coco
from registered_for_tests import registered

from fssbench import Evaluation, FssbenchError, Manifest, build
from fssbench.episodes.episode import Episode
from fssbench.evaluation.evaluate import evaluate
from fssbench.results.predictions import PREDICTIONS_FILE, Predictions, read_predictions
from fssbench.results.rows import read_rows

PLUGINS = [methods_for_tests.__file__, rings_for_tests.__file__]


plugin = registered(methods_for_tests, rings_for_tests)


@pytest.fixture
def job(tmp_path):
    """30 episodes in two chunks, of images of two sizes with ignored rims."""
    return Evaluation(
        matcher="greyest", backbone="pixels", protocol="rings/v1", workers=0, device="cpu",
        out=tmp_path / "runs", save_predictions=True,
    )  # fmt: skip


def kept(folder) -> tuple[dict, list[dict]]:
    header, *lines = map(
        json.loads, gzip.decompress((folder / PREDICTIONS_FILE).read_bytes()).splitlines()
    )
    return header, lines


def decoded(line: dict) -> np.ndarray:
    """Decode masks with pycocotools only."""
    return coco.decode({"size": line["size"], "counts": line["counts"].encode()}) == 1


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shots": (5,)},
        {"batch_size": 7},
        {"options": {"resize": "letterbox"}},
        {"protocol": "rings/void"},
        {"protocol": "rings/input"},
    ],
    ids=["1 shot", "5 shots", "batches", "letterbox", "void", "input size"],
)
def test_masks_are_those_that_were_counted(job, change):
    job = attrs.evolve(job, **change)
    (result,) = evaluate(job)
    header, lines = kept(result.folder)
    manifest = Manifest.read(result.folder / "manifest.jsonl.gz")
    rows = read_rows(result.folder / "rows.csv.gz")
    data = build.dataset("rings")
    assert header == {"fssbench_predictions": 1, "manifest": manifest.digest, "episodes": 30}
    assert [line["index"] for line in lines] == list(range(30))
    sizes = set()
    for line, episode in zip(lines, manifest.episodes, strict=True):
        mask = decoded(line)
        sizes.add(mask.shape)
        if job.protocol == "rings/input":
            continue
        truth = data.mask(episode.query, episode.class_id).numpy()
        assert mask.shape == truth.shape
        valid = (truth != 255) | (job.protocol == "rings/void")
        row = rows.iloc[episode.index]
        assert row["intersection_fg"] == np.sum(mask & (truth == 1))
        assert row["union_fg"] == np.sum((mask | (truth == 1)) & valid)
    assert sizes == ({(64, 64)} if job.protocol == "rings/input" else set(rings_for_tests.SIZES))
    assert rows["intersection_fg"].sum() > 0


def test_the_record_names_the_digest_of_the_content(job):
    (result,) = evaluate(job)
    content = gzip.decompress((result.folder / PREDICTIONS_FILE).read_bytes())
    assert result.record.predictions == hashlib.sha256(content).hexdigest()
    assert json.loads((result.folder / "record.json").read_text())["predictions"]


def test_without_the_option_nothing_is_stored_and_the_rows_are_the_same(job):
    (keeping,) = evaluate(job)
    (without,) = evaluate(attrs.evolve(job, save_predictions=False))
    assert keeping.folder != without.folder
    assert not (without.folder / PREDICTIONS_FILE).exists()
    assert without.record.predictions == ""
    assert "predictions" not in json.loads((without.folder / "run.json").read_text())
    one, other = ((r.folder / "rows.csv.gz").read_bytes() for r in (keeping, without))
    assert one == other


def test_the_same_file_twice(job, tmp_path):
    (one,) = evaluate(job)
    (other,) = evaluate(attrs.evolve(job, out=tmp_path / "other"))
    first, second = ((r.folder / PREDICTIONS_FILE).read_bytes() for r in (one, other))
    assert first == second


def test_empty_masks(job):
    (result,) = evaluate(attrs.evolve(job, matcher="nothing"))
    _, lines = kept(result.folder)
    assert len(lines) == 30
    assert not any(decoded(line).any() for line in lines)


@pytest.mark.parametrize("damage", ["", "cut", "flip"])
def test_an_interrupted_run_ends_with_the_same_file(job, damage, tmp_path, monkeypatch):
    (straight,) = evaluate(attrs.evolve(job, out=tmp_path / "straight"))
    stopping = attrs.evolve(job, options={"fail_after": "25"})
    with pytest.raises(FssbenchError, match="failed on purpose"):
        evaluate(stopping)
    (journal,) = job.out.rglob("journal.jsonl")
    data = journal.read_bytes()
    assert data.count(b"\n") == 1
    assert not list(job.out.rglob(PREDICTIONS_FILE))
    if damage == "cut":
        journal.write_bytes(data[:-9])
    elif damage == "flip":
        journal.write_bytes(data.replace(b'"counts":', b'"countS":'))
    monkeypatch.setattr(rings_for_tests.Greyest, "calls", 1000)
    (resumed,) = evaluate(stopping)
    assert (resumed.folder / PREDICTIONS_FILE).read_bytes() == (
        straight.folder / PREDICTIONS_FILE
    ).read_bytes()
    assert resumed.record.predictions == straight.record.predictions
    assert not journal.exists()


def test_killed_with_signal_9_and_continued(job, tmp_path):
    plugin = tmp_path / "killing.py"
    plugin.write_text(
        "import os, signal, sys\n"
        "from fssbench import hookimpl\n"
        "@hookimpl\n"
        "def fssbench_episodes_measured(chunk):\n"
        "    if chunk == 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [
        "evaluate", "greyest", "--backbone", "pixels",
        "--protocol", "rings/v1", "--workers", "0", "--device", "cpu", "--save-predictions",
        "--out", str(job.out), *(part for name in (*PLUGINS, str(plugin)) for part in ("-p", name)),
    ]  # fmt: skip
    killed = program.run(*command)
    assert killed.returncode == -9, killed.stderr
    (journal,) = job.out.rglob("journal.jsonl")
    assert b'"predictions":[{"index":' in journal.read_bytes()
    (resumed,) = evaluate(job)
    assert resumed.fresh
    assert resumed.folder == journal.parent
    (straight,) = evaluate(attrs.evolve(job, out=tmp_path / "straight"))
    assert (resumed.folder / PREDICTIONS_FILE).read_bytes() == (
        straight.folder / PREDICTIONS_FILE
    ).read_bytes()


# --- the file -------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """Two masks: a checkerboard and an empty one; (path, digest)."""
    board = (torch.arange(5)[:, None] + torch.arange(7)) % 2 == 0
    predictions = Predictions(manifest="ab" * 32)
    episodes = [Episode(index=i, class_id=0, query="q", support=("s",)) for i in range(2)]
    predictions.add(episodes, [board, torch.zeros(5, 7, dtype=torch.bool)])
    return predictions.write(tmp_path), predictions.digest, board


def test_read_back(written):
    path, digest, board = written
    predictions = read_predictions(path, digest, 2)
    assert (len(predictions), predictions.manifest) == (2, "ab" * 32)
    assert torch.equal(predictions.mask(0, 5, 7), board)
    assert not predictions.mask(1, 5, 7).any()


def test_what_is_not_there(written):
    path, digest, _ = written
    predictions = read_predictions(path, digest, 2)
    with pytest.raises(FssbenchError, match="no predicted mask of episode 2"):
        predictions.mask(2, 5, 7)
    with pytest.raises(FssbenchError, match=r"episode 0: has the size \[5, 7\], its image \[7, 5"):
        predictions.mask(0, 7, 5)


def test_every_flipped_byte_is_seen(written):
    """Each flipped byte of the compressed content is an error, never another mask."""
    path, digest, _ = written
    data = path.read_bytes()
    for place in range(10, len(data)):  # ten bytes of gzip's header say nothing of the content
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(FssbenchError, match="damaged|does not fit the digest") as caught:
            read_predictions(path, digest, 2)
        assert str(path) in str(caught.value)
        assert "evaluate again with --save-predictions" in str(caught.value)


def test_cut_off_missing_and_foreign_files(written):
    path, digest, _ = written
    data = path.read_bytes()
    path.write_bytes(data[:-12])
    with pytest.raises(FssbenchError, match="these predictions are damaged"):
        read_predictions(path, digest, 2)
    path.write_bytes(b"text")
    with pytest.raises(FssbenchError, match="these predictions are damaged"):
        read_predictions(path, digest, 2)
    path.unlink()
    with pytest.raises(FssbenchError, match="cannot read these predictions: No such file"):
        read_predictions(path, digest, 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]\n",
        b"no json\n",
        b'{"fssbench_predictions":1,"episodes":7}\n',
        b"[" * 100_000,
    ],
)
def test_a_right_digest_of_something_else(tmp_path, content):
    path = tmp_path / PREDICTIONS_FILE
    path.write_bytes(gzip.compress(content))
    with pytest.raises(FssbenchError, match="these are no predictions of fssbench"):
        read_predictions(path, hashlib.sha256(content).hexdigest(), 2)


def test_a_small_file_that_unpacks_to_gigabytes(tmp_path):
    """Unpacking stops at the maximum size of two masks."""
    path = tmp_path / PREDICTIONS_FILE
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    before = peak()
    with pytest.raises(FssbenchError, match=r"damaged \(it holds more than 0\.75 MiB\); evaluate"):
        read_predictions(path, "0" * 64, 2)
    assert peak() - before < 50


@pytest.mark.parametrize("counts", ["", "3", "~~~~", "0" * 9, 7, None])
def test_run_lengths_that_are_none(counts):
    """A file with a valid digest is not trusted; pycocotools must not read beyond its data."""
    line = {"index": 0, "size": [5, 7], "counts": counts}
    predictions = Predictions(manifest="", lines={0: line})
    with pytest.raises(FssbenchError, match="the predicted mask of episode 0"):
        predictions.mask(0, 5, 7)
