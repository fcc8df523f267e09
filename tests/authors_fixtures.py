"""Fixtures of a method's authors: their checkpoint, made by rule, and what it is imported to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from authors_numbers import Authors, Golden, authors_state, read_golden

REPOSITORY = Path(__file__).resolve().parents[1]


def authors_fixtures(authors: Authors):
    """For a method's conftest: golden_folder, golden, authors_weights, authors_file, imported."""

    @pytest.fixture(scope="session")
    def golden_folder():
        folder = REPOSITORY.parent / "shared" / "golden"
        if not (folder / authors.listing).is_file():
            pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
        return folder

    @pytest.fixture(scope="session")
    def golden(golden_folder):
        """``golden("1shot")``: numbers and the run that made them."""

        def load(name) -> Golden:
            return read_golden(golden_folder, f"{authors.numbers}_{name}.npz")

        return load

    @pytest.fixture(scope="session")
    def authors_weights(golden_folder):
        return authors_state(golden_folder / authors.listing)

    @pytest.fixture(scope="session")
    def authors_file(authors_weights, tmp_path_factory):
        """``authors_file(offset)``: a file as the authors save theirs."""
        folder = tmp_path_factory.mktemp("authors")

        def make(offset):
            path = folder / authors.file.format(offset)
            if not path.is_file():
                state = dict(authors_weights)
                state[authors.bias] = state[authors.bias] + torch.tensor([0.0, offset])
                saved = {f"module.{name}": tensor for name, tensor in state.items()}
                torch.save({"epoch": 7, "state_dict": saved} if authors.epoch else saved, path)
            return path

        return make

    @pytest.fixture(scope="session")
    def imported(authors_file, tmp_path_factory):
        """``imported(offset)``: that file after ``fssbench checkpoint import``."""
        from fssbench.importing import import_checkpoint

        folder = tmp_path_factory.mktemp("imported")

        def make(offset):
            path = folder / f"{offset}.safetensors"
            if not path.is_file():
                import_checkpoint(
                    authors_file(offset), path, matcher=authors.matcher, backbone=authors.backbone
                )
            return path

        return make

    return golden_folder, golden, authors_weights, authors_file, imported
