"""What is kept in memory: within its budget, what is needed soonest, and never something else."""

from __future__ import annotations

import attrs
import methods_for_tests
import pandas
import pytest
import torch

from fssbench import Episode, FeatureRequest, FssbenchError, build_manifest, dataset, metric
from fssbench import backbone as backbone_of
from fssbench import matcher as matcher_of
from fssbench.episodes.chunks import CHUNK, chunks_of, visiting_order
from fssbench.evaluation.measure import measure_chunks
from fssbench.inference.chunk_loader import load_chunks
from fssbench.inference.feature_cache import FeatureCache
from fssbench.inference.feature_uses import image_key, query_key, set_key, support_key, uses_of
from fssbench.inference.lookahead_cache import LookaheadCache
from fssbench.inference.pipeline import Pipeline
from fssbench.registry import registry
from fssbench.runtime.memory import default_budget, device_memory, parse_size
from fssbench.specs import ProtocolSpec

BYTES = 400  # of a `part`


def part(number: float = 0.0) -> torch.Tensor:
    return torch.full((100,), number)


@pytest.fixture(scope="module")
def shapes():
    return dataset("shapes", images_per_split=60)


def manifest_of(shapes, shots, limit=60):
    protocol = registry().get(ProtocolSpec, "shapes/v1-1k")
    return build_manifest(protocol, shapes, fold=0, shots=shots, limit=limit)


def pipeline_of(name="mixer", **options):
    encoder = backbone_of("pixels", "pretrained")
    return Pipeline(matcher_of(name, encoder, **options), encoder, device=torch.device("cpu"))


def rows_of(cache, pipeline, shapes, manifest, *, workers=0, batch_size=1, watch=lambda: None):
    loaded = load_chunks(
        cache.plan(chunks_of(manifest.episodes)), shapes, pipeline.geometry,
        score_size="original", workers=workers,
    )  # fmt: skip
    tables = []
    for result in measure_chunks(
        loaded, pipeline.device, cache, [metric("iou")], batch_size=batch_size
    ):
        tables.append(result.rows)
        watch()
    return pandas.concat(tables).sort_values("index", ignore_index=True)


# --- kept ---


def test_what_is_needed_last_goes_first():
    kept = LookaheadCache(2 * BYTES)
    kept.expect({"soon": [1, 9], "later": [5], "never": []})
    for name in ("later", "soon", "never"):
        kept.put(name, part())
    assert "never" not in kept
    kept.expect({"soon": [1], "later": [5], "between": [2]})
    kept.put("between", part())
    assert "soon" in kept
    assert "between" in kept
    assert "later" not in kept
    kept.move_to(3)  # neither is needed any more
    kept.put("new", part())
    assert sum(name in kept for name in ("soon", "between", "new")) == 2


def test_bytes_are_those_of_distinct_storages():
    kept, shared = LookaheadCache(1 << 20), part()
    kept.put("a", {"whole": shared, "view": shared[:10]})
    kept.put("b", (shared, [part()]))
    assert kept.bytes == 2 * BYTES
    kept.drop("a")
    assert kept.bytes == 2 * BYTES
    kept.put("b", shared)
    assert kept.bytes == BYTES
    kept.drop("b")
    kept.drop("b")
    assert kept.bytes == 0


def test_a_value_larger_than_the_budget_is_not_cached():
    kept = LookaheadCache(BYTES - 1)
    kept.put("large", part())
    assert "large" not in kept
    assert kept.bytes == 0


# --- order and schedule ---


def test_chunks_hold_every_episode_once_in_an_order_of_their_own(shapes):
    manifest = manifest_of(shapes, 1, limit=50)
    chunks = chunks_of(manifest.episodes)
    every = [episode.index for episodes in chunks.values() for episode in episodes]
    assert sorted(every) == list(range(50))
    assert [len(episodes) for episodes in chunks.values()] == [CHUNK, CHUNK, 10]
    shuffled = [manifest.episodes[i] for i in torch.randperm(50).tolist()]
    assert chunks_of(shuffled) == chunks
    classes = [episode.class_id for episode in visiting_order(manifest.episodes)]
    assert classes == sorted(classes)


def test_uses_of_prepared_values():
    request = FeatureRequest(layers=("cells4",), size=64, mask_support=True)
    episodes = [
        Episode(index=0, class_id=3, query="a", support=("b",)),
        Episode(index=1, class_id=3, query="c", support=("b",)),
        Episode(index=2, class_id=3, query="a", support=("c",)),
    ]
    uses = uses_of(episodes, request, joined=True)
    assert uses[query_key(episodes[0])] == [0, 2]
    assert uses[set_key(episodes[0])] == [0, 1]
    assert uses[support_key(("b", 3))] == [0]  # afterwards its set is all there is
    assert uses[image_key(("b", 3))] == [0]
    assert uses[image_key(("a", None))] == [0]
    assert uses[image_key(("c", None))] == [1]
    assert uses[image_key(("c", 3))] == [2]
    alone = uses_of(episodes, request, joined=False)
    assert alone[support_key(("b", 3))] == [0, 1]
    assert set_key(episodes[0]) not in alone


# --- the cache ---


@pytest.mark.parametrize("shots", [1, 3])
@pytest.mark.parametrize("matcher", ["mixer", "masked", "prototype"])
def test_rows_do_not_depend_on_the_budget(shapes, shots, matcher):
    manifest, pipeline = manifest_of(shapes, shots), pipeline_of(matcher)
    tables = [
        rows_of(FeatureCache(pipeline, shapes, budget), pipeline, shapes, manifest)
        for budget in (0, 20_000, 1 << 30)
    ]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_rows_do_not_depend_on_loader_processes_that_know_less(shapes):
    """They are told what to load before the chunks before theirs have driven things out."""
    manifest, pipeline = manifest_of(shapes, 2), pipeline_of("masked")
    alone = rows_of(FeatureCache(pipeline, shapes, 20_000), pipeline, shapes, manifest)
    ahead = FeatureCache(pipeline, shapes, 20_000)
    assert alone.equals(rows_of(ahead, pipeline, shapes, manifest, workers=2))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_the_budget_is_honoured(shapes, batch_size):
    manifest, pipeline = manifest_of(shapes, 2), pipeline_of()
    cache = FeatureCache(pipeline, shapes, 30_000, batch_size=batch_size)
    seen = []
    original = cache.memory.put

    def put(key, value):
        original(key, value)
        seen.append(cache.memory.bytes)

    cache.memory.put = put
    rows_of(cache, pipeline, shapes, manifest, batch_size=batch_size)
    assert max(seen) <= 30_000
    assert max(seen) > 20_000  # and used
    held = {t.untyped_storage().data_ptr() for t in _tensors(cache.memory)}
    assert len(held) == len(cache.memory._holders)


def _tensors(kept):
    from fssbench.nn import tensors

    return [tensor for value in kept._values.values() for tensor in tensors(value)]


def test_everything_is_made_once_where_there_is_room(shapes, monkeypatch):
    manifest, pipeline = manifest_of(shapes, 1), pipeline_of("prototype")
    made = []
    for name in ("encode", "prepare_query", "prepare_support"):
        original = getattr(pipeline, name)

        def counted(*arguments, name=name, original=original):
            made.append(name)
            return original(*arguments)

        monkeypatch.setattr(pipeline, name, counted)
    cache = FeatureCache(pipeline, shapes, 1 << 30)
    rows_of(cache, pipeline, shapes, manifest)
    queries = {episode.query for episode in manifest.episodes}
    supports = {key for episode in manifest.episodes for key in episode.supports()}
    images = queries | {image for image, _ in supports}
    assert made.count("encode") == len(images)
    assert made.count("prepare_query") == len(queries)
    assert made.count("prepare_support") == len(supports)
    made.clear()
    rows_of(cache, pipeline, shapes, manifest)
    assert made == []


def test_loaders_are_asked_for_what_is_missing_only(shapes):
    manifest, pipeline = manifest_of(shapes, 1), pipeline_of()
    cache = FeatureCache(pipeline, shapes, 1 << 30)
    chunks = chunks_of(manifest.episodes)
    asked = [image for task in cache.plan(chunks) for image in task.images]
    assert len(asked) == len(set(asked))
    rows_of(cache, pipeline, shapes, manifest)
    assert [task.images for task in cache.plan(chunks)] == [()] * len(chunks)


def test_rounded_features_are_half_as_large_and_another_run(job, tmp_path):
    from fssbench.evaluation.evaluate import evaluate
    from fssbench.results.rows import read_rows

    (plain,) = evaluate(attrs.evolve(job, matcher="prototype"))
    (rounded,) = evaluate(attrs.evolve(job, matcher="prototype", cache_half=True))
    assert plain.folder != rounded.folder
    first, second = (read_rows(r.folder / "rows.csv.gz") for r in (plain, rounded))
    assert (first["query"] == second["query"]).all()
    assert abs(plain.record.scores["miou"] - rounded.record.scores["miou"]) < 1
    encoder = backbone_of("pixels", "pretrained")
    pipeline = Pipeline(
        matcher_of("mixer", encoder), encoder, device=torch.device("cpu"), half=True
    )
    (found,) = pipeline.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert {maps.dtype for maps in found.values()} == {torch.float16}


# --- sizes ---


def test_sizes():
    assert parse_size("512", "--x") == 512
    assert parse_size("4G", "--x") == 4 << 30
    assert parse_size("1.5 MiB", "--x") == 3 << 19
    for text in ("", "four", "4X", "-1"):
        with pytest.raises(FssbenchError, match="--x .*512M or 4G"):
            parse_size(text, "--x")
    memory = device_memory(torch.device("cpu"))
    assert memory > 1 << 28
    assert default_budget(torch.device("cpu")) == memory // 4


def test_the_plugin_of_these_tests_is_loaded():
    assert methods_for_tests.Pixels("pretrained").info.name == "pixels"
