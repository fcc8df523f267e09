"""What was prepared of which archives: a file beside the data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import attrs
import cattrs

from fssbench.errors import FssbenchError
from fssbench.files import write_atomically


@attrs.frozen(kw_only=True)
class Source:
    """An archive that was used.

    Attributes:
        file: file name.
        size: size in bytes.
        sha256: sha256 (hex) of the file.
        official: True if the digest equals the published one; None where none is published.
    """

    file: str
    size: int
    sha256: str
    official: bool | None


@attrs.frozen(kw_only=True)
class Marker:
    """The state of a prepared dataset.

    Attributes:
        dataset: name, for COCO with the year.
        complete: all steps were done.
        begun: the archives that files were taken of, by key.
        sources: archives that are completely unpacked.
        counts: files by folder, and lines by list, when it was complete.
    """

    dataset: str
    complete: bool = False
    begun: Mapping[str, Source] = attrs.field(factory=dict)
    sources: Mapping[str, Source] = attrs.field(factory=dict)
    counts: Mapping[str, int] = attrs.field(factory=dict)

    @staticmethod
    def path(folder: Path, dataset: str) -> Path:
        """Return the path of the marker of a dataset."""
        return folder / f"prepared-{dataset}.json"

    def write(self, folder: Path) -> None:
        """Write it, by rename."""
        text = json.dumps(attrs.asdict(self), indent=2, sort_keys=True) + "\n"
        write_atomically(self.path(folder, self.dataset), text.encode())

    @classmethod
    def read(cls, folder: Path, dataset: str) -> Marker | None:
        """Return the marker, or None if it does not exist.

        Raises:
            FssbenchError: the marker cannot be read or is damaged.
        """
        path = cls.path(folder, dataset)
        try:
            return cattrs.structure(json.loads(path.read_bytes()), cls)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FssbenchError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError,
                cattrs.BaseValidationError) as error:  # fmt: skip
            raise FssbenchError(
                f"{path}: is damaged; remove it and the data beside it, or choose another folder"
            ) from error
