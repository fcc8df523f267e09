"""Tests of the trackers, with stand-ins for their packages."""

from __future__ import annotations

import json
import sys
import types

import methods_for_tests
import pytest
import trainable_for_tests

from fssbench import registry, trackers
from fssbench.cli import _run
from fssbench.results.record import Record

PLUGINS = ("-p", methods_for_tests.__file__, "-p", trainable_for_tests.__file__)
EVALUATE = (
    "evaluate", "mixer", "--backbone", "pixels", "-d", "images_per_split=120", "--fold", "0",
    "--limit", "45", "--workers", "0", *PLUGINS,
)  # fmt: skip
TRAIN = (
    "train", "trainable", "--stage", "meta", "-d", "images_per_split=60", "--device", "cpu",
    "--workers", "0", "--validation-episodes", "20", "--steps", "4", *PLUGINS,
)  # fmt: skip


class Service:
    """Calls that the stand-ins received."""

    def __init__(self):
        self.started, self.logged, self.ended = [], [], []

    def scalars(self, name):
        return [(step, values[name]) for _, values, step in self.logged if name in values]


class LoggedRun:
    def __init__(self, service, identity):
        self.service, self.id, self.name = service, identity, identity

    def log(self, values, step):
        self.service.logged.append((self.id, values, step))

    def finish(self, exit_code=0):
        self.service.ended.append((self.id, exit_code == 0))


def fake_wandb(service):
    def init(*, project, name, config, reinit, resume=None, **given):
        assert reinit == "create_new"
        known = given.pop("id", None)
        assert not given
        assert (resume == "allow") == (known is not None)
        service.started.append((project, name, config, known))
        return LoggedRun(service, known or f"w{len(service.started)}")

    return types.SimpleNamespace(init=init)


def fake_trackio(service):
    def init(*, project, name, config, resume):
        service.started.append((project, name, config, name if resume == "allow" else None))
        return LoggedRun(service, name)

    return types.SimpleNamespace(init=init)


def fake_mlflow(service):
    experiments = {}

    class MlflowClient:
        def get_experiment_by_name(self, name):
            return experiments.get(name)

        def create_experiment(self, name):
            experiments[name] = types.SimpleNamespace(experiment_id="7")
            self.project = name
            return "7"

        def create_run(self, experiment_id, run_name):
            assert experiment_id == "7"
            service.started.append((next(iter(experiments)), run_name, {}, None))
            return types.SimpleNamespace(
                info=types.SimpleNamespace(run_id=f"m{len(service.started)}")
            )

        def update_run(self, run_id, status):
            assert status == "RUNNING"
            service.started.append((next(iter(experiments)), "", {}, run_id))

        def log_param(self, run_id, key, value):
            service.started[-1][2][key] = value

        def log_metric(self, run_id, key, value, step):
            service.logged.append((run_id, {key: value}, step))

        def set_terminated(self, run_id, status):
            service.ended.append((run_id, status == "FINISHED"))

    return types.SimpleNamespace(MlflowClient=MlflowClient)


FAKES = {"wandb": fake_wandb, "mlflow": fake_mlflow, "trackio": fake_trackio}


@pytest.fixture(params=FAKES)
def tracker(request, monkeypatch):
    """Name of a tracker whose package is a stand-in, and the calls that it receives."""
    service = Service()
    monkeypatch.setitem(sys.modules, request.param, FAKES[request.param](service))
    monkeypatch.setenv(trackers.VARIABLE, request.param)
    yield request.param, service
    registry.use_plugins([])


def test_an_evaluation(tracker, tmp_path, capsys):
    name, service = tracker
    assert _run([*EVALUATE, "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    (path,) = tmp_path.rglob("record.json")
    record = Record.read(path)
    ((project, title, config, known),) = service.started
    assert (project, known) == ("fssbench", None)
    assert title.startswith(f"{path.parent.parent.name}/{path.parent.name}")
    assert str(tmp_path) not in repr(service.started)
    assert config["matcher"] == "mixer"
    assert config["manifest"] == record.manifest.digest
    assert service.scalars("episodes") == [(20, 20.0), (40, 40.0), (45, 45.0)]
    assert service.scalars("miou") == [(45, record.scores["miou"])]
    assert service.scalars("miou_low") == [(45, record.intervals["miou"][0])]
    ((identity, complete),) = service.ended
    assert complete
    assert (path.parent / f"{name}.txt").read_text() == f"{identity}\n"
    assert _run([*EVALUATE, "--out", str(tmp_path)]) == 0  # the record is read
    assert len(service.started) == 1


def test_an_interrupted_evaluation_is_one_run(tracker, tmp_path, monkeypatch):
    name, service = tracker
    monkeypatch.setenv(trackers.PROJECT_VARIABLE, "mine")
    stopper = tmp_path / f"stopper_of_{name}.py"
    stopper.write_text(
        "from fssbench import FssbenchError\n"
        "def fssbench_episodes_measured(chunk):\n"
        "    if chunk == 1:\n"
        "        raise FssbenchError('stopped')\n"
    )
    assert _run([*EVALUATE, "--out", str(tmp_path / "r"), "-p", str(stopper)]) == 2
    trackers._finish_interrupted()
    assert _run([*EVALUATE, "--out", str(tmp_path / "r")]) == 0
    first, second = service.started
    assert first[0] == second[0] == "mine"
    (first_id, stopped), (second_id, complete) = service.ended
    assert second[3] == first_id == second_id
    assert complete
    assert not stopped or name == "trackio"  # trackio has no state of failure
    assert service.scalars("episodes")[-1] == (45, 45.0)


def test_a_training(tracker, tmp_path, capsys):
    _, service = tracker
    assert _run([*TRAIN, "--out", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    ((_, title, config, _),) = service.started
    assert "/fold0-seed0" in title
    assert config["option.width"] == 8
    assert (config["stage"], config["steps"], config["optimiser"]) == ("meta", 4, "sgd")
    assert [step for step, _ in service.scalars("loss/total")] == [1, 2, 3, 4]
    assert [step for step, _ in service.scalars("lr")] == [1, 2, 3, 4]
    assert service.scalars("validation/miou")[-1][1] == pytest.approx(result["miou"])
    assert [complete for _, complete in service.ended] == [True]


def test_mistakes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(trackers.VARIABLE, "wandbb")
    assert _run([*EVALUATE, "--out", str(tmp_path)]) == 2
    assert "no tracker is called 'wandbb'; did you mean 'wandb'" in capsys.readouterr().err
    monkeypatch.setenv(trackers.VARIABLE, "mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert _run([*EVALUATE, "--out", str(tmp_path)]) == 2
    assert "pip install 'fssbench[mlflow]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.gz.tmp"))
    registry.use_plugins([])


def test_a_tracker_that_cannot_start(tracker, tmp_path, monkeypatch, capsys):
    """E.g. without a key, or without a server: one line, before the first episode."""
    name, _ = tracker

    def fail(*_, **__):
        raise ConnectionError("no server\nat this address")

    package = sys.modules[name]
    for function in ("init", "MlflowClient"):
        if hasattr(package, function):
            monkeypatch.setattr(package, function, fail)
    for command in (EVALUATE, TRAIN):
        assert _run([*command, "--out", str(tmp_path)]) == 2
        err = capsys.readouterr().err
        expected = f"{name} cannot start a run: ConnectionError: no server at this address; check"
        assert expected in err
        assert err.count("\n") == 1
    assert not list(tmp_path.rglob("rows.csv.gz"))


def test_a_tracker_that_fails_later(tracker, tmp_path, monkeypatch, caplog):
    """The run continues, with one warning."""
    _, service = tracker
    monkeypatch.setattr(service, "logged", None)  # calls of log raise
    for command, result in ((EVALUATE, "record.json"), (TRAIN, "last.safetensors")):
        caplog.clear()
        assert _run([*command, "--out", str(tmp_path)]) == 0
        assert list(tmp_path.rglob(result))
        (line,) = [each.getMessage() for each in caplog.records if each.name == trackers.__name__]
        assert "is incomplete from here on: AttributeError" in line
    assert not trackers._open
