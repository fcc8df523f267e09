"""Private data that a public result must not contain: secrets, names, paths of a machine."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fssbench.results.record import MANIFEST_FILE, RECORD_FILE
from fssbench.results.result import read_manifest

# Prefixes that issuers give their tokens so that leaked ones can be found.
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
# At least two parts, because "/" may separate words; web addresses are removed before.
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
# Names of accounts and machines that identify nobody.
_COMMON = {
    *("admin", "build", "builder", "ci", "container", "default", "docker", "jovyan", "linux"),
    *("localhost", "nobody", "root", "runner", "test", "ubuntu", "user", "vscode", "windows"),
}

_ADVICE = "results are public: evaluate again without it"


def own_names() -> list[str]:
    """Return the names of this user and this machine."""
    names = [socket.gethostname(), socket.gethostname().partition(".")[0]]
    with contextlib.suppress(KeyError, OSError):  # an account without a name, as in containers
        names.append(getpass.getuser())
    return names


def private_problems(folder: Path, names: Sequence[str] = ()) -> list[str]:
    """Return the private data of a verified result, one line each; see `private_facts`.

    Args:
        folder: folder of the result's files.
        names: names of this user and this machine.
    """
    path, manifest = folder / RECORD_FILE, folder / MANIFEST_FILE
    facts = private_facts(json.loads(path.read_bytes()), names)
    found = [f"{path}: {fact}; {_ADVICE}" for fact in facts]
    if any(map(_PATH.search, read_manifest(manifest).image_ids())):
        found.append(f"{manifest}: image ids are paths of a machine; {_ADVICE}")
    return found


def private_facts(record: Mapping[str, Any], names: Sequence[str] = ()) -> Iterator[str]:
    """Yield a line for each private item in the JSON of a record or of a checkpoint's header.

    Lines do not contain the values.

    Tokens, addresses with a password, and paths of a machine are searched everywhere; keys of
    secrets, names of users and hosts, mail and network addresses in blocks ``environment``.

    Args:
        record: fields of ``record.json``, or of a checkpoint's header.
        names: names of this user and this machine, which no environment may contain; common ones
            (``root``, ``localhost``, …) are ignored.
    """
    own = [name for name in names if len(name) > 2 and name.lower() not in _COMMON]
    for key, value in walk(record):
        found = [(key, what) for what in _everywhere(value)]
        if isinstance(value, Mapping):
            where = f"a key of {key or 'the record'}"
            found += [(where, what) for name in value for what in _everywhere(name)]
        elif ".environment." in f".{key}.":
            found += [(key, what) for what in _in_environment(key, value, own)]
        for where, what in found:
            yield f"{ascii(where)[1:-1][:80]} holds {what}"


def walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys and values in nested JSON data, a container before its contents."""
    yield key, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from walk(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from walk(item, f"{key}[{index}]")


def _everywhere(value: Any) -> Iterator[str]:
    if not isinstance(value, str):
        return
    if _TOKEN.search(value):
        yield "what looks like an access token"
    if _LOGIN.search(value):
        yield "an address with a password"
    # Verification reports paths at the start of a value.
    elif _PATH.search(_WEB.sub("", value)):
        yield "a path of a machine"


def _in_environment(key: str, value: Any, names: Sequence[str]) -> Iterator[str]:
    last = key.rpartition(".")[2]
    if value in ("", None) or isinstance(value, (bool, list, tuple)):
        return
    if _SECRET_KEY.search(last):
        yield "a secret, by its name"
    elif _PERSON_KEY.search(last):
        yield "data of a person or a machine, by its name"
    if not isinstance(value, str):
        return
    if _MAIL.search(_WEB.sub("", value)):
        yield "a mail address, or a user at a host"
    elif _HOST.search(value):
        yield "a host name"
    elif _ADDRESS.search(value) and ".packages." not in f".{key}":
        yield "a network address"
    if any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", value) for name in names):
        yield "the name of this user or this machine"
