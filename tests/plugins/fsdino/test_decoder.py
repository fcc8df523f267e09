"""The mask decoder, compared with SAM's own code, and independence of a batch's images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sam_for_tests
import torch

from fssbench_fsdino.checkpoint import from_sam
from fssbench_fsdino.decoder import FourierPositions, MaskDecoder, MaskDownscaling

GOLDEN = Path(__file__).parent / "sam_decoder.npz"


@pytest.fixture(scope="module")
def parts():
    """Decoder, mask downscaling and positions with the weights of the golden run."""
    found = from_sam(sam_for_tests.golden_state(GOLDEN))
    made = {
        "decoder": MaskDecoder(),
        "downscaling": MaskDownscaling(),
        "positions": FourierPositions(),
    }
    for name, module in made.items():
        own = {k.removeprefix(f"{name}."): v for k, v in found.items() if k.startswith(name)}
        module.load_state_dict(own)  # strict: nothing is missing, nothing left over
        module.eval()
    return made


@torch.no_grad()
def answer(parts, some=slice(None)):
    given = {name: tensor[some] for name, tensor in sam_for_tests.inputs().items()}
    dense = parts["downscaling"](given["mask"])
    positions = parts["positions"]((sam_for_tests.GRID, sam_for_tests.GRID))
    mask = parts["decoder"](given["embedding"], positions, given["sparse"], dense)
    return {"mask": mask, "dense": dense[:, ::8], "positions": positions[None, ::8]}


def test_equals_sams_own_code_on_a_batch_of_different_images(parts):
    golden = np.load(GOLDEN)
    expected = {
        "mask": golden["masks"][:, 0], "dense": golden["dense"], "positions": golden["positions"],
    }  # fmt: skip
    found = answer(parts)
    for name, value in expected.items():
        wanted = torch.from_numpy(value)
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=1e-5, msg=name)


def test_equals_the_installed_package():
    expected = sam_for_tests.sams_answer()
    golden = np.load(GOLDEN)
    for name, value in expected.items():
        np.testing.assert_allclose(value, golden[name], atol=1e-5)


def test_images_of_a_batch_are_independent(parts):
    together = answer(parts)
    for one in range(sam_for_tests.BATCH):
        alone = answer(parts, slice(one, one + 1))
        torch.testing.assert_close(
            together["mask"][one : one + 1], alone["mask"], rtol=0, atol=1e-5
        )
    assert not torch.allclose(together["mask"][0], together["mask"][1], atol=0.1)


def test_works_without_sparse_prompts(parts):
    with torch.no_grad():
        given = sam_for_tests.inputs()
        dense = parts["downscaling"](given["mask"])
        logits = parts["decoder"](
            given["embedding"], parts["positions"]((5, 5)), torch.zeros(3, 0, 256), dense
        )
    assert logits.shape == (3, 20, 20)


def test_has_sams_number_of_parameters(parts):
    assert sum(p.numel() for p in parts["decoder"].parameters()) == 4_058_340


def test_checkpoints_of_the_hand_written_decoder_fit(parts):
    # Their names, in the order of a saved optimiser's state, were those of SAM's files.
    names = [str(line).split()[0] for line in np.load(GOLDEN)["names"]]
    prefix = "mask_decoder."
    expected = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
    assert list(parts["decoder"].state_dict()) == expected
    assert [name for name, _ in parts["decoder"].named_parameters()] == expected
    assert [name for name, _ in parts["positions"].named_parameters()] == [
        "positional_encoding_gaussian_matrix"
    ]


def test_the_initial_weights_are_those_of_the_hand_written_decoder():
    # Sums of absolute values, computed with it.
    torch.manual_seed(0)
    made = (FourierPositions(32), MaskDownscaling(32), MaskDecoder(32))
    sums = [sum(p.double().abs().sum().item() for p in m.parameters()) for m in made]
    assert sums == pytest.approx(
        [27.115172781050205, 128.53766456246376, 16684.24977647909], rel=1e-12
    )


def test_used_parameters_are_those_that_get_gradients(parts):
    decoder = parts["decoder"]
    given = sam_for_tests.inputs()
    decoder.zero_grad()
    decoder(
        given["embedding"], parts["positions"]((5, 5)), given["sparse"],
        parts["downscaling"](given["mask"]),
    ).sum().backward()  # fmt: skip
    moved = {id(p) for p in decoder.parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    # The bias of a key changes all of a query's logits alike, so no softmax depends on it.
    silent = {id(p) for name, p in decoder.named_parameters() if name.endswith("k_proj.bias")}
    assert moved - silent == {id(p) for p in decoder.used()} - silent


def test_positions_are_in_the_cells_centres_and_learned():
    torch.manual_seed(0)
    positions = FourierPositions(8)
    matrix = positions.positional_encoding_gaussian_matrix
    assert matrix.requires_grad
    table = positions((2, 4)).detach().double().numpy()
    x, y = 2 * (2 + 0.5) / 4 - 1, 2 * (1 + 0.5) / 2 - 1
    angles = 2 * np.pi * (np.array([x, y]) @ matrix.detach().double().numpy())
    np.testing.assert_allclose(
        table[:, 1, 2], np.concatenate([np.sin(angles), np.cos(angles)]), atol=1e-5
    )
