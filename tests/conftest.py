"""Fixtures of all tests."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is imported, here or in a process that a test starts: several test processes with
# several threads each wait for each other more than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hub_for_tests import hub_here, hub_server  # noqa: F401

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that want a GPU skip where there is none, whatever ``-m`` selects."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU that torch can use")


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that tests share: an index that many of them need is built once."""
    return tmp_path_factory.mktemp("shared-cache")


@pytest.fixture(scope="session", autouse=True)
def shapes_painted_once() -> Iterator[None]:
    """Keep painted images of `shapes`: hundreds of tests evaluate the same ones."""
    if importlib.util.find_spec("fssbench") is None:  # in tox's environment of the documentation
        yield
        return
    from fssbench.data.shapes.shapes import Shapes, ShapesConfig

    paint = Shapes.image

    @functools.lru_cache(maxsize=1500)  # of 75 KiB
    def painted(config: ShapesConfig, image_id: str) -> Any:
        return paint(Shapes(config), image_id)

    @functools.wraps(paint)
    def image(self: Shapes, image_id: str) -> Any:
        return painted(self.config, image_id).clone()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shapes, "image", image)
        yield


@pytest.fixture(autouse=True)
def cache_folder(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of the test, never the user's own."""
    monkeypatch.setenv("FSSBENCH_CACHE", str(shared_cache))
    return shared_cache


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the command in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        from fssbench.cli import _run

        code = _run([str(each) for each in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def fails(run: Callable[..., tuple[int, str, str]]) -> Callable[..., str]:
    """A function that expects exit code 2 and returns the single line of the error."""

    def call(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 2, (out, err)
        assert "Traceback" not in err
        (line,) = [each for each in err.splitlines() if each.startswith("fssbench: error: ")]
        assert line == err.splitlines()[-1]
        return line

    return call


@pytest.fixture
def shared_data() -> Path:
    """The small sets of real images beside the checkout; the test skips where they are not."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "voc_mini").is_dir():
        pytest.skip("no real images beside the checkout (../shared/data)")
    return folder
