"""Features on disk: found again, never stale, never wrong, never more than the limit."""

from __future__ import annotations

import multiprocessing
import os

import attrs
import pytest
import torch

from fssbench import FssbenchError
from fssbench import backbone as backbone_of
from fssbench import matcher as matcher_of
from fssbench.evaluation import evaluate as evaluate_module
from fssbench.evaluation.evaluate import evaluate
from fssbench.inference.feature_files import SUFFIX, FeatureFiles, identity_of, pixels_key
from fssbench.inference.pipeline import Pipeline

LIMIT = 1 << 30
CPU = torch.device("cpu")


def pipeline_of(name="mixer", backbone="pixels", weights="pretrained", **more):
    encoder = backbone_of(backbone, weights)
    return Pipeline(matcher_of(name, encoder), encoder, device=CPU, **more)


def files_of(pipeline, folder, limit):
    return FeatureFiles(pipeline.backbone, identity_of(pipeline), folder, limit)


def picture(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator)


def features(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "fine": torch.randn(3, 16, 16, generator=generator),
        "coarse": torch.randn(5, 7, generator=generator).to(torch.bfloat16),
    }


def same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name])
        assert first[name].dtype == second[name].dtype


def files_in(folder):
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIX))


def test_what_was_written_is_found_by_another_process(tmp_path):
    one = files_of(pipeline_of(), tmp_path, LIMIT)
    assert one.read(pixels_key(picture(), None)) is None
    one.write(pixels_key(picture(), None), features())
    other = files_of(pipeline_of(), tmp_path, LIMIT)
    found = other.read(pixels_key(picture(), None))
    same(found, features())
    found["fine"].zero_()  # it is a private copy
    same(other.read(pixels_key(picture(), None)), features())


def test_another_image_mask_request_or_weights_is_another_file(tmp_path):
    files = files_of(pipeline_of(), tmp_path, LIMIT)
    files.write(pixels_key(picture(), None), features())
    changed = picture()
    changed[0, 0, 0] ^= 1
    assert files.read(pixels_key(changed, None)) is None
    assert files.read(pixels_key(picture(), torch.ones(64, 64, dtype=torch.uint8))) is None
    darker = pipeline_of()
    darker.backbone.mean.mul_(0.5)
    others = [
        darker, pipeline_of("prototype"), pipeline_of(half=True), pipeline_of(precision="bf16"),
        pipeline_of(encode_batch=2),
    ]  # fmt: skip
    for other in others:
        assert files_of(other, tmp_path, LIMIT).read(pixels_key(picture(), None)) is None


def test_one_weight_more_or_less_is_another_identity(tmp_path):
    def path_of(pipeline):
        return files_of(pipeline, tmp_path, LIMIT).path(b"image")

    first, second = (pipeline_of("prototype", "tiny-resnet", "pretrained") for _ in range(2))
    assert path_of(first) == path_of(second)
    with torch.no_grad():
        next(second.backbone.parameters()).view(-1)[0] += 1e-6
    assert path_of(first) != path_of(second)


@pytest.mark.parametrize("place", [0.0, 0.01, 0.5, 0.999])
def test_a_flipped_bit_is_seen_and_mended(tmp_path, place):
    files = files_of(pipeline_of(), tmp_path, LIMIT)
    files.write(pixels_key(picture(), None), features())
    (path,) = files_in(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 0x10
    path.write_bytes(content)
    assert files.read(pixels_key(picture(), None)) is None
    assert not path.exists()
    files.write(pixels_key(picture(), None), features())
    same(files.read(pixels_key(picture(), None)), features())


@pytest.mark.parametrize("length", [0, 10, 60, 1000])
def test_a_file_that_was_cut_off_is_no_features(tmp_path, length):
    files = files_of(pipeline_of(), tmp_path, LIMIT)
    files.write(pixels_key(picture(), None), features())
    (path,) = files_in(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert files.read(pixels_key(picture(), None)) is None


def test_what_was_used_longest_ago_is_removed(tmp_path):
    files = files_of(pipeline_of(), tmp_path, LIMIT)
    files.write(pixels_key(picture(0), None), features(0))
    size = files_in(tmp_path)[0].stat().st_size
    small = files_of(pipeline_of(), tmp_path, 4 * size)
    for seed in (1, 2):
        small.write(pixels_key(picture(seed), None), features(seed))
    for seed, age in ((0, 300), (1, 200), (2, 100)):
        path = small.path(pixels_key(picture(seed), None))
        moment = path.stat().st_mtime - age
        os.utime(path, (moment, moment))
    same(small.read(pixels_key(picture(0), None)), features(0))  # used just now
    for seed in (3, 4, 5, 6):
        small.write(pixels_key(picture(seed), None), features(seed))
        assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 4 * size
    assert small.read(pixels_key(picture(1), None)) is None
    assert small.read(pixels_key(picture(6), None)) is not None


def test_features_larger_than_the_limit_are_not_written(tmp_path):
    files_of(pipeline_of(), tmp_path, 100).write(pixels_key(picture(), None), features())
    assert files_in(tmp_path) == []


def _write_and_read(folder, seeds):
    import methods_for_tests

    from fssbench import registry

    registry.use_plugins([methods_for_tests.__file__])
    files = files_of(pipeline_of(), folder, 40_000)
    for seed in seeds:
        found = files.read(pixels_key(picture(seed), None))
        if found is None:
            files.write(pixels_key(picture(seed), None), features(seed))
        else:
            same(found, features(seed))


def test_processes_that_write_read_and_remove_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    seeds = list(range(12)) * 4
    workers = [
        context.Process(target=_write_and_read, args=(tmp_path, seeds[n:] + seeds[:n]))
        for n in (0, 5)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert sum(path.stat().st_size for path in files_in(tmp_path)) <= 2 * 40_000


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FssbenchError, match="file.*choose another one .--cache-dir"):
        files_of(pipeline_of(), tmp_path / "file" / "below", LIMIT)


def test_a_full_disk_costs_a_warning(tmp_path, monkeypatch, caplog):
    files = files_of(pipeline_of(), tmp_path, LIMIT)

    def full(path, data, flush):
        raise FssbenchError(f"{path}: cannot write: No space left on device")

    monkeypatch.setattr("fssbench.inference.feature_files.write_atomically", full)
    files.write(pixels_key(picture(), None), features())
    files.write(pixels_key(picture(1), None), features())
    assert caplog.text.count("cached in memory only") == 1


def test_evaluations_with_and_without_it_have_the_same_rows(job, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    cached = attrs.evolve(job, matcher="masked", cache_dir=folder, cache_memory=0)
    runs = [attrs.evolve(cached, out=tmp_path / name) for name in ("cold", "warm", "damaged")]
    (plain,) = evaluate(attrs.evolve(job, matcher="masked"))
    rows = (plain.folder / "rows.csv.gz").read_bytes()
    seen = []
    original = evaluate_module.Pipeline.encode

    def counted(self, images, keep=None):
        seen.append(len(images))
        return original(self, images, keep)

    monkeypatch.setattr(evaluate_module.Pipeline, "encode", counted)
    counts = []
    for number, run in enumerate(runs):
        if number == 2:
            path = files_in(folder)[0]
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        seen.clear()
        (result,) = evaluate(run)
        assert (result.folder / "rows.csv.gz").read_bytes() == rows
        counts.append(len(seen) - 1)  # one is for the record's count of operations
    assert counts[0] == len(files_in(folder))
    assert counts[1:] == [0, 1]
