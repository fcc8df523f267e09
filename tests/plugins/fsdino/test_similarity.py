"""Self-similarity (FS-DINO, section 2.1) and the ranking of layers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fssbench import FssbenchError
from fssbench.cli import _run
from fssbench_fsdino.similarity import (
    agreement,
    draw_similarity,
    rank_layers,
    self_similarity,
    similarity_map,
)


def maps(channels=5, grid=4, seed=0):
    return torch.randn(channels, grid, grid, generator=torch.Generator().manual_seed(seed))


def test_equation_1():
    features = maps(grid=3)
    rows = features.double().numpy().reshape(5, 9).T
    expected = rows @ rows.T / np.outer(*(2 * [np.linalg.norm(rows, axis=1)]))
    np.testing.assert_allclose(self_similarity(features).reshape(9, 9), expected, atol=1e-6)


def test_a_point_selects_its_position():
    features = maps()
    assert torch.equal(similarity_map(features, (0.6, 0.1)), self_similarity(features)[0, 2])
    assert torch.equal(similarity_map(features, (1.0, 1.0)), self_similarity(features)[3, 3])
    assert similarity_map(features, (0.6, 0.1))[0, 2].item() == pytest.approx(1.0)


def test_agreement_is_the_correlation_of_all_pairs():
    one, other = maps(), maps(7, seed=1)
    above = np.triu_indices(16, 1)
    values = [self_similarity(m).reshape(16, 16).double().numpy()[above] for m in (one, other)]
    assert agreement(one, other) == pytest.approx(np.corrcoef(*values)[0, 1], abs=1e-6)
    assert agreement(one, 3 * one) == pytest.approx(1.0)
    turned = torch.linalg.qr(maps(5, 5, seed=2)[0])[0]
    assert agreement(one, torch.einsum("dc,chw->dhw", turned, one)) == pytest.approx(1.0, abs=1e-5)
    assert agreement(one, torch.ones(3, 4, 4)) == 0.0


def test_layers_are_ranked_by_their_mean():
    references = [maps(seed=seed) for seed in (1, 2)]
    noisy = [r + 0.7 * maps(seed=9) for r in references]
    features = [
        {"other": maps(6, seed=5), "same": 2 * r, "near": n}
        for r, n in zip(references, noisy, strict=True)
    ]
    ranked = rank_layers(features, references)
    assert [entry.layer for entry in ranked] == ["same", "near", "other"]
    assert ranked[0].mean == pytest.approx(1.0)
    assert ranked[1].mean == pytest.approx(sum(ranked[1].images) / 2)
    with pytest.raises(FssbenchError):
        rank_layers([], [])


def test_grids_may_differ():
    assert -1 <= agreement(maps(grid=5), maps(grid=3)) <= 1


def test_the_drawing_has_a_row_for_each_point_and_red_where_the_point_is():
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    sheet = draw_similarity(image, [(0.1, 0.1), (0.9, 0.9)], {"a": maps(), "b": maps(seed=1)})
    assert sheet.size == (3 * 124 + 4, 2 * 124 + 4 + 16)
    assert sheet.getpixel((4 + 12, 16 + 12)) == (255, 0, 0)  # the dot
    assert sheet.getpixel((4 + 124 + 5, 16 + 5)) == (255, 0, 0)  # the point's own place


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "one.png"
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 255, (50, 60, 3), dtype=np.uint8)).save(path)
    return path


def test_the_command(picture, tmp_path, capsys):
    command = [
        "analyse", "similarity", str(picture), "--backbone", "tiny-vit", "--reference", "tiny-sam",
        "--reference-weights", "random", "--point", "0.5,0.5", "--device", "cpu",
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    assert _run([*command, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {entry["layer"] for entry in told["layers"]} == {
        "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4", "norm",
    }  # fmt: skip
    means = [entry["mean"] for entry in told["layers"]]
    assert means == sorted(means, reverse=True)
    assert told["reference"]["source"] == "random"
    assert (tmp_path / "out" / "000-one.png").is_file()
    assert _run(command) == 0
    assert "Some weights are random" in capsys.readouterr().out


@pytest.mark.parametrize("point", ["5", "a,b", "0.5,1.5"])
def test_wrong_points_are_one_line(picture, point, capsys):
    assert _run(["analyse", "similarity", str(picture), "--point", point]) == 2
    assert f"--point {point}" in capsys.readouterr().err
