"""HSNet's numbers beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def golden_folder():
    folder = REPOSITORY.parent / "shared" / "golden"
    if not (folder / "hsnet_conv4d.npz").is_file():
        pytest.skip("no numbers of the authors' code beside the checkout (../shared/golden)")
    return folder
