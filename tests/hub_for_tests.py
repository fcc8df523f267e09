"""A small server with the endpoints of the Hugging Face hub that its client uses."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_for_tests"


class Hub:
    """Repositories with their commits.

    Attributes:
        address: address of the server.
        commits: files of each commit by name, by repository (``models/USER/NAME``) and commit.
        order: commits of each repository, the newest last.
        stored: large files that were uploaded, by SHA-256.
        truncated: True to break off downloads after half of a file.
        requests: method and path of each request.
    """

    def __init__(self) -> None:
        self.address = ""
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.order: dict[str, list[str]] = {}
        self.stored: dict[str, bytes] = {}
        self.truncated = False
        self.requests: list[str] = []

    def commit(self, repository: str, changes: dict[str, bytes | None]) -> str:
        """Add a commit with changed files; None deletes a file."""
        order = self.order.setdefault(repository, [])
        files = dict(self.commits[repository][order[-1]]) if order else {}
        for name, content in changes.items():
            if content is None:
                del files[name]
            else:
                files[name] = content
        number = hashlib.sha1(f"{repository} {len(order)}".encode()).hexdigest()
        self.commits.setdefault(repository, {})[number] = files
        order.append(number)
        return number

    def newest(self, repository: str) -> dict[str, bytes]:
        return self.commits[repository][self.order[repository][-1]]

    def resolve(self, repository: str, revision: str) -> str | None:
        """Return the commit of a branch or a commit."""
        if revision == "main":
            return self.order[repository][-1]
        return revision if revision in self.commits[repository] else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def do_PUT(self) -> None:
        content = self._body()
        self.hub.stored[hashlib.sha256(content).hexdigest()] = content
        self._answer(200)

    def do_POST(self) -> None:
        body, path = self._body(), self._path()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, {"error": "Invalid token"})
            return
        if path == "/api/repos/create":
            fields = json.loads(body)
            owner = fields.get("organization") or "user"
            repository = f"{fields.get('type', 'model')}s/{owner}/{fields['name']}"
            kind = "datasets/" if repository.startswith("datasets/") else ""
            there = {"url": f"{self.hub.address}/{kind}{owner}/{fields['name']}"}
            if repository in self.hub.order:
                self._answer(409, {"error": "exists", **there})
                return
            self.hub.commit(repository, {".gitattributes": b""})
            self._answer(200, there)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._answer(200, {"transfer": "basic", "objects": [
                {**each, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]})  # fmt: skip
        elif "/preupload/" in path:
            self._answer(200, {"files": [
                {
                    "path": each["path"], "shouldIgnore": False,
                    "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                }
                for each in json.loads(body)["files"]
            ]})  # fmt: skip
        elif "/commit/" in path:
            repository = "/".join(path.split("/")[2:5])
            changes: dict[str, bytes | None] = {}
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                parent = value.get("parentCommit") if line["key"] == "header" else None
                if parent and parent != self.hub.order[repository][-1]:
                    self._answer(412, {"error": "A commit has happened since."})
                    return
                if line["key"] == "file":
                    changes[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    changes[value["path"]] = self.hub.stored[value["oid"]]
                elif line["key"] == "deletedFile":
                    changes[value["path"]] = None
            number = self.hub.commit(repository, changes)
            kind = "datasets/" if repository.startswith("datasets/") else ""
            url = f"{self.hub.address}/{kind}{repository.partition('/')[2]}/commit/{number}"
            self._answer(200, {
                "success": True, "commitOid": number, "commitUrl": url, "hookOutput": "",
            })  # fmt: skip
        else:
            self._answer(200, {"orgs": [], "name": "user", "type": "user"})

    def _get(self) -> None:
        path = self._path()
        parts = path.strip("/").split("/")
        api = parts[0] == "api" and len(parts) > 3
        if api:
            repository, what, rest = "/".join(parts[1:4]), parts[4:5], parts[5:]
        elif parts[0] == "datasets":
            repository, what, rest = "/".join(parts[:3]), parts[3:4], parts[4:]
        else:
            repository, what, rest = "/".join(["models", *parts[:2]]), parts[2:3], parts[3:]
        if path == "/":
            self._answer(200)
            return
        if repository not in self.hub.order:
            self._missing("RepoNotFound", "Repository not found", 401)
            return
        commit = self.hub.resolve(repository, rest[0] if rest else "main")
        if commit is None:
            self._missing("RevisionNotFound", "Invalid rev id")
            return
        files = self.hub.commits[repository][commit]
        if not api:
            self._file(files, "/".join(rest[1:]), commit)
        elif what == ["tree"]:
            self._answer(200, [
                {"type": "file", "path": name, "size": len(text), "oid": _oid(text)}
                for name, text in files.items()
            ])  # fmt: skip
        else:
            identity = repository.partition("/")[2]
            self._answer(200, {
                "_id": "1", "id": identity, "sha": commit, "private": False, "tags": [],
                "downloads": 0, "likes": 0, "siblings": [{"rfilename": name} for name in files],
            })  # fmt: skip

    def _file(self, files: dict[str, bytes], name: str, commit: str) -> None:
        if name not in files:
            self._missing("EntryNotFound", "Entry not found", commit=commit)
            return
        content = files[name]
        self.send_response(200)
        for header, value in {
            "X-Repo-Commit": commit, "ETag": f'"{_oid(content)}"', "Content-Length": len(content),
        }.items():  # fmt: skip
            self.send_header(header, str(value))
        self.end_headers()
        if self.command == "GET":
            broken = self.hub.truncated
            self.wfile.write(content[: len(content) // 2] if broken else content)
            self.close_connection = broken

    def _missing(self, code: str, text: str, status: int = 404, commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": text}
        self._answer(status, {"error": text}, {**headers, "X-Repo-Commit": commit})

    def _answer(
        self, status: int, value: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        text = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, content in {**(headers or {}), "Content-Length": str(len(text))}.items():
            if content:
                self.send_header(name, content)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _path(self) -> str:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        return path

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))


def _oid(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def hub_server() -> Iterator[Hub]:
    """A running hub without repositories."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hub_here(
    hub_server: Hub, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Hub:
    """The hub of this process's client: a server without repositories, an empty cache, a token."""
    cache = tmp_path_factory.mktemp("hub-cache")
    use_hub(hub_server, cache, monkeypatch)
    return hub_server


def use_hub(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the constants that huggingface_hub read from the environment when it was imported."""
    from huggingface_hub import constants, utils

    utils.disable_progress_bars()
    template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for name, value in {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }.items():
        monkeypatch.setattr(constants, name, value, raising=False)  # old versions lack some
    monkeypatch.setenv("HF_TOKEN", TOKEN)
