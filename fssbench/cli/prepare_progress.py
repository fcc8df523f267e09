"""Progress of ``fssbench data prepare`` on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from fssbench.data.prepare.prepare import PrepareObserver


class Bars(PrepareObserver):
    """Progress bars on stderr: one for each download and each unpacked archive."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def downloading(self, name: str, done: int, total: int | None) -> None:
        """Display the downloaded bytes of an archive."""
        task = self._task(name)
        speed = decimal(int(self._progress.tasks[task].speed or 0))
        self._progress.update(
            task, completed=done, total=total, amount=f"{decimal(done)}, {speed}/s"
        )

    def unpacking(self, name: str, files: int) -> None:
        """Display the number of unpacked files of an archive."""
        task = self._task(f"unpacking {name}")
        self._progress.update(task, completed=files, amount=f"{files:,} files")

    def _task(self, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=None, amount="")
        return self._tasks[name]
