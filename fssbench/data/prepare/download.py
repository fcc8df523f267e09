"""Resumable downloads."""

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
"""Callback with the number of downloaded bytes and the total (None if unknown)."""


class _BrokenOffError(Exception):
    """A broken connection; the received bytes are in the partial file."""


def download(archive: Archive, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """Download an archive into a folder, or resume a previous download.

    The file is named ``NAME.part`` until it is complete and its digest, if published, is checked.
    ``NAME.part.tag`` contains the version of the file on the server.

    Raises:
        FssbenchError: the server cannot be reached, answers with an error or another file, or
            breaks off every attempt; the digest differs; or the disk is full.
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
                    "again to resume"
                ) from error
        log.info("%s: resuming, attempt %d", archive.url, attempt + 1)
        time.sleep(PAUSE_SECONDS)
    _check_digest(archive, part)
    try:
        os.replace(part, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    _tag_file(part).unlink(missing_ok=True)
    return target


def _fetch(archive: Archive, part: Path, progress: Progress) -> None:
    there, tag = part.stat().st_size if part.exists() else 0, _read_tag(part)
    headers = {"User-Agent": f"fssbench/{__version__}", "Accept-Encoding": "identity"}
    if there and tag:
        # With If-Range, a server sends the complete file if it has changed.
        headers |= {"Range": f"bytes={there}-", "If-Range": tag}
    request = urllib.request.Request(archive.url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and _range(error, r"bytes \*/(\d+)") == there:
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
        start = _range(answer, r"bytes (\d+)-") if answer.status == 206 else 0
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
            while block := _read(answer):
                file.write(block)
                done += len(block)
                _check_size(archive, done if total is None else None, known=False)
                progress(done, total)
    except OSError as error:
        raise cannot_write(part, error) from error
    if total is not None and done < total:
        raise _BrokenOffError(f"{done:,} of {total:,} bytes came")


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(BLOCK)
    except OSError as error:
        raise _BrokenOffError(str(error)) from error


def _check_size(archive: Archive, total: int | None, *, known: bool = True) -> None:
    """Check the size before the download ends; without a known size, only the limit."""
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
        log.warning("%s: no digest is published, so the file is not checked", archive.file)
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
    """Return the version of the file on the server; weak tags are not valid for ranges."""
    tag = answer.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")


def _range(answer: http.client.HTTPResponse | urllib.error.HTTPError, pattern: str) -> int:
    """Return the number in the Content-Range header, or -1."""
    found = re.match(pattern, answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


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
