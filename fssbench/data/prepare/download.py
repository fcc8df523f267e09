"""Downloads that resume after an interruption."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from fssbench._version import __version__
from fssbench.data.prepare.archives import Archive
from fssbench.data.prepare.disk import check_space
from fssbench.errors import FssbenchError
from fssbench.files import cannot_write

log = logging.getLogger(__name__)

ATTEMPTS = 5
PAUSE_SECONDS = 2.0
TIMEOUT_SECONDS = 60.0
BLOCK = 1 << 20

Progress = Callable[[int, int | None], None]
"""Is told the bytes that are there and the bytes in all."""


class _BrokenOffError(Exception):
    """A broken connection; the received bytes stay on the disk."""


def download(archive: Archive, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """Bring an archive into a folder; what an earlier call left there is gone on with.

    The file gets its official name when it is complete and, where a digest is published, matches
    it. Until then it is ``NAME.part``; the server's version tag is in ``NAME.part.tag``.

    Raises:
        FssbenchError: the server cannot be reached, does not have it, sends something else or
            breaks off again and again, the digest is another, or there is no room.
    """
    target = folder / archive.file
    if target.exists():
        return target
    part = folder / f"{archive.file}.part"
    by_hand = f"download {archive.url} by other means and give it with --from"
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(archive, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == ATTEMPTS:
                raise FssbenchError(
                    f"{archive.url}: the server answers {error.code} {error.reason}; {by_hand}"
                ) from error
        except urllib.error.URLError as error:
            raise FssbenchError(
                f"{archive.url}: cannot be reached: {error.reason}; {by_hand}"
            ) from error
        except (_BrokenOffError, http.client.HTTPException, OSError) as error:
            if attempt == ATTEMPTS:
                raise FssbenchError(
                    f"{archive.url}: broke off {ATTEMPTS} times ({error}); run the same command "
                    "again to go on"
                ) from error
        log.info("%s: going on, attempt %d", archive.url, attempt + 1)
        time.sleep(PAUSE_SECONDS)
    _check_digest(archive, part)
    try:
        os.replace(part, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    _tag_file(part).unlink(missing_ok=True)
    return target


def _fetch(archive: Archive, part: Path, progress: Progress) -> None:
    there, tag = _size(part), _read_tag(part)
    headers = {"User-Agent": f"fssbench/{__version__}", "Accept-Encoding": "identity"}
    if there and tag:
        # With If-Range a server whose file has changed sends the new one whole.
        headers |= {"Range": f"bytes={there}-", "If-Range": tag}
    request = urllib.request.Request(archive.url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and _total_of_416(error) == there:
            return
        if error.code == 416:
            part.unlink(missing_ok=True)
            raise _BrokenOffError("the file there has another size now") from error
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise FssbenchError(
                f"{archive.url}: the server sends a web page, not the archive; download it in a "
                "browser and give it with --from"
            )
        start = _start(answer) if answer.status == 206 else 0
        if start not in (0, there):
            raise FssbenchError(f"{archive.url}: the server sends another part than was asked for")
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdecimal() else None
        _check_size(archive, total)
        if total is not None:
            check_space(part.parent, total - start, f"downloading {archive.file}")
        _write_tag(part, _version(answer))
        _copy(answer, archive, part, start, total, progress)


def _copy(
    answer: http.client.HTTPResponse, archive: Archive, part: Path, start: int, total: int | None,
    progress: Progress,
) -> None:  # fmt: skip
    done = start
    try:
        with part.open("ab" if start else "wb") as file:
            while True:
                try:
                    block = answer.read(BLOCK)
                except OSError as error:
                    raise _BrokenOffError(str(error)) from error
                if not block:
                    break
                file.write(block)
                done += len(block)
                _check_size(archive, done if total is None else None, known=False)
                progress(done, total)
    except OSError as error:
        raise cannot_write(part, error) from error
    if total is not None and done < total:
        raise _BrokenOffError(f"{done:,} of {total:,} bytes came")


def _check_size(archive: Archive, total: int | None, *, known: bool = True) -> None:
    """Spare the time of downloading something else; the limit holds where no size is known."""
    if total is None:
        return
    if known and archive.size is not None and total != archive.size:
        raise FssbenchError(
            f"{archive.url}: the file there has {total:,} bytes, the official one {archive.size:,}"
        )
    if total > archive.most_bytes:
        raise FssbenchError(f"{archive.url}: {total:,} bytes are more than {archive.file} has")


def _check_digest(archive: Archive, part: Path) -> None:
    if archive.digest is None:
        log.warning("%s: no digest is published, so it is not checked", archive.file)
        return
    algorithm, published = archive.digest
    with part.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if found != published:
        part.unlink()
        _tag_file(part).unlink(missing_ok=True)
        raise FssbenchError(
            f"{archive.url}: its {algorithm} is {found}, the published one {published}; the file "
            "was removed, run the same command again"
        )


def _version(answer: http.client.HTTPResponse) -> str | None:
    """Return the server's version tag of a file; weak tags do not support ranges."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _start(answer: http.client.HTTPResponse) -> int:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _total_of_416(error: urllib.error.HTTPError) -> int | None:
    found = re.match(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _tag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _write_tag(part: Path, tag: str | None) -> None:
    with contextlib.suppress(OSError):
        _tag_file(part).write_text(json.dumps(tag))


def _read_tag(part: Path) -> str:
    try:
        return str(json.loads(_tag_file(part).read_text()) or "")
    except (OSError, ValueError):
        return ""
