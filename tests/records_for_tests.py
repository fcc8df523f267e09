"""Records changed by the hand of somebody who can count digests too."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def digest_of(fields: dict[str, object]) -> str:
    """The digest of a record's fields, as docs/results.md defines it."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def change_record(folder: Path, *keys: str, value: object) -> None:
    """Put a value into the record of a folder, and make its digest fit.

    Args:
        folder: holds ``record.json``.
        keys: the way to the value, from the outside.
        value: a JSON value.
    """
    path = folder / "record.json"
    fields = json.loads(path.read_text())
    del fields["digest"]
    *outer, last = keys
    inside = fields
    for key in outer:
        inside = inside[key]
    inside[last] = value
    path.write_text(json.dumps({**fields, "digest": digest_of(fields)}, indent=2) + "\n")
