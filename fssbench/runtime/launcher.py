"""Tasks that torchrun, srun, jsrun or mpirun started for one evaluation or training."""

from __future__ import annotations

import hashlib
import os
import re

import attrs

from fssbench.errors import FssbenchError

_INTERACTIVE = ("bash", "interactive")
"""Names of SLURM jobs for work by hand, as in lightning-fabric."""


@attrs.frozen(kw_only=True)
class Tasks:
    """The tasks of one start of a launcher, as seen by one of them.

    Attributes:
        launcher: name of the launcher.
        rank: rank of this task, from 0.
        count: number of tasks.
        local_rank: rank among the tasks of this machine.
        local_count: number of tasks on this machine.
        group: unique identifier of the start, equal in all tasks.
        binds_gpus: True if the launcher may give each task its own GPU, which is then the only one
            that the task sees.
    """

    launcher: str
    rank: int
    count: int
    local_rank: int
    local_count: int
    group: str
    binds_gpus: bool = False

    def export(self) -> None:
        """Set the environment variables of torchrun, which lightning-fabric and torch read.

        Raises:
            FssbenchError: the address of the first task is unknown.
        """
        if "MASTER_ADDR" not in os.environ:
            os.environ["MASTER_ADDR"] = self._address()
        if "MASTER_PORT" not in os.environ:
            digest = hashlib.sha256(self.group.encode()).hexdigest()
            os.environ["MASTER_PORT"] = str(15000 + int(digest, 16) % 10000)
        os.environ["RANK"] = str(self.rank)
        os.environ["WORLD_SIZE"] = str(self.count)

    def _address(self) -> str:
        """Return the host name of the first task."""
        from lightning_fabric.plugins.environments.lsf import LSFEnvironment
        from lightning_fabric.plugins.environments.mpi import MPIEnvironment
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        if self.local_count == self.count:
            return "127.0.0.1"
        if self.launcher == "srun":
            names = ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST")
            nodes = next(filter(None, map(os.environ.get, names)), "")
            if nodes:
                return SLURMEnvironment.resolve_root_node_address(nodes)
        elif self.launcher == "jsrun":
            return LSFEnvironment().main_address
        elif MPIEnvironment.detect():
            return MPIEnvironment().main_address
        raise FssbenchError(
            f"{self.launcher} does not name the machine of the first task; set MASTER_ADDR"
        )


def launched() -> Tasks | None:
    """Return the tasks that a launcher started together; None for a process of its own.

    Raises:
        FssbenchError: the environment variables of the launcher are not understood.
    """
    found = [name for name, names in _VARIABLES.items() if set(names) <= os.environ.keys()]
    if not found:
        return None
    launcher, names = found[0], _VARIABLES[found[0]]
    if launcher == "srun" and os.environ.get("SLURM_JOB_NAME") in _INTERACTIVE:
        return None
    try:
        *numbers, local = (os.environ[name] for name in names[:4])
        rank, count, local_rank = map(int, numbers)
        node = int(os.environ.get("SLURM_NODEID", "0")) if launcher == "srun" else 0
        local_count = _tasks_per_node(local)[node]
    except (ValueError, IndexError) as error:
        values = ", ".join(f"{name}={os.environ[name]}" for name in names)
        raise FssbenchError(f"{launcher}: {values} describe no task: {error}") from error
    if count == 1 and launcher != "torchrun":
        return None
    start = [os.environ[name] for name in _STARTS[launcher] if name in os.environ]
    if not start and local_count < count:
        raise FssbenchError(
            f"{launcher}: tasks of several machines cannot be told apart from those of an earlier "
            "start; use srun, jsrun, the mpirun of Open MPI, or torchrun"
        )
    return Tasks(
        launcher=launcher,
        rank=rank,
        count=count,
        local_rank=local_rank,
        local_count=local_count,
        group=" ".join(start or [str(os.getppid())]),
        binds_gpus=launcher in ("srun", "jsrun"),
    )


def check_devices(tasks: Tasks, devices: int) -> None:
    """Raise an `FssbenchError` if ``--devices`` is given although a launcher started the tasks."""
    if devices > 1:
        raise FssbenchError(f"remove --devices: {tasks.launcher} sets the number of processes")


def gpu_index(local_rank: int, local_count: int, visible: int, *, binds: bool) -> int:
    """Return the index of a process's GPU.

    Args:
        local_rank: rank among the processes of this machine.
        local_count: number of processes on this machine.
        visible: number of GPUs that torch can use.
        binds: True if the launcher may show each process a single GPU, its own.

    Raises:
        FssbenchError: there are fewer GPUs than processes.
    """
    if binds and visible == 1:
        return 0
    if local_count > visible:
        raise FssbenchError(
            f"--devices {local_count}: this machine has {visible} GPUs that torch can use"
        )
    return local_rank


def _tasks_per_node(text: str) -> list[int]:
    """Convert ``2(x3),1`` of SLURM to [2, 2, 2, 1]."""
    found: list[int] = []
    for part in text.split(","):
        matched = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if matched is None:
            raise ValueError(part)
        found += [int(matched[1])] * int(matched[2] or 1)
    return found


# mpirun starts its tasks through srun on SLURM, and jsrun sets variables of Open MPI, so the order
# matters. Outside of a step of srun there is no SLURM_STEP_TASKS_PER_NODE.
_VARIABLES = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    "jsrun": (
        "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK",
        "JSM_NAMESPACE_LOCAL_SIZE",
    ),
    "mpirun": (
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "mpiexec": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    "srun": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
}  # fmt: skip
"""Variables by launcher: rank, number of tasks, local rank, number of local tasks, others."""

_STARTS = {
    "torchrun": (
        "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT",
    ),
    "jsrun": ("LSB_JOBID", "JSM_NAMESPACE_ID"),
    "mpirun": ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),
    "mpiexec": (),
    "srun": ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
}  # fmt: skip
"""Variables that identify a start, by launcher."""
