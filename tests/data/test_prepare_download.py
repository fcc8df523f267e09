"""Downloads, from a server in this process. Nothing here reaches the network."""

from __future__ import annotations

import hashlib
import socket

import archives_for_tests as made
import attrs
import numpy as np
import pytest

from fssbench.data.pascal import Pascal
from fssbench.data.prepare import disk
from fssbench.data.prepare import download as module
from fssbench.data.prepare.archives import ARCHIVES, Archive
from fssbench.data.prepare.download import download
from fssbench.data.prepare.prepare import DOWNLOADS, prepare
from fssbench.data.prepare.recipes import RECIPES
from fssbench.errors import FssbenchError

DATA = np.random.default_rng(0).bytes(300_000)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(module, "BLOCK", 10_000)
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with made.serving() as running:
        running.files["thing.tar"] = DATA
        yield running


@pytest.fixture
def archive(server):
    return Archive(
        key="thing",
        file="thing.tar",
        url=f"{server.url}/thing.tar",
        holds="thing/",
        size=len(DATA),
        sha256=hashlib.sha256(DATA).hexdigest(),
        most_bytes=1 << 20,
        most_members=10,
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_with_its_progress(server, archive, tmp_path):
    told = []
    path = download(archive, tmp_path, lambda done, total: told.append((done, total)))
    assert path.read_bytes() == DATA
    assert names(tmp_path) == ["thing.tar"]
    assert told[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert download(archive, tmp_path) == path
    assert len(server.asked) == 1


def test_it_goes_on_by_itself_where_it_broke_off(server, archive, tmp_path):
    server.break_after = [100_000, 50_000]
    assert download(archive, tmp_path).read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_it_goes_on_in_a_later_call(server, archive, tmp_path):
    server.break_after = [100_000, *[0] * (module.ATTEMPTS - 1)]
    with pytest.raises(FssbenchError, match=r"broke off 5 times \(100,000 of 300,000 bytes came\)"):
        download(archive, tmp_path)
    assert names(tmp_path) == ["thing.tar.part", "thing.tar.part.tag"]
    assert download(archive, tmp_path).read_bytes() == DATA
    assert server.asked[-1] == ("thing.tar", "bytes=100000-")


@pytest.mark.parametrize("change", ["no ranges", "no tag", "another version"])
def test_a_server_that_cannot_go_on_sends_it_all_again(change, server, archive, tmp_path):
    if change == "no ranges":
        server.ranges = False
    elif change == "no tag":
        server.tag = ""
    server.break_after = [100_000, *[0] * (module.ATTEMPTS - 1)]
    with pytest.raises(FssbenchError, match="broke off"):
        download(archive, tmp_path)
    if change == "another version":
        server.tag = '"two"'
        server.files["thing.tar"] = DATA[::-1]
        archive = attrs.evolve(archive, sha256=hashlib.sha256(DATA[::-1]).hexdigest())
    assert download(archive, tmp_path).read_bytes() == server.files["thing.tar"]


def test_a_partial_file_that_is_complete(server, archive, tmp_path):
    """Killed between the last byte and the digest."""
    (tmp_path / "thing.tar.part").write_bytes(DATA)
    (tmp_path / "thing.tar.part.tag").write_text('"\\"one\\""')
    assert download(archive, tmp_path).read_bytes() == DATA
    assert server.asked == [("thing.tar", f"bytes={len(DATA)}-")]


def test_a_partial_file_longer_than_the_file(server, archive, tmp_path):
    (tmp_path / "thing.tar.part").write_bytes(DATA + b"more")
    (tmp_path / "thing.tar.part.tag").write_text('"\\"one\\""')
    assert download(archive, tmp_path).read_bytes() == DATA


def test_another_digest(server, archive, tmp_path):
    server.files["thing.tar"] = DATA[:-1] + b"!"
    with pytest.raises(FssbenchError, match="its sha256 is .*, the published one .* was removed"):
        download(archive, tmp_path)
    assert names(tmp_path) == []


def test_md5_where_that_is_what_is_published(server, archive, tmp_path):
    good = hashlib.md5(DATA).hexdigest()
    with pytest.raises(FssbenchError, match="its md5 is"):
        download(attrs.evolve(archive, sha256="", md5="0" * 32), tmp_path)
    assert download(attrs.evolve(archive, sha256="", md5=good), tmp_path).exists()


def test_no_published_digest_is_said(server, archive, tmp_path, caplog):
    download(attrs.evolve(archive, sha256="", size=None), tmp_path)
    assert "no digest is published" in caplog.text


def test_another_size_is_seen_before_it_is_downloaded(server, archive, tmp_path):
    server.files["thing.tar"] = DATA * 2
    with pytest.raises(FssbenchError, match="has 600,000 bytes, the official one 300,000"):
        download(archive, tmp_path)
    with pytest.raises(FssbenchError, match="more than thing.tar has"):
        download(attrs.evolve(archive, size=None, most_bytes=1000), tmp_path)
    assert names(tmp_path) == []


def test_a_web_page_instead(server, archive, tmp_path):
    server.content_type = "text/html; charset=utf-8"
    with pytest.raises(FssbenchError, match="sends a web page, .* browser and give it with --from"):
        download(archive, tmp_path)
    assert names(tmp_path) == []


def test_not_found(server, archive, tmp_path):
    del server.files["thing.tar"]
    with pytest.raises(FssbenchError, match="answers 404 Not Found; download .* by other means"):
        download(archive, tmp_path)
    assert len(server.asked) == 1


def test_a_server_in_trouble_is_asked_again(server, archive, tmp_path):
    server.status = 503
    with pytest.raises(FssbenchError, match="answers 503"):
        download(archive, tmp_path)
    assert len(server.asked) == module.ATTEMPTS


def test_refused(archive, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nobody = attrs.evolve(archive, url=f"http://127.0.0.1:{port}/thing.tar")
    with pytest.raises(FssbenchError, match="cannot be reached: .*refused; download"):
        download(nobody, tmp_path)


def test_no_room(server, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 200_000)
    with pytest.raises(FssbenchError, match=r"200 KB free, but downloading thing\.tar needs"):
        download(archive, tmp_path)
    assert names(tmp_path) == []


# --- from download to dataset ---------------------------------------------------------------------


@pytest.fixture
def official(server, monkeypatch):
    """The official archives are these small ones, on this server."""
    server.files = {
        "VOCtrainval_11-May-2012.tar": made.tar_bytes(made.voc_files()),
        "benchmark.tgz": made.tar_bytes(made.sbd_files(), "w:gz"),
    }
    small = tuple(
        attrs.evolve(
            archive,
            url=f"{server.url}/{archive.file}",
            size=len(server.files[archive.file]),
            sha256=hashlib.sha256(server.files[archive.file]).hexdigest(),
        )
        for archive in ARCHIVES["pascal5i"]
    )
    monkeypatch.setitem(ARCHIVES, "pascal5i", small)
    return server


def test_download_and_prepare(official, tmp_path):
    done = prepare(RECIPES["pascal5i"], tmp_path / "data", fetch=True)
    assert [source.official for source in done.marker.sources.values()] == [True, True]
    assert len(Pascal(root=done.data_root).image_ids("train")) == 4
    assert len(done.downloads) == 2
    assert prepare(RECIPES["pascal5i"], tmp_path / "data", fetch=True).already
    assert len(official.asked) == 2


def test_only_what_is_not_given_is_downloaded(official, tmp_path):
    given = made.write(tmp_path / "in", {"voc.tar": official.files["VOCtrainval_11-May-2012.tar"]})
    prepare(RECIPES["pascal5i"], tmp_path / "data", given=list(given.values()), fetch=True)
    assert [name for name, _ in official.asked] == ["benchmark.tgz"]


def test_a_broken_download_is_gone_on_with_by_the_same_call(official, tmp_path):
    to = tmp_path / "data"
    official.break_after = [5000, *[0] * (module.ATTEMPTS - 1)]
    with pytest.raises(FssbenchError, match="run the same command again"):
        prepare(RECIPES["pascal5i"], to, fetch=True)
    prepare(RECIPES["pascal5i"], to, fetch=True)
    wanted = [wanted for name, wanted in official.asked if name.startswith("VOC")]
    assert wanted[-1] == "bytes=5000-"
    assert not list((to / DOWNLOADS).glob("*.part*"))


def test_a_given_archive_with_other_bytes_is_reported(official, tmp_path, caplog):
    given = made.write(tmp_path / "in", {"a.tar": made.tar_bytes(made.voc_files()) + bytes(10_240)})
    done = prepare(RECIPES["pascal5i"], tmp_path / "data", given=list(given.values()), fetch=True)
    assert "is not the published VOCtrainval_11-May-2012.tar" in caplog.text
    assert done.marker.sources["voc"].official is False
    assert done.marker.sources["sbd"].official is True
