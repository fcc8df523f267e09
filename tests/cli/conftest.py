"""Fixtures that run the command in this process."""

from __future__ import annotations

import pytest

from fssbench import registry
from fssbench.cli import _run


@pytest.fixture(autouse=True)
def fresh_plugins():
    yield
    registry.use_plugins([])


@pytest.fixture
def run(capsys):
    """Return a function that runs the command and returns (exit code, stdout, stderr)."""

    def call(*arguments: object):
        code = _run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def fails(run):
    """Return a function that expects exit code 2 and returns the line of the error."""

    def call(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 2, (out, err)
        last = err.splitlines()[-1]
        assert last.startswith("fssbench: error: ")
        assert "Traceback" not in err
        return last

    return call
