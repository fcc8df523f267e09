"""Addresses on the Hugging Face hub, and downloads from it."""

from __future__ import annotations

import re

import pytest

from fssbench import FssbenchError, hub

FILE = "hf://USER/NAME/FILE@REVISION"


@pytest.fixture
def repository(hub_here):
    """A repository with one file, and its commit."""
    return hub_here.commit("models/ann/nets", {"a.safetensors": b"x" * 5000})


def address(**parts):
    return hub.Address(repository="ann/nets", file="a.safetensors", **parts)


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("hf://ann/nets/a.safetensors", FILE),
        ("hf://ann/nets/below/a.safetensors@main", FILE),
        ("hf://ann/nets", "hf://USER/NAME"),
        ("hf://datasets/ann/nets@refs/pr/1", "hf://datasets/USER/NAME@REVISION"),
    ],
)
def test_an_address_is_read_and_written(text, example):
    assert str(hub.parse_address(text, example)) == text


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("hf://ann", "hf://USER/NAME"),
        ("hf://ann/nets", FILE),
        ("hf://ann/nets@main", "hf://USER/NAME"),
        ("hf://datasets/ann/nets/a", FILE),
        ("hf://ann/nets", "hf://datasets/USER/NAME"),
        ("hf://ann/nets/../a", FILE),
        ("hf://ann/nets/a@../b", FILE),
        ("hf://ann/nets/a\nb", FILE),
        ("https://huggingface.co/ann/nets", "hf://USER/NAME"),
    ],
)
def test_an_address_of_another_form_is_refused(text, example):
    with pytest.raises(FssbenchError, match=f"write {example}"):
        hub.parse_address(text, example)


def test_a_branch_is_asked_for_and_a_commit_is_not(hub_here, repository, monkeypatch):
    path = hub.fetch(address())
    assert path.read_bytes() == b"x" * 5000
    assert hub.pinned(address(), path) == address(revision=repository)
    newer = hub_here.commit("models/ann/nets", {"a.safetensors": b"y"})
    assert hub.fetch(address()).read_bytes() == b"y"
    assert hub.pinned(address(), hub.fetch(address())).revision == newer
    monkeypatch.setattr(hub, "_answers", lambda url: pytest.fail("asked the network"))
    assert hub.fetch(address(revision=repository)).read_bytes() == b"x" * 5000


def test_offline_with_and_without_the_file(hub_here, repository, monkeypatch):
    hub.fetch(address())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    before = len(hub_here.requests)
    assert hub.fetch(address()).read_bytes() == b"x" * 5000
    with pytest.raises(FssbenchError, match=r"^HF_HUB_OFFLINE is set, and the cache does not"):
        hub.fetch(hub.Address(repository="ann/nets", file="b.safetensors"))
    assert len(hub_here.requests) == before


@pytest.mark.usefixtures("repository")
def test_a_hub_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(hub, "_answers", lambda url: False)
    with pytest.raises(FssbenchError, match=r"^the hub does not answer \(http://127"):
        hub.fetch(address())


@pytest.mark.parametrize("endpoint", ["no address", "http://127.0.0.1:1"])
def test_an_endpoint_without_a_server(endpoint, monkeypatch, recwarn):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    with pytest.raises(FssbenchError, match=rf"^the hub does not answer \({endpoint}\)"):
        hub.fetch(address(revision="v1"))
    assert not recwarn


def test_a_cached_branch_replaces_a_silent_hub_with_a_warning(repository, monkeypatch, caplog):
    hub.fetch(address())
    monkeypatch.setattr(hub, "_answers", lambda url: False)
    assert hub.fetch(address()).read_bytes() == b"x" * 5000
    assert "the cached copy is used" in caplog.text


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"repository": "ann/others"}, "the hub has no model repository ann/others, or it is priv"),
        ({"repository": "ann/nets", "revision": "v9"}, "ann/nets has no revision v9"),
        ({"repository": "ann/nets", "file": "b.safetensors"}, "ann/nets has no file b.safetensors"),
    ],
)
def test_what_the_hub_does_not_have(parts, message):
    with pytest.raises(hub.NotOnHubError, match=f"^{message}"):
        hub.fetch(hub.Address(**{"file": "a.safetensors", **parts}))


@pytest.mark.timeout(120)
def test_a_download_that_breaks_leaves_nothing(hub_here, repository, monkeypatch, caplog):
    """The client's warnings about each attempt are hidden."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub_here.truncated = True
    with pytest.raises(FssbenchError, match=r"^the connection broke; run the same command again$"):
        hub.fetch(address())
    assert not [r for r in caplog.records if r.name.startswith("huggingface_hub")]
    hub_here.truncated = False
    assert hub.fetch(address()).read_bytes() == b"x" * 5000


def test_uploads_are_commits_that_mirror_a_folder(hub_here, tmp_path):
    (tmp_path / "b.safetensors").write_bytes(b"large")
    place = hub.Address(repository="ann/new")
    files = {"README.md": b"card", "b.safetensors": tmp_path / "b.safetensors"}
    done = hub.upload(place, files)
    assert done.revision == hub_here.order["models/ann/new"][-1]
    newest = hub_here.newest("models/ann/new")
    assert (newest["README.md"], newest["b.safetensors"]) == (b"card", b"large")
    hub.upload(place, {"README.md": b"other"}, mirror=re.compile(r".*\.safetensors|README\.md"))
    assert hub_here.newest("models/ann/new") == {".gitattributes": b"", "README.md": b"other"}


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("", "no access token of the hub; set HF_TOKEN, or run `hf auth login`"),
        ("hf_wrong", "the upload failed: the hub refuses the access token"),
    ],
)
def test_an_upload_without_a_right_token(hub_here, monkeypatch, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(FssbenchError, match=f"^hf://ann/new: {message}"):
        hub.upload(hub.Address(repository="ann/new"), {"README.md": b""})
    assert not hub_here.order


def test_no_upload_offline(hub_here, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FssbenchError, match="HF_HUB_OFFLINE is set; unset it to upload"):
        hub.upload(hub.Address(repository="ann/new"), {"README.md": b""})
    assert not hub_here.requests
