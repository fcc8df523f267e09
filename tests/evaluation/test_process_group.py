"""Several processes at one run: the same rows, whoever dies."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import attrs
import methods_for_tests
import pandas
import pytest
import torch

from fssbench import Episode, Evaluation, FssbenchError, registry
from fssbench.evaluation.chunk_queue import FOLDER, ChunkQueue, shared_order
from fssbench.evaluation.chunk_result import ChunkResult
from fssbench.evaluation.evaluate import evaluate
from fssbench.evaluation.process_group import ProcessGroup
from fssbench.runtime import locks

HERE = Path(__file__).parent
PLUGINS = [methods_for_tests.__file__, str(HERE / "fragile_for_tests.py")]


@pytest.fixture(autouse=True)
def plugin(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(methods_for_tests.__file__).parent))
    monkeypatch.syspath_prepend(str(HERE))
    yield registry.use_plugins(PLUGINS)
    registry.use_plugins([])


@pytest.fixture
def job(job):
    return attrs.evolve(job, matcher="fragile")


@pytest.fixture
def marks(tmp_path, monkeypatch):
    folder = tmp_path / "marks"
    folder.mkdir()
    monkeypatch.setenv("FRAGILE_MARKS", str(folder))
    return folder


@pytest.fixture
def straight(job, tmp_path):
    """Rows of one process."""
    (result,) = evaluate(attrs.evolve(job, out=tmp_path / "straight"))
    return (result.folder / "rows.csv.gz").read_bytes()


def rows_of(folder: Path) -> bytes:
    (path,) = folder.rglob("rows.csv.gz")
    return path.read_bytes()


def command(out: Path, *more: str, matcher: str = "fragile") -> list[str]:
    plugins = [word for name in PLUGINS for word in ("-p", name)]
    return [
        "-m", "fssbench", "evaluate", matcher, *plugins, "--backbone", "pixels", "-d",
        "images_per_split=120", "--fold", "0", "--limit", "80", "--workers", "0", "--out", str(out),
        *more,
    ]  # fmt: skip


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, "-m", *launcher, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def episodes(*indices: int) -> list[Episode]:
    return [Episode(index=i, class_id=0, query=f"q{i}", support=("s",)) for i in indices]


def part_of(chunk: int, some: list[Episode], seconds: float = 0.25) -> ChunkResult:
    rows = pandas.DataFrame(
        {
            "index": [e.index for e in some], "class_id": 0, "query": [e.query for e in some],
            "score": [0.1 + 0.2] * len(some),
        }
    )  # fmt: skip
    masks = [torch.arange(12).view(3, 4) % (e.index + 2) == 0 for e in some]
    return ChunkResult(
        chunk=chunk, episodes=tuple(some), rows=rows, predictions=masks, seconds=seconds
    )


# --- what is handed out ---------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "chunks"), [(1, 7), (2, 7), (4, 7), (4, 3), (8, 50)])
def test_every_process_comes_to_every_chunk_once_and_begins_with_its_own(count, chunks):
    numbers = [10 * n for n in range(chunks)]
    orders = [shared_order(numbers, rank, count) for rank in range(count)]
    assert all(sorted(order) == numbers for order in orders)
    if count <= chunks:
        assert len({order[0] for order in orders}) == count
        own = chunks // count
        assert all(order[:own] == sorted(order[:own]) for order in orders)


def test_a_result_is_read_as_it_was_written():
    chunks = {7: episodes(3, 1, 2)}
    result = part_of(7, chunks[7])
    again = ChunkResult.from_bytes(result.to_bytes(), chunks)
    assert (again.chunk, again.episodes, again.seconds) == (7, tuple(chunks[7]), 0.25)
    pandas.testing.assert_frame_equal(again.rows, result.rows, check_exact=True)
    assert all(map(torch.equal, again.predictions, result.predictions))
    without = ChunkResult.from_bytes(result.to_bytes(masks=False), chunks)
    pandas.testing.assert_frame_equal(without.rows, result.rows, check_exact=True)
    assert without.predictions == ()
    for wrong in (result.to_bytes()[:-3], result.to_bytes().replace(b"q1", b"q9")):
        with pytest.raises(ValueError, match="damaged"):
            ChunkResult.from_bytes(wrong, chunks)
    for others in ({7: episodes(3, 1, 4)}, {8: episodes(3, 1, 2)}):
        with pytest.raises(ValueError, match="its episodes differ"):
            ChunkResult.from_bytes(result.to_bytes(), others)


def test_a_line_of_version_0_1_is_read():
    line = (
        b'718b7c21 {"chunk":0,"seconds":1.5,"columns":["index","class_id","query","union_fg"],'
        b'"rows":[[4,0,"a",7]]}'
    )
    some = [attrs.evolve(each, index=4) for each in episodes(4)]
    result = ChunkResult.from_bytes(line, {0: some})
    assert (result.seconds, result.rows["union_fg"].tolist()) == (1.5, [7])


def test_a_chunk_is_claimed_once_and_done_once(tmp_path):
    first, second = ChunkQueue(tmp_path), ChunkQueue(tmp_path)
    first.open("group", [0, 1], {"code": "a"})
    assert second.offered("group", {"code": "a"}) == (0, 1)
    assert second.offered("another", {"code": "a"}) is None
    with pytest.raises(FssbenchError, match="code, images or versions changed"):
        second.offered("group", {"code": "b"})
    assert first.claim(0)
    assert first.claim(0)  # its own
    assert not second.claim(0)
    assert second.claim(1)
    second.put(part_of(1, episodes(5)))
    assert not first.claim(1)  # done
    (part,) = first.results({0: episodes(4), 1: episodes(5)})
    assert part.chunk == 1
    first.release(0)  # its process died, say
    assert second.claim(0)
    first.mark(1)
    assert first.results({1: episodes(5)}) == []  # written down
    assert first.done(1)


def test_a_damaged_result_is_measured_again(tmp_path, caplog):
    queue = ChunkQueue(tmp_path)
    queue.claim(0)
    queue.put(part_of(0, episodes(5)))
    (path,) = (tmp_path / FOLDER).glob("*.part")
    path.write_bytes(path.read_bytes()[:-1])
    assert queue.results({0: episodes(5)}) == []
    assert "damaged" in caplog.text
    assert queue.claim(0)


def test_a_file_system_without_locks_is_one_line(tmp_path, monkeypatch):
    def no_lock(handle):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(locks, "_lock", no_lock)
    with pytest.raises(FssbenchError, match="cannot lock a file here: .*choose an --out"):
        ChunkQueue(tmp_path).claim(0)


def test_the_first_process_measures_the_chunks_of_a_dead_one(tmp_path):
    """A second process takes two chunks, hands one over, and dies."""
    chunks = {n: episodes(n) for n in range(4)}
    group = ProcessGroup(count=2, group="g")
    other = ChunkQueue(tmp_path)
    came = []

    def measure(asked, shared):
        for chunk, some in asked.items():
            if shared.claim(chunk):
                yield part_of(chunk, some)

    for part in group.lead(tmp_path, chunks, measure, {}):
        if not came:
            assert other.offered("g", {}) == (0, 1, 2, 3)
            assert other.claim(3)
            assert other.claim(2)
            other.put(part_of(3, chunks[3], seconds=9.0))
        elif len(came) == 2:
            other.release()
        came.append((part.chunk, part.seconds))
    assert sorted(chunk for chunk, _ in came) == [0, 1, 2, 3]
    assert dict(came)[3] == 9.0


# --- whole runs -----------------------------------------------------------------------------------


def test_two_processes_give_the_rows_of_one(job, straight, marks, monkeypatch):
    monkeypatch.setenv("FRAGILE_WAIT", "2")
    (result,) = evaluate(attrs.evolve(job, devices=2))
    assert len(list(marks.iterdir())) == 2  # both measured
    assert rows_of(job.out) == straight
    assert not (result.folder / FOLDER).exists()
    assert result.record.cost.seconds_per_episode > 0


def test_when_one_of_two_is_killed_the_other_finishes(job, straight, marks, monkeypatch, caplog):
    monkeypatch.setenv("FRAGILE_WAIT", "2")
    monkeypatch.setenv("FRAGILE_KILL", "1")
    with caplog.at_level(logging.WARNING):
        evaluate(attrs.evolve(job, devices=2))
    assert len(list(marks.iterdir())) == 2
    assert rows_of(job.out) == straight


def test_results_of_a_killed_run_are_used(job, straight):
    """The first process died before it took what another had measured."""
    (whole,) = evaluate(attrs.evolve(job, out=job.out / "whole"))
    from fssbench.episodes.chunks import chunks_of
    from fssbench.evaluation.evaluate import prepare

    evaluator = prepare(job)
    (manifest,) = evaluator.manifests()
    folder = evaluator.folder(manifest)
    (number, some), *_ = chunks_of(manifest.episodes).items()
    queue = ChunkQueue(folder)
    assert queue.claim(number)
    (part,) = evaluator.measure({number: some})
    queue.put(attrs.evolve(part, seconds=1000.0))
    queue.release()
    done = []

    class Watch:
        def fssbench_evaluation_started(self, run):
            done.append(run.done)

    (result,) = evaluate(job, observers=lambda run: [Watch()])
    assert done == [20]
    assert result.record.cost.seconds_per_episode > 1000 / 80
    assert (result.folder / "rows.csv.gz").read_bytes() == straight == rows_of(whole.folder)
    assert not (folder / FOLDER).exists()


@pytest.mark.slow
def test_four_processes_give_the_rows_of_one(job, straight, marks, monkeypatch):
    monkeypatch.setenv("FRAGILE_WAIT", "4")
    evaluate(attrs.evolve(job, devices=4))
    assert len(list(marks.iterdir())) == 4
    assert rows_of(job.out) == straight


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_torchrun(job, straight, marks, monkeypatch, processes):
    monkeypatch.setenv("FRAGILE_WAIT", str(processes))
    done = torchrun(processes, *command(job.out))
    assert done.returncode == 0, done.stderr
    assert len(list(marks.iterdir())) == processes
    assert done.stdout.count("fragile on pixels") == 1  # one table, by one process
    assert rows_of(job.out) == straight


@pytest.mark.slow
def test_a_killed_process_of_torchrun_leaves_a_run_that_goes_on(job, straight, marks, monkeypatch):
    monkeypatch.setenv("FRAGILE_WAIT", "2")
    monkeypatch.setenv("FRAGILE_KILL", "1")
    assert torchrun(2, *command(job.out)).returncode != 0
    assert not list(job.out.rglob("record.json"))
    monkeypatch.delenv("FRAGILE_KILL")
    monkeypatch.setenv("FRAGILE_WAIT", "0")
    evaluate(job)
    assert rows_of(job.out) == straight


@pytest.mark.slow
def test_when_the_first_process_is_killed_the_run_goes_on(job, straight, marks, monkeypatch):
    monkeypatch.setenv("FRAGILE_WAIT", "2")
    monkeypatch.setenv("FRAGILE_KILL", "0")
    killed = subprocess.run(
        [sys.executable, *command(job.out, "--devices", "2")], capture_output=True, check=False
    )  # its pipes are closed when the other process has ended, too
    assert killed.returncode == -9
    assert not list(job.out.rglob("record.json"))
    assert list(job.out.rglob("*.part"))  # the second one finished its chunk
    monkeypatch.delenv("FRAGILE_KILL")
    monkeypatch.setenv("FRAGILE_WAIT", "0")
    evaluate(job)
    assert rows_of(job.out) == straight


# --- what cannot be -------------------------------------------------------------------------------


def test_wrong_numbers_of_processes(job, monkeypatch):
    with pytest.raises(FssbenchError, match="--devices must be at least 1"):
        attrs.evolve(job, devices=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with_device = ProcessGroup(count=2, local_count=2, local_rank=1).with_device
    assert with_device(attrs.evolve(job, devices=2)).device == "cuda:1"
    assert with_device(attrs.evolve(job, device="cpu")).device == "cpu"
    with pytest.raises(FssbenchError, match="need a device each; use --device cuda"):
        with_device(attrs.evolve(job, device="cuda:0"))
    with pytest.raises(FssbenchError, match="--devices 3: this machine has 2 GPUs"):
        ProcessGroup(count=3, local_count=3).with_device(job)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert ProcessGroup(count=3, local_count=3).with_device(job).device == "auto"


def test_torchrun_says_who_this_is(monkeypatch):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "a", "MASTER_PORT": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    group = ProcessGroup.of(Evaluation())
    assert (group.rank, group.count, group.local_rank, group.local_count) == (5, 8, 1, 4)
    with pytest.raises(FssbenchError, match="remove --devices: torchrun sets the number"):
        ProcessGroup.of(Evaluation(devices=2))


def test_a_process_whose_parent_died_stops(tmp_path):
    orphan = ProcessGroup(rank=1, count=2, group="g", parent=os.getppid() + 1)
    with pytest.raises(SystemExit):
        orphan.help_with(tmp_path, {}, lambda chunks, shared: iter(()), {})


def test_a_process_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("fssbench.evaluation.process_group.START_TIMEOUT", 0.0)
    with pytest.raises(FssbenchError, match="the same options, versions and --out"):
        ProcessGroup(rank=1, count=2, group="g").help_with(
            tmp_path, {}, lambda chunks, shared: iter(()), {}
        )
