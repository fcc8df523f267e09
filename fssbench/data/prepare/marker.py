"""File with the state of a prepared dataset and its archives."""

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
    """A used archive.

    Attributes:
        file: file name.
        size: size in bytes.
        sha256: digest (hex).
        official: True if the digest is the published one; None if none is published.
    """

    file: str
    size: int
    sha256: str
    official: bool | None


@attrs.frozen(kw_only=True)
class Marker:
    """The state of a prepared dataset.

    Attributes:
        dataset: name of the dataset; for COCO with the year.
        complete: True if all steps are finished.
        begun: archives of which files were unpacked, by key.
        sources: completely unpacked archives, by key.
        counts: numbers of files by folder and of lines by list, at completion.
    """

    dataset: str
    complete: bool = False
    begun: Mapping[str, Source] = attrs.field(factory=dict)
    sources: Mapping[str, Source] = attrs.field(factory=dict)
    counts: Mapping[str, int] = attrs.field(factory=dict)

    @staticmethod
    def path(folder: Path, dataset: str) -> Path:
        """Return the marker file of a dataset."""
        return folder / f"prepared-{dataset}.json"

    def write(self, folder: Path) -> None:
        """Write the marker file atomically."""
        text = json.dumps(attrs.asdict(self), indent=2, sort_keys=True) + "\n"
        write_atomically(self.path(folder, self.dataset), text.encode())

    @classmethod
    def read(cls, folder: Path, dataset: str) -> Marker | None:
        """Return the marker of a dataset, or None if there is none.

        Raises:
            FssbenchError: the file cannot be read or is damaged.
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
