"""Episodes of videos by DAVIS's semi-supervised rule (Pont-Tuset et al., arXiv 1704.00675)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fssbench.episodes.draw import Draw
from fssbench.episodes.episode import Episode
from fssbench.episodes.sampler import Pool
from fssbench.errors import FssbenchError


def first_frame(pool: Pool, *, episodes: int | None, shots: int, draw: Draw) -> list[Episode]:
    """Take each object in each frame of its video, with the first frame as the support.

    The first and the last frame are not queries, as in DAVIS's evaluation code. Frames without the
    object are queries too. Episodes are in order of videos, frames and objects.

    Args:
        pool: pool of a dataset of videos, whose method ``frames`` returns the frames of a class.
        episodes: number of first episodes; None for all.
        shots: number of supports, which must be 1.
        draw: not used, because nothing is drawn.

    Raises:
        FssbenchError: `shots` is not 1, the dataset has no videos, or a video has fewer than three
            frames.
    """
    del draw
    frames_of: Callable[[int], Sequence[str]] | None = getattr(pool.dataset, "frames", None)
    if frames_of is None:
        raise FssbenchError(
            f"sampler first-frame: {pool.dataset.name} has no videos; use davis17, or a dataset "
            "with a method frames"
        )
    if shots != 1:
        raise FssbenchError(
            f"sampler first-frame: only the first frame is annotated, so there is one support, not "
            f"{shots}; give --shots 1"
        )
    found = []
    for class_id in sorted(pool.lists):
        first, *queries = frames_of(class_id)
        if len(queries) < 2:
            raise FssbenchError(
                f"sampler first-frame: the video of {pool.dataset.classes[class_id]} has "
                f"{len(queries) + 1} frames; three are needed, as the first and the last are not "
                "scored"
            )
        found += [(first, time, class_id, query) for time, query in enumerate(queries[:-1])]
    return [
        Episode(index=index, class_id=class_id, query=query, support=(first,))
        for index, (first, _, class_id, query) in enumerate(sorted(found)[:episodes])
    ]
