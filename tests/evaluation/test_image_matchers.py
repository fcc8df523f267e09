"""Evaluation, prediction and verification with matchers on whole images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import torch

from fssbench import (
    Evaluation,
    FssbenchError,
    Predictor,
    Training,
    dataset,
    registry,
    train,
)  # fmt: skip
from fssbench.backbones.encoder import Encoder
from fssbench.board.board import build_boards
from fssbench.cli import main
from fssbench.episodes.chunks import chunks_of
from fssbench.evaluation.estimate import estimate
from fssbench.evaluation.evaluate import evaluate, prepare
from fssbench.evaluation.panels import Panels
from fssbench.evaluation.reproduce import Rerun, verify_record
from fssbench.inference.encoder_cache import EncoderCache

PLUGIN = str(Path(__file__).parents[1] / "testing" / "image_methods.py")
SIMILAR, ADAPTED, NAMED = "image-similar", "image-adapted", "image-named"


@pytest.fixture(autouse=True)
def plugins():
    registry.use_plugins([PLUGIN])
    yield
    registry.use_plugins([])


@pytest.fixture
def job(tmp_path):
    """60 episodes of 1-shot on fold 0, three chunks."""
    return Evaluation(
        matcher=SIMILAR,
        encoders={"features": "tiny-resnet"},
        data_options={"images_per_split": "120"},
        folds=(0,),
        limit=60,
        workers=0,
        device="cpu",
        out=tmp_path / "runs",
    )


def rows_of(folder: Path) -> bytes:
    (path,) = folder.rglob("rows.csv.gz")
    return path.read_bytes()


def fssbench(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "-p", PLUGIN])
    assert ended.value.code == 0


def test_the_record_names_encoders_and_uses(job):
    (found,) = evaluate(attrs.evolve(job, matcher=NAMED))
    record = json.loads((found.folder / "record.json").read_text())
    encoder = record["encoders"]["features"]
    assert encoder["name"] == record["backbone"] == "tiny-resnet"
    assert encoder["weights"]["source"] == "pretrained"
    assert len(encoder["weights"]["sha256"]) == 64
    assert encoder["parameters"] == record["cost"]["backbone_parameters"] > 1000
    assert record["cost"]["learnable_parameters"] == 0
    assert record["cost"]["flops_per_episode"] > 1e6
    assert record["uses"] == ["class_names"]
    assert record["features"] == {}
    assert not found.record.unaccounted
    assert found.record.rankable == "only the first 60 episodes"


@pytest.mark.parametrize("name", [SIMILAR, pytest.param(ADAPTED, marks=pytest.mark.slow)])
def test_rows_do_not_depend_on_batches_processes_or_caches(job, name, tmp_path):
    job = attrs.evolve(job, matcher=name, limit=40)
    evaluate(job)
    for number, change in enumerate(
        ({"devices": 2}, {"cache_memory": 0}, {"cache_dir": tmp_path / "c"},
         {"cache_dir": tmp_path / "c", "cache_memory": 0})
    ):  # fmt: skip
        out = tmp_path / str(number)
        evaluate(attrs.evolve(job, **change, out=out))
        assert rows_of(out) == rows_of(job.out), change
    assert list((tmp_path / "c").glob("*.safetensors"))


@pytest.mark.parametrize("name", [SIMILAR, ADAPTED])
def test_rows_do_not_depend_on_the_order(job, name):
    evaluator = prepare(attrs.evolve(job, matcher=name))
    (manifest,) = evaluator.manifests()
    chunks = chunks_of(manifest.episodes)
    forward = [result.rows for result in evaluator.measure(chunks)]
    backward = [result.rows for result in evaluator.measure(dict(reversed(list(chunks.items()))))]
    for there, back in zip(forward, reversed(backward), strict=True):
        assert there.equals(back)


@pytest.mark.slow
def test_an_interrupted_run_is_resumed(job, tmp_path):
    adapted = attrs.evolve(job, matcher=ADAPTED)
    evaluate(attrs.evolve(adapted, out=tmp_path / "straight"))
    script = (
        "import os, sys\n"
        "from fssbench.evaluation.run_directory import RunDirectory\n"
        "add = RunDirectory.add\n"
        "def dying(self, result):\n"
        "    add(self, result)\n"
        "    os.kill(os.getpid(), 9)\n"
        "RunDirectory.add = dying\n"
        "from fssbench.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    command = [
        "evaluate", ADAPTED, "-p", PLUGIN, "--encoder", "features=tiny-resnet",
        "-d", "images_per_split=120", "--fold", "0", "--limit", "60", "--workers", "0",
        "--device", "cpu", "--out", str(job.out),
    ]  # fmt: skip
    killed = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, env=os.environ, check=False
    )
    assert killed.returncode == -9
    assert not list(job.out.rglob("record.json"))
    (result,) = evaluate(adapted)
    assert result.fresh
    assert rows_of(job.out) == rows_of(tmp_path / "straight")


def test_images_are_encoded_once(job, monkeypatch):
    asked = []
    plain = Encoder.features

    def counted(self, image, layers, **more):
        asked.append(id(image))
        return plain(self, image, layers, **more)

    monkeypatch.setattr(Encoder, "features", counted)
    made = []
    from_disk = EncoderCache._from_disk

    def computed(self, *arguments):
        made.append(arguments)
        return from_disk(self, *arguments)

    monkeypatch.setattr(EncoderCache, "_from_disk", computed)
    evaluator = prepare(job)
    (manifest,) = evaluator.manifests()
    assert len(list(evaluator.measure(chunks_of(manifest.episodes)))) == 3
    assert len(made) == len(manifest.image_ids()) < len(asked)


def test_parameters_of_a_method_need_a_checkpoint(job, caplog):
    (result,) = evaluate(attrs.evolve(job, matcher=ADAPTED, limit=20))
    (missing,) = result.record.unaccounted
    assert missing == "1 parameters of the matcher, without a checkpoint"
    assert "never ranks" in caplog.text


def test_weights_of_another_program_are_imported(job, tmp_path):
    torch.save({"shift": torch.tensor(0.25)}, tmp_path / "authors.pth")
    out = tmp_path / "adapted.safetensors"
    fssbench(
        "checkpoint", "import", ADAPTED, str(tmp_path / "authors.pth"), "--out", str(out),
        "--encoder", "features=tiny-resnet", "--dataset", "shapes", "--fold", "0",
    )  # fmt: skip
    (result,) = evaluate(attrs.evolve(job, matcher=ADAPTED, checkpoint=out, limit=20))
    assert not result.record.unaccounted
    assert result.record.checkpoint.header["backbone"] == "tiny-resnet"
    with pytest.raises(FssbenchError, match="was trained as backbone 'tiny-resnet'"):
        evaluate(
            attrs.evolve(job, matcher=ADAPTED, checkpoint=out, encoders={"features": "tiny-vit"})
        )


def test_training_is_refused():
    with pytest.raises(FssbenchError, match="trains matchers on features"):
        train(Training(matcher=SIMILAR))


def test_random_encoders_never_rank(job):
    (result,) = evaluate(attrs.evolve(job, weights="random", limit=20))
    assert result.record.rankable == "random weights"
    (of_role,) = evaluate(attrs.evolve(job, encoder_weights={"features": "random"}, limit=20))
    assert of_role.record.encoders["features"].weights.source == "random"


@pytest.mark.parametrize(
    ("encoders", "factory", "message"),
    [
        ("None", "image_methods:Similar", "is an ImageMatcher: give its MatcherSpec the default"),
        ("{}", "fssbench.matchers.prototype:Prototype", "remove encoders from its MatcherSpec"),
    ],
)
def test_a_spec_of_the_other_interface(job, tmp_path, encoders, factory, message):
    plugin = tmp_path / f"mixed_{factory.rpartition(':')[2].lower()}.py"
    plugin.write_text(
        "import fssbench\ndef fssbench_matchers():\n    return [fssbench.MatcherSpec(name='mixed', "
        f"summary='s', factory='{factory}', encoders={encoders})]\n"
    )
    registry.use_plugins([PLUGIN, str(plugin)])
    with pytest.raises(FssbenchError, match=message):
        evaluate(attrs.evolve(job, matcher="mixed", encoders=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoders": {"feature": "tiny-vit"}}, "did you mean 'features'"),
        ({"encoder_weights": {"masks": "random"}}, "has no encoder called 'masks'"),
        ({"encoders": {"features": "tiny-resnot"}}, "tiny-resnet"),
        ({"encoders": {"features": "promptable-tiny-sam"}, "weights": "random"}, "no layers"),
        ({"backbone": "tiny-resnet"}, "choose them with --encoder ROLE=NAME"),
        ({"cache_half": True}, "--cache-half rounds the features of a backbone"),
        ({"matcher": "prototype"}, "works on the features of one --backbone"),
        ({"protocol": "pascal5i/hsnet-1k", "lists": Path()}, "scores masks at the input size"),
    ],
)
def test_wrong_settings_have_one_clear_line(job, change, message):
    with pytest.raises(FssbenchError) as found:
        evaluate(attrs.evolve(job, **change))
    assert message in str(found.value)
    assert "\n" not in str(found.value)


def test_panels_show_the_maps(job):
    (result,) = evaluate(attrs.evolve(job, limit=20), observers=lambda run: [Panels(run, 1)])
    assert len(list((result.folder / "panels").glob("*.png"))) == 1


def test_a_record_is_verified(job):
    (result,) = evaluate(attrs.evolve(job, limit=40))
    rerun = Rerun(episodes=10, data_options=job.data_options, workers=0, device="cpu")
    assert verify_record(result.folder, rerun).stands
    with pytest.raises(FssbenchError, match="the encoder features's weights are random"):
        verify_record(result.folder, attrs.evolve(rerun, encoder_weights={"features": "random"}))


def test_estimate(job):
    (found,) = estimate([job])
    assert found.backbone == "tiny-resnet"
    assert found.seconds > 0
    assert found.images == found.distinct_images > 60
    assert found.all_bytes > 1000
    assert not job.out.exists()


def test_prediction_is_that_of_the_evaluation(job):
    data = dataset("shapes", images_per_split=120)
    evaluator = prepare(attrs.evolve(job, limit=20, save_predictions=True))
    (manifest,) = evaluator.manifests()
    (result,) = evaluator.measure(chunks_of(manifest.episodes))
    predictor = Predictor(SIMILAR, encoders={"features": "tiny-resnet"}, device="cpu")
    for episode, mask in list(zip(result.episodes, result.predictions, strict=True))[:5]:
        shown = episode.supports()
        predictor.set_support(
            [data.image(image) for image, _ in shown], [data.mask(*key) for key in shown]
        )
        assert torch.equal(predictor.predict(data.image(episode.query)).mask, mask)


def test_class_names_are_asked_for():
    named = Predictor(NAMED, encoders={"features": "tiny-resnet"}, device="cpu")
    plain = Predictor(SIMILAR, encoders={"features": "tiny-resnet"}, device="cpu")
    image = torch.randint(0, 255, (3, 64, 48), generator=torch.Generator().manual_seed(0))
    image, mask = image.to(torch.uint8), torch.zeros(64, 48, dtype=torch.uint8)
    mask[10:30, 10:30] = 1
    with pytest.raises(FssbenchError, match="give --class-name"):
        named.set_support([image], [mask])
    with pytest.raises(FssbenchError, match="leave --class-name out"):
        plain.set_support([image], [mask], class_name="dog")
    logits = []
    for predictor, name in ((plain, None), (named, "dog"), (named, "doggy")):
        predictor.set_support([image], [mask], class_name=name)
        logits.append(predictor.predict(image).logits)
    assert [each.shape for each in logits] == [(64, 48)] * 3
    torch.testing.assert_close(logits[1] - logits[0], torch.full((64, 48), 0.003))
    torch.testing.assert_close(logits[2] - logits[0], torch.full((64, 48), 0.005))


def test_the_commands_take_roles(tmp_path, capsys):
    fssbench(
        "evaluate", NAMED, "--encoder", "features=tiny-vit", "--weights", "features=random",
        "-d", "images_per_split=120", "--fold", "0", "--limit", "20", "--workers", "0",
        "--out", str(tmp_path / "runs"), "--json",
    )  # fmt: skip
    (found,) = json.loads(capsys.readouterr().out)
    assert found["encoders"]["features"]["name"] == "tiny-vit"
    assert found["encoders"]["features"]["weights"]["source"] == "random"
    fssbench("show", "matcher", NAMED)
    shown = capsys.readouterr().out
    assert "uses: class_names" in shown
    assert "features  resnet50" in shown


def test_boards_show_encoders_and_uses(job, tmp_path):
    evaluate(attrs.evolve(job, matcher=NAMED, limit=20))
    (path,) = build_boards([job.out], tmp_path / "boards")
    page = path.read_text()
    assert "image-named (uses class names)" in page
    assert "has the encoders features tiny-resnet (pretrained" in page
