"""Results that share a table, and their ranks."""

from pathlib import Path

import pytest
from records_for_tests import change_record

from fssbench import registry
from fssbench.board.markdown import render
from fssbench.board.ranking import group_ranks
from fssbench.board.tables import Table, make_boards
from fssbench.results.record import CodeInfo, Weights
from fssbench.results.result import find_results, read_result
from fssbench.results.rows import read_rows
from fssbench.statistics.intervals import score_intervals


def tables(folder: Path) -> list[Table]:
    results = [read_result(file.parent) for file in sorted(folder.rglob("record.json"))]
    return [table for board in make_boards(results) for table in board.tables]


def test_rank_is_by_the_mean_over_the_folds(runs):
    runs.folds("worse", quality=0.4)
    folders = runs.folds("better", quality=0.6)
    (table,) = tables(runs.root)
    assert [(row.rank, row.method) for row in table.rows] == [(1, "better"), (2, "worse")]
    assert table.folds == (0, 1, 2, 3)
    best = table.rows[0]
    assert best.mean == pytest.approx(sum(best.folds.values()) / 4)
    assert best.folds[2] == read_result(folders[2]).record.scores["miou"]
    assert best.interval == score_intervals([read_rows(f / "rows.csv.gz") for f in folders])["miou"]
    assert best.interval[0] < best.mean < best.interval[1]


def test_rows_whose_difference_may_be_zero_share_a_rank(runs):
    runs.folds("best", quality=0.8)
    runs.folds("twin-b", quality=0.5)
    runs.folds("twin-a", quality=0.5)
    runs.folds("near", quality=0.5, luck=1)
    runs.folds("last", quality=0.2)
    (table,) = tables(runs.root)
    ranks = {row.method: row.rank for row in table.rows}
    assert ranks == {"best": 1, "twin-a": 2, "twin-b": 2, "near": 2, "last": 5}
    means = [row.mean for row in table.rows]
    assert means == sorted(means, reverse=True)
    assert len(set(means)) == 4


def test_a_small_difference_that_is_always_there_is_a_rank(runs):
    """Half a point is significant if paired; the intervals of the means overlap almost entirely."""
    runs.folds("ahead", quality=0.505)
    runs.folds("behind", quality=0.5)
    (table,) = tables(runs.root)
    ahead, behind = table.rows
    assert [(row.rank, row.method) for row in table.rows] == [(1, "ahead"), (2, "behind")]
    assert ahead.interval[0] < behind.mean < ahead.mean < behind.interval[1]


def test_only_the_first_of_a_group_decides_who_joins_it():
    """Steps of 1, and differences above 1.5 are significant: a chain does not make one group."""
    means = [9.0, 8.0, 7.0, 6.0, 3.0]
    assert group_ranks(means, lambda first, other: first - other > 1.5) == [1, 1, 3, 3, 5]
    assert group_ranks(means, lambda first, other: False) == [1] * 5
    assert group_ranks(means, lambda first, other: True) == [1, 2, 3, 4, 5]
    assert group_ranks([], lambda first, other: True) == []


def test_rows_without_a_rank_break_no_group(runs):
    runs.folds("first", quality=0.6)
    runs.folds("random", quality=0.59, weights=Weights(source="random"))
    runs.folds("second", quality=0.6, luck=1)
    (table,) = tables(runs.root)
    assert {row.method: row.rank for row in table.rows} == {"first": 1, "second": 1, "random": None}
    assert table.rows[-1].method == "random"


def test_a_choice_on_novel_classes_is_marked(runs, trained):
    for fold in range(4):
        runs.add("dcama", fold=fold, checkpoint=trained(fold, selected_on="novel"))
        runs.add("dcama", fold=fold, quality=0.4, checkpoint=trained(fold, selected_on="base"))
    (table,) = tables(runs.root)
    novel, base = (row.method for row in table.rows)
    assert "selected on novel classes" in novel
    assert "novel" not in base


def test_a_row_without_all_folds_has_no_rank_and_no_mean(runs):
    runs.folds("whole", quality=0.4)
    runs.add("part", fold=0, quality=0.9)
    (table,) = tables(runs.root)
    part = table.rows[1]
    assert (part.rank, part.mean, part.interval, part.fb_iou) == (None, None, None, None)
    assert part.notes == ("fold 1, 2, 3 missing",)
    assert part.folds[0] > 80


def test_without_competitors_one_fold_is_enough(runs):
    runs.add(fold=1)
    (table,) = tables(runs.root)
    assert table.folds == (1,)
    assert table.rows[0].rank == 1


def test_random_weights_never_rank_and_take_no_rank_from_others(runs):
    runs.folds("honest", quality=0.4)
    runs.folds("lucky", quality=0.9, weights=Weights(source="random"))
    (table,) = tables(runs.root)
    assert [(row.rank, row.method) for row in table.rows] == [(1, "honest"), (None, "lucky")]
    assert table.rows[1].notes == ("random weights",)
    assert table.rows[1].backbone == "resnet50 (random weights)"


def test_a_cut_manifest_never_ranks_and_asks_no_fold_of_others(runs):
    runs.add("honest", fold=0, quality=0.4)
    runs.folds("short", quality=0.9, limit=10)
    (table,) = tables(runs.root)
    assert [row.rank for row in table.rows] == [1, None]
    assert table.rows[1].notes == ("only the first 10 episodes",)
    assert (table.folds, table.averaged) == ((0, 1, 2, 3), (0,))
    assert all(row.mean == row.folds[0] for row in table.rows)
    assert {fold: episodes.count for fold, episodes in table.episodes.items()} == {0: 24}


def test_a_checkpoint_of_another_fold_never_ranks(runs, trained):
    for fold in range(4):
        runs.add("dcama", fold=fold, checkpoint=trained(0))
    (table,) = tables(runs.root)
    (row,) = table.rows
    assert row.rank is None
    assert row.notes == (
        "fold 1, 2, 3: checkpoint trained for fold 0, which has these classes in training",
    )


def test_tested_classes_of_the_training_never_rank(runs, trained):
    """The classes of each fold are named; without any the row ranks."""
    for fold in range(4):
        checkpoint = trained(2, dataset="coco20i")
        runs.add("clean", fold=fold, checkpoint=checkpoint, overlap=())
        runs.add("seen", fold=fold, checkpoint=checkpoint, overlap=(f"class {3 * fold}",))
        runs.add("unknown", fold=fold, checkpoint=checkpoint)
    (table,) = tables(runs.root)
    rows = {row.method.partition(" ")[0]: row for row in table.rows}
    assert {name: row.rank for name, row in rows.items()} == {
        "clean": 1, "seen": None, "unknown": None,
    }  # fmt: skip
    assert rows["clean"].method == "clean (trained on coco20i fold 2, one checkpoint per fold)"
    assert rows["seen"].notes[0] == "fold 0: trained on tested classes: class 0"
    assert rows["unknown"].notes == ("trained on unknown classes of coco20i, maybe on tested ones",)


def test_folds_of_another_dataset_are_folds_of_one_training(runs, trained):
    """Fold i is tested with the checkpoint of fold i: one row, as on the training's own data."""
    for fold in range(4):
        folder = runs.add(
            "dcama", fold=fold, protocol="pascal5i/v1-1k-coco-folds", overlap=(),
            checkpoint=trained(fold, dataset="coco20i", folds_of="coco20i"),
        )  # fmt: skip
        change_record(folder, "dataset", "folds_of", value="coco20i")
    (table,) = tables(runs.root)
    (row,) = table.rows
    assert row.rank == 1
    assert sorted(row.folds) == [0, 1, 2, 3]
    assert row.method == "dcama (trained on coco20i, dcama-fold*.safetensors)"


def test_folds_of_one_training_are_one_row_of_two_trainings_two(runs, trained):
    for seed in (0, 1):
        for fold in range(4):
            runs.add("dcama", fold=fold, luck=seed, checkpoint=trained(fold, seed=seed))
    (table,) = tables(runs.root)
    assert sorted(row.method for row in table.rows) == [
        "dcama (seed=0, dcama-fold*.safetensors)",
        "dcama (seed=1, dcama-fold*.safetensors)",
    ]
    assert len({row.mean for row in table.rows}) == 2


def test_folds_of_a_trained_backbone_are_one_row(runs, trained):
    for fold in range(4):
        runs.add(
            "hdmnet",
            fold=fold,
            checkpoint=trained(fold, holds_backbone=True),
            weights=Weights(source="file", name="last.safetensors", sha256=f"{fold + 7:064x}"),
        )
    runs.folds(quality=0.2)
    (table,) = tables(runs.root)
    first, second = table.rows
    assert sorted(first.folds) == [0, 1, 2, 3]
    assert first.backbone == f"{second.backbone} (trained)"


def test_a_page_says_how_and_to_what_a_method_was_trained(runs, trained):
    facts = {"stage": "meta", "recipe": "shapes", "environment": {"precision": "bf16"}}
    for fold in range(2):
        runs.add("dcama", fold=fold, checkpoint=trained(fold, **facts))
    (board,) = make_boards([read_result(folder) for folder in find_results([runs.root])])
    line = next(line for line in render(board).splitlines() if "was trained" in line)
    assert "dataset pascal5i, stage meta, recipe shapes, seed 0, precision bf16" in line
    assert line.endswith("checkpoints fold 0 `aaaaaaaa`, fold 1 `bbbbbbbb`.")


def test_labels_contain_only_the_options_that_differ(runs):
    runs.folds(quality=0.4, config={"temperature": 10.0, "layers": ["last"]})
    runs.folds(quality=0.5, config={"temperature": 20.0, "layers": ["last"]})
    (table,) = tables(runs.root)
    assert [row.method for row in table.rows] == [
        "prototype (temperature=20.0)",
        "prototype (temperature=10.0)",
    ]


def test_another_precision_is_another_row(runs):
    runs.folds(quality=0.5, environment={"precision": "fp32"})
    runs.folds(quality=0.4, environment={"precision": "bf16"})
    (table,) = tables(runs.root)
    assert [row.method for row in table.rows] == [
        "prototype (precision=fp32)",
        "prototype (precision=bf16)",
    ]


def test_rounded_features_are_another_row(runs, tmp_path):
    """`--cache-half` may change scores; folds with and without it have no common mean."""
    exact, rounded = {"precision": "fp32"}, {"precision": "fp32", "features": "float16"}
    runs.folds(quality=0.5, environment=exact)
    runs.folds(quality=0.4, environment=rounded)
    (table,) = tables(runs.root)
    assert [row.method for row in table.rows] == ["prototype", "prototype (features=float16)"]
    mixed = type(runs)(tmp_path / "mixed")
    for fold in range(4):
        mixed.add(fold=fold, environment=rounded if fold else exact)
    (table,) = tables(mixed.root)
    assert [sorted(row.folds) for row in table.rows] == [[0], [1, 2, 3]]
    assert [row.rank for row in table.rows] == [None, None]


def test_other_weights_of_the_same_encoder_are_named(runs):
    runs.folds(quality=0.4)
    other = Weights(source="file", name="mine.safetensors", sha256="cd" * 32)
    runs.folds(quality=0.5, weights=other)
    (table,) = tables(runs.root)
    assert [row.backbone for row in table.rows] == [
        "resnet50 (mine.safetensors)",
        "resnet50 (resnet50.a1_in1k)",
    ]


def test_protocols_and_shots_never_mix(runs):
    runs.folds()
    runs.folds(shots=5)
    runs.folds(protocol="pascal5i/other-1k")
    found = tables(runs.root)
    assert [(table.record.protocol, table.record.shots) for table in found] == [
        ("pascal5i/other-1k", 1),
        ("pascal5i/v1-1k", 1),
        ("pascal5i/v1-1k", 5),
    ]
    assert all(row.rank == 1 for table in found for row in table.rows)


@pytest.mark.parametrize(
    ("dataset", "protocol"),
    [
        ("pascal5i", "pascal5i/hsnet-1k"),
        ("coco20i", "coco20i/hsnet-1k"),
        ("fss1000", "fss1000/hsnet"),
        ("pascal5i", "pascal5i/hdmnet-1k"),
        ("coco20i", "coco20i/hdmnet-10k"),
    ],
)
def test_protocols_of_the_literature_stand_apart_and_never_rank(runs, dataset, protocol):
    runs.add("measured", dataset=dataset, protocol=f"{dataset}/v1-1k", quality=0.4)
    runs.add("replayed", dataset=dataset, protocol=protocol, quality=0.9)
    house, replay = tables(runs.root)  # although "hsnet" comes before "v1"
    assert (house.record.protocol, house.replay, house.rows[0].rank) == (
        f"{dataset}/v1-1k",
        False,
        1,
    )
    assert (replay.record.protocol, replay.replay) == (protocol, True)
    (row,) = replay.rows
    assert row.rank is None
    assert row.notes == ("replay of a published protocol",)
    assert row.mean == row.folds[0] > 80
    (board,) = make_boards([read_result(folder) for folder in find_results([runs.root])])
    measured, _, replays = render(board).partition("## Replays of published protocols\n")
    assert "measured" in measured
    assert "replayed" not in measured
    assert f"### {protocol}, 1-shot" in replays
    assert "**they have no rank**" in " ".join(replays.split())


def test_a_plugins_protocol_with_lists_is_a_replay_too(runs, tmp_path):
    plugin = tmp_path / "theirs.py"
    plugin.write_text(
        "from fssbench import ProtocolSpec, hookimpl\n\n\n"
        "@hookimpl\n"
        "def fssbench_protocols():\n"
        "    common = dict(summary='s', dataset='pascal5i', split='val', sampler='uniform-query',\n"
        "                  episodes=24, min_pixels=1)\n"
        "    return [ProtocolSpec(name='theirs/listed', lists='theirs:lists', **common),\n"
        "            ProtocolSpec(name='theirs/free', **common)]\n"
    )
    runs.add(protocol="theirs/listed")
    runs.add(protocol="theirs/free")
    registry.use_plugins([str(plugin)])
    try:
        ranks = {table.record.protocol: table.rows[0].rank for table in tables(runs.root)}
    finally:
        registry.use_plugins([])
    assert ranks == {"theirs/free": 1, "theirs/listed": None}


def test_other_annotations_get_a_table_of_their_own(runs):
    runs.folds("mine", fingerprint="aa" * 32)
    runs.folds("yours", fingerprint="bb" * 32)
    runs.folds("theirs", fingerprint="bb" * 32)
    first, second = tables(runs.root)
    assert (first.qualifier, len(first.rows)) == ("annotations bbbbbbbb", 2)
    assert (second.qualifier, len(second.rows)) == ("annotations aaaaaaaa", 1)


def test_other_episodes_of_the_same_protocol_get_a_table_of_their_own(runs):
    runs.folds("mine", quality=0.4)
    runs.folds("also-mine", quality=0.5)
    runs.folds("easy", quality=0.9, draw=1)
    first, second = tables(runs.root)
    assert [row.method for row in first.rows] == ["also-mine", "mine"]
    assert [row.method for row in second.rows] == ["easy"]
    assert first.qualifier.startswith("episode set ")
    assert first.episodes[0].digest != second.episodes[0].digest


def test_other_images_under_the_same_names_get_a_table_of_their_own(runs):
    for name, digest in (("mine", "aa" * 32), ("also-mine", "aa" * 32), ("theirs", "bb" * 32)):
        runs.folds(name, images=digest)
    runs.folds("old", images="")
    first, second = tables(runs.root)
    assert {row.method for row in first.rows} == {"also-mine", "mine", "old"}
    assert [row.method for row in second.rows] == ["theirs"]
    assert first.episodes[0].digest == second.episodes[0].digest
    assert (first.episodes[0].content, second.episodes[0].content) == ("aa" * 32, "bb" * 32)


def test_folds_of_different_code_never_rank(runs):
    def code(digest):
        return {"theirs": CodeInfo(sha256=digest), "fssbench": CodeInfo(sha256=digest)}

    for fold in range(4):
        runs.add("mixed", fold=fold, code=code("aa" if fold < 2 else "bb"))
        runs.add("same", fold=fold, code=code("aa") | {"fssbench": CodeInfo(sha256=str(fold))})
    (table,) = tables(runs.root)
    assert [(row.method, row.rank) for row in table.rows] == [("same", 1), ("mixed", None)]
    assert table.rows[1].notes == ("folds of different code of theirs",)
