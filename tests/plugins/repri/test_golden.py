"""Comparison with numbers of the authors' code, on stored features."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from fssbench.nn import resize
from fssbench_repri.classifier import Classifier
from fssbench_repri.config import RePriConfig

GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden"


@pytest.fixture(scope="module", params=["1shot", "5shot"])
def run(request):
    """The authors' arrays, a classifier, and copies of its state: at the start, at each step."""
    path = GOLDEN / f"repri_{request.param}.npz"
    if not path.is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    with np.load(path) as stored:
        arrays = dict(stored)
    grid = ast.literal_eval(str(arrays["meta"]))["grid"]

    def labels(name):
        whole = torch.from_numpy(arrays[name]).float()
        return functional.interpolate(whole, (grid, grid), mode="nearest")[0]

    tokens = torch.from_numpy(arrays["feat__codes"].astype(np.float32) * arrays["feat__scale"])
    maps = functional.normalize(tokens.transpose(1, 2).unflatten(2, (grid, grid)), dim=1)
    valid = labels("gt_query")[0] != 255
    made = Classifier(maps[:-1], labels("gt_support"), maps[-1], RePriConfig(), valid=valid)
    start = {
        "prototype_init": made.prototype,
        "bias_init": made.bias,
        "proportions_init": made.proportions,
        "logits_query_init": made.logits(made.query),
        "logits_support_init": made.logits(made.support),
    }
    steps, step = [], made.step

    def recorded():
        state = {
            "kl_weight": torch.tensor(made.kl_weight),
            "proportions": made.proportions,
            "bias": made.bias,
            "prototype_norm": made.prototype.norm(),
        }
        found, of_prototype, of_bias = step()
        state |= {
            "ce": found.cross_entropy,
            "kl": found.divergence,
            "entropy": found.entropy,
            "marginal": found.marginal,
            "grad_prototype": of_prototype,
            "grad_prototype_norm": of_prototype.norm(),
            "grad_bias": of_bias,
            "logits": made.logits(made.query),
        }
        steps.append(state)
        return found, of_prototype, of_bias

    made.step = recorded
    made.fit()
    return arrays, made, start, steps


def near(tensor, expected, limit):
    found = tensor.detach().double().numpy()
    deviation = np.abs(found - np.asarray(expected).reshape(found.shape)).max()
    assert deviation <= limit * np.abs(expected).max(), deviation


def test_start(run):
    arrays, _, start, steps = run
    for name, found in start.items():
        near(found, arrays[name], 1e-5)
    near(steps[0]["grad_prototype"], arrays["grad_prototype_first"], 1e-5)


def test_steps(run):
    arrays, _, _, steps = run
    assert len(steps) == len(arrays["step_ce"]) == 49
    names = (
        "ce", "kl", "entropy", "marginal", "kl_weight", "proportions", "bias", "prototype_norm",
        "grad_prototype_norm", "grad_bias",
    )  # fmt: skip
    for name in names:
        near(torch.stack([step[name] for step in steps]), arrays[f"step_{name}"], 2e-4)
    for index, logits in zip(
        arrays["logits_after_step__index"], arrays["logits_after_step"], strict=True
    ):
        near(steps[index]["logits"], logits, 1e-4)


def test_result(run):
    arrays, made, _, _ = run
    near(made.prototype, arrays["prototype_final"], 1e-4)
    near(made.bias, arrays["bias_final"], 1e-4)
    size = arrays["pred__shape"][-2:]
    logits = resize(made.logits(made.query)[None], size.tolist())[0]
    near(logits[:, ::8, ::8], arrays["logits_final_full__s8"], 1e-4)
    near((logits - made.bias)[:, ::8, ::8].sigmoid(), arrays["proba_fg_full__s8"], 1e-4)
    expected = np.unpackbits(arrays["pred__bits"])[: size.prod()].astype(bool)
    differing = ((logits > made.bias).numpy().ravel() != expected).sum()
    assert differing <= arrays["margin_count_below"][1]
