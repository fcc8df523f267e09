"""Evaluations that are killed, starved, cheated and raced: the same bytes, or one line of error."""

from __future__ import annotations

import datetime
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import attrs
import methods_for_tests
import numpy as np
import pytest
import torch
from faults_for_tests import flipped, kill_until_it_ends, obey_permissions, results, start
from PIL import Image
from records_for_tests import change_record

from fssbench import FssbenchError, Manifest
from fssbench.data.shapes.shapes import Shapes
from fssbench.episodes.chunks import visiting_order
from fssbench.evaluation.evaluate import evaluate
from fssbench.evaluation.run_directory import JOURNAL_FILE, RunDirectory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and /proc")


class StopError(BaseException):
    """What stops a run that nothing was wrong with."""


class After:
    """Does something when a chunk is in the journal."""

    def __init__(self, chunks, action):
        self.left, self.action = chunks, action

    def fssbench_episodes_measured(self, chunk):
        self.left -= 1
        if not self.left:
            self.action()


def stop():
    raise StopError


def interrupted(job, chunks=2):
    """Leave a run after so many chunks; returns its folder."""
    with pytest.raises(StopError):
        evaluate(job, observers=lambda run: [After(chunks, stop)])
    (journal,) = job.out.rglob(JOURNAL_FILE)
    assert journal.read_bytes().count(b"\n") == chunks
    return journal.parent


def error_of(job):
    """The message of the error that a run ends with, or ""."""
    try:
        evaluate(job)
    except FssbenchError as error:
        return str(error)
    return ""


def one_line(job, *, match=""):
    with pytest.raises(FssbenchError, match=match) as caught:
        evaluate(job)
    assert "\n" not in str(caught.value)


def ends_well(job, undisturbed):
    (result,) = evaluate(job)
    assert results(job.out) == undisturbed
    return result


# --- processes that die ---------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(job, undisturbed, tmp_path, kills):
    """A run is killed and started again until it ends; then the next one, until all are spent."""
    generator = random.Random(kills)
    # A cache that is too small for all: files are written and removed all the time.
    cached = attrs.evolve(job, cache_dir=tmp_path / "cache", cache_memory=0, cache_limit=200_000)
    whole = start(lambda: evaluate(cached)).spent()
    killed, runs = 0, 0
    while killed < kills:
        runs += 1
        run = attrs.evolve(cached, out=tmp_path / f"run{runs}")
        killed += kill_until_it_ends(
            lambda run=run: evaluate(run), most=kills - killed, whole=whole, generator=generator
        )
        evaluate(run)
        assert results(run.out) == undisturbed
        shutil.rmtree(run.out)


@pytest.mark.parametrize("calls", [1, 8])
def test_a_loader_process_dies(job, undisturbed, monkeypatch, calls):
    original, seen = Shapes.image, []

    def image(self, image_id):
        seen.append(image_id)
        if torch.utils.data.get_worker_info() is not None and len(seen) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, image_id)

    monkeypatch.setattr(Shapes, "image", image)
    one_line(
        attrs.evolve(job, workers=1),
        match="a loader process died .* run the same command again to resume",
    )
    monkeypatch.undo()
    ends_well(job, undisturbed)


# --- disks ----------------------------------------------------------------------------------------


def test_a_disk_that_is_full_at_any_moment(job, undisturbed, monkeypatch, tmp_path):
    """Each file that is flushed finds the disk full once, in runs of their own."""
    real, count = os.fsync, []

    def flush(handle):
        count.append(handle)
        if len(count) == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", flush)
    full, failed = 0, 0
    while True:
        full += 1
        count.clear()
        run = attrs.evolve(job, out=tmp_path / str(full))
        message = error_of(run)
        if not message:
            break
        failed += 1
        assert ": cannot write: No space left on device; nothing finished is lost" in message
        assert not list(run.out.rglob(".*.gz.*"))  # no half of a file stays
        ends_well(run, undisturbed)
    # run.json, manifest, three chunks, rows, predictions, record
    assert failed >= 8


@pytest.mark.parametrize("size", [100, 1000, 3000])
def test_a_limit_of_the_size_of_files(job, undisturbed, size):
    """An error of the system itself, in the middle of a file."""

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        evaluate(job)

    code, message = start(run).wait()
    assert code == 2, message
    reason = "File too large|the disk took only part of it"  # nothing, or half a line, went in
    assert re.search(rf": cannot write: ({reason}); nothing finished is lost", message), message
    ends_well(job, undisturbed)


def test_a_folder_that_may_not_be_written(job, undisturbed, tmp_path):
    def run():
        obey_permissions()
        evaluate(job)

    folder = interrupted(job)
    places = [folder, *folder.iterdir()]
    modes = [place.stat().st_mode for place in places]
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    code, message = start(run).wait()
    for place, mode in zip(places, modes, strict=True):
        place.chmod(mode)
    assert code == 2, message
    assert "Permission denied" in message
    assert "\n" not in message
    ends_well(job, undisturbed)


def test_a_cache_that_may_not_be_written_is_done_without(job, undisturbed, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o555)

    def run():
        obey_permissions()
        evaluate(attrs.evolve(job, cache_dir=tmp_path / "cache"))

    assert start(run).wait() == (0, "")
    assert results(job.out) == undisturbed
    assert not list((tmp_path / "cache").iterdir())


# --- damage ---------------------------------------------------------------------------------------


def test_a_journal_that_is_cut_off_or_changed_anywhere(job, undisturbed):
    """Of a damaged journal only whole chunks are believed."""
    folder = interrupted(job)
    journal = folder / JOURNAL_FILE
    whole = journal.read_bytes()
    manifest = Manifest.read(folder / "manifest.jsonl.gz")

    def chunks():
        directory = RunDirectory(folder, {}, manifest, save_predictions=True)
        directory._check_identity = lambda: None
        with directory:
            return {n: rows.to_csv() for n, rows in directory._rows.items()}

    expected = chunks()
    assert len(expected) == 2
    generator = random.Random(0)
    for _ in range(60):
        journal.write_bytes(flipped(whole, generator.randrange(8 * len(whole))))
        found = chunks()
        assert len(found) >= (0 if journal.read_bytes().count(b"\n") < 2 else 1)
        assert found.items() <= expected.items()
        journal.write_bytes(whole[: generator.randrange(len(whole))])
        assert chunks().items() <= expected.items()
    journal.write_bytes(flipped(whole, 8 * (len(whole) // 3)))
    ends_well(job, undisturbed)


def test_a_forged_journal_line_with_a_right_checksum(job, undisturbed):
    import zlib

    folder = interrupted(job)
    for text in (b"{}", b"[]", b"1", b"[" * 100_000, b'{"columns":[],"rows":[],"chunk":0}'):
        with (folder / JOURNAL_FILE).open("ab") as file:
            file.write(b"%08x %s\n" % (zlib.crc32(text), text))
    ends_well(job, undisturbed)


def test_a_manifest_that_is_damaged_in_the_middle_of_a_run(job, undisturbed, caplog):
    path = interrupted(job) / "manifest.jsonl.gz"
    path.write_bytes(flipped(path.read_bytes(), 8 * 100))
    ends_well(job, undisturbed)
    assert "it is written again" in caplog.text


@pytest.mark.parametrize("bit", [8 * 60, 8 * 200 + 3])
def test_rows_that_are_damaged_after_the_end(job, undisturbed, bit):
    (result,) = evaluate(job)
    path = result.folder / "rows.csv.gz"
    path.write_bytes(flipped(path.read_bytes(), bit))
    one_line(job, match=r"rows\.csv\.gz: (these rows are damaged|cannot read these rows|line \d)")
    path.unlink()
    ends_well(job, undisturbed)


def test_a_record_that_is_damaged_after_the_end(job):
    """A finished run is read: the same result, or one line; a number is never another one."""
    (result,) = evaluate(job)
    path = result.folder / "record.json"
    whole = path.read_bytes()
    start = whole.index(b'"miou"')
    refused = 0
    for place in [*range(start, start + 30), *range(0, len(whole), 97)]:
        path.write_bytes(flipped(whole, 8 * place + place % 8))
        message = error_of(job)
        assert "\n" not in message
        assert not message or message.startswith(str(path))
        refused += bool(message)
    assert refused > 40
    path.write_bytes(whole)
    assert evaluate(job)[0].record == result.record


def test_an_edited_record_is_refused(job):
    """With or without a digest that fits: the scores are compared with the rows."""
    (result,) = evaluate(job)
    path = result.folder / "record.json"
    for keys in (("scores", "miou"), ("scores", "fb_iou"), ("scores", "episode_miou")):
        whole = path.read_bytes()
        change_record(result.folder, *keys, value=95.43)
        one_line(job, match=rf"scores\.{keys[1]} is 95\.430000, the rows give .*; remove .* again")
        fields = json.loads(path.read_text())
        del fields["digest"]  # as before there were any
        path.write_text(json.dumps(fields))
        one_line(job, match=rf"scores\.{keys[1]} is 95\.430000")
        path.write_bytes(whole)
    per_class = json.loads(path.read_text())["per_class"]
    per_class[0]["iou"] += 1
    change_record(result.folder, "per_class", value=per_class)
    one_line(job, match=r"per_class of class \d+ is not what the rows give")


def test_a_cache_that_is_damaged(job, undisturbed, tmp_path):
    cached = attrs.evolve(job, cache_dir=tmp_path / "cache", cache_memory=0)
    ends_well(cached, undisturbed)
    generator = random.Random(1)
    for path in sorted((tmp_path / "cache").glob("*.features")):
        content = path.read_bytes()
        path.write_bytes(flipped(content, generator.randrange(8 * len(content))))
    ends_well(attrs.evolve(cached, out=tmp_path / "again"), undisturbed)


# --- time, other runs, other people ---------------------------------------------------------------


def test_a_clock_that_jumps(job, undisturbed, monkeypatch, tmp_path):
    generator, real = random.Random(2), time.time
    year = 365 * 86_400

    def jumping():
        return real() + generator.uniform(-20, 20) * year

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(jumping(), tz)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(datetime, "datetime", Jumping)
    cached = attrs.evolve(job, cache_dir=tmp_path / "cache", cache_memory=0, cache_limit=200_000)

    def jump():
        for path in (tmp_path / "cache").glob("*.features"):
            os.utime(path, (jumping(), jumping()))
        stop()

    with pytest.raises(StopError):
        evaluate(cached, observers=lambda run: [After(2, jump)])
    result = ends_well(cached, undisturbed)
    assert 0 < result.record.cost.seconds_per_episode < 3600


def test_runs_that_race_for_one_folder_and_one_cache(job, undisturbed, tmp_path):
    cached = attrs.evolve(job, cache_dir=tmp_path / "cache", cache_memory=0, cache_limit=200_000)
    outs = [tmp_path / "one", tmp_path / "one", tmp_path / "other"]
    racing = [start(lambda out=out: evaluate(attrs.evolve(cached, out=out))) for out in outs]
    ends = [child.wait() for child in racing]
    assert ends[2] == (0, "")
    assert 0 in (ends[0][0], ends[1][0])
    for code, message in ends[:2]:
        refused = code == 2 and "another process uses this run folder" in message
        assert code == 0 or refused, message
    for out in set(outs):
        assert results(out) == undisturbed


def test_an_image_that_disappears(job, tmp_path, monkeypatch):
    root, generator = tmp_path / "mine", np.random.default_rng(0)
    for name in ("cup", "tree"):
        (root / name).mkdir(parents=True)
        for i in range(24):
            pixels = generator.integers(0, 120, (24, 32, 3), dtype=np.uint8)
            mask = np.zeros((24, 32), np.uint8)
            mask[4 : 9 + i % 8, 4:20] = 255
            pixels[mask == 255, 0] = 250
            Image.fromarray(pixels).save(root / name / f"{i}.png")
            Image.fromarray(mask).save(root / name / f"{i}_mask.png")
    own = attrs.evolve(
        job,
        protocol="folder/v1",
        data_root=root,
        data_options={},
        folds=None,
        limit=None,
        cache_memory=0,
    )
    (straight,) = evaluate(attrs.evolve(own, out=tmp_path / "straight"))
    manifest = Manifest.read(straight.folder / "manifest.jsonl.gz")
    last = visiting_order(manifest.episodes)[-1].query
    (file,) = (path for path in root.rglob(f"{last}.*") if "mask" not in path.name)
    with pytest.raises(FssbenchError, match=f"{file.name}.*no such file") as caught:
        evaluate(own, observers=lambda run: [After(2, lambda: file.rename(tmp_path / "gone"))])
    assert "\n" not in str(caught.value)
    (tmp_path / "gone").rename(file)
    ends_well(own, results(tmp_path / "straight"))


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
    ids=["python", "gpu", "cpu"],
)
def test_a_matcher_that_finds_no_memory(job, undisturbed, monkeypatch, error):
    original, calls = methods_for_tests.Mixer.segment, []

    def segment(self, query, support):
        calls.append(1)
        if len(calls) > 25:
            raise error
        return original(self, query, support)

    monkeypatch.setattr(methods_for_tests.Mixer, "segment", segment)
    again = "run the same command again with a lower --cache-memory .* to resume"
    one_line(job, match=rf"episode \d+ .*: out of memory; {again}")
    monkeypatch.undo()
    (journal,) = job.out.rglob(JOURNAL_FILE)
    assert journal.read_bytes().count(b"\n") == 1
    ends_well(job, undisturbed)


def test_memory_that_the_system_refuses(job, undisturbed, monkeypatch):
    original, calls = methods_for_tests.Mixer.segment, []

    def segment(self, query, support):
        calls.append(1)
        if len(calls) > 25:
            torch.ones(1 << 32)
        return original(self, query, support)

    def run():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
        methods_for_tests.Mixer.segment = segment
        evaluate(job)

    code, message = start(run).wait()
    assert code == 2, message
    assert "out of memory; run the same command again" in message
    ends_well(job, undisturbed)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_finds_no_memory(job, undisturbed, monkeypatch, workers):
    def image(self, image_id):
        raise MemoryError

    monkeypatch.setattr(Shapes, "image", image)
    short = attrs.evolve(job, workers=workers)
    one_line(short, match="out of memory while loading episode .* fewer --workers to resume")
    monkeypatch.undo()
    ends_well(job, undisturbed)
