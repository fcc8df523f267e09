"""Progress of ``fssbench data prepare`` on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from fssbench.data.prepare.prepare import Told


class Bars(Told):
    """Progress bars on stderr: one for each download and each unpacked archive."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._downloads = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
            TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._files = Progress(
            TextColumn("{task.description}"), TextColumn("{task.completed:,.0f} files"),
            console=console, transient=True,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._running: Progress | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(None)

    def downloading(self, name: str, done: int, total: int | None) -> None:
        """Display the number of downloaded bytes of an archive."""
        self._run(self._downloads)
        self._downloads.update(self._task(self._downloads, name), completed=done, total=total)

    def unpacking(self, name: str, files: int) -> None:
        """Display the number of unpacked files of an archive."""
        self._run(self._files)
        self._files.update(self._task(self._files, f"unpacking {name}"), completed=files)

    def _run(self, wanted: Progress | None) -> None:
        """Display one of the two progress bars, or none."""
        if self._running is not wanted:
            if self._running:
                self._running.stop()
            if wanted:
                wanted.start()
            self._running = wanted

    def _task(self, progress: Progress, name: str) -> TaskID:
        if name not in self._tasks:
            self._tasks[name] = progress.add_task(name, total=None)
        return self._tasks[name]
