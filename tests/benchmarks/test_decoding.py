"""Libraries that decode JPEG: speed and pixels, in one run. fssbench reads with Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bench_report import TABLES
from methods import Clock
from PIL import Image

from fssbench.data.images import read_image

pytestmark = pytest.mark.benchmark

ROUNDS = 40


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """500 x 375 pixels, quality 90: PASCAL's size."""
    path = tmp_path_factory.mktemp("jpeg") / "photograph.jpg"
    coarse = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
    picture.save(path, quality=90)
    return path


def with_torchvision(path):
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    return decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)


def with_simplejpeg(path):
    simplejpeg = pytest.importorskip("simplejpeg")
    decoded = simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB")
    return torch.from_numpy(decoded).permute(2, 0, 1)


LIBRARIES = {"torchvision": with_torchvision, "simplejpeg": with_simplejpeg}


@pytest.mark.parametrize("library", LIBRARIES)
def test_decoding(library, photograph):
    other = LIBRARIES[library]
    expected, found = read_image(photograph), other(photograph)
    spent = {"pillow": 0.0, library: 0.0}
    for _ in range(ROUNDS):
        for name, read in (("pillow", read_image), (library, other)):
            start = Clock.now()
            read(photograph)
            spent[name] += (Clock.now() - start).cpu / ROUNDS
    TABLES["decoding one JPEG of 500 x 375"].append(
        {
            "library": library, "Pillow, CPU ms": f"{1000 * spent['pillow']:.2f}",
            "CPU ms": f"{1000 * spent[library]:.2f}",
            "times": f"{spent['pillow'] / spent[library]:.2f}",
            "same pixels": str(torch.equal(expected, found)),
        }
    )  # fmt: skip
    assert found.shape == expected.shape
