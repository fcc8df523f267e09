"""Coarse-to-fine distillation of SAM's image embedding (section 3.3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional

from fssbench import FssbenchError, ImageBatch, ParameterGroup, Recipe, Stage, StageContext
from fssbench_fsdino.teacher import Teacher, at_grid

if TYPE_CHECKING:
    from fssbench_fsdino.segmenter import Segmenter


class Distill(Stage):
    """Distillation of SAM's embeddings into the adapter by mean squared error.

    Three such stages run in sequence at 126, 252 and 518 pixels, each from the checkpoint of the
    previous one. The paper does not describe how SAM's 64 x 64 grid is matched to the student's
    9 x 9, 18 x 18 and 37 x 37: here SAM's map is averaged down to them, see `Teacher`. The mean
    squared error is the mean over all numbers of all maps. Nor does it say how position embeddings
    are interpolated at 126 and 252 pixels; see the option ``positions``.

    Args:
        pixels: side of the student's input in the stage's name; the size itself is set by recipes.
    """

    feeds = "images"
    validates = False
    held_out = 200
    parts = ("teacher",)

    def __init__(self, pixels: int) -> None:
        self.name = f"distill-{pixels}"
        self.summary = f"the adapter learns SAM's embeddings of images at {pixels} pixels"
        self._teacher: Teacher | None = None

    def prepare(self, matcher: Segmenter, context: StageContext) -> Mapping[str, Any]:
        """Load the teacher (option ``teacher``, ``--weights teacher=…``) and its stored embeddings.

        The option ``positions`` is applied to the encoder.

        Raises:
            FssbenchError: images are augmented, or the teacher does not fit the matcher.
        """
        if context.augmented:
            raise FssbenchError(
                f"stage {self.name}: the teacher's embeddings are stored, so images must not be "
                "augmented; remove augment from the recipe"
            )
        stride = matcher.backbone.layer(matcher.layer).stride
        self._teacher = Teacher(
            matcher.config.teacher,
            context.weights.get("teacher", "pretrained"),
            context,
            channels=matcher.config.width,
            grid=matcher.size // stride,
            resize=matcher.config.teacher_resize,
        )
        encoder: Any = context.backbone
        if hasattr(encoder, "positions"):
            encoder.positions = matcher.config.positions
        return self._teacher.identity

    def layers(self, matcher: Any) -> Sequence[str]:
        """Return the adapter's layer; later layers of the encoder are not computed."""
        return (matcher.layer,)

    def parameters(self, matcher: Any, recipe: Recipe) -> Sequence[ParameterGroup]:
        """Return the adapter's parameters."""
        return [ParameterGroup(name="adapter", parameters=list(matcher.adapter.parameters()))]

    def losses(self, matcher: Segmenter, batch: ImageBatch) -> dict[str, Tensor]:
        """Return ``mse``, the mean squared error between student and teacher."""
        return {"mse": functional.mse_loss(*self._both(matcher, batch))}

    def measures(self, matcher: Segmenter, batch: ImageBatch) -> dict[str, Tensor]:
        """Return ``mse`` and ``cosine``, the mean cosine similarity over all positions."""
        student, teacher = self._both(matcher, batch)
        return {
            "mse": functional.mse_loss(student, teacher),
            "cosine": functional.cosine_similarity(student, teacher, dim=1).mean(),
        }

    def _both(self, matcher: Segmenter, batch: ImageBatch) -> tuple[Tensor, Tensor]:
        assert self._teacher is not None, "prepare was not called"
        student = matcher.adapter(batch.features[matcher.layer]).float()
        teacher = self._teacher.embeddings(batch.ids, student.device)
        return student, at_grid(teacher, student.shape[-1])


def distillation() -> tuple[Distill, ...]:
    """Return the three stages, coarse to fine."""
    return (Distill(126), Distill(252), Distill(518))
