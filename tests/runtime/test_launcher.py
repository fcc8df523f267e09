"""Tests of the tasks of launchers, whose variables are set by hand."""

from __future__ import annotations

import os
import socket

import methods_for_tests
import program
import pytest
import trainable_for_tests
from safetensors.torch import load_file

from fssbench import Evaluation, FssbenchError
from fssbench.cli import _run
from fssbench.evaluation.process_group import ProcessGroup
from fssbench.runtime import launcher
from fssbench.runtime.launcher import gpu_index, launched

PLUGINS = ("-p", methods_for_tests.__file__, "-p", trainable_for_tests.__file__)
SETS = ("SLURM_", "JSM_", "LSB_", "OMPI_", "PMI", "MPI_", "TORCHELASTIC", "MASTER_", "RANK",
        "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # fmt: skip


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """Remove the variables of launchers, and restore all: `Tasks.export` changes them."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(SETS):
            del os.environ[name]
    yield
    monkeypatch.undo()  # otherwise it would set exported variables again, afterwards
    os.environ.clear()
    os.environ.update(before)


def srun(rank, count, per_node="2", node=0, local=None):
    return {
        "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "3", "SLURM_JOB_NAME": "train",
        "SLURM_PROCID": str(rank), "SLURM_NTASKS": str(count), "SLURM_NODEID": str(node),
        "SLURM_LOCALID": str(rank if local is None else local),
        "SLURM_STEP_TASKS_PER_NODE": per_node, "SLURM_NODELIST": "localhost",
    }  # fmt: skip


def jsrun(rank, count):
    return {
        "LSB_JOBID": "99", "JSM_NAMESPACE_RANK": str(rank), "JSM_NAMESPACE_SIZE": str(count),
        "JSM_NAMESPACE_LOCAL_RANK": str(rank), "JSM_NAMESPACE_LOCAL_SIZE": str(count),
        **mpirun(rank, count),
    }  # fmt: skip


def mpirun(rank, count):
    return {
        "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(count),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank), "OMPI_COMM_WORLD_LOCAL_SIZE": str(count),
        "PMIX_NAMESPACE": "prterun-1@1",
    }  # fmt: skip


def mpiexec(rank, count):
    return {
        "PMI_RANK": str(rank), "PMI_SIZE": str(count), "MPI_LOCALRANKID": str(rank),
        "MPI_LOCALNRANKS": str(count),
    }  # fmt: skip


LAUNCHERS = {"srun": srun, "jsrun": jsrun, "mpirun": mpirun, "mpiexec": mpiexec}


def environ(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def run_tasks(tasks, *arguments):
    """Start the command with the variables of each task, and return the finished processes."""
    started = [program.start(*arguments, env=task) for task in tasks]
    found = [(process.communicate(timeout=500), process.returncode) for process in started]
    for (_, err), code in found:
        assert code == 0, err
    return [out for (out, _), _ in found]


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_task(name, monkeypatch):
    environ(monkeypatch, LAUNCHERS[name](1, 2))
    tasks = launched()
    assert (tasks.launcher, tasks.rank, tasks.count) == (name, 1, 2)
    assert (tasks.local_rank, tasks.local_count) == (1, 2)
    group = ProcessGroup.of(Evaluation())
    assert (group.rank, group.count, group.local_rank, group.local_count) == (1, 2, 1, 2)
    assert group.group == tasks.group != ""
    assert not group.starts
    with pytest.raises(FssbenchError, match=f"remove --devices: {name} sets the number"):
        ProcessGroup.of(Evaluation(devices=2))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_one_task_is_a_process_of_its_own(name, monkeypatch):
    environ(monkeypatch, LAUNCHERS[name](0, 1))
    assert launched() is None
    assert ProcessGroup.of(Evaluation(devices=3)).starts


def test_tasks_of_srun_on_unequal_machines(monkeypatch):
    environ(monkeypatch, srun(6, 7, per_node="2(x3),1", node=3, local=0))
    tasks = launched()
    assert (tasks.local_rank, tasks.local_count, tasks.count) == (0, 1, 7)
    assert tasks.group == "4711 3"


def test_a_batch_script_and_work_by_hand_are_no_tasks(monkeypatch):
    variables = srun(0, 4, per_node="4")
    environ(monkeypatch, {**variables, "SLURM_JOB_NAME": "interactive"})
    assert launched() is None
    environ(monkeypatch, variables)
    assert launched() is not None
    monkeypatch.delenv("SLURM_STEP_TASKS_PER_NODE")  # a batch script is in no step
    assert launched() is None


def test_mpirun_on_slurm_is_no_step_of_srun(monkeypatch):
    environ(monkeypatch, {**srun(0, 2, per_node="1(x2)"), **mpirun(3, 4)})
    assert (launched().launcher, launched().rank) == ("mpirun", 3)


def test_the_address_of_the_first_task(monkeypatch, tmp_path):
    environ(monkeypatch, srun(0, 2))
    launched().export()
    assert os.environ["MASTER_ADDR"] == "127.0.0.1"
    port = os.environ["MASTER_PORT"]
    assert 15000 <= int(port) < 25000
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name)
    environ(monkeypatch, {**srun(3, 4, "2(x2)", 1, 1), "SLURM_NODELIST": "gpu[07-08]"})
    launched().export()
    assert os.environ["MASTER_ADDR"] == "gpu07"
    assert os.environ["MASTER_PORT"] == port
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("3", "4")


def test_the_address_on_lsf_and_with_mpi(monkeypatch, tmp_path):
    ranks = tmp_path / "ranks"
    ranks.write_text(f"launch\nfirst\n{socket.gethostname()}\n")
    environ(monkeypatch, {**jsrun(1, 2), "JSM_NAMESPACE_LOCAL_SIZE": "1"})
    monkeypatch.setenv("LSB_DJOB_RANKFILE", str(ranks))
    launched().export()
    assert os.environ["MASTER_ADDR"] == "first"
    monkeypatch.delenv("MASTER_ADDR")
    for name in jsrun(0, 2):
        monkeypatch.delenv(name)
    environ(monkeypatch, {**mpirun(1, 2), "OMPI_COMM_WORLD_LOCAL_SIZE": "1"})
    with pytest.raises(FssbenchError, match="mpirun does not name the machine .* MASTER_ADDR"):
        launched().export()
    environ(monkeypatch, {"MASTER_ADDR": "mine"})
    launched().export()
    assert os.environ["MASTER_ADDR"] == "mine"


def test_what_is_not_understood(monkeypatch):
    environ(monkeypatch, srun(0, 2, per_node="two"))
    with pytest.raises(FssbenchError, match="SLURM_STEP_TASKS_PER_NODE=two describe no task"):
        launched()
    for name in srun(0, 2):
        monkeypatch.delenv(name)
    environ(monkeypatch, {**mpiexec(0, 2), "MPI_LOCALNRANKS": "1"})
    with pytest.raises(FssbenchError, match="use srun, jsrun, the mpirun of Open MPI"):
        launched()


def test_gpus_of_tasks():
    assert gpu_index(1, 2, 2, binds=False) == 1
    assert gpu_index(1, 2, 1, binds=True) == 0
    with pytest.raises(FssbenchError, match="--devices 2: this machine has 1 GPUs"):
        gpu_index(1, 2, 1, binds=False)


SMALL = ("-d", "images_per_split=60", "--device", "cpu", "--workers", "0")


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """Files of an evaluation and of a training by one process."""
    out = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FSSBENCH_CACHE", str(out / "cache"))
        assert _run(["evaluate", *EVALUATE, "--out", str(out)]) == 0
        assert _run(["train", *TRAIN, "--out", str(out)]) == 0
        yield out


EVALUATE = ("mixer", "--backbone", "pixels", "--fold", "0", "--limit", "80", *SMALL, *PLUGINS)
TRAIN = ("trainable", "--stage", "meta", "--steps", "3", "--validation-episodes", "0", *SMALL,
         *PLUGINS)  # fmt: skip


def mostly_slow(*names):
    """Return the names as parameters; only the first one is not slow."""
    return [names[0], *(pytest.param(name, marks=pytest.mark.slow) for name in names[1:])]


@pytest.mark.parametrize("name", mostly_slow(*LAUNCHERS))
def test_two_tasks_share_an_evaluation(name, straight, tmp_path):
    tasks = [LAUNCHERS[name](rank, 2) for rank in range(2)]
    printed = run_tasks(tasks, "evaluate", *EVALUATE, "--out", str(tmp_path))
    assert [out.count("mixer on pixels") for out in printed] == [1, 0]
    (rows,), (expected,) = (root.rglob("rows.csv.gz") for root in (tmp_path, straight))
    assert rows.read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("name", mostly_slow("machines of srun", "srun", "mpirun"))
def test_two_tasks_share_a_training(name, straight, tmp_path):
    two = [srun(rank, 2, "1(x2)", node=rank, local=0) for rank in range(2)]
    tasks = two if name not in LAUNCHERS else [LAUNCHERS[name](rank, 2) for rank in range(2)]
    port = launcher_port()
    tasks = [{**task, "MASTER_PORT": port} for task in tasks]
    printed = run_tasks(tasks, "train", *TRAIN, "--out", str(tmp_path))
    assert [out.count("Last: ") for out in printed] == [1, 0]
    (last,), (expected,) = (root.rglob("last.safetensors") for root in (tmp_path, straight))
    found, wanted = load_file(last), load_file(expected)
    assert found.keys() == wanted.keys()
    for key, tensor in wanted.items():
        assert (found[key] - tensor).abs().max() < 1e-4, key


def launcher_port():
    """Return a free port, because other tests may run at the same time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_the_table_of_variables_is_complete():
    assert launcher._STARTS.keys() == launcher._VARIABLES.keys()
