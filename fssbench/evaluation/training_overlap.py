"""Classes and images of an evaluation that its trained weights were trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import attrs
import torch

from fssbench.data.class_names import common_names
from fssbench.data.dataset import Dataset
from fssbench.data.folder import ClassFolders
from fssbench.data.image_digest import ImageHashes, short_hashes
from fssbench.data.own_data import OwnData
from fssbench.episodes.manifest import Manifest
from fssbench.matchers.checkpoint import Checkpoint, known_images
from fssbench.model import trained_classes
from fssbench.results.record import first_few

log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class TrainingOverlap:
    """Comparison of tested classes and images with those of the training.

    Attributes:
        dataset: tested dataset.
        checkpoints: checkpoints of the matcher and of encoders, by the option of the command line
            that names them, e.g. ``--checkpoint last.safetensors``.
        hashes: hashes of the dataset's images.
    """

    dataset: Dataset
    checkpoints: Mapping[str, Checkpoint]
    hashes: ImageHashes

    def classes(self, manifest: Manifest) -> tuple[str, ...] | None:
        """Return the names of a manifest's novel classes that the checkpoints were trained on.

        None without a checkpoint, or if the classes of a training are unknown.
        """
        return self._classes(manifest, *self.checkpoints.values())

    def images(self, *manifests: Manifest) -> int | None:
        """Return the number of images of manifests that the checkpoints were trained on.

        Images are compared by the content of their files. None without a checkpoint, and instead of
        0 if the images of a training are unknown.
        """
        return self._images(manifests, *self.checkpoints.values())

    def warn(self, manifests: Sequence[Manifest]) -> None:
        """Log the images, and classes of each fold, of manifests that the training had."""
        for option, checkpoint in self.checkpoints.items():
            if images := self._images(manifests, checkpoint):
                log.warning(
                    "%s: it was trained on %d of the tested images; such a record never ranks",
                    option,
                    images,
                )
            for fold, manifest in {manifest.fold: manifest for manifest in manifests}.items():
                found = self._classes(manifest, checkpoint)
                if found is None:
                    log.warning(
                        "%s: the classes that it was trained on are unknown, and maybe tested; "
                        "import it with --dataset and --fold, or train it with this version",
                        option,
                    )
                    break
                if found:
                    log.warning(
                        "%s: it was trained on classes of fold %d of %s: %s; such a record never "
                        "ranks%s",
                        option,
                        fold,
                        self.dataset.name,
                        first_few(found),
                        self._without(self.classes(manifest) or found, fold),
                    )

    def _classes(self, manifest: Manifest, *checkpoints: Checkpoint) -> tuple[str, ...] | None:
        trained = [trained_classes(each.header, self.dataset) for each in checkpoints]
        novel = set(self.dataset.fold_classes(manifest.fold)) & set(manifest.class_ids)
        tested = [self.dataset.classes[class_id] for class_id in sorted(novel)]
        found = common_names(tested, [name for names in trained for name in names or ()])
        return found if found or (trained and None not in trained) else None

    def _images(self, manifests: Sequence[Manifest], *checkpoints: Checkpoint) -> int | None:
        trained, complete = known_images(checkpoints)
        if not len(trained):
            return None
        hashes = self.hashes.of(image for each in manifests for image in each.image_ids())
        common = int(torch.isin(short_hashes(hashes.values()), trained).sum())
        return common if common or complete else None

    def _without(self, found: Sequence[str], fold: int) -> str:
        """Return advice to test a fold without some classes; "" if no option can leave them out."""
        if isinstance(self.dataset, OwnData):
            novel = [self.dataset.classes[c] for c in self.dataset.fold_classes(fold)]
            others = [name for name in novel if not common_names([name], found)]
            can = others and self.dataset.folds == 1 and not any("," in name for name in others)
            return f"; test the others with -d novel={','.join(others)}" if can else ""
        if not isinstance(self.dataset, ClassFolders):
            return ""
        names = ",".join(sorted({*found, *self.dataset.leave_out}))
        return f"; leave them out with -d leave_out={names}"
