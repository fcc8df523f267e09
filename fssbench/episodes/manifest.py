"""Manifests: frozen, ordered lists of episodes, with a header and a digest."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import cattrs

from fssbench import strict
from fssbench.episodes.episode import Episode
from fssbench.errors import FssbenchError
from fssbench.files import MIB, read_within, write_atomically

if TYPE_CHECKING:
    from fssbench.data.dataset import Dataset

FORMAT = 1
MOST_BYTES = 64 * MIB
"""No manifest is larger, unpacked: 10,000 episodes take about two."""


@attrs.frozen(kw_only=True)
class Manifest:
    """What an evaluation reads; the runner itself never samples.

    Attributes:
        protocol: protocol id.
        dataset: dataset name.
        split: the images' split.
        fingerprint: hash of the annotations that the episodes were drawn from. It is not part of
            the digest: the digest says which questions were asked, the fingerprint of which data.
        fold: fold.
        shots: K.
        seed: seed.
        limit: the manifest was cut to its first so many episodes, or None.
        classes: (class id, name) of the classes asked for, ascending.
        dropped: (class id, name) of the fold's classes that have too few images and are left out.
        episodes: the episodes; ``episodes[i].index == i``.
    """

    protocol: str
    dataset: str
    split: str
    fingerprint: str
    fold: int
    shots: int
    seed: int
    limit: int | None
    classes: tuple[tuple[int, str], ...]
    dropped: tuple[tuple[int, str], ...]
    episodes: tuple[Episode, ...]

    @property
    def digest(self) -> str:
        """Sha256 (hex) of the canonical content: all of it but the fingerprint."""
        header = self._header()
        del header["fingerprint"]
        lines = [_canonical(header), *(_canonical(_episode_fields(e)) for e in self.episodes)]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids of the classes that at least one episode asks for, ascending."""
        return tuple(sorted({episode.class_id for episode in self.episodes}))

    def class_name(self, class_id: int) -> str:
        """Name of one of `classes`."""
        return dict(self.classes)[class_id]

    def image_ids(self) -> set[str]:
        """Return the ids of all queries and supports."""
        return {image for e in self.episodes for image in (e.query, *e.support)}

    def check_annotations(self, dataset: Dataset) -> None:
        """Raise an `FssbenchError` unless the episodes were drawn from these annotations."""
        found = dataset.fingerprint(self.split)
        if found != self.fingerprint:
            raise FssbenchError(
                f"{dataset.name}: these annotations ({found[:8]}) are not those of the manifest "
                f"({self.fingerprint[:8]}); give the --data-root and -d that it was made with"
            )

    def limited(self, count: int) -> Manifest:
        """The first `count` episodes, under a digest of their own."""
        if count >= len(self.episodes):
            return self
        return attrs.evolve(self, limit=count, episodes=self.episodes[:count])

    def write(self, path: Path) -> None:
        """Write JSON lines (gzip when the name ends in ``.gz``), header first, by rename.

        The same manifest gives the same bytes.
        """
        header = {"fssbench_manifest": FORMAT, "digest": self.digest, **self._header()}
        lines = [_canonical(header), *(_canonical(_episode_fields(e)) for e in self.episodes)]
        data = ("\n".join(lines) + "\n").encode()
        write_atomically(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what `write` wrote.

        Raises:
            FssbenchError: there is no such file, it is not a manifest, it is too large, its digest
                is wrong, or its episodes make no sense.
        """
        try:
            text = read_within(path, MOST_BYTES, packed=path.suffix == ".gz").decode()
            header, *lines = (json.loads(line) for line in text.splitlines())
            if header.pop("fssbench_manifest") != FORMAT:
                raise ValueError("another format")
            digest, count = header.pop("digest"), header.pop("episodes")
            episodes = [
                strict.structure({**line, "index": index}, Episode)
                for index, line in enumerate(lines)
            ]
            manifest = strict.structure({**header, "episodes": ()}, cls)
            manifest = attrs.evolve(manifest, episodes=tuple(episodes))
        except OSError as error:
            reason = error.strerror or str(error)
            raise FssbenchError(f"{path}: cannot read this manifest: {reason}") from error
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zlib.error,
                RecursionError, cattrs.BaseValidationError) as error:  # fmt: skip
            raise FssbenchError(f"{path}: this is no manifest of fssbench, or cut off") from error
        if len(episodes) != count or manifest.digest != digest:
            raise FssbenchError(f"{path}: the content does not fit its digest; it was changed")
        wrong = manifest._senseless()
        if wrong:
            raise FssbenchError(f"{path}: this manifest makes no sense: {wrong}")
        return manifest

    def _senseless(self) -> str:
        """Why no protocol makes such a manifest, or ""."""
        if self.fold < 0 or self.shots < 1 or self.seed < 0:
            return f"fold {self.fold}, shots {self.shots}, seed {self.seed}"
        known = dict(self.classes)
        for episode in self.episodes:
            if episode.class_id not in known:
                return f"episode {episode.index} asks for a class that is not listed"
            if len(episode.support) != self.shots:
                return f"episode {episode.index} has {len(episode.support)} supports"
            if len(episode.support_classes) not in (0, self.shots):
                return f"episode {episode.index} has {len(episode.support_classes)} support classes"
        return ""

    def _header(self) -> dict[str, Any]:
        fields = attrs.asdict(self, recurse=False)
        fields["episodes"] = len(self.episodes)
        return fields


def _episode_fields(episode: Episode) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "class_id": episode.class_id, "query": episode.query, "support": episode.support,
    }  # fmt: skip
    if episode.support_classes:
        fields["support_classes"] = episode.support_classes
    return fields


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
