"""Many generated results: consistent records, rows and manifests without any evaluation.

python tests/benchmarks/board_records.py FOLDER --records 5000 --episodes 1000
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
from pathlib import Path

import numpy
import pandas

from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.results.record import MANIFEST_FILE, ROWS_FILE
from fssbench.results.rows import write_rows

sys.path.insert(0, str(Path(__file__).parents[1]))
from records_for_tests import record_of

FOLDS = 4
CLASSES = 5
SETTINGS = tuple(itertools.product(("pascal5i/v1-1k", "pascal5i/v1-mini"), (1, 5)))
"""Protocol and shots of each table."""


def manifest_of(protocol: str, shots: int, fold: int, episodes: int) -> Manifest:
    """A manifest of a fold; query images recur as in draws from a pool of the same size."""
    generator = numpy.random.default_rng([fold, shots, len(protocol)])
    classes = range(CLASSES * fold, CLASSES * (fold + 1))
    images = generator.integers(episodes, size=(episodes, 1 + shots)).tolist()
    return Manifest(
        protocol=protocol,
        dataset="pascal5i",
        split="val",
        fingerprint="f1" * 32,
        fold=fold,
        shots=shots,
        seed=0,
        limit=None,
        classes=tuple((class_id, f"class {class_id}") for class_id in classes),
        dropped=(),
        episodes=tuple(
            Episode(
                index=index,
                class_id=classes[query % CLASSES],
                query=f"2007_{query:06}",
                support=tuple(f"2007_{episodes + image:06}" for image in support),
            )
            for index, (query, *support) in enumerate(images)
        ),
    )


def rows_of(manifest: Manifest, number: int) -> pandas.DataFrame:
    """Rows of a method, whose scores rise with its number."""
    generator = numpy.random.default_rng([manifest.fold, number])
    count = len(manifest.episodes)
    union = generator.integers(2_000, 100_000, size=count)
    share = numpy.clip(generator.normal(0.3 + number / 4000, 0.15, size=count), 0, 1)
    inter = (share * union).astype("int64")
    return pandas.DataFrame(
        {
            "index": range(count),
            "class_id": [episode.class_id for episode in manifest.episodes],
            "query": [episode.query for episode in manifest.episodes],
            "intersection_fg": inter,
            "union_fg": union,
            "intersection_bg": 180_000 - union,
            "union_bg": 180_000 - inter,
        }
    )


def write_records(folder: Path, records: int, episodes: int) -> int:
    """Write about as many finished runs below a folder, in `SETTINGS` of 4 folds each.

    Returns:
        The number of records: whole methods are written.
    """
    methods = max(1, round(records / (len(SETTINGS) * FOLDS)))
    for (protocol, shots), fold in itertools.product(SETTINGS, range(FOLDS)):
        manifest = manifest_of(protocol, shots, fold, episodes)
        own = folder / f"{protocol.replace('/', '-')}-{shots}shot-fold{fold}"
        manifest.write(own / MANIFEST_FILE)
        for number in range(methods):
            run = own / f"method-{number}"
            run.mkdir()
            shutil.copy(own / MANIFEST_FILE, run / MANIFEST_FILE)
            rows = rows_of(manifest, number)
            write_rows(rows, run / ROWS_FILE)
            method = {
                "matcher": f"matcher{number % 20}",
                "config": {"temperature": float(number // 20)},
            }
            record_of(manifest, rows, **method).write(run)
        (own / MANIFEST_FILE).unlink()
    return methods * len(SETTINGS) * FOLDS


def main() -> None:
    """Write the records of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=5000)
    parser.add_argument("--episodes", type=int, default=1000)
    options = parser.parse_args()
    write_records(options.folder, options.records, options.episodes)


if __name__ == "__main__":
    main()
