"""Small weight files that declare huge arrays: an error of one line, without allocation."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from faults_for_tests import peak
from numpy.lib import format as npy

from fssbench.backbones import weight_files
from fssbench.backbones.weights import read_tensors
from fssbench.errors import FssbenchError

MIB = 1 << 20
HUGE = 8 << 30


def refused(path: Path, reason: str) -> None:
    """Check that a file is refused with a reason, without allocating the declared size."""
    before = peak()
    with pytest.raises(FssbenchError) as error:
        read_tensors(path)
    message = str(error.value)
    assert "\n" not in message
    assert f"{path.name}: not readable as a plain weight file" in message
    assert reason in message
    assert "save the state dict alone" in message
    assert peak() - before < 100


def array(shape: tuple[int, ...], values: bytes = b"") -> bytes:
    """Return a NumPy file of an array header with other data."""
    file = io.BytesIO()
    npy.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": "<f4"})
    return file.getvalue() + values


def rezipped(source: Path, target: Path, **options: object) -> None:
    """Rewrite an archive of torch with other members or another compression."""
    change = options.pop("change", lambda name, data: data)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "saved.pth")
    return tmp_path / "saved.pth"


def in_pickle(old: bytes, new: bytes) -> Callable[[str, bytes], bytes]:
    def change(name: str, data: bytes) -> bytes:
        assert not name.endswith("data.pkl") or old in data
        return data.replace(old, new) if name.endswith("data.pkl") else data

    return change


# --- NumPy's --------------------------------------------------------------------------------------


def test_arrays_that_unpack_to_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as file,
    ):
        file.write(array((300 * MIB // 4,)))
        for _ in range(300):
            file.write(bytes(MIB))
    assert path.stat().st_size < MIB
    refused(path, "a file of 0.3 MiB that would take 300 MiB of memory")


@pytest.mark.parametrize("shape", [(HUGE,), (10**30, 10**30), (1001,)])
def test_an_array_whose_header_claims_more_than_it_has(shape: tuple[int, ...], tmp_path: Path):
    path = tmp_path / "claims.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", array(shape, bytes(4000)))
    refused(path, "'a.npy' is shorter than its header says")


def test_an_array_under_the_name_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "one.npz").write_bytes(array((HUGE,)))
    refused(tmp_path / "one.npz", "BadZipFile")


def test_arrays_that_compress_well_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(0).normal(size=50_000).astype("float32")
    path = tmp_path / "honest.npz"
    np.savez_compressed(path, a=values, b=np.zeros(200_000, "float32"))
    monkeypatch.setattr(weight_files, "ROOM", 0)
    assert torch.equal(read_tensors(path)["a"], torch.from_numpy(values))
    np.savez_compressed(path, b=np.zeros(200_000, "float32"))
    refused(path, "of memory")


# --- torch's --------------------------------------------------------------------------------------


def test_a_compressed_archive(saved: Path, tmp_path: Path) -> None:
    rezipped(saved, tmp_path / "bomb.pth", compression=zipfile.ZIP_DEFLATED)
    refused(tmp_path / "bomb.pth", "a compressed archive, which torch never writes")


def test_members_that_share_their_bytes(saved: Path, tmp_path: Path) -> None:
    """A directory may list the same bytes of the file under any number of names."""
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data/0", bytes(100_000))
        (member,) = archive.infolist()
        archive.filelist += [member] * 50
    refused(path, "members are larger than itself")


def test_storages_that_claim_more_than_they_have(saved: Path, tmp_path: Path) -> None:
    # 1,000 floats, by the pickle's own BININT2, are 1,000,000,000.
    change = in_pickle(b"M\xe8\x03", b"J" + (10**9).to_bytes(4, "little"))
    rezipped(saved, tmp_path / "claims.pth", change=change)
    refused(tmp_path / "claims.pth", "RuntimeError")


@pytest.mark.parametrize("count", [2 * 10**9, 4 * 10**15])
def test_storages_of_old_files_that_claim_more(count: int, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"a": torch.arange(1000.0)}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors(path)["a"], torch.arange(1000.0))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"M\xe8\x03", b"\x8a\x08" + count.to_bytes(8, "little")))
    refused(path, "RuntimeError")


@pytest.mark.parametrize("module", [b"__builtin__", b"builtins"])
def test_a_pickle_that_asks_for_a_block_of_memory(
    module: bytes, saved: Path, tmp_path: Path
) -> None:
    # {"a": bytearray(2147483647)}, which torch accepts.
    asking = b"\x80\x02}X\x01\x00\x00\x00ac" + module + b"\nbytearray\nJ\xff\xff\xff\x7f\x85Rs."
    path = tmp_path / "asks.pth"
    rezipped(saved, path, change=lambda name, data: asking if name.endswith(".pkl") else data)
    refused(path, "a bytearray")
    path.write_bytes(asking)
    refused(path, "a bytearray")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(10**6, 10**6),
        torch.sparse_coo_tensor(torch.zeros(2, 1), [1.0], (10**6, 10**6), check_invariants=True),
        torch.empty(10**6, 10**6, device="meta"),
    ],
    ids=["repeated", "sparse", "meta"],
)
def test_tensors_of_any_shape_that_hold_nothing(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": tensor}}, tmp_path / "shape.pth")
    reason = "of memory" if tensor.is_cpu and not tensor.is_sparse else "sparse or without values"
    refused(tmp_path / "shape.pth", reason)


def test_a_flipped_bit(saved: Path) -> None:
    """Checksums of an archive, which torch does not verify, are checked."""
    data = bytearray(saved.read_bytes())
    data[data.index(torch.arange(1000.0).numpy().tobytes()) + 2001] ^= 1
    saved.write_bytes(data)
    refused(saved, "a checksum does not fit")


def test_what_was_read_stays_when_the_file_is_replaced(saved: Path) -> None:
    tensors = read_tensors(saved)
    tensors["a"].add_(1)  # is not written into the file
    assert torch.equal(read_tensors(saved)["a"], torch.arange(1000.0))
    saved.unlink()
    assert torch.equal(tensors["a"], torch.arange(1000.0) + 1)
