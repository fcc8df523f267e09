"""Files on the Hugging Face hub: addresses, downloads through the client's cache, and uploads.

Addresses are ``hf://USER/NAME/FILE@REVISION``, or ``hf://datasets/USER/NAME@REVISION`` for a data
set; without a revision, the newest commit of the branch ``main``. ``HF_ENDPOINT``,
``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_TOKEN`` have the meaning of huggingface_hub.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fssbench.errors import FssbenchError, one_line, without_warnings

SCHEME = "hf://"
_PATIENCE = 8.0  # seconds until the hub counts as unreachable
_NAME = r"[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(
    rf"hf://(?P<data>datasets/)?(?P<repository>{_NAME}/{_NAME})"
    rf"(?:/(?P<file>{_NAME}(?:/{_NAME})*))?(?:@(?P<revision>{_NAME}(?:/{_NAME})*))?"
)
_LONGEST = 300  # characters of an address; names of users and repositories have up to 96
# Classes of several HTTP libraries, of which the client uses one.
_BROKEN = {"ConnectionError", "TransportError", "ChunkedEncodingError"}
_NEWER = 412  # HTTP status for a commit whose parent is not the newest one any more
_ATTEMPTS = 5
_COMMIT = re.compile(r"[0-9a-f]{40}")
_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Address:
    """A repository on the hub, or a file in one.

    Attributes:
        repository: user or organisation, and name, e.g. ``USER/NAME``.
        file: path of a file in the repository; "" for the repository.
        revision: commit, branch or tag; "" for the branch ``main``.
        kind: ``model`` or ``dataset``.
    """

    repository: str
    file: str = ""
    revision: str = ""
    kind: str = "model"

    def __str__(self) -> str:
        data = "datasets/" if self.kind == "dataset" else ""
        file, revision = self.file and f"/{self.file}", self.revision and f"@{self.revision}"
        return f"{SCHEME}{data}{self.repository}{file}{revision}"

    def repository_arguments(self) -> dict[str, Any]:
        """Return the arguments of the hub's client that name the repository and the revision."""
        revision = self.revision or None
        return {"repo_id": self.repository, "repo_type": self.kind, "revision": revision}


class NotOnHubError(FssbenchError):
    """An error for a repository, revision or file that the hub does not have."""


def is_address(value: str | Path) -> bool:
    """Return True for an address on the hub."""
    return isinstance(value, str) and value.startswith(SCHEME)


def file_or_address(value: str) -> str | Path:
    """Return an address on the hub as it is, and any other text as a path."""
    return value if is_address(value) else Path(value)


def parse_address(text: str, example: str) -> Address:
    """Return the parts of an address.

    Args:
        text: address that a user gave.
        example: address of the right form. Its kind, and the presence of a file and of a revision,
            are required of `text`; a revision is optional where the example has one.

    Raises:
        FssbenchError: the address is of another form.
    """
    address, right = read_address(text), read_address(example)
    if (
        address is None
        or right is None
        or address.kind != right.kind
        or bool(address.file) != bool(right.file)
        or (address.revision and not right.revision)
    ):
        raise FssbenchError(f"{text}: no address of this form; write {example}")
    return address


def read_address(text: str) -> Address | None:
    """Return the parts of an address of any form; None for other texts."""
    found = _ADDRESS.fullmatch(text)
    if found is None or ".." in text or len(text) > _LONGEST:
        return None
    parts = {name: found[name] or "" for name in ("repository", "file", "revision")}
    return Address(**parts, kind="dataset" if found["data"] else "model")


def fetch(address: Address, *, prefer_cache: bool = False) -> Path:
    """Return the path of a file in the cache of the hub's client, downloaded if necessary.

    A commit never changes, so a file of one is downloaded once. For a branch or a tag the hub is
    asked each time; if it does not answer, a cached file is used, with a warning.

    Args:
        address: the file.
        prefer_cache: use a cached file of a branch without asking the hub.

    Raises:
        NotOnHubError: there is no such file. The message is the reason, as for other errors.
        FssbenchError: the file cannot be downloaded.
    """
    import huggingface_hub

    arguments = {**address.repository_arguments(), "filename": address.file}
    return Path(
        _cached_or_new(
            huggingface_hub.hf_hub_download, arguments, address, prefer_cache=prefer_cache
        )
    )


def fetch_folder(address: Address, patterns: Sequence[str]) -> Path:
    """Return the folder of a repository's files in the cache of the hub's client.

    Args:
        address: the repository.
        patterns: patterns of the names of the files to download.

    Raises:
        NotOnHubError, FssbenchError: as for `fetch`.
    """
    import huggingface_hub

    arguments = {**address.repository_arguments(), "allow_patterns": list(patterns)}
    return Path(_cached_or_new(huggingface_hub.snapshot_download, arguments, address))


def pinned(address: Address, path: Path) -> Address:
    """Return an address with the commit of its cached file."""
    folders = path.parts[: len(path.parts) - address.file.count("/") - 1]
    return attrs.evolve(address, revision=folders[-1])


def upload(
    address: Address,
    files: Mapping[str, bytes | Path],
    *,
    mirror: Any = None,
    more: Callable[[Address], Mapping[str, bytes | Path]] = lambda _: {},
) -> Address:
    """Write files to a repository in one commit, and create the repository if there is none.

    Args:
        address: the repository.
        files: contents, or local files, by their names in the repository.
        mirror: compiled pattern of names; others that match it are deleted. None deletes nothing.
        more: function from the address of the newest commit to further files, which follow from
            those of that commit. It is called again if another commit is made meanwhile.

    Returns:
        The address with the commit.

    Raises:
        FssbenchError: there is no token, or the hub refuses the upload.
    """
    import huggingface_hub as client
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise FssbenchError(f"{address}: HF_HUB_OFFLINE is set; unset it to upload")
    if not client.get_token():
        raise FssbenchError(
            f"{address}: no access token of the hub; set HF_TOKEN, or run `hf auth login`"
        )
    if not _answers(constants.ENDPOINT):
        raise FssbenchError(f"{address}: {_silent()}; try again later")
    api: Any = client.HfApi()
    place = {"repo_id": address.repository, "repo_type": address.kind}
    try:
        api.create_repo(**place, exist_ok=True)
        for attempt in range(1, _ATTEMPTS + 1):
            head = api.repo_info(**place).sha
            every = {**files, **more(attrs.evolve(address, revision=head))}
            try:
                done = _commit(api, place, every, mirror, head)
                break
            except HfHubHTTPError as error:
                if error.response.status_code != _NEWER or attempt == _ATTEMPTS:
                    raise
    except FssbenchError:
        raise
    # The client raises errors of several HTTP libraries, of its own and of Python.
    except Exception as error:
        raise FssbenchError(f"{address}: the upload failed: {_problem(error, address)}") from error
    return attrs.evolve(address, revision=done.oid)


def _commit(
    api: Any, place: Mapping[str, str], files: Mapping[str, bytes | Path], mirror: Any, head: str
) -> Any:
    """Make a commit whose parent is `head`; the other arguments are those of `upload`."""
    import huggingface_hub as client

    operations: list[Any] = [
        client.CommitOperationAdd(
            path_in_repo=name,
            path_or_fileobj=content if isinstance(content, bytes) else str(content),
        )
        for name, content in sorted(files.items())
    ]
    if mirror is not None:
        there = api.list_repo_files(**place, revision=head)
        operations += [
            client.CommitOperationDelete(path_in_repo=name)
            for name in sorted(set(there) - set(files))
            if mirror.fullmatch(name)
        ]
    message = f"Upload {len(files)} files with fssbench"
    return api.create_commit(
        **place, operations=operations, commit_message=message, parent_commit=head
    )


def _cached_or_new(
    download: Any, arguments: Mapping[str, Any], address: Address, *, prefer_cache: bool = False
) -> str:
    """Call a download function of the hub's client, with the cache alone where this is enough."""
    from huggingface_hub import constants

    def cached() -> str | None:
        try:
            return str(download(**arguments, local_files_only=True))
        except Exception:  # classes without a common base, which differ between versions
            return None

    fixed = prefer_cache or _COMMIT.fullmatch(address.revision) is not None
    if (fixed or constants.HF_HUB_OFFLINE) and (found := cached()):
        return found
    if constants.HF_HUB_OFFLINE:
        raise FssbenchError("HF_HUB_OFFLINE is set, and the cache does not have it")
    # The hub's client would retry for half a minute before it reports that.
    if not _answers(constants.ENDPOINT):
        if found := cached():
            _log.warning("%s: %s; the cached copy is used", address, _silent())
            return found
        raise FssbenchError(_silent())
    try:
        # The client warns of each failed attempt; the last error remains.
        with without_warnings("huggingface_hub"):
            return str(download(**arguments))
    except Exception as error:  # as in `upload`
        raise _problem(error, address) from error


def _silent() -> str:
    from huggingface_hub import constants

    return f"the hub does not answer ({constants.ENDPOINT})"


def _problem(error: Exception, address: Address) -> FssbenchError:
    """Return the user error for an error of the hub's client, with the reason as its message."""
    import huggingface_hub

    utils: Any = huggingface_hub.utils  # the errors' module of the oldest version
    status = getattr(getattr(error, "response", None), "status_code", None)
    repository = address.repository
    # The first class is a subclass of `EntryNotFoundError`.
    broken = _BROKEN & {base.__name__ for base in type(error).__mro__}
    if broken or isinstance(error, utils.LocalEntryNotFoundError):
        return FssbenchError("the connection broke; run the same command again")
    if isinstance(error, utils.RepositoryNotFoundError):
        return NotOnHubError(
            f"the hub has no {address.kind} repository {repository}, or it is private; check the "
            "name, or set HF_TOKEN"
        )
    if isinstance(error, utils.RevisionNotFoundError):
        return NotOnHubError(f"{repository} has no revision {address.revision or 'main'}")
    if isinstance(error, utils.EntryNotFoundError):
        return NotOnHubError(f"{repository} has no file {address.file}; check the name")
    if status in (401, 403):
        return FssbenchError("the hub refuses the access token; it needs the right to write there")
    return FssbenchError(one_line(error))


def _answers(url: str) -> bool:
    """Return True if a server responds within a few seconds."""
    import urllib.error
    import urllib.request

    answers: list[bool] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD"), timeout=_PATIENCE
            ).close()
        except urllib.error.HTTPError:
            pass  # an error response still shows that the hub is reachable
        except (OSError, ValueError):  # no answer, or no address
            return
        answers.append(True)

    # In a thread, since neither name resolution nor a list of addresses obeys the timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(answers)
