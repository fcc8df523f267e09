"""Runs are not continued or reused when their code or their images have changed."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time

import attrs
import methods_for_tests
import numpy as np
import pytest
from PIL import Image

from fssbench import Evaluation, FssbenchError, registry
from fssbench.data import image_digest
from fssbench.data.image_digest import ImageHashes
from fssbench.evaluation.evaluate import evaluate
from fssbench.evaluation.reproduce import Rerun, verify_record
from fssbench.runtime.code import code_of

METHOD = """
import fssbench
{outside}
from fssbench.errors import FssbenchError

def fssbench_matchers():
    return [fssbench.MatcherSpec(name="edited", summary="tests", factory="edited:Edited")]

class Edited(fssbench.Matcher):
    calls = 0

    def request(self):
        return fssbench.FeatureRequest(layers=("cells4",), size=64)

    def embed_support(self, support):
        return None

    def segment(self, query, support):
        {inside}
        Edited.calls += 1
        if Edited.calls > {stop}:
            raise FssbenchError("stopped")
        return query["cells4"].mean(1) * 0 + {sign} * helper_of_edited.ONE
"""
HELPER = "ONE = {one}\n"
ENCODER = """
import methods_for_tests as base
import fssbench

def fssbench_backbones():
    return [fssbench.BackboneSpec(name="edited-pixels", summary="tests", factory="encoder:Edited")]

class Edited(base.Pixels):
    def forward(self, images, layers):
        return {{name: maps * {factor} for name, maps in super().forward(images, layers).items()}}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write plugin files, and load them anew, as another process would."""
    monkeypatch.syspath_prepend(tmp_path)
    names = ("edited", "helper_of_edited", "encoder")

    def forget():
        for name in names:
            sys.modules.pop(name, None)

    def write(*, sign=1, stop=10_000, one=1.0, factor=1.0, place="outside"):
        forget()
        imports = {"outside": "", "inside": "", place: "import helper_of_edited"}
        (tmp_path / "edited.py").write_text(METHOD.format(sign=sign, stop=stop, **imports))
        (tmp_path / "helper_of_edited.py").write_text(HELPER.format(one=one))
        (tmp_path / "encoder.py").write_text(ENCODER.format(factor=factor))
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        registry.use_plugins(
            [str(tmp_path / "edited.py"), str(tmp_path / "encoder.py"), methods_for_tests.__file__]
        )

    yield write
    forget()
    registry.use_plugins([methods_for_tests.__file__])


HIDDEN = """
import torch
import fssbench, methods_for_tests

def fssbench_matchers():
    return [fssbench.MatcherSpec(name="hidden", summary="tests", factory="edited:Hidden")]

class Hidden(methods_for_tests.Mixer):
    def __init__(self, *, config, backbone):
        super().__init__(config=config, backbone=backbone)
        {attribute}
"""


def score(job):
    (outcome,) = evaluate(job)
    return outcome.record.scores["miou"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"sign": -1}, "code of edited"),
        ({"one": -1.0}, "code of helper_of_edited"),
        ({"one": -1.0, "place": "inside"}, "code of helper_of_edited"),
    ],
)
def test_a_finished_run_of_other_code_is_refused(job, write, changed, named):
    job = attrs.evolve(job, matcher="edited")
    write(place=changed.get("place", "outside"))
    first = score(job)
    assert score(job) == first  # the same code: the record is read
    write(**changed)
    with pytest.raises(FssbenchError, match=f"differs in {named}.*start anew with --fresh"):
        evaluate(job)
    assert score(attrs.evolve(job, fresh=True)) == 0.0 < first


def test_a_run_is_not_resumed_with_other_code(job, write):
    job = attrs.evolve(job, matcher="edited")
    write(stop=30)  # within the second chunk
    with pytest.raises(FssbenchError, match="stopped"):
        evaluate(job)
    write(sign=-1)
    with pytest.raises(FssbenchError, match="differs in code of edited"):
        evaluate(job)
    assert score(attrs.evolve(job, fresh=True)) == 0.0


def test_features_on_disk_of_an_edited_encoder_are_not_used(job, write, tmp_path):
    job = attrs.evolve(job, backbone="edited-pixels", cache_dir=tmp_path / "cache")
    write(factor=1.0)
    before = score(job)
    write(factor=0.3)
    cached = score(attrs.evolve(job, out=tmp_path / "other"))
    alone = score(attrs.evolve(job, out=tmp_path / "alone", cache_dir=None))
    assert cached == alone != before


@pytest.fixture
def folders(tmp_path):
    """Two datasets of the same names and masks: clear images, and noise."""
    for root in ("clear", "noise"):
        for name, colour in (("mug", (250, 20, 20)), ("key", (20, 20, 250))):
            (tmp_path / root / name).mkdir(parents=True)
            for number in range(6):
                generator = np.random.default_rng(number)
                mask = np.zeros((96, 96), np.uint8)
                y, x = generator.integers(0, 60, 2)
                mask[y : y + 36, x : x + 36] = 255
                image = generator.integers(0, 100, (96, 96, 3), dtype=np.uint8)
                image[mask > 0] = colour
                if root == "noise":
                    image = generator.integers(0, 255, (96, 96, 3), dtype=np.uint8)
                Image.fromarray(image).save(tmp_path / root / name / f"{number}.jpg")
                Image.fromarray(mask).save(tmp_path / root / name / f"{number}.png")
    return tmp_path / "clear", tmp_path / "noise"


def test_other_images_of_the_same_names_are_refused(folders, tmp_path):
    clear, noise = folders
    job = Evaluation(
        protocol="folder/v1", data_root=clear, out=tmp_path / "runs", backbone="filterbank"
    )
    first = score(job)
    with pytest.raises(FssbenchError, match="differs in images .*--fresh"):
        evaluate(attrs.evolve(job, data_root=noise))
    alone = score(attrs.evolve(job, data_root=noise, out=tmp_path / "alone"))
    assert alone != first
    (outcome,) = evaluate(job)
    with pytest.raises(FssbenchError, match="images have another content than those of the record"):
        verify_record(outcome.folder, Rerun(data_root=noise, episodes=5))
    assert not verify_record(outcome.folder, Rerun(data_root=clear, episodes=5)).problems
    # Replaced in place, too.
    shutil.copytree(noise, clear, dirs_exist_ok=True)
    with pytest.raises(FssbenchError, match="differs in images"):
        evaluate(job)
    assert score(attrs.evolve(job, fresh=True)) == alone


def test_an_unchanged_file_is_hashed_once(folders, monkeypatch):
    from fssbench import build

    clear, noise = folders
    read = []
    original = image_digest.sha256
    monkeypatch.setattr(image_digest, "sha256", lambda path: read.append(path) or original(path))
    monkeypatch.setattr(image_digest, "SETTLED_SECONDS", 0.0)
    time.sleep(0.05)
    dataset = build.dataset("folder", clear)
    ids = dataset.image_ids("test")
    digest = ImageHashes(dataset).digest(ids)
    assert len(read) == len(ids) == 12
    assert ImageHashes(build.dataset("folder", clear)).digest(reversed(ids)) == digest
    assert len(read) == 12
    time.sleep(0.05)
    shutil.copyfile(noise / "mug" / "0.jpg", clear / "mug" / "0.jpg")
    assert ImageHashes(build.dataset("folder", clear)).digest(ids) != digest
    assert len(read) == 13
    painted = ImageHashes(build.dataset("shapes"))
    assert painted.digest(["val-000001"]) != painted.digest(["val-000002"])
    assert len(read) == 13


@pytest.mark.parametrize(
    ("attribute", "named"),
    [
        ("self.encoder = torch.nn.Linear(3, 4)", "16 parameters of the matcher, without"),
        ("self.encoder = (torch.nn.Linear(3, 4),)", "16 parameters of Linear in encoder"),
        ("self.tools = {'a': [torch.nn.Linear(2, 2).forward]}", "6 parameters of Linear in tools"),
        (
            "layer = torch.nn.Linear(2, 3)\n        self.run = lambda x: layer(x)",
            "9 parameters of Linear in run",
        ),
        ("self.p = {'a': torch.nn.Parameter(torch.ones(5))}", "5 parameters of Parameter in p"),
        ("type(self).net = torch.nn.Linear(1, 2)", "4 parameters of Linear in Hidden: net"),
        (
            "global NET\n        NET = [torch.nn.Linear(1, 3)]",
            "6 parameters of Linear in the file of Hidden: NET",
        ),
    ],
)
def test_parameters_of_unknown_origin_are_recorded_and_never_rank(
    job, write, tmp_path, caplog, attribute, named
):
    write()
    sys.modules.pop("edited")
    (tmp_path / "edited.py").write_text(HIDDEN.format(attribute=attribute))
    registry.use_plugins([str(tmp_path / "edited.py"), methods_for_tests.__file__])
    (outcome,) = evaluate(attrs.evolve(job, matcher="hidden", limit=20))
    assert named in outcome.record.unaccounted[0]
    assert named in caplog.text
    whole = attrs.evolve(outcome.record, manifest=attrs.evolve(outcome.record.manifest, limit=None))
    assert named in whole.rankable


@pytest.mark.parametrize(
    ("attribute", "named"),
    [
        ("self.register_buffer('net', torch.randn(3, 4))", "12 values in net"),
        ("self.tools = {'a': [torch.rand(2)]}", "2 values in tools"),
        ("self.noise = numpy.random.rand(5)", "5 values in noise"),
        ("self.norm = (torch.nn.BatchNorm1d(2, affine=False),)\n        "
         "self.norm[0].running_mean.normal_()", "2 values in norm"),
        ("self.register_buffer('steps', torch.arange(4) / 0)", None),
        ("self.net = torch.rand(3, generator=torch.Generator().manual_seed(1))", None),
        ("self.net = numpy.array([numpy.nan, 1.0]), numpy.array(['a', None])", None),
    ],
)  # fmt: skip
def test_values_from_the_global_generators_are_unaccounted(
    job, write, tmp_path, caplog, attribute, named
):
    write()
    sys.modules.pop("edited")
    (tmp_path / "edited.py").write_text("import numpy\n" + HIDDEN.format(attribute=attribute))
    registry.use_plugins([str(tmp_path / "edited.py"), methods_for_tests.__file__])
    (outcome,) = evaluate(attrs.evolve(job, matcher="hidden", limit=20))
    if named is None:
        assert outcome.record.unaccounted == ()
        return
    (text,) = outcome.record.unaccounted
    assert text == f"{named}, from the global random generators"
    assert "never ranks, draw from a torch.Generator with a seed" in caplog.text


@pytest.mark.parametrize("trained", [True, False])
def test_a_checkpoint_accounts_for_the_buffers_that_it_holds(write, tmp_path, trained):
    from fssbench.matchers.checkpoint import write_checkpoint
    from fssbench.model import model_source
    from fssbench.unaccounted import drawn_values

    write()
    sys.modules.pop("edited")
    buffers = "self.layer = torch.nn.Linear(1, 1)"
    for name, persistent in (("kept", True), ("lost", False)):
        buffers += f"\n        self.register_buffer('{name}', torch.rand(2), {persistent})"
    (tmp_path / "edited.py").write_text(HIDDEN.format(attribute=buffers))
    registry.use_plugins([str(tmp_path / "edited.py"), methods_for_tests.__file__])
    path = None
    if trained:
        path = tmp_path / "trained.safetensors"
        matcher, _ = model_source("hidden", "pixels").load()
        header = {"matcher": "hidden", "backbone": "pixels", "config": {}, "fold": 0}
        write_checkpoint(path, matcher, header)
    source = model_source("hidden", "pixels", checkpoint=path)
    drawn = drawn_values(source, *source.load())
    # Without a checkpoint the parameters are unaccounted for.
    assert [text.partition(",")[0] for text in drawn] == ["2 values in lost"] * trained


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("dcama", "tiny-resnet"), ("hdmnet", "tiny-resnet"), ("hsnet", "tiny-resnet"),
        ("repri", "tiny-resnet"), ("fsdino", "tiny-vit"),
        ("uinofss", "tiny-vit"), ("uinofss-comp", "tiny-vit"), ("uinofss-comp-frozen", "tiny-vit"),
    ],
)  # fmt: skip
def test_untrained_methods_are_unaccounted(name, backbone):
    import fssbench
    from fssbench.unaccounted import unaccounted_parameters

    encoder = fssbench.backbone(backbone, "random")
    matcher = fssbench.matcher(name, encoder)
    (text,) = unaccounted_parameters(matcher, [encoder], None)
    assert text.endswith("parameters of the matcher, without a checkpoint")


def test_the_record_names_the_code_and_the_images(job):
    (outcome,) = evaluate(job)
    record = outcome.record
    assert {"fssbench", "methods_for_tests"} <= set(record.code)
    assert record.code["fssbench"].distribution == "fssbench"
    assert len(record.code["methods_for_tests"].sha256) == 64
    assert len(record.dataset.images) == 64
    assert record.unaccounted == ()


def test_a_plugin_that_registers_nothing_is_part_of_the_identity(job, write, tmp_path):
    write()
    first = score(job)
    patch = tmp_path / "patching.py"
    patch.write_text("import fssbench\n")
    plugins = [str(tmp_path / "edited.py"), str(tmp_path / "encoder.py")]
    plugins.append(methods_for_tests.__file__)
    observer = tmp_path / "observing.py"
    observer.write_text(
        "import fssbench\n@fssbench.hookimpl\ndef fssbench_commands():\n    return []\n"
    )
    registry.use_plugins([str(observer), *plugins])
    assert score(job) == first  # it computes nothing
    registry.use_plugins([str(patch), *plugins])
    with pytest.raises(FssbenchError, match="differs in code of patching"):
        evaluate(job)
    assert score(attrs.evolve(job, fresh=True)) == first


def test_data_files_beside_a_plugin_of_one_file(tmp_path, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "plugin_of_test.py"
    lines = (
        "HERE = __file__.rpartition('/')[0]",
        "TABLES = 'table.npy', 'tables/other.json', '.npz', 'notes.md', '.hidden', '../far.npy'",
        "NAMES = '', 'missing.npy', 'nul\\0', 'x' * 5, 1, None, '/'",
        f"LONG = '{'y' * 5000}'",
        "def shift():\n    return 1\n",
    )
    source.write_text("\n".join(lines))
    (tmp_path / "tables").mkdir()
    named = ["table.npy", "tables/other.json", "plugin_of_test.npz"]
    for name in [*named, "notes.md", ".hidden", "unnamed.npy"]:
        (tmp_path / name).write_text("1")
    module = importlib.import_module("plugin_of_test")
    try:
        before = code_of([module.shift])["plugin_of_test"].sha256
        for name in ("notes.md", ".hidden", "unnamed.npy"):
            (tmp_path / name).write_text("2")
        assert code_of([module.shift])["plugin_of_test"].sha256 == before
        for name in named:
            (tmp_path / name).write_text("2")
            now = code_of([module.shift])["plugin_of_test"].sha256
            assert now != before
            before = now
        for name in named:
            (tmp_path / name).unlink()
        # A file without data keeps the hash of earlier versions.
        inner = hashlib.sha256(source.read_bytes()).hexdigest()
        alone = hashlib.sha256(f"\0{inner}\n".encode()).hexdigest()
        assert code_of([module.shift])["plugin_of_test"].sha256 == alone
    finally:
        sys.modules.pop("plugin_of_test", None)


@pytest.mark.parametrize("init", [True, False])
def test_folders_of_code(tmp_path, monkeypatch, init):
    """Packages with and without __init__.py, below a hidden folder, with runs and notes in them."""
    folder = tmp_path / ".hidden" / "helpers_of_test"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(folder.parent)
    if init:
        (folder / "__init__.py").write_text("")
    (folder / "net.py").write_text("SHIFT = 1\ndef shift():\n    return SHIFT\n")
    import importlib

    module = importlib.import_module("helpers_of_test.net")
    try:
        before = code_of([module.shift])["helpers_of_test"].sha256
        (folder / "notes.md").write_text("notes")
        run = folder / "runs" / "one"
        run.mkdir(parents=True)
        (run / "run.json").write_text("{}")
        (run / "rows.csv").write_text("1")
        assert code_of([module.shift])["helpers_of_test"].sha256 == before
        (folder / "net.py").write_text("SHIFT = 2\ndef shift():\n    return SHIFT\n")
        assert code_of([module.shift])["helpers_of_test"].sha256 != before
    finally:
        for name in ("helpers_of_test.net", "helpers_of_test"):
            sys.modules.pop(name, None)
