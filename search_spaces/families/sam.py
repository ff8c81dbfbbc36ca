"""Family `sam`: the image encoder of SAM or SAM 2, without prompts, and a light decoder over several scales.

float (B, slices_in, crop, crop) -> logits (B, slices_out, crop, crop). The encoder is frozen, adapted by LoRA (arXiv
2106.09685), or trained in full. It starts at stride 4 or 16, coarser than most vessels, and surface dice at tolerance 0
counts single voxels, so a few convolutions of the image itself join before the last one.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from search_spaces.candidate import Candidate, describe
from search_spaces.errors import InputError, unknown_name
from search_spaces.families.unet import refuse_crop, refuse_slices
from search_spaces.published.sam_encoders import GREY_DEVIATION, GREY_MEAN, SAM_ENCODERS, STRIDES, build_sam_encoder

_STRIDE = STRIDES[-1]
_CHANNELS = 96  # of the pyramid
_STEM_CHANNELS = 24  # at full resolution, where a channel costs most
# The layers of an attention block that LoRA is added to: what makes queries, keys and values, and what joins the heads.
_ADAPTED = r".*\.attn\.(qkv|proj)"


def construct(candidate: Candidate, crop: int) -> nn.Module:
    """The network, with nothing loaded. Frozen parameters want no gradient."""
    encoder = build_sam_encoder(candidate.encoder, candidate.slices_in, crop)
    if candidate.tuning != "full":
        encoder.requires_grad_(False)
    if candidate.lora_rank is not None:
        _add_lora(encoder, candidate.lora_rank)
    plain = SAM_ENCODERS[candidate.encoder].plain
    channels = [info["num_chs"] for info in encoder.feature_info.get_dicts()]  # type: ignore[operator, union-attr]
    return SamNetwork(encoder, channels, plain, candidate.slices_in, candidate.slices_out)


def refuse(candidate: Candidate, crop: int) -> None:
    """Raise InputError for everything that is known without building."""
    if candidate.encoder not in SAM_ENCODERS:
        raise unknown_name("encoder of family sam", candidate.encoder, SAM_ENCODERS)
    refuse_slices(candidate)
    refuse_crop(f"{describe(candidate)} at crop {crop}", crop, _STRIDE, sized_to_crop=True)
    if candidate.tuning == "lora":
        require_peft()


def stride(candidate: Candidate) -> int:
    """What the edge of a crop must divide by."""
    return _STRIDE


def any_size(candidate: Candidate) -> bool:
    """False: position tables belong to the crop, so it predicts on tiles of its crop alone."""
    return False


def require_peft() -> None:
    """Raise InputError where LoRA cannot be had."""
    if find_spec("peft") is None:
        raise InputError("tuning lora needs the extra: pip install 'vessel-nas[lora]'; or take lora out of sam_tunings")


def _add_lora(encoder: nn.Module, rank: int) -> None:
    """Two factors of a rank beside every adapted layer; their product starts at zero and is added unscaled."""
    from peft import LoraConfig, inject_adapter_in_model  # seconds of imports, wanted by few candidates

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=_ADAPTED), encoder)


@torch.no_grad()
def fold_lora(network: nn.Module) -> nn.Module:
    """The same network with the factors of LoRA added to the weights they stand beside, in place.

    What is scored and exported is this, so that a bundle is rebuilt as if trained in full (`folded`), without peft.
    Other networks are left as they are.
    """
    for name, module in list(network.named_modules()):
        if hasattr(module, "lora_A"):
            module.merge()
            network.set_submodule(name, module.get_base_layer())
    return network


def folded(candidate: Candidate) -> Candidate:
    """The candidate whose network has the parameters of `fold_lora`."""
    return candidate.model_copy(update={"tuning": "full", "lora_rank": None}) if candidate.lora_rank else candidate


class SamNetwork(nn.Module):
    """Encoder, pyramid of strides 4 to 32, sum from coarse to fine, and full resolution.

    A plain ViT's maps of stride 16 become a pyramid as in ViTDet (arXiv 2203.16527), the shallower ones the finer.
    """

    def __init__(
        self, encoder: nn.Module, channels: Sequence[int], plain: bool, slices_in: int, slices_out: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.laterals = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, _CHANNELS, 1, bias=False), _norm(_CHANNELS)) for c in channels
        )
        self.scales = nn.ModuleList(_scale(stride) if plain else nn.Identity() for stride in STRIDES)
        self.smooth = nn.ModuleList(_convolution(_CHANNELS, _CHANNELS) for _ in STRIDES[:-1])
        self.refine = _convolution(_CHANNELS, _CHANNELS // 2)  # at stride 2
        self.stem = nn.Sequential(_convolution(slices_in, _STEM_CHANNELS), _convolution(_STEM_CHANNELS, _STEM_CHANNELS))
        self.fuse = _convolution(_CHANNELS // 2 + _STEM_CHANNELS, _CHANNELS // 2)
        self.head = nn.Conv2d(_CHANNELS // 2, slices_out, 1)

    def forward(self, image: Tensor) -> Tensor:
        seen = (image - GREY_MEAN) / GREY_DEVIATION
        pyramid = [
            scale(lateral(features))
            for features, lateral, scale in zip(self.encoder(seen), self.laterals, self.scales, strict=True)
        ]
        x = pyramid.pop()
        for smooth in self.smooth:
            x = smooth(_doubled(x) + pyramid.pop())
        x = self.refine(_doubled(x))
        x = self.fuse(torch.cat([_doubled(x), self.stem(image)], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _scale(stride: int) -> nn.Module:
    """A map of stride 16 at another of STRIDES."""
    if stride == 32:
        return nn.MaxPool2d(2)
    doublings = {4: 2, 8: 1, 16: 0}[stride]
    layers: list[nn.Module] = []
    for _ in range(doublings):
        layers += [nn.ConvTranspose2d(_CHANNELS, _CHANNELS, 2, stride=2), _norm(_CHANNELS), nn.GELU()]
    return nn.Sequential(*layers)


def _convolution(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), _norm(after), nn.GELU())


def _norm(channels: int) -> nn.Module:
    """Without running statistics: batches are small where the encoder is large."""
    return nn.GroupNorm(8, channels)


def _doubled(x: Tensor) -> Tensor:
    return nnf.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
