"""Values of boards in the cache folder, and processes."""

import functools
import os
import signal
import subprocess
import sys
import time

import numpy
import program
import pytest

import fssbench.board.calculation as calculation
from fssbench.board.board import build_boards
from fssbench.board.check import check_boards
from fssbench.errors import FssbenchError
from fssbench.results.result import read_result
from fssbench.results.rows import read_rows, write_rows


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FSSBENCH_CACHE", str(folder))
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Numbers of results or methods of each computation, in this process."""
    found = []
    monkeypatch.setenv("FSSBENCH_BOARD_PROCESSES", "1")

    def counted(name, function, items):
        found.append((name, len(items)))
        return function(items)

    for name in ("_verify", "_intervals", "_samples"):
        replaced = functools.partial(counted, name, getattr(calculation, name))
        monkeypatch.setattr(calculation, name, replaced)
    return found


@pytest.fixture
def board(runs, tmp_path):
    """Runs of three methods of four folds, and the folder of their board."""
    for quality in (0.6, 0.5, 0.4):
        runs.folds(f"method-{quality}", quality=quality)
    return tmp_path / "board"


def texts(folder):
    return {path.name: path.read_text() for path in folder.glob("*.md")}


def test_a_second_run_computes_nothing_and_gives_the_same_pages(cache, calls, board, runs):
    build_boards([runs.root], board)
    assert calls == [("_verify", 12), ("_intervals", 3), ("_samples", 3)]
    first = texts(board)
    calls.clear()
    build_boards([runs.root], board)
    assert check_boards(board) == []
    assert calls == []
    assert texts(board) == first


def test_values_of_changed_rows_are_not_those_of_the_cache(cache, calls, board, runs):
    build_boards([runs.root], board)
    calls.clear()
    changed = sorted(board.rglob("rows.csv.gz"))[0]
    rows = read_rows(changed)
    write_rows(rows.assign(intersection_fg=rows["intersection_fg"] // 2), changed)
    assert any("scores.miou" in problem for problem in check_boards(board))
    assert calls == [("_verify", 1)]


def test_a_new_method_is_compared_alone(cache, calls, board, runs):
    build_boards([runs.root], board)
    calls.clear()
    runs.folds("method-0.3", quality=0.3)
    build_boards([runs.root], board)
    assert calls[:2] == [("_verify", 4), ("_intervals", 1)]
    assert check_boards(board) == []


@pytest.mark.parametrize("damage", ["delete", "truncate", "other code"])
def test_the_cache_can_be_lost_damaged_or_of_other_code(
    cache, calls, board, runs, damage, monkeypatch
):
    build_boards([runs.root], board)
    first = texts(board)
    calls.clear()
    for file in cache.rglob("*.npz"):
        if damage == "delete":
            file.unlink()
        elif damage == "truncate":
            file.write_bytes(file.read_bytes()[:-40])
    if damage == "other code":
        monkeypatch.setattr(calculation, "_code", lambda: "another")
    build_boards([runs.root], board)
    assert calls == [("_verify", 12), ("_intervals", 3), ("_samples", 3)]
    assert texts(board) == first


def test_boards_need_no_cache(calls, board, runs, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FSSBENCH_CACHE", str(tmp_path / "file" / "cache"))
    build_boards([runs.root], board)
    assert check_boards(board) == []
    assert [name for name, _ in calls].count("_verify") == 2


def test_processes_give_the_pages_of_one_process(tmp_path, board, runs, monkeypatch):
    runs.folds("method-0.3", quality=0.3)
    runs.folds("method-0.35", quality=0.3, luck=1)
    pages = []
    for processes in ("1", "3"):
        monkeypatch.setenv("FSSBENCH_BOARD_PROCESSES", processes)
        monkeypatch.setenv("FSSBENCH_CACHE", str(tmp_path / f"cache-{processes}"))
        monkeypatch.setattr(calculation, "CHUNK", 2)
        done: list[tuple[str, int, int]] = []
        out = tmp_path / f"board-{processes}"
        build_boards([runs.root], out, lambda *step, done=done: done.append(step))
        pages.append(texts(out))
        assert {task for task, *_ in done} == {
            *("reading", "verifying", "copying", "intervals", "ranking")
        }
        assert ("verifying", 20, 20) in done
    assert pages[0] == pages[1]


def test_sums_of_the_cache_are_those_of_the_rows(runs):
    rows = read_rows(runs.add() / "rows.csv.gz")
    sums = calculation.Sums.by_query(rows)
    packed = calculation._packed(calculation.SparseSums.of(sums))
    restored = calculation._unpacked(packed).dense()
    for name in ("inter", "union", "asked"):
        numpy.testing.assert_array_equal(getattr(restored, name), getattr(sums, name))


def test_a_wrong_number_of_processes_is_an_error(board, runs, monkeypatch):
    monkeypatch.setenv("FSSBENCH_BOARD_PROCESSES", "two")
    with pytest.raises(FssbenchError, match="is 'two'; set it to a number of proc"):
        build_boards([runs.root], board)


def test_a_result_that_was_removed_has_no_value(runs):
    result = read_result(runs.add())
    (result.folder / "rows.csv.gz").unlink()
    with pytest.raises(FssbenchError, match="cannot read the files of this result"):
        calculation.Calculation().intervals([[result]])


def test_an_interval_of_the_wrong_form_is_computed_again(cache, calls, board, runs):
    build_boards([runs.root], board)
    first = texts(board)
    for file in cache.rglob("*.npz"):
        with numpy.load(file) as arrays:
            damaged = {name: values[:1] for name, values in arrays.items() if values.ndim}
        numpy.savez(file, **damaged)
    build_boards([runs.root], board)
    assert texts(board) == first


def test_values_of_files_that_change_meanwhile_are_not_stored(cache, calls, runs, monkeypatch):
    """Otherwise the earlier files would have the values of the later ones, if they came back."""
    folder, other = runs.add(quality=0.5), runs.add(quality=0.4)
    earlier = {file.name: file.read_bytes() for file in folder.iterdir()}
    verified = calculation.verified_rows

    def after_a_change(changed):
        for file in other.iterdir():
            (changed / file.name).write_bytes(file.read_bytes())
        return verified(changed)

    monkeypatch.setattr(calculation, "verified_rows", after_a_change)
    with calculation.Calculation() as using:
        ((problem,),) = using.problems([folder]).values()
        assert "its files changed meanwhile; run the same command again" in problem
        with pytest.raises(FssbenchError, match="its files changed meanwhile"):
            using.intervals([[read_result(folder)]])
    monkeypatch.undo()
    monkeypatch.setenv("FSSBENCH_CACHE", str(cache))
    for name, content in earlier.items():
        (folder / name).write_bytes(content)
    with calculation.Calculation() as using:
        assert using.problems([folder]) == {folder: []}
        (interval,) = using.intervals([[read_result(folder)]])
    assert interval == pytest.approx(read_result(folder).record.intervals["miou"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is one process")
def test_processes_end_with_a_killed_parent(tmp_path):
    code = (
        "import os, time, fssbench.board.calculation as calculation\n"
        "os.environ['FSSBENCH_BOARD_PROCESSES'] = '2'\n"
        "pool = calculation.Calculation()._started()\n"
        "print(*pool._processes, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as made:
        assert made.stdout is not None
        children = [int(word) for word in made.stdout.readline().split()]
        made.kill()
    assert len(children) == 2
    end = time.monotonic() + 20
    while any(map(program.is_running, children)) and time.monotonic() < end:
        time.sleep(0.1)
    still = [child for child in children if program.is_running(child)]
    for child in still:
        os.kill(child, signal.SIGKILL)
    assert not still


def test_a_new_last_row_is_compared_without_the_rows_between(cache, calls, runs, tmp_path):
    """Samples of rows whose difference is known are not drawn."""
    for number in range(5):
        runs.folds(f"method-{number}", quality=0.5 - 0.001 * number)
    build_boards([runs.root], tmp_path / "board")
    calls.clear()
    runs.folds("another", quality=0.5 - 0.0025)
    build_boards([runs.root], tmp_path / "board")
    assert calls[-1] == ("_samples", 2)
