"""The command, called in this process."""

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
    """Run the command in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object):
        code = _run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def fails(run):
    """The command must end with code 2 and one line on stderr; returns that line."""

    def call(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 2, (out, err)
        last = err.splitlines()[-1]
        assert last.startswith("fssbench: error: ")
        assert "Traceback" not in err
        return last

    return call
