"""The authors' checkpoint, made again by the rules of the fixtures, and what it is imported to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from authors_numbers import Golden, authors_state, read_golden

REPOSITORY = Path(__file__).resolve().parents[3]
LISTING = "weights_hdmnet_resnet50_1shot.tsv"
OFFSET_NAME = "transformer.mix_transformer.cls.4.bias"


@pytest.fixture(scope="session")
def golden_folder():
    folder = REPOSITORY.parent / "shared" / "golden"
    if not (folder / LISTING).is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    return folder


@pytest.fixture(scope="session")
def golden(golden_folder):
    """``golden("1shot")``: numbers and the run that made them."""

    def load(name) -> Golden:
        return read_golden(golden_folder, f"hdmnet_resnet50_pascal_{name}.npz")

    return load


@pytest.fixture(scope="session")
def authors_weights(golden_folder):
    return authors_state(golden_folder / LISTING)


@pytest.fixture(scope="session")
def authors_file(authors_weights, tmp_path_factory):
    """``authors_file(offset)``: a file as the authors save theirs."""
    folder = tmp_path_factory.mktemp("authors")

    def make(offset):
        path = folder / f"train_epoch_{offset}.pth"
        if not path.is_file():
            state = dict(authors_weights)
            state[OFFSET_NAME] = state[OFFSET_NAME] + torch.tensor([0.0, offset])
            torch.save(
                {"epoch": 7, "state_dict": {f"module.{n}": t for n, t in state.items()}}, path
            )
        return path

    return make


@pytest.fixture(scope="session")
def imported(authors_file, tmp_path_factory):
    """``imported(offset)``: that file after ``fssbench checkpoint import``."""
    from fssbench.matchers.importing import import_checkpoint

    folder = tmp_path_factory.mktemp("imported")

    def make(offset):
        path = folder / f"{offset}.safetensors"
        if not path.is_file():
            import_checkpoint(authors_file(offset), path, matcher="hdmnet", backbone="resnet50-psp")
        return path

    return make
