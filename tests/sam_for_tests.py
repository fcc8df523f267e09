"""Weights and inputs for SAM's decoder made by a rule, and what SAM's own code makes of them.

``tests/plugins/fsdino/sam_decoder.npz`` was written by `write_golden`, and
``tests/backbones/sam_encoder.npz`` by `write_encoder`, with the package
``segment_anything`` 1.0 of SAM's authors, without any code of fssbench.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

GRID = 5
BATCH = 3


def values(name: str, shape, scale: float) -> torch.Tensor:
    """Normal numbers that follow from a name."""
    draw = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    return torch.from_numpy((scale * draw.standard_normal(tuple(shape))).astype(np.float32))


def filled(shapes) -> dict[str, torch.Tensor]:
    """Tensors for names and shapes; large enough that every part matters."""
    state = {}
    for name, shape in shapes.items():
        fan = int(np.prod(shape[1:])) if len(shape) > 1 else 1
        state[name] = values(name, shape, 1.5 / fan**0.5 if len(shape) > 1 else 0.2)
        if "norm" in name and name.endswith("weight"):
            state[name] += 1
    return state


def inputs() -> dict[str, torch.Tensor]:
    """Three images with two sparse prompts and a mask each."""
    return {
        "embedding": values("embedding", (BATCH, 256, GRID, GRID), 1.0),
        "sparse": values("sparse", (BATCH, 2, 256), 1.0),
        "mask": values("mask", (BATCH, 1, 4 * GRID, 4 * GRID), 3.0),
    }


def sams_own():
    """SAM's prompt encoder and mask decoder with these weights, and their state as in a file."""
    from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer

    prompts = PromptEncoder(
        embed_dim=256, image_embedding_size=(GRID, GRID), input_image_size=(80, 80),
        mask_in_chans=16,
    )  # fmt: skip
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8),
        transformer_dim=256, iou_head_depth=3, iou_head_hidden_dim=256,
    )  # fmt: skip
    modules = {"prompt_encoder": prompts.eval(), "mask_decoder": decoder.eval()}
    state = filled(
        {
            f"{part}.{name}": tuple(tensor.shape)
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
    )
    for part, module in modules.items():
        own = {n.removeprefix(f"{part}."): t for n, t in state.items() if n.startswith(part)}
        module.load_state_dict(own)
    return prompts, decoder, state


@torch.no_grad()
def sams_answer() -> dict[str, np.ndarray]:
    """What SAM's own code makes of the inputs, one image at a time, as it is made for."""
    prompts, decoder, _ = sams_own()
    given = inputs()
    found: dict[str, list[torch.Tensor]] = {"dense": [], "masks": [], "quality": []}
    for one in range(BATCH):
        _, dense = prompts(points=None, boxes=None, masks=given["mask"][one : one + 1])
        masks, quality = decoder.predict_masks(
            image_embeddings=given["embedding"][one : one + 1],
            image_pe=prompts.get_dense_pe(),
            sparse_prompt_embeddings=given["sparse"][one : one + 1],
            dense_prompt_embeddings=dense,
        )
        for name, value in (("dense", dense), ("masks", masks), ("quality", quality)):
            found[name].append(value)
    arrays = {name: torch.cat(each).numpy() for name, each in found.items()}
    arrays["dense"] = arrays["dense"][:, ::8]
    return {**arrays, "positions": prompts.get_dense_pe().numpy()[:, ::8]}


def write_golden(path: Path) -> None:
    """Write the answer, and the names and shapes of SAM's tensors."""
    _, _, state = sams_own()
    names = np.array([f"{n} {' '.join(map(str, t.shape))}" for n, t in state.items()])
    np.savez_compressed(path, names=names, **sams_answer())


def golden_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a SAM checkpoint without its image encoder, made by the rule."""
    shapes = {}
    for line in np.load(path)["names"]:
        name, *sides = str(line).split()
        shapes[name] = tuple(map(int, sides))
    return filled(shapes)


def encoder_state(shapes) -> dict[str, torch.Tensor]:
    """An image encoder's tensors by SAM's names, made by the rule."""
    return {f"image_encoder.{name}": tensor for name, tensor in filled(shapes).items()}


def picture(side: int) -> torch.Tensor:
    """One image in [0, 1], (1, 3, side, side)."""
    return values("picture", (1, 3, side, side), 1.0).sigmoid()


def sams_own_encoder():
    """SAM's image encoder at the size of ``tiny-sam``."""
    from functools import partial

    from segment_anything.modeling.image_encoder import ImageEncoderViT

    return ImageEncoderViT(
        img_size=160, patch_size=16, embed_dim=96, depth=4, num_heads=3, use_rel_pos=True,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), window_size=5,
        global_attn_indexes=(1, 3),
    ).eval()  # fmt: skip


@torch.no_grad()
def encoders_answer() -> np.ndarray:
    """What SAM's own encoder makes of the picture, every eighth channel."""
    encoder = sams_own_encoder()
    state = encoder_state({n: tuple(t.shape) for n, t in encoder.state_dict().items()})
    encoder.load_state_dict({n.removeprefix("image_encoder."): t for n, t in state.items()})
    mean = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
    return encoder((255 * picture(160) - mean) / std)[0, ::8].numpy()


def write_encoder(path: Path) -> None:
    """Write the answer, and the names and shapes of SAM's tensors."""
    shapes = sams_own_encoder().state_dict()
    names = np.array([f"{n} {' '.join(map(str, t.shape))}" for n, t in shapes.items()])
    np.savez_compressed(path, names=names, neck=encoders_answer())


def golden_encoder(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of SAM's image encoder at test size, by the names of SAM's files."""
    shapes = {}
    for line in np.load(path)["names"]:
        name, *sides = str(line).split()
        shapes[name] = tuple(map(int, sides))
    return encoder_state(shapes)
