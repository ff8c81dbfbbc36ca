"""SAM_ENCODERS: the image encoders of SAM (arXiv 2304.02643) and SAM 2 (arXiv 2408.00714), for family sam.

Names are timm's. Both kinds attend inside windows in most blocks and over the whole image in some. timm pads maps that
are not multiples of the window: with SAM's windows of 14 x 14 tokens, the 16 x 16 tokens of a crop of 256 would be
padded to 28 x 28, two thirds of which are padding that the real tokens attend to. So the windows are made for the crop,
as large as they fit, up to the size used in pretraining.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch.nn.functional as nnf
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from torch import Tensor, nn

PATCH = 16  # edge in voxels of the square that becomes one of SAM's tokens
STRIDES = (4, 8, 16, 32)  # strides of the pyramid that the decoder takes
# The mean and deviation used to normalise colours, scaled to 0..1, in pretraining: averages over timm's configurations.
# A frozen encoder must see the range of values it was trained on.
GREY_MEAN, GREY_DEVIATION = 0.449, 0.226


@dataclass(frozen=True)
class SamEncoder:
    """A plain vision transformer, whose maps all have stride 16, or a Hiera, which gives a pyramid."""

    blocks: tuple[int, ...]  # blocks whose maps are used: for a ViT those that attend globally, for a Hiera its stages
    window: int  # tokens along an edge, at stride 16
    plain: bool = False


SAM_ENCODERS: dict[str, SamEncoder] = {
    "samvit_base_patch16": SamEncoder((2, 5, 8, 11), 14, plain=True),
    "samvit_large_patch16": SamEncoder((5, 11, 17, 23), 14, plain=True),
    "samvit_huge_patch16": SamEncoder((7, 15, 23, 31), 14, plain=True),
    "sam2_hiera_tiny": SamEncoder((0, 1, 2, 3), 14),
    "sam2_hiera_small": SamEncoder((0, 1, 2, 3), 14),
    "sam2_hiera_base_plus": SamEncoder((0, 1, 2, 3), 14),
    "sam2_hiera_large": SamEncoder((0, 1, 2, 3), 16),
}


def build_sam_encoder(name: str, slices_in: int, crop: int) -> nn.Module:
    """Timm's model: float (B, slices_in, crop, crop) -> four maps, all of stride 16, or of the strides in STRIDES.

    crop: a multiple of 32. Layers that only the classifier or SAM's neck needs are left out.
    """
    encoder = SAM_ENCODERS[name]
    windows: dict[str, Any]
    if encoder.plain:
        windows = {"img_size": crop, "window_size": fitting_window(crop // PATCH, encoder.window)}
    else:
        # Queries are pooled over 2 x 2 tokens between stages, so each stage's window is twice that of the next. The
        # windows at strides 4 and 8 divide every crop.
        coarsest = fitting_window(crop // 32, encoder.window // 2)
        windows = {"window_spec": (8, 4, 2 * coarsest, coarsest)}
    model: nn.Module = timm.create_model(
        name, features_only=True, in_chans=slices_in, out_indices=encoder.blocks, **windows
    )
    return model


def fitting_window(tokens: int, largest: int) -> int:
    """Edge of the windows that cover `tokens` with the least padding, using as few windows as `largest` allows."""
    return -(-tokens // -(-tokens // largest))


def encoder_state(name: str, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under the names of our encoder, with position tables resampled to the crop.

    state: timm's names, with or without neck and head; those of SAM's own files (`image_encoder.`,
    `image_encoder.trunk.`); or ours. wanted: the state of our encoder, whose LoRA factors are kept. Tensors that do not
    fit keep their name or shape, so that `load_state_dict` refuses them.
    """
    renamed = {key: key.removeprefix("model.").replace(".base_layer.", ".") for key in wanted if ".lora_" not in key}
    ours = {plain: key for key, plain in renamed.items()}
    whole_sam = any(key.startswith("image_encoder.") for key in state)
    found = {key: value for key, value in wanted.items() if ".lora_" in key}
    for key, value in state.items():
        if whole_sam and not key.startswith("image_encoder."):
            continue  # prompt encoder, mask decoder, memory
        plain = _timm_name(key)
        if plain.startswith(("neck.", "head.")):
            continue  # layers after the encoder's last block
        target = wanted.get(ours.get(plain, ""))
        fits = target is None or value.shape == target.shape
        found[ours.get(plain, key)] = value if fits or target is None else _resampled(name, plain, value, target)
    return found


def _timm_name(key: str) -> str:
    for prefix in ("model.", "image_encoder.", "trunk."):
        key = key.removeprefix(prefix)
    key = key.replace("mlp.lin", "mlp.fc")
    return key.replace("mlp.layers.0", "mlp.fc1").replace("mlp.layers.1", "mlp.fc2").replace(".base_layer.", ".")


def _resampled(name: str, key: str, value: Tensor, target: Tensor) -> Tensor:
    """A position table resampled to another number of tokens; anything else is returned unchanged.

    Tables of the whole image are stretched, as in timm and in SAM's own code. A smaller window takes the middle of a
    window's table, because it has the same distances, only fewer of them.
    """
    if key == "pos_embed" and value.ndim == target.ndim == 4 and value.shape[-1] == target.shape[-1]:
        table: Tensor = resample_abs_pos_embed_nhwc(value, [target.shape[1], target.shape[2]])
        return table
    if ".rel_pos_" not in key or value.shape[1:] != target.shape[1:]:
        return value
    given, needed = value.shape[0], target.shape[0]
    windowed = int(key.split(".")[1]) not in SAM_ENCODERS[name].blocks
    if windowed and given > needed:
        first = (given - needed) // 2
        return value[first : first + needed].clone()
    return nnf.interpolate(value.T[None], size=needed, mode="linear")[0].T.contiguous()
