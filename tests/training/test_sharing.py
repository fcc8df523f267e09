"""Trained rows that travel: checkpoints pushed to a hub, pulled, evaluated and verified."""

from __future__ import annotations

import json
import shutil

import attrs
import methods_for_tests
import pytest
import trainable_for_tests
from PIL import Image

from fssbench import Evaluation, Predictor, evaluate, hub, train
from fssbench.files import sha256
from fssbench.hub import NotOnHubError
from fssbench.matchers.checkpoint import read_checkpoint, write_checkpoint
from fssbench.results.record import Record

LOAD = ["-p", methods_for_tests.__file__, "-p", trainable_for_tests.__file__]
SMALL = ["-d", "images_per_split=60", "--device", "cpu", "--workers", "0"]
TO = "hf://ann/nets"
REPOSITORY = "models/ann/nets"


@pytest.fixture
def trained(job):
    """A checkpoint of fold 1 after two steps."""
    return train(attrs.evolve(job, steps=2, fold=1, validation_episodes=0)).last


@pytest.fixture
def measured(job, trained):
    """The run directory of its evaluation."""
    asked = Evaluation(
        checkpoint=trained, data_options=job.data_options, limit=20, workers=0, device="cpu",
        out=job.out.parent / "runs",
    )  # fmt: skip
    return evaluate(asked)[0].folder


@pytest.fixture
def run(run):
    """A function that runs the command with the plugins of these tests."""
    return lambda *arguments: run(*arguments, *LOAD)


def pushed(run, path, *more: object) -> str:
    code, out, err = run("checkpoint", "push", path, "--to", TO, *more)
    assert code == 0, err
    return out.strip()


def test_a_training_repeats_to_the_same_file(job, trained):
    again = attrs.evolve(job, steps=2, fold=1, validation_episodes=0, out=job.out.parent / "again")
    repeated = train(again).last
    assert read_checkpoint(repeated).header == read_checkpoint(trained).header
    assert sha256(repeated) == sha256(trained)
    checkpoint = read_checkpoint(trained)
    for number in range(12):  # the order of the metadata was random
        copy = job.out.parent / f"{number}.safetensors"
        copy_with(checkpoint, copy)
        assert sha256(copy) == sha256(trained)


def test_push_writes_the_file_and_a_card(hub_here, run, trained, measured):
    address = pushed(run, trained, "--record", measured, "--licence", "apache-2.0")
    newest = hub_here.newest(REPOSITORY)
    assert address == f"{TO}/last.safetensors@{hub_here.order[REPOSITORY][-1]}"
    assert newest["last.safetensors"] == trained.read_bytes()
    card = newest["README.md"].decode()
    record = Record.read(measured / "record.json")
    low, high = record.intervals["miou"]
    for text in (
        "license: apache-2.0\n",
        '- "trainable"\n',
        "| method | trainable |",
        "| trained on | shapes |",
        "| fold whose classes are novel | 1 |",
        "| stage | meta |",
        "| recipe | ",
        f"| sha256 | {sha256(trained)} |",
        "| licence of these weights | apache-2.0 |",
        f"| 1 | 1 | 0 | 20 | {record.scores['miou']:.2f} ({low:.2f} to {high:.2f}) |",
        f"$ fssbench evaluate --checkpoint {TO}/last.safetensors --protocol shapes/v1-1k",
    ):
        assert text in card, text


def test_a_card_has_one_section_for_each_file(hub_here, run, trained, tmp_path):
    first, second = tmp_path / "fold1.safetensors", tmp_path / "again.safetensors"
    shutil.copy(trained, first)
    shutil.copy(trained, second)
    pushed(run, first)
    assert "| licence of these weights | not stated |" in card_of(hub_here)
    assert "license:" not in card_of(hub_here)
    changed = card_of(hub_here).replace("Checkpoints of methods", "My own words")
    hub_here.commit(REPOSITORY, {"README.md": changed.encode()})
    pushed(run, second)
    pushed(run, first, "--licence", "mit")
    card = card_of(hub_here)
    assert card.count("## fold1.safetensors") == card.count("## again.safetensors") == 1
    assert card.index("fold1") < card.index("again")
    assert "My own words" in card
    assert card.count("| licence of these weights | mit |") == 1


def card_of(hub) -> str:
    return hub.newest(REPOSITORY)["README.md"].decode()


def test_sections_of_pushes_at_the_same_time_are_on_the_card(hub_here, run, trained, monkeypatch):
    fetch = hub.fetch

    def meanwhile(address, **options):
        monkeypatch.setattr(hub, "fetch", fetch)
        found = NotOnHubError("no card")
        hub_here.commit(REPOSITORY, {"README.md": b"The section of another push.\n"})
        raise found

    monkeypatch.setattr(hub, "fetch", meanwhile)
    code, _, err = run("checkpoint", "push", trained, "--to", TO)
    assert code == 0, err
    card = hub_here.newest(REPOSITORY)["README.md"].decode()
    assert card.startswith("The section of another push.")
    assert f"## {trained.name}" in card


def test_refused_uploads(hub_here, run, fails, trained, measured, tmp_path, monkeypatch):
    other = tmp_path / "other.safetensors"
    model = read_checkpoint(trained)
    copy_with(model, other, note="other")
    line = fails("checkpoint", "push", other, "--to", TO, "--record", measured)
    assert "it is of another checkpoint than other.safetensors" in line
    private = tmp_path / "private.safetensors"
    copy_with(model, private, environment={"hostname": "kestrel"})
    line = fails("checkpoint", "push", private, "--to", TO)
    assert "environment.hostname holds data of a person or a machine" in line
    assert "kestrel" not in line
    shutil.copy(trained, tmp_path / "named.bin")
    line = fails("checkpoint", "push", tmp_path / "named.bin", "--to", TO)
    assert "checkpoints on the hub are .safetensors files; rename it" in line
    assert "write hf://USER/NAME" in fails("checkpoint", "push", trained, "--to", "ann/nets")
    line = fails("checkpoint", "push", trained, "--to", TO, "--licence", "my own\nlicence")
    assert "no licence of the hub" in line
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "set HF_TOKEN, or run `hf auth login`" in fails(
        "checkpoint", "push", trained, "--to", TO
    )
    assert not hub_here.order


def copy_with(checkpoint, path, **header: object) -> None:
    """Write a checkpoint with further entries in its header."""

    class Holder:
        def state_dict(self):
            return checkpoint.weights

    described = {**checkpoint.header, **header}
    write_checkpoint(path, Holder(), described, trained_images=checkpoint.trained_images)


def test_pull_writes_a_checked_copy(hub_here, run, fails, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = pushed(run, trained)
    code, out, _ = run("checkpoint", "pull", f"{TO}/last.safetensors")
    assert (code, out) == (0, f"last.safetensors: trainable on pixels, {address}\n")
    assert (tmp_path / "last.safetensors").read_bytes() == trained.read_bytes()
    assert run("checkpoint", "pull", address)[0] == 0  # the same content
    (tmp_path / "last.safetensors").write_bytes(b"mine")
    line = fails("checkpoint", "pull", address)
    assert "last.safetensors: exists, with another content; choose a name with --out" in line
    assert (tmp_path / "last.safetensors").read_bytes() == b"mine"
    assert run("checkpoint", "pull", address, "--out", "new/x.safetensors")[0] == 0
    line = fails("checkpoint", "pull", f"{TO}/none.safetensors")
    assert f"checkpoint {TO}/none.safetensors: ann/nets has no file none.safetensors" in line
    assert "are .safetensors files; name one" in fails("checkpoint", "pull", f"{TO}/weights.pth")
    hub_here.commit(REPOSITORY, {"bad.safetensors": trained.read_bytes()[:-1] + b"\x07"})
    line = fails("checkpoint", "pull", f"{TO}/bad.safetensors", "--out", "bad.safetensors")
    assert "the content does not fit its digest" in line
    assert not (tmp_path / "bad.safetensors").exists()


def test_a_damaged_file_of_the_cache_is_named_and_downloaded_again(hub_here, run, fails, trained):
    run("checkpoint", "push", trained, "--to", TO)
    address = f"{TO}/{trained.name}"
    cached = read_checkpoint(address).path.resolve()
    cached.chmod(0o644)
    content = cached.read_bytes()
    cached.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    line = fails("checkpoint", "pull", address)
    assert line.endswith(f"damaged; delete {cached} and run the same command again")
    cached.unlink()
    assert read_checkpoint(address).path.read_bytes() == content


def test_every_command_takes_an_address(hub_here, run, trained, job, tmp_path):
    address = pushed(run, trained)
    trained.unlink()
    code, out, err = run(
        "evaluate", "--checkpoint", f"{TO}/last.safetensors", "--limit", "20", *SMALL, "--json",
        "--out", tmp_path / "runs",
    )  # fmt: skip
    assert code == 0, err
    record = Record.read(next((tmp_path / "runs").rglob("record.json")))
    assert record.checkpoint.address == address
    assert record.checkpoint.name == "last.safetensors"

    code, out, err = run(
        "train", "trainable", "--stage", "meta", "--init", address, "--fold", "1", "--steps", "1",
        "--validation-episodes", "0", *SMALL, "--json", "--out", tmp_path / "next",
    )  # fmt: skip
    assert code == 0, err
    header = read_checkpoint(json.loads(out)["last"]).header
    assert header["init"] == {
        "name": "last.safetensors", "sha256": record.checkpoint.sha256, "address": address,
    }  # fmt: skip

    for name, mode in (("image", "RGB"), ("mask", "L"), ("query", "RGB")):
        Image.new(mode, (16, 16), "white").save(tmp_path / f"{name}.png")
    code, out, err = run(
        "predict", "--checkpoint", address, "--device", "cpu", "--query", tmp_path / "query.png",
        "--support", f"{tmp_path / 'image.png'}:{tmp_path / 'mask.png'}", "--out",
        tmp_path / "found", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["checkpoint"] == address
    assert Predictor(checkpoint=address, device="cpu").matcher == "trainable"

    grid = tmp_path / "grid.toml"
    grid.write_text(
        'limit = 20\nfolds = [1]\nworkers = 0\ndevice = "cpu"\n[data_options]\nimages_per_split = '
        f'"60"\n[[methods]]\nmatchers = ["trainable"]\nbackbones = ["pixels"]\n'
        f'checkpoint = "{TO}/last.safetensors"\n'
    )
    code, out, err = run("evaluate", "--grid", grid, "--out", tmp_path / "grid")
    assert code == 0, err
    assert next((tmp_path / "grid").rglob("record.json"))


def test_verification_of_a_row_with_the_hub(hub_here, run, fails, trained, measured, monkeypatch):
    address = pushed(run, trained)
    verify = ["board", "verify", measured, *SMALL, "--episodes", "20"]
    line = fails(*verify)
    assert "give it with --checkpoint" in line
    trained.unlink()
    code, out, err = run(*verify, "--checkpoint", address)
    assert code == 0, (out, err)
    assert "The record stands." in out
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(*verify, "--checkpoint", address)[0] == 0
    line = fails(*verify, "--checkpoint", f"{TO}/other.safetensors")
    assert "HF_HUB_OFFLINE is set, and the cache does not have it" in line
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    hub_here.commit(REPOSITORY, {"last.safetensors": b"another file"})
    line = fails(*verify, "--checkpoint", f"{TO}/last.safetensors")
    assert f"--checkpoint {TO}/last.safetensors: its sha256 is " in line
    assert "give the file that was evaluated" in line
    assert "or it is private" in fails(*verify, "--checkpoint", "hf://ann/none/a.safetensors")


def test_a_record_names_the_address_to_give(hub_here, run, fails, trained, job, tmp_path):
    address = pushed(run, trained)
    asked = Evaluation(
        checkpoint=address, data_options=job.data_options, limit=20, workers=0, device="cpu",
        out=tmp_path / "runs",
    )  # fmt: skip
    folder = evaluate(asked)[0].folder
    assert f"give it with --checkpoint '{address}'" in fails("board", "verify", folder, *SMALL)
