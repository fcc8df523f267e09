"""The authors' checkpoint, made again by the rules of the fixtures, and what it is imported to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from authors_numbers import Golden, authors_state, read_golden

REPOSITORY = Path(__file__).resolve().parents[3]
OFFSET_NAME = "model.mixer3.2.bias"


@pytest.fixture(scope="session")
def golden_folder():
    folder = REPOSITORY.parent / "shared" / "golden"
    if not (folder / "weights_dcama_resnet50.tsv").is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    return folder


@pytest.fixture(scope="session")
def golden(golden_folder):
    """``golden("1shot")``: numbers and the run that made them."""

    def load(name) -> Golden:
        return read_golden(golden_folder, f"dcama_resnet50_{name}.npz")

    return load


@pytest.fixture(scope="session")
def authors_weights(golden_folder):
    return authors_state(golden_folder / "weights_dcama_resnet50.tsv")


@pytest.fixture(scope="session")
def authors_file(authors_weights, tmp_path_factory):
    """``authors_file(offset)``: a file as the authors save theirs."""
    folder = tmp_path_factory.mktemp("authors")

    def make(offset):
        path = folder / f"best_model_{offset}.pt"
        if not path.is_file():
            state = dict(authors_weights)
            state[OFFSET_NAME] = state[OFFSET_NAME] + torch.tensor([0.0, offset])
            torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
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
            import_checkpoint(authors_file(offset), path, matcher="dcama", backbone="resnet50")
        return path

    return make
