"""Manifests: frozen, ordered lists of episodes, with a header and a digest."""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import cattrs

from fssbench import strict
from fssbench.episodes.episode import Episode, Target
from fssbench.errors import FssbenchError
from fssbench.files import MIB, read_within, write_atomically

if TYPE_CHECKING:
    from fssbench.data.dataset import Dataset

FORMAT = 1
MOST_BYTES = 64 * MIB
"""Limit of the unpacked size of a manifest; 10,000 episodes take about 2 MiB."""


@attrs.frozen(kw_only=True)
class Manifest:
    """The episodes of an evaluation, which itself draws nothing.

    Attributes:
        protocol: protocol id.
        dataset: dataset name.
        split: split of the images.
        fingerprint: hash of the annotations that the episodes were drawn from. It is not part of
            the digest: the digest identifies the episodes, the fingerprint the data.
        fold: index of the fold.
        shots: number of supports K.
        seed: seed of the draws.
        limit: number of episodes that the manifest was cut to, or None.
        classes: (class id, name) of the novel classes of the episodes, ascending.
        dropped: (class id, name) of the fold's classes that are left out for too few images.
        episodes: episodes in order; ``episodes[i].index == i``.
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

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical content, which is all but the fingerprint."""
        header = self._header()
        del header["fingerprint"]
        return hashlib.sha256(self._text(header).encode()).hexdigest()

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Ids of the classes with at least one episode, ascending."""
        return tuple(sorted({way.class_id for way in self.by_way()}))

    @property
    def ways(self) -> int:
        """Number of ways of each episode."""
        return len(self.episodes[0].targets) if self.episodes else 1

    def by_way(self) -> list[Episode]:
        """Return the episodes of one way each, in the order of the rows of an evaluation."""
        return [way for episode in self.episodes for way in episode.ways()]

    def class_name(self, class_id: int) -> str:
        """Return the name of one of `classes`."""
        return dict(self.classes)[class_id]

    def image_ids(self) -> set[str]:
        """Return the ids of all queries and supports."""
        return {image for e in self.by_way() for image in (e.query, *e.support)}

    def check_annotations(self, dataset: Dataset) -> None:
        """Raise an `FssbenchError` unless the episodes were drawn from these annotations."""
        found = dataset.fingerprint(self.split)
        if found != self.fingerprint:
            raise FssbenchError(
                f"{dataset.name}: these annotations ({found[:8]}) are not those of the manifest "
                f"({self.fingerprint[:8]}); give the --data-root and -d that it was made with"
            )

    def limited(self, count: int) -> Manifest:
        """Return a manifest of the first `count` episodes, with its own digest."""
        if count >= len(self.episodes):
            return self
        return attrs.evolve(self, limit=count, episodes=self.episodes[:count])

    def write(self, path: Path) -> None:
        """Write header and episodes as JSON lines, atomically; gzipped for the suffix ``.gz``.

        Equal manifests give equal bytes.
        """
        header = {"fssbench_manifest": FORMAT, "digest": self.digest, **self._header()}
        data = (self._text(header) + "\n").encode()
        write_atomically(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read a file of `write`.

        Raises:
            FssbenchError: the file is missing, too large or no manifest, its digest is wrong, or
                its episodes are inconsistent with its header.
        """
        try:
            text = read_within(path, MOST_BYTES, packed=path.suffix == ".gz").decode()
            header, *lines = (json.loads(line) for line in text.splitlines())
            if header.pop("fssbench_manifest") != FORMAT:
                raise ValueError("another format")
            digest, count = header.pop("digest"), header.pop("episodes")
            episodes = [{**line, "index": index} for index, line in enumerate(lines)]
            manifest = strict.structure({**header, "episodes": episodes}, cls)
        except OSError as error:
            reason = error.strerror or str(error)
            raise FssbenchError(f"{path}: cannot read this manifest: {reason}") from error
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, zlib.error,
                RecursionError, cattrs.BaseValidationError) as error:  # fmt: skip
            raise FssbenchError(f"{path}: not a manifest of fssbench, or damaged") from error
        if len(episodes) != count or manifest.digest != digest:
            raise FssbenchError(f"{path}: the content does not fit its digest; it was changed")
        if wrong := manifest._inconsistency():
            raise FssbenchError(f"{path}: inconsistent manifest: {wrong}; build it again")
        return manifest

    def _inconsistency(self) -> str:
        """Return a description of values that no protocol produces, or ""."""
        if self.fold < 0 or self.shots < 1 or self.seed < 0:
            return f"fold {self.fold}, shots {self.shots}, seed {self.seed}"
        known = dict(self.classes)
        first = self.episodes[0].targets if self.episodes else ()
        novel = max(1, sum(bool(target.support) for target in first))
        for episode in self.episodes:
            if len(classes := {target.class_id for target in episode.targets}) != self.ways:
                return f"episode {episode.index} has {len(classes)} ways, the first {self.ways}"
            for number, way in enumerate(episode.ways()):
                if way.class_id not in known:
                    return f"the class of episode {way.index} is not in the header"
                supports, shown = len(way.support), len(way.support_classes)
                wanted = self.shots if number < novel else 0  # base classes come last
                if supports != wanted or shown not in (0, wanted):
                    return f"episode {way.index} has {supports} supports of {shown} classes"
        return ""

    def _header(self) -> dict[str, Any]:
        fields = attrs.asdict(self, recurse=False)
        fields["episodes"] = len(self.episodes)
        return fields

    def _text(self, header: dict[str, Any]) -> str:
        """Return canonical JSON, one line for the header and each episode."""
        lines = [header]
        for e in self.episodes:
            lines.append({"query": e.query, **_target_fields(e)})
            if e.further:
                lines[-1]["further"] = [_target_fields(target) for target in e.further]
        return "\n".join(json.dumps(v, sort_keys=True, separators=(",", ":")) for v in lines)


def _target_fields(target: Episode | Target) -> dict[str, Any]:
    fields = {"class_id": target.class_id, "support": target.support}
    shown = {"support_classes": target.support_classes} if target.support_classes else {}
    return {**fields, **shown}
