"""Export of episodes for programs that do not know fssbench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from fssbench.data.dataset import Dataset
from fssbench.episodes.annotations import support_mask
from fssbench.episodes.episode import Episode
from fssbench.episodes.manifest import Manifest
from fssbench.errors import FssbenchError
from fssbench.files import write_atomically

EPISODES_FILE = "episodes.json"


def export_episodes(manifest: Manifest, dataset: Dataset, folder: Path) -> Path:
    """Write the episodes of a manifest as JSON, with the masks of their supports as PNG files.

    ``episodes.json`` holds the setting and, for each episode, its index, class id and class name,
    the image of the query, and image and mask of each support. In an episode of several ways,
    class and supports are in ``targets``, way 1 first. Paths are absolute, or relative to
    the folder; an image without a file is written to ``images/`` as PNG. Masks are grey images
    with 0 for background, 255 for the class and 128 for ignored pixels. Masks of queries are not
    written. Weaker supports (`ProtocolSpec.support_kind`) are drawn into the masks, and
    ``support_kind`` names them.

    Args:
        manifest: episodes to export.
        dataset: dataset of their images, from `fssbench.build.protocol_dataset`.
        folder: folder to write, created if it is missing.

    Returns:
        Path of ``episodes.json``.

    Raises:
        FssbenchError: the dataset has other annotations than the manifest, an image cannot be read,
            or the folder cannot be written.
    """
    manifest.check_annotations(dataset)
    images = {image: _image(dataset, image, folder) for image in sorted(manifest.image_ids())}
    shown = {key for episode in manifest.by_way() for key in episode.supports()}
    masks = {}
    for number, (image, class_id) in enumerate(sorted(shown)):
        masks[image, class_id] = f"masks/{number:06d}.png"
        _save(_grey(support_mask(dataset, image, class_id)), folder / masks[image, class_id])

    def target(episode: Episode) -> dict[str, Any]:
        return {
            "class_id": episode.class_id,
            "class_name": manifest.class_name(episode.class_id),
            "supports": [
                {"image": images[key[0]], "mask": masks[key]} for key in episode.supports()
            ],
        }

    content: dict[str, Any] = {
        "protocol": manifest.protocol,
        **({} if dataset.support_kind == "mask" else {"support_kind": dataset.support_kind}),
        "digest": manifest.digest,
        "dataset": manifest.dataset,
        "fold": manifest.fold,
        "shots": manifest.shots,
        "seed": manifest.seed,
        "episodes": [
            {
                "index": episode.index,
                "query": images[episode.query],
                **({"targets": list(map(target, ways))} if ways[1:] else target(episode)),
            }
            for episode in manifest.episodes
            for ways in [episode.ways()]
        ],
    }
    path = folder / EPISODES_FILE
    write_atomically(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def _image(dataset: Dataset, image: str, folder: Path) -> str:
    file = dataset.image_path(image)
    if file is not None:
        return str(file.resolve())
    name = f"images/{image.replace('/', '-')}.png"
    _save(Image.fromarray(dataset.image(image).permute(1, 2, 0).numpy()), folder / name)
    return name


def _grey(mask: Tensor) -> Image.Image:
    levels = mask.new_zeros(mask.shape)
    levels[mask == 1] = 255
    levels[mask > 1] = 128
    return Image.fromarray(levels.numpy())


def _save(picture: Image.Image, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise FssbenchError(f"{path}: cannot be written: {error.strerror or error}") from error
