"""Comparison with numbers of the authors' code, step by step, on stored features of an encoder."""

from __future__ import annotations

import ast
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from authors_numbers import Golden
from torch.nn import functional

from fssbench import Backbone, BackboneInfo, Encoder, EpisodeImages, LayerInfo, WeightsInfo
from fssbench_insid3.aggregation import cluster_scores, mask_at_size
from fssbench_insid3.candidates import candidates, mask_on_grid, reference_prototype, votes
from fssbench_insid3.clusters import clusters
from fssbench_insid3.config import Insid3Config
from fssbench_insid3.debias import debias, positional_basis
from fssbench_insid3.model import Insid3

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "golden"
CHANNELS, PATCH = 384, 14


@attrs.frozen
class Case:
    """One episode of the fixtures: features of supports and query, masks, and the numbers."""

    golden: Golden

    @property
    def side(self) -> int:
        return self.golden.run["image_size"]

    @property
    def shots(self) -> int:
        return len(self.golden.run["refs"])

    def features(self, name: str = "feat") -> torch.Tensor:
        """Features as an encoder gives them, (images, C, h, w)."""
        maps = self.golden.arrays[f"{name}__codes"].astype(np.float32)
        flat = torch.from_numpy(maps * self.golden.arrays[f"{name}__scale"]).transpose(1, 2)
        return flat.unflatten(2, (self.side // PATCH, -1)).contiguous()

    def masks(self) -> tuple[torch.Tensor, ...]:
        return tuple(self.golden.bits(f"ref_mask{i}_orig").byte() for i in range(self.shots))

    def near(self, name: str, found: torch.Tensor, limit: float) -> None:
        expected = torch.from_numpy(self.golden.arrays[name])
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= limit * expected.abs().max(), name


@pytest.fixture(params=["1shot", "5shot"])
def case(request):
    path = FOLDER / f"insid3_{request.param}.npz"
    if not path.is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    with np.load(path) as stored:
        arrays = dict(stored)
    return Case(Golden(ast.literal_eval(str(arrays["meta"])), arrays))


def unit(maps: torch.Tensor) -> torch.Tensor:
    return functional.normalize(maps, dim=-3)


def test_every_step_gives_the_authors_numbers(case):
    golden, run = case.golden, case.golden.run
    basis = positional_basis(unit(case.features("zero_feat")[0]), run["svd_components"])
    projector = basis @ basis.T
    case.near("positional_projector__s4", projector[::4, ::4], 5e-4)
    case.near("positional_projector_diag", projector.diagonal(), 5e-4)

    *supports, features = unit(case.features())
    query = debias(features, basis)
    references = torch.stack([debias(each, basis) for each in supports])
    case.near("target_norm__c8", features[::8], 5e-4)
    case.near("target_debiased__c8", query[::8], 5e-4)
    case.near("ref_debiased__c32", references[:, ::32], 5e-4)

    grid = features.shape[-2:]
    masks = torch.stack([mask_on_grid(mask, case.side, grid) for mask in case.masks()])
    assert torch.equal(masks, golden.bits("ref_masks_lowres"))
    prototype = reference_prototype(references, masks)
    case.near("ref_prototype", prototype, 5e-4)
    similarity = torch.einsum("chw,c->hw", query, prototype)
    case.near("sim_forward", similarity, 1e-4)
    found = candidates(similarity, votes(query, references, masks), case.shots)
    assert torch.equal(found, golden.bits("candidates"))

    labels = clusters(features, run["tau"])
    theirs = torch.from_numpy(golden.arrays["cluster_labels"])
    number = int(golden.arrays["n_clusters"])
    assert len(torch.unique(torch.stack([labels, theirs]).flatten(1), dim=1).T) == number
    assert int(labels.max()) == number - 1
    scores = cluster_scores(labels, found, similarity, prototype, features, query)
    case.near("score", torch.stack([scores[labels[theirs == k][0]] for k in range(number)]), 1e-4)
    mask = (scores > run["merge_threshold"])[labels]
    assert torch.equal(mask, golden.bits("pred_lowres"))
    size = (case.side, case.side)
    assert torch.equal(mask_at_size(mask, case.side, size), golden.bits("pred_input_size"))
    assert torch.equal(
        mask_at_size(mask, case.side, golden.arrays["pred__shape"]), golden.bits("pred")
    )


class Stored(Backbone):
    """An encoder that recognises images by their colour and returns the stored features."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.maps = {0: case.features("zero_feat")[0], **dict(enumerate(case.features(), 1))}
        self.weights = WeightsInfo(source="random")
        self.info = BackboneInfo(
            name="stored",
            layers={"last": LayerInfo(CHANNELS, PATCH)},
            image_size=case.side,
            multiple=PATCH,
        )

    def forward(self, images, layers):
        colours = (images[:, 0, 0, 0] * 255).round().int().tolist()
        return dict.fromkeys(layers, torch.stack([self.maps[colour] for colour in colours]))


def test_the_matcher_gives_the_authors_masks(case):
    run = case.golden.run
    options = {name: run[name] for name in ("svd_components", "tau", "merge_threshold")}
    matcher = Insid3(
        config=Insid3Config(**options),
        encoders={"features": Encoder("features", "stored", Stored(case))},
    )

    def image(colour, size):
        return torch.full((3, *size), colour, dtype=torch.uint8)

    masks = case.masks()
    episode = EpisodeImages(
        query=image(case.shots + 1, case.golden.arrays["pred__shape"].tolist()),
        images=tuple(image(i, mask.shape) for i, mask in enumerate(masks, 1)),
        masks=masks,
    )
    assert torch.equal(matcher.predict(episode) > 0, case.golden.bits("pred"))
