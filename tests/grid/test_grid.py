"""Grids: reading of files, and evaluation of each cell once."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import attrs
import methods_for_tests
import pytest
from rich.console import Console

from fssbench import FssbenchError, backbone, matcher, registry
from fssbench.cli import _run
from fssbench.evaluation.evaluate import evaluate
from fssbench.grid.grid import read_grid
from fssbench.grid.local import run_local
from fssbench.grid.table import GridTable
from fssbench.matchers.checkpoint import write_checkpoint

TOP = """
matchers = ["mixer"]
backbones = ["pixels"]
data_options = { images_per_split = "120" }
limit = 40
workers = 0
"""


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """Return a writer of grid files; relative paths are below an empty folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = tmp_path / "grid.toml"
        path.write_text(text)
        return path

    return write


def quiet(jobs) -> GridTable:
    return GridTable(Console(file=io.StringIO()), jobs)


def checkpoint(path: Path, fold: int) -> None:
    header = {"matcher": "learner", "backbone": "pixels", "config": {"width": 4}, "fold": fold,
              "dataset": "shapes"}  # fmt: skip
    write_checkpoint(path, matcher("learner", backbone("pixels")), header)


def test_the_product_of_all_lists(grid):
    jobs = read_grid(
        grid(
            TOP.replace('["mixer"]', '["mixer", "masked"]')
            + "folds = [0, 2]\nshots = [1, 5]\nseeds = [0, 7]\ncache_memory = '1M'\n"
        )
    )
    assert [(j.evaluation.matcher, j.evaluation.backbone) for j in jobs] == [
        ("mixer", "pixels"), ("masked", "pixels"),
    ]  # fmt: skip
    cells = {(f, k, s) for f in (0, 2) for k in (1, 5) for s in (0, 7)}
    assert all(set(job.cells) == cells and len(job.cells) == 8 for job in jobs)
    assert jobs[0].evaluation.cache_memory == 1 << 20
    assert jobs[0].evaluation.data_options == {"images_per_split": "120"}


IMAGE_METHODS = str(Path(__file__).parents[1] / "testing" / "image_methods.py")
IMAGE_GRID = """
data_options = { images_per_split = "120" }
folds = [0]
limit = 40
workers = 0
device = "cpu"

[[methods]]
matchers = ["image-similar", "image-adapted"]
encoders = { features = "tiny-resnet" }

[[methods]]
matchers = ["prototype"]
backbones = ["tiny-resnet"]
"""


@pytest.fixture
def image_methods():
    registry.use_plugins([IMAGE_METHODS])
    yield
    registry.use_plugins([])


def test_matchers_on_whole_images_need_no_backbones(grid, image_methods):
    jobs = read_grid(grid(IMAGE_GRID))
    assert [(job.evaluation.matcher, job.backbone) for job in jobs] == [
        ("image-similar", "tiny-resnet"), ("image-adapted", "tiny-resnet"),
        ("prototype", "tiny-resnet"),
    ]  # fmt: skip
    with pytest.raises(FssbenchError, match="prototype works on the features of one --backbone"):
        read_grid(grid("encoders = { features = 'tiny-vit' }\n" + IMAGE_GRID))


def test_folds_that_are_not_named_are_all_folds(grid):
    (job,) = read_grid(grid(TOP))
    assert job.evaluation.folds == (0, 1, 2, 3)


def test_tables_of_methods_take_what_they_do_not_say_from_the_top(grid):
    jobs = read_grid(
        grid(
            TOP + "folds = [1]\n[[methods]]\nshots = [5]\n"
            "[[methods]]\nmatchers = ['badly']\noptions = { how = 'slow' }\nfolds = [2]\n"
        )
    )
    told = [(j.evaluation.matcher, j.cells, j.evaluation.options, j.evaluation.limit) for j in jobs]
    assert told == [
        ("mixer", ((1, 5, 0),), {}, 40),
        ("badly", ((2, 1, 0),), {"how": "slow"}, 40),
    ]


def test_checkpoints_by_pattern(grid, tmp_path):
    for fold in (0, 3):
        checkpoint(tmp_path / f"learner-{fold}.safetensors", fold)
    text = TOP.replace("mixer", "learner") + "checkpoint = '{matcher}-{fold}.safetensors'\n"
    jobs = read_grid(grid(text + "folds = [0, 3]\nshots = [1, 2]\n"))
    assert [(j.evaluation.checkpoint, j.cells) for j in jobs] == [
        (Path(f"learner-{fold}.safetensors"), ((fold, 1, 0), (fold, 2, 0))) for fold in (0, 3)
    ]
    (job,) = read_grid(grid(text.replace("{fold}", "3")))  # trained for one fold: evaluated there
    assert job.cells == ((3, 1, 0),)
    with pytest.raises(
        FssbenchError, match=r"grid\.toml: checkpoint learner-1\.safetensors: there"
    ):
        read_grid(grid(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("matchers = [", "invalid TOML: "),
        (TOP + "fold = [0]\n", "unknown key 'fold'; did you mean 'folds'"),
        (TOP + "devices = 2\n", "unknown key 'devices'"),
        (TOP + "folds = []\n", "folds: the list is empty"),
        (TOP + "folds = [0, 4]\n", "shapes has no fold 4; it has folds 0 to 3"),
        (TOP + "folds = ['0']\n", r"folds: \['0'\] is not a list of whole numbers"),
        (TOP + "shots = [0]\n", "--shots must be at least 1, not 0"),
        (TOP + "shots = 1\n", "shots: 1 is not a list of whole numbers"),
        (TOP + "seeds = [true]\n", "is not a list of whole numbers"),
        (TOP + "any_fold = 1\n", "any_fold: 1 is not true or false"),
        (TOP + "batch_size = 0\n", "--batch-size must be at least 1"),
        (TOP + "precision = 'fp16'\n", "precision: 'fp16' is not one of fp32, bf16"),
        (TOP + "options = ['size=3']\n", r"options: \['size=3'\] is not a table"),
        (TOP + "cache_memory = 'much'\n", "cache_memory much: write a size"),
        (TOP + "checkpoint = '{name}.safetensors'\n", "unknown field {name}; use {matcher}, "),
        (TOP + "checkpoint = '{fold'\n", "checkpoint {fold: "),
        (TOP + "protocol = 'shapes/v2'\n", "no protocol is called 'shapes/v2'"),
        (TOP + "[options]\nwidth = 3\n", "mixer takes no options, but was given width"),
        (TOP.replace("mixer", "mixr"), "no matcher is called 'mixr'; did you mean 'mixer'"),
        (TOP.replace("pixels", "pixel"), "no backbone is called 'pixel'; did you mean 'pixels'"),
        (TOP.replace('"mixer"', ""), "matchers: the list is empty"),
        (TOP.replace("matchers", "#"), "matchers: name at least one"),
        (TOP.replace("backbones", "#"), "backbones: name at least one"),
        (TOP + "[methods]\n", r"methods: write tables \[\[methods\]\]"),
        (TOP + "[[methods]]\n[[methods]]\n", "mixer on pixels is listed twice"),
    ],
)  # fmt: skip
def test_wrong_files_are_one_line_and_exit_code_2(grid, capsys, text, message):
    path = grid(text)
    with pytest.raises(FssbenchError, match=message.replace("{", r"\{")) as caught:
        read_grid(path)
    assert str(caught.value).startswith(f"--grid {path}: ")
    assert _run(["evaluate", "-p", methods_for_tests.__file__, "--grid", str(path)]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert not (path.parent / "runs").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--fold", "0"], "--fold belongs into the file of --grid"),
        (["mixer"], "MATCHER belongs into the file"),
        (["--on", "ray", "--devices", "2"], "remove --devices: Ray sets the number"),
    ],
)
def test_what_the_file_says_is_not_said_beside_it(grid, capsys, more, message):
    path = grid(TOP)
    assert _run(["evaluate", "-p", methods_for_tests.__file__, "--grid", str(path), *more]) == 2
    assert message in capsys.readouterr().err


def test_missing_files_and_ray_without_a_grid(capsys):
    assert _run(["evaluate", "--grid", "nowhere.toml"]) == 2
    assert "--grid nowhere.toml: No such file" in capsys.readouterr().err
    assert _run(["evaluate", "--on", "ray"]) == 2
    assert "--on ray runs a grid: give --grid FILE.toml" in capsys.readouterr().err


def test_cells_are_those_of_evaluate_and_never_run_twice(grid, tmp_path, capsys):
    text = TOP.replace('["mixer"]', '["mixer", "masked"]') + "folds = [0, 1]\nlimit = 20\n"
    path = grid(text.replace("limit = 40\n", ""))
    jobs = read_grid(path, out=tmp_path / "grid-runs")
    results = run_local(jobs, quiet(jobs))
    assert len(results) == 4
    assert all(result.fresh for result in results)
    single = attrs.evolve(jobs[1].evaluation, out=tmp_path / "single", folds=(1,))
    (alone,) = evaluate(single)
    assert alone.folder.relative_to(single.out) == results[3].folder.relative_to(
        jobs[1].evaluation.out
    )
    files = [r.folder / "rows.csv.gz" for r in (alone, results[3])]
    assert files[0].read_bytes() == files[1].read_bytes()
    command = ["evaluate", "-p", methods_for_tests.__file__, "--grid", str(path)]
    capsys.readouterr()
    assert _run([*command, "--out", str(tmp_path / "grid-runs"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [r["created"] for r in again] == [r.record.created for r in results]
    assert _run([*command, "--out", str(tmp_path / "grid-runs")]) == 0
    shown = capsys.readouterr()
    assert "No episode was measured" in shown.out
    assert shown.err.count("was done before") == 4


def test_what_cannot_be_done_does_not_stop_the_rest(grid, tmp_path):
    jobs = read_grid(grid(TOP.replace('["mixer"]', '["badly", "mixer"]') + "folds = [0]\n"))
    table = quiet(jobs)
    with pytest.raises(FssbenchError, match="parts of the grid failed: episode .* NaN"):
        run_local(jobs, table)
    assert [p.parent.parent.name[:5] for p in (tmp_path / "runs").rglob("record.json")] == ["mixer"]
    assert table.summary().startswith("1/2 cells")


def test_the_live_table_shows_what_happens(grid):
    jobs = read_grid(grid(TOP.replace("40", "20") + "folds = [0, 1]\n"))
    screen = io.StringIO()
    table = GridTable(Console(file=screen, force_terminal=True, width=120), jobs)
    run_local(jobs, table)
    drawn = Console(file=(shown := io.StringIO()), width=120)
    drawn.print(table._table())
    table.close()
    lines = [line for line in shown.getvalue().splitlines() if "mixer" in line]
    assert len(lines) == 2
    assert all("20/20" in line and "done" in line for line in lines)
    assert "2/2 cells, 40 episodes" in shown.getvalue()
    assert "mixer pixels, fold 1, 1-shot, seed 0: mIoU" in screen.getvalue()


# --- Ray ------------------------------------------------------------------------------------------

MEMORY = 80 * 2**20
"""Bytes of each node's object store."""


@pytest.fixture
def cluster(monkeypatch, cache_folder):
    """Two nodes of one CPU each; the driver is on the first one."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(methods_for_tests.__file__).parent))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": MEMORY, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    try:
        made.add_node(num_cpus=1, num_gpus=0, object_store_memory=MEMORY)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.mark.slow
def test_a_cluster_that_loses_a_node(grid, tmp_path, cluster):
    """One of two busy nodes is killed; the rows are complete and unchanged."""
    from fssbench.grid.ray import run_ray

    registry.use_plugins([methods_for_tests.__file__])
    slow = TOP.replace("mixer", "badly").replace("40", "60")
    slow += "folds = [0, 1]\noptions = { how = 'slow', after = 0 }\n"
    jobs = read_grid(grid(slow), out=tmp_path / "ray")

    class Killing(GridTable):
        killed = 0.0

        def measured(self, job, run, rows):
            super().measured(job, run, rows)
            if not self.killed:
                self.killed = time.monotonic()
                (victim,) = cluster.worker_nodes
                cluster.remove_node(victim, allow_graceful=False)

    table = Killing(Console(file=io.StringIO()), jobs)
    results = run_ray(jobs, table)
    assert table.killed
    assert [(r.record.fold, r.fresh) for r in results] == [(0, True), (1, True)]
    again = run_ray(jobs, quiet(jobs))
    assert [r.fresh for r in again] == [False, False]
    assert [r.record for r in again] == [r.record for r in results]
    straight = evaluate(
        attrs.evolve(jobs[0].evaluation, matcher="mixer", options={}, out=tmp_path / "straight")
    )
    for one, other in zip(results, straight, strict=True):
        files = [r.folder / "rows.csv.gz" for r in (one, other)]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_matchers_on_whole_images_give_the_same_rows_on_ray(grid, image_methods, tmp_path, cluster):
    from fssbench.grid.ray import run_ray

    jobs = read_grid(grid(IMAGE_GRID), out=tmp_path / "ray")
    run_ray(jobs, quiet(jobs))
    jobs = read_grid(grid(IMAGE_GRID), out=tmp_path / "local")
    run_local(jobs, quiet(jobs))
    rows = sorted(path.relative_to(tmp_path / "ray") for path in (tmp_path / "ray").rglob("rows*"))
    assert len(rows) == 3
    for path in rows:
        assert (tmp_path / "ray" / path).read_bytes() == (tmp_path / "local" / path).read_bytes()


def test_ray_that_is_not_installed_is_one_line(grid, monkeypatch, capsys):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "ray" else find(n))
    path = grid(TOP + "folds = [0]\n")
    plugin = ["-p", methods_for_tests.__file__]
    assert _run(["evaluate", *plugin, "--grid", str(path), "--on", "ray"]) == 2
    assert "pip install 'fssbench[ray]'" in capsys.readouterr().err
