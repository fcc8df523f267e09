"""Study of the number of episodes of a benchmark: appendix B of HDMNet on ``shapes``.

HDMNet (CVPR 2023, appendix B) repeats evaluations of COCO-20i ten times with 1k and with 10k
episodes and finds that the results of 1k vary too much. Here the training-free baseline is
evaluated on 10,000 episodes of one fold of ``shapes`` with eight seeds. The first n episodes of a
manifest are those of a protocol of n episodes, so one evaluation per seed is enough for all n. Run
it with

    python tools/episode_study.py --runs study

``--images 2000 20000`` adds a split of many images, similar to COCO-20i, which takes hours on a
slow machine. Finished evaluations in the folder are reused, so an interrupted study can be resumed.
Prints a table and draws ``docs/images/episode-count.png``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fssbench import hookimpl, registry
from fssbench.episodes.analysis.stats import COUNTS, miou
from fssbench.episodes.manifest import Manifest
from fssbench.evaluation.evaluate import evaluate
from fssbench.evaluation.evaluation import Evaluation
from fssbench.results.record import MANIFEST_FILE, ROWS_FILE
from fssbench.results.rows import read_rows
from fssbench.specs import ProtocolSpec
from fssbench.statistics.intervals import score_intervals

PROTOCOL = "shapes/episode-study-10k"
PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "episode-count.png"


@hookimpl
def fssbench_protocols() -> list[ProtocolSpec]:
    """Return ``shapes/v1-1k`` with ten times the episodes."""
    return [
        ProtocolSpec(
            name=PROTOCOL,
            summary="10,000 episodes, for the study of episode counts",
            dataset="shapes",
            split="val",
            sampler="class-balanced",
            episodes=10_000,
            min_pixels=400,
        )
    ]


@attrs.frozen(kw_only=True)
class Line:
    """Statistics of n episodes over the seeds.

    Attributes:
        episodes: number of episodes, n.
        images: mean number of distinct query images.
        mean, spread, span: mean, standard deviation and range of the class mIoU.
        width: mean width of the 95 % interval.
    """

    episodes: int
    images: float
    mean: float
    spread: float
    span: float
    width: float


def study(images: int, seeds: int, runs: Path, resamples: int) -> list[Line]:
    """Return the statistics of the first n episodes of evaluations with all seeds."""
    results = evaluate(
        Evaluation(
            matcher="prototype",
            backbone="tiny-resnet",
            protocol=PROTOCOL,
            data_options={"images_per_split": str(images)},
            folds=(0,),
            seeds=tuple(range(seeds)),
            out=runs / f"{images}-images",
            device="cpu",
            workers=0,
        )
    )
    tables = [read_rows(result.folder / ROWS_FILE) for result in results]
    manifests = [Manifest.read(result.folder / MANIFEST_FILE) for result in results]
    lines = []
    for n in COUNTS:
        scores = numpy.array([miou(table.iloc[:n]) for table in tables])
        ends = [score_intervals([table.iloc[:n]], resamples=resamples)["miou"] for table in tables]
        asked = [len({e.query for e in manifest.episodes[:n]}) for manifest in manifests]
        lines.append(
            Line(
                episodes=n,
                images=float(numpy.mean(asked)),
                mean=float(scores.mean()),
                spread=float(scores.std(ddof=1)),
                span=float(scores.max() - scores.min()),
                width=float(numpy.mean([high - low for low, high in ends])),
            )
        )
    return lines


def draw(found: dict[int, list[Line]], path: Path) -> None:
    """Plot the interval width and spread by number of episodes."""
    figure = Figure(figsize=(8.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Sequence = figure.subplots(1, 2)
    for number, (images, lines) in enumerate(found.items()):
        counts = [line.episodes for line in lines]
        label = f"{images:,} images in the split"
        axes[0].plot(counts, [line.width for line in lines], "o-", color=f"C{number}", label=label)
        axes[1].plot(counts, [line.spread for line in lines], "o-", color=f"C{number}", label=label)
        for place, value in ((0, lines[0].width), (1, lines[0].spread)):
            ideal = [value * (counts[0] / n) ** 0.5 for n in counts]
            axes[place].plot(counts, ideal, ":", color=f"C{number}", alpha=0.6)
    axes[0].set_title("width of the 95 % interval of mIoU", fontsize=10)
    axes[1].set_title("standard deviation of mIoU over seeds", fontsize=10)
    for place in axes:
        place.set(xscale="log", yscale="log", xlabel="episodes", ylabel="points")
        place.set_xticks(COUNTS, [f"{n:,}" for n in COUNTS], fontsize=8)
        ticks = (0.1, 0.2, 0.5, 1, 2, 5)
        place.set_yticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
        place.minorticks_off()
        place.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90, metadata={"Software": None})


def main() -> None:
    """Evaluate, print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("study"))
    parser.add_argument("--images", type=int, nargs="+", default=[2000])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    given = parser.parse_args()
    registry.use_plugins([__file__])
    found = {
        images: study(images, given.seeds, given.runs, given.resamples) for images in given.images
    }
    print("images  episodes  query images  mIoU   width  spread   span")
    for images, lines in found.items():
        for line in lines:
            print(
                f"{images:6} {line.episodes:9} {line.images:13.0f} {line.mean:5.2f} "
                f"{line.width:7.2f} {line.spread:7.2f} {line.span:6.2f}"
            )
    draw(found, given.picture)


if __name__ == "__main__":
    main()
