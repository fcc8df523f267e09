"""Structure of the workflows and of the templates of issues and pull requests."""

from __future__ import annotations

import configparser
import re
import tomllib
from pathlib import Path

import click
import pytest

from fssbench.cli import cli
from fssbench.scaffold.package import new_package

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The workflow of a generated plugin."""
    folder = tmp_path_factory.mktemp("new") / "p"
    new_package("mean-of-mine", folder)
    return folder / ".github" / "workflows" / "check.yml"


@pytest.fixture(params=[*(path.name for path in FILES), "template"])
def workflow(request, template):
    path = template if request.param == "template" else FILES[0].parent / request.param
    return yaml.safe_load(path.read_text())


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def commands(workflow):
    return [line for step in steps(workflow) for line in step.get("run", "").splitlines() if line]


def python_versions(job):
    """The versions of Python that the job sets up."""
    (given,) = (step["with"]["python-version"] for step in job["steps"]
                if step.get("uses", "").startswith("actions/setup-python"))  # fmt: skip
    matrix = job.get("strategy", {}).get("matrix", {})
    more = [each["python-version"] for each in matrix.get("include", [])]
    return {*matrix["python-version"], *more} if "matrix" in given else {given}


def supported_versions():
    """The versions of Python in the classifiers of ``pyproject.toml``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert project["requires-python"] == f">={found[0]}"
    return found


def tox_environments():
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    return tox


def read(name):
    return yaml.safe_load((FILES[0].parent / name).read_text())


def test_jobs_have_limits_and_steps_do_one_thing(workflow):
    assert workflow["name"]
    assert workflow[True]  # YAML 1.1 reads the key "on" as true
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert set(job.get("needs", "").split()) <= workflow["jobs"].keys()
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w.-]+/[\w./-]+@(v\d+|release/v\d+)", step["uses"])
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_expressions_exist(workflow):
    text = yaml.safe_dump(workflow)
    known = {"github.ref", "matrix.os", "matrix.python-version",
             "steps.deployment.outputs.page_url", "github.event.release.tag_name"}  # fmt: skip
    assert set(re.findall(r"\$\{\{ (\S+) \}\}", text)) <= known
    assert text.count("${{") == len(re.findall(r"\$\{\{ \S+ \}\}", text))
    for job in workflow["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for name in re.findall(r"\{\{ matrix\.(\S+) \}\}", yaml.safe_dump(job)):
            assert name in matrix
    # Untrusted texts reach a shell through the environment alone.
    assert not [line for line in commands(workflow) if "${{" in line]


def test_commands_of_fssbench_and_tox_exist(workflow):
    tox = tox_environments()
    for line in commands(workflow):
        if line.startswith("fssbench "):
            command, words = cli, line.split()[1:]
            while isinstance(command, click.Group):
                command = command.get_command(click.Context(command), words.pop(0))
                assert command is not None, line
            command.make_context(command.name, words)
        if line.startswith("tox "):
            assert line.split()[2] == "py" or f"testenv:{line.split()[2]}" in tox, line
        for path in re.findall(r"(?:^| )(tests/\S+)", line):
            assert (ROOT / path).exists(), line
        for extra in re.findall(r'"\.\[(\w+)\]"', line):
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert extra in project["optional-dependencies"]


def test_supported_versions_and_systems_are_tested():
    jobs = read("tests.yml")["jobs"]
    matrix = jobs["newest"]["strategy"]["matrix"]
    assert matrix["python-version"] == supported_versions()
    systems = {*matrix["os"], *(each["os"] for each in matrix["include"])}
    systems |= {job["runs-on"] for job in jobs.values()}
    assert {"ubuntu-latest", "macos-latest", "windows-latest"} <= systems
    done = [line.split()[2] for line in commands(read("tests.yml")) if line.startswith("tox ")]
    tox = tox_environments()
    assert {*tox["tox"]["env_list"].split(", "), "lowest"} == set(done)


def test_versions_of_python_are_supported_ones(workflow):
    for job in workflow["jobs"].values():
        if any(step.get("uses", "").startswith("actions/setup-python") for step in job["steps"]):
            assert python_versions(job) <= set(supported_versions())


def test_the_lowest_versions_are_tested_on_the_lowest_python():
    tox = tox_environments()
    lowest = supported_versions()[0]
    assert tox["testenv:lowest"]["base_python"] == f"python{lowest}"
    assert python_versions(read("tests.yml")["jobs"]["lowest"]) == {lowest}
    assert "--resolution lowest-direct" in tox["testenv:lowest"]["commands_pre"]


def test_the_workflow_of_boards_checks_as_tox_does():
    tox = tox_environments()
    check = "fssbench board check leaderboards"
    assert check in tox["testenv"]["commands"].splitlines()
    assert check in commands(read("boards.yml"))


def test_only_the_last_jobs_may_publish():
    for name, job, allowed in (
        ("pages.yml", "deploy", {"pages": "write", "id-token": "write"}),
        ("release.yml", "publish", {"id-token": "write"}),
    ):
        jobs = read(name)["jobs"]
        assert [key for key, each in jobs.items() if "permissions" in each] == [job]
        assert jobs[job]["permissions"] == allowed
        assert jobs[job]["environment"]["name"]
        assert not [step for step in jobs[job]["steps"] if "run" in step]
    assert "secrets." not in "".join(path.read_text() for path in FILES)


def test_a_plugin_is_tested_and_checked(template):
    made = commands(yaml.safe_load(template.read_text()))
    assert made[-2:] == ["pytest", "fssbench plugin check mean-of-mine"]
    assert "[test]" in made[0]


def test_a_generated_test_asserts_no_score(template):
    for path in (template.parents[2] / "tests").glob("*.py"):
        assert not re.search(r"scores\[\S+\] [<>]=? [1-9]\d?\b(?!0)", path.read_text())


def test_issue_forms():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            continue
        assert form["name"]
        assert form["description"]
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert all(part["attributes"]["label"] for part in fields)
        assert len({part["id"] for part in fields}) == len(fields)
        for name in re.findall(r"docs/[\w-]+\.md", path.read_text()):
            assert (ROOT / name).exists()
