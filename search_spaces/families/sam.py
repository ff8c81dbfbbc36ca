"""Family `sam`: the image encoder of SAM or SAM 2, without prompts, and a lightweight multi-scale decoder.

float (B, slices_in, crop, crop) -> logits (B, slices_out, crop, crop). The encoder is frozen, adapted by LoRA (arXiv
2106.09685), or trained in full. Its first maps have stride 4 or 16, coarser than most vessels, and surface dice at
tolerance 0 counts single voxels. So a few convolutions of the image itself are joined in before the last layer.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as nnf
from pydantic import AfterValidator, PositiveInt, model_validator
from torch import Tensor, nn

from search_spaces.candidate import Options
from search_spaces.cells.cell_space import CellSpace
from search_spaces.crop import refuse_crop
from search_spaces.errors import InputError, name_in
from search_spaces.published.encoder_candidate import EncoderCandidate
from search_spaces.published.sam_encoders import GREY_DEVIATION, GREY_MEAN, SAM_ENCODERS, STRIDES, build_sam_encoder

_STRIDE = STRIDES[-1]
_CHANNELS = 96  # channels of the pyramid
_STEM_CHANNELS = 24  # channels at full resolution, where a channel costs the most
# The layers of an attention block that LoRA is added to: those for queries, keys and values, and the output projection.
_ADAPTED = r".*\.attn\.(qkv|proj)"


class SamCandidate(EncoderCandidate, frozen=True, extra="forbid"):
    """The image encoder of SAM or SAM 2 with a lightweight decoder; predicts only on tiles of the size of its crop."""

    family: Literal["sam"] = "sam"
    # The image encoder: a name in SAM_ENCODERS.
    encoder: Annotated[str, AfterValidator(name_in("encoder of family sam", SAM_ENCODERS))] = "samvit_base_patch16"
    tuning: Literal["full", "lora", "frozen"] = "full"  # how the encoder is trained; from scratch always full
    lora_rank: PositiveInt | None = None  # rank of the two factors that tuning lora adds to a layer; default 8

    decisive = ("encoder", "crop")
    priced = ("tuning",)

    @model_validator(mode="before")
    @classmethod
    def _usual_rank(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("tuning") == "lora" and values.get("lora_rank") is None:
            return {**values, "lora_rank": 8}
        return values

    @model_validator(mode="after")
    def _tunes_what_it_can(self) -> "SamCandidate":
        if (self.tuning == "lora") != (self.lora_rank is not None):
            raise ValueError("lora_rank goes with tuning lora, and with no other tuning")
        if self.tuning != "full" and self.encoder_weights == "none":
            raise ValueError(
                f"tuning {self.tuning} keeps the encoder's weights: set encoder_weights, or tuning to full"
            )
        return self

    def build(self, crop: int) -> nn.Module:
        """The network, without loaded weights. Frozen parameters do not require a gradient."""
        encoder = build_sam_encoder(self.encoder, self.slices_in, crop)
        if self.tuning != "full":
            encoder.requires_grad_(False)
        if self.lora_rank is not None:
            _add_lora(encoder, self.lora_rank)
        channels = [info["num_chs"] for info in encoder.feature_info.get_dicts()]  # type: ignore[operator, union-attr]
        return SamNetwork(encoder, channels, SAM_ENCODERS[self.encoder].plain, self.slices_in, self.slices_out)

    def refuse(self, crop: int) -> None:
        self.refuse_slices()
        refuse_crop(f"{self.described()} at crop {crop}", crop, _STRIDE, sized_to_crop=True)
        if self.tuning == "lora":
            require_peft()

    @property
    def stride(self) -> int:
        return _STRIDE

    @property
    def any_size(self) -> bool:
        return False  # position tables are made for the crop

    def from_scratch(self) -> "SamCandidate":
        # Not validated: a frozen encoder without weights is not a valid candidate, but its shapes are the same.
        return self.model_copy(update={"encoder_weights": "none"})

    def fold(self, network: nn.Module) -> None:
        fold_lora(network)

    def folded(self) -> "SamCandidate":
        return self.model_copy(update={"tuning": "full", "lora_rank": None}) if self.lora_rank else self

    def title(self, origin: str | None = None) -> str:
        return f"{self.encoder_title} {f'LoRA {self.lora_rank}' if self.lora_rank else self.tuning}"

    def described(self) -> str:
        return f"family sam with encoder {self.encoder!r}"

    def card(self) -> dict[str, str]:
        factors = f"factors of rank {self.lora_rank} (LoRA), folded into the weights"
        trained = {"full": "all", "frozen": "nothing", "lora": factors}[self.tuning]
        return {
            "encoder, decoder": f"{self.encoder}, a light decoder",
            "trained of the encoder": trained,
            "masks": str(self.slices_out),
        }

    @classmethod
    def allows(cls, name: str, value: Any, given: Mapping[str, Any]) -> bool:
        """Also requires tuning full for an encoder from scratch: freezing random weights would be pointless."""
        if name == "tuning":
            return bool(value == "full" or given["encoder_weights"] != "none")
        if name == "lora_rank":
            return bool(given["tuning"] == "lora")
        return super().allows(name, value, given)

    @classmethod
    def check_options(cls, options: Options, cells: CellSpace) -> None:
        super().check_options(options, cells)
        starts = {name for encoder in options["encoder"] for name in cls.weights_for(encoder, options)}
        if "full" not in options["tuning"] and starts == {"none"}:
            raise InputError(
                f"tuning {', '.join(options['tuning'])} keeps an encoder's weights, but encoder_weights offers none to "
                "keep; name weights of the encoder, or add full to tuning"
            )
        ranks = [rank for rank in options["lora_rank"] if rank is not None]
        if ranks and "lora" not in options["tuning"]:
            raise InputError(f"lora_rank {ranks[0]} goes with tuning lora alone; add lora to tuning, or take it out")
        if "lora" in options["tuning"] and starts != {"none"}:
            require_peft()

    @classmethod
    def lightest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        rest = super().lightest(options, cells)
        return {**rest, "tuning": "full", "lora_rank": None, "encoder_weights": "none"}

    @classmethod
    def dearest(cls, options: Options, cells: CellSpace) -> dict[str, Any]:
        return {**super().dearest(options, cells), "lora_rank": None}


def require_peft() -> None:
    """Raise InputError if peft, which LoRA needs, is not installed."""
    if find_spec("peft") is None:
        raise InputError("tuning lora needs peft: pip install 'vessel-nas[lora]'; or remove lora from space.sam.tuning")


def _add_lora(encoder: nn.Module, rank: int) -> None:
    """Add two factors of this rank beside every adapted layer; their product starts at zero and is added unscaled."""
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import, and few candidates need it

    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=_ADAPTED), encoder)


@torch.no_grad()
def fold_lora(network: nn.Module) -> nn.Module:
    """The same network with its LoRA factors merged into the weights beside them, in place.

    The merged network is scored and exported, so that a bundle is rebuilt as if trained in full (`folded`), without
    peft. Other networks are left unchanged.
    """
    for name, module in list(network.named_modules()):
        if hasattr(module, "lora_A"):
            module.merge()
            network.set_submodule(name, module.get_base_layer())
    return network


class SamNetwork(nn.Module):
    """Encoder, pyramid of strides 4 to 32, summation from coarse to fine, and a head at full resolution.

    A plain ViT's maps of stride 16 become a pyramid as in ViTDet (arXiv 2203.16527): shallower maps become finer ones.
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
    """Resamples a map of stride 16 to one of STRIDES."""
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
    """A norm without running statistics, because batches are small if the encoder is large."""
    return nn.GroupNorm(8, channels)


def _doubled(x: Tensor) -> Tensor:
    return nnf.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
