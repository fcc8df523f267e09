"""What must not be in a public result: secrets, user and host names, paths of a machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fssbench.episodes.manifest import Manifest
from fssbench.results.record import MANIFEST_FILE, RECORD_FILE

# What the issuers of tokens put at their head, so that leaked ones are found.
_TOKEN = re.compile(
    r"\b(?:gh[pousr]_\w{20}|github_pat_\w{20}|glpat-[\w-]{16}|hf_[A-Za-z]{20}|sk-[\w-]{20}"
    r"|xox[abeprs]-[\w-]{10}|A(?:KI|SI)A[0-9A-Z]{16}|AIza[\w-]{30}|pypi-Ag\w{16}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_LOGIN = re.compile(r"\w://[^/\s:@]+:[^/\s@]+@")
_SECRET_KEY = re.compile(
    r"(?:^|[_\-. ])(?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|credentials?|authorization|cookie)$",
    re.IGNORECASE,
)
_PERSON_KEY = re.compile(
    r"(?:^|[_\-. ])(?:user|user[_-]?name|login|author|e?mail|host|host[_-]?name|node[_-]?name"
    r"|fqdn|ip|ip[_-]?address|mac[_-]?address|home|cwd|pwd|argv|command[_-]?line)$",
    re.IGNORECASE,
)
# Of at least two parts, so that "/" between words is none; an address of the web is none either.
_PATH = re.compile(
    r"(?:^|[\s\"'=(,;:])(?:/(?!/)[\w.@+-]+/|~(?:[a-z_][\w-]*)?/|[A-Za-z]:\\|\\\\[\w.-]+\\)|\bfile://"
    r"|[/\\](?:home|Users)[/\\]\w"
)
_WEB = re.compile(r"\bhttps?://\S+")
_MAIL = re.compile(r"[\w.+-]+@[A-Za-z][\w-]*")
_HOST = re.compile(
    r"\b[a-z][\w-]*(?:\.[\w-]+)*\.(?:local|localdomain|lan|internal|intranet|corp|cluster|edu)\b",
    re.IGNORECASE,
)
_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_ADDRESS = re.compile(rf"(?<![\d.])(?:{_BYTE}\.){{3}}{_BYTE}(?![\d.])")
# Names of accounts and machines that say nothing about anybody.
_NOBODY = {
    *("admin", "build", "builder", "ci", "container", "default", "docker", "jovyan", "linux"),
    *("localhost", "nobody", "root", "runner", "test", "ubuntu", "user", "vscode", "windows"),
}


def private_problems(folder: Path, names: Sequence[str] = ()) -> list[str]:
    """What of a verified result is nobody's business, one line each; see `private_facts`.

    Args:
        folder: holds the result's files.
        names: of this user and this machine.
    """
    path, manifest = folder / RECORD_FILE, folder / MANIFEST_FILE
    found = [f"{path}: {fact}" for fact in private_facts(json.loads(path.read_bytes()), names)]
    episodes = Manifest.read(manifest).episodes
    images = (image for e in episodes for image in (e.query, *e.support))
    if any(_PATH.search(image) for image in images):
        found.append(f"{manifest}: images are named by paths of a machine; {_MEND}")
    return found


def private_facts(record: Mapping[str, Any], names: Sequence[str] = ()) -> Iterator[str]:
    """What of a record's JSON is nobody's business, one line each; a value is never repeated.

    Tokens, logins in addresses, and paths of a machine are looked for everywhere; keys that ask for
    a secret, user and host names, addresses of mail and network in the blocks ``environment``.

    Args:
        record: the fields of ``record.json``.
        names: of this user and this machine, which no environment may hold; common ones
            (``root``, ``localhost``, …) are not looked for.
    """
    own = [name for name in names if len(name) > 2 and name.lower() not in _NOBODY]
    for key, value in _leaves(record):
        where = ascii(key)[1:-1][:80]
        for what in _everywhere(key, value):
            yield f"{where} holds {what}; {_MEND}"
        if ".environment." in f".{key}.":
            for what in _in_environment(key, value, own):
                yield f"{where} holds {what}; {_MEND}"


_MEND = "results are public: evaluate again without it"


def _everywhere(key: str, value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        return
    if _TOKEN.search(value):
        yield "what looks like an access token"
    if _LOGIN.search(value):
        yield "an address with a password"
    # A path at the start of a value is told by the verification of records.
    elif _PATH.search(_WEB.sub("", value)):
        yield "a path of a machine"


def _in_environment(key: str, value: Any, names: Sequence[str]) -> Iterator[str]:
    last = key.rpartition(".")[2]
    if value in ("", None, [], {}) or isinstance(value, bool):
        return
    if _SECRET_KEY.search(last):
        yield "what its name calls a secret"
    elif _PERSON_KEY.search(last):
        yield "what its name says of a person or a machine"
    if not isinstance(value, str):
        return
    if _MAIL.search(_WEB.sub("", value)):
        yield "an address of mail, or a user at a host"
    elif _HOST.search(value):
        yield "a host name"
    elif _ADDRESS.search(value) and ".packages." not in f".{key}":
        yield "a network address"
    if any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", value) for name in names):
        yield "the name of this user or this machine"


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that holds no other, with the path to it; keys of mappings are values too."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            inner = f"{key}.{name}" if key else str(name)
            if isinstance(name, str) and (_TOKEN.search(name) or _PATH.search(name)):
                yield f"a key of {key or 'the record'}", name
            yield from _leaves(item, inner)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{key}[{index}]")
    else:
        yield key, value
