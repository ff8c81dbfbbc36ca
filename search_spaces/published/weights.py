"""Pretrained encoder weights: which exist, where they are on this machine, and how to load them.

Nothing is downloaded and no pickle is read: weights come from the Hugging Face cache or from a `.safetensors` file.

All of them were trained on colour images scaled to 0..1 and then normalised per channel, by ImageNet's mean of about
0.45 and deviation of about 0.23, or by 0.5 and 0.5 (most of MaxViT, EfficientNetV2 and ViT). Our inputs are grey values
of about 0..1, one slice per channel, without that normalisation: the layers after the first convolution adapt to it in
training. SAM encoders, which may be frozen, do get normalised input (`sam_encoders.py`).
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from timm.models import adapt_input_conv, get_arch_pretrained_cfgs, get_pretrained_cfg
from torch import Tensor, nn

from search_spaces.errors import InputError, unknown_name
from search_spaces.published.sam_encoders import SAM_ENCODERS, encoder_state

FILE_NAME = "model.safetensors"
_COUNTS = (torch.int64, torch.int32, torch.bool)  # buffers: step counts, window indices, masks
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")


@dataclass(frozen=True)
class HubFile:
    """Location of a set of weights on the Hugging Face hub; revision None is the newest."""

    repository: str
    revision: str | None
    licence: str | None = None  # if the library states it; smp leaves it to the model card

    @property
    def url(self) -> str:
        """The address of its model card."""
        return f"https://huggingface.co/{self.repository}"

    @property
    def fetch_command(self) -> str:
        """The shell command that downloads it into the local cache."""
        revision = f" --revision {self.revision}" if self.revision else ""
        return f"hf download {self.repository} {FILE_NAME}{revision}"


def offered_weights(encoder: str) -> dict[str, HubFile]:
    """The names of weights that exist for an encoder, besides none and a file.

    smp's encoders have smp's names (imagenet, instagram, ssl, ...). For timm's, `imagenet` is the model's default and
    every tag in timm is a name too (in1k, fcmae_ft_in1k, ...). SAM encoders have only the tags (sa1b, fb_r896, ...),
    because they were not trained on ImageNet. Empty if no weights were published.
    """
    if not encoder.startswith("tu-") and encoder not in SAM_ENCODERS:
        settings = smp_encoders[encoder]["pretrained_settings"]
        return {name: HubFile(s["repo_id"], s["revision"]) for name, s in settings.items()}
    model = encoder.removeprefix("tu-")
    tags = {name.partition(".")[2]: config for name, config in get_arch_pretrained_cfgs(model).items()}
    default = None if encoder in SAM_ENCODERS else get_pretrained_cfg(model)
    configs = {"imagenet": default, **tags} if default is not None else tags
    # A different file name on the hub means another format, usually a pickle.
    return {
        name: HubFile(config.hf_hub_id, None, config.license)
        for name, config in configs.items()
        if config.hf_hub_id and not config.hf_hub_filename
    }


def find_weights(encoder: str, name: str) -> Path | None:
    """The file with the encoder weights of a given name, or None for "none".

    Looks only at the named file or in the local Hugging Face cache (HF_HOME), and never downloads. Raises InputError,
    one line, for a name that the encoder has no weights for, for a file that is missing or is a pickle, and for weights
    that are not on this machine; that line contains the command that fetches them.
    """
    if name == "none":
        return None
    if is_file_name(name):
        try:
            return _weights_file(Path(name).expanduser())
        except RuntimeError:
            raise InputError(f"{name}: there is no such home; give the whole path of the file") from None
    offered = offered_weights(encoder)
    if name not in offered:
        raise unknown_name(f"encoder_weights of {encoder}", name, ["none", *offered, "FILE.safetensors"])
    found = cached_file(offered[name])
    if found is None:
        where = "damaged" if lies_in_cache(offered[name]) else "not on this machine"
        raise InputError(
            f"weights {name!r} of encoder {encoder!r} are {where}, and a search downloads "
            f"nothing; fetch all weights that a search needs with `nas weights fetch` and its configuration, or only "
            f"these with `{offered[name].fetch_command}`, or set encoder_weights to none or to a .safetensors file"
        )
    return found


def cached_file(hub_file: HubFile) -> Path | None:
    """The path of a hub file in the local cache (HF_HOME), or None if it is not there; never uses the network.

    A file whose header cannot be read, or that is shorter than its header says, does not count.
    """
    found = lies_in_cache(hub_file)
    if found is None:
        return None
    try:
        with safe_open(found, "pt"):
            return found
    except (SafetensorError, OSError):
        return None


def lies_in_cache(hub_file: HubFile) -> Path | None:
    """Like `cached_file`, but also returns a damaged file."""
    found = huggingface_hub.try_to_load_from_cache(hub_file.repository, FILE_NAME, revision=hub_file.revision)
    return Path(found) if isinstance(found, str) else None


def check_numbers(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise InputError for bad tensors that torch would load silently: quantised ones, and ones that contain NaN."""
    for name, tensor in state.items():
        if tensor.dtype not in (*_FLOATS, *_COUNTS):
            kind = str(tensor.dtype).removeprefix("torch.")
            raise InputError(f"weights file {path}: {name} is {kind}; a file of float32 or float16 is needed")
        if tensor.dtype in _FLOATS and tensor.isnan().any():
            raise InputError(f"weights file {path}: {name} contains values that are not numbers (NaN)")


def load_weights(encoder: nn.Module, name: str, slices_in: int, path: Path, arguments: dict[str, Any]) -> None:
    """Load a `.safetensors` file into a named encoder with slices_in input channels; the file must set every weight.

    The file holds what smp or timm publish for this encoder, with or without the classifier, or the `state_dict` of
    such an encoder. A first convolution for 3 colours becomes one for slices_in: the colours are repeated over the
    slices and scaled by 3 / slices_in; for one slice they are summed (timm's `adapt_input_conv`; smp's
    `set_in_channels` does the same). timm resamples position tables to the crop.
    arguments: those the encoder was built with, besides its name. Raises InputError if the file does not fit.
    """
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"weights file {path} cannot be read: {' '.join(str(error).split())}") from None
    check_numbers(path, state)
    try:
        if name in SAM_ENCODERS:
            state = encoder_state(name, state, encoder.state_dict())
        elif name.startswith("tu-") and not all(key.startswith("model.") for key in state):
            state = _timm_encoder_state(encoder, name.removeprefix("tu-"), slices_in, state, arguments)
        _adapt_first_convolution(state, encoder, slices_in)
        encoder.load_state_dict(state)
    except RuntimeError as error:
        if not _share_names(state, encoder):
            raise InputError(
                f"weights file {path} is not for encoder {name!r}, which has no tensors with such names "
                f"({next(iter(state), 'none')}, ...); a file in encoder_weights applies to every encoder of the space"
            ) from None
        mismatch = " ".join(" ".join(str(error).split("\n")[1:] or [str(error)]).split())
        short = mismatch if len(mismatch) <= 300 else mismatch[:300] + " ..."
        raise InputError(f"weights file {path} does not fit encoder {name!r}: {short}") from None


def _share_names(state: dict[str, Tensor], encoder: nn.Module) -> bool:
    """Whether most names of a state dict are the encoder's, apart from any prefix."""
    ends = {key.split(".", 1)[-1] for key in encoder.state_dict()} | set(encoder.state_dict())
    shared = sum(key in ends or key.split(".", 1)[-1] in ends for key in state)
    return 2 * shared > len(state)


def is_file_name(name: str) -> bool:
    """True if encoder_weights names a file rather than weights that the encoder offers."""
    return "/" in name or "\\" in name or name.endswith((".safetensors", *_PICKLES))


def _weights_file(path: Path) -> Path:
    if path.suffix in _PICKLES:
        raise InputError(
            f"weights file {path} is a pickle, which can run code when it is read; if you trust it, convert it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'FILE.safetensors')"
        )
    if path.suffix != ".safetensors":
        raise InputError(f"weights file {path} must be a .safetensors file")
    if not path.is_file():
        raise InputError(f"weights file {path} does not exist")
    return path


def _timm_encoder_state(
    encoder: nn.Module, name: str, slices_in: int, state: dict[str, Tensor], arguments: dict[str, Any]
) -> dict[str, Tensor]:
    """A timm checkpoint under the names of the encoder; RuntimeError if it belongs to another architecture.

    timm loads a pyramid encoder leniently, so a file for resnet34 would be accepted for resnet18. So the whole
    classification model is first loaded strictly, on the meta device, at the size the file was made for.
    """
    head = state.get(f"{timm.models.get_pretrained_cfg_value(name, 'classifier')}.weight")
    classes = 0 if head is None else head.shape[0]
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        _timm_model(name, state, classes, num_classes=classes)
    indices = getattr(encoder.get_submodule("model").feature_info, "out_indices", None)
    if indices is not None:
        arguments = {**arguments, "features_only": True, "out_indices": indices}
    with warnings.catch_warnings():
        # timm resamples position tables with a call that torch has since deprecated.
        warnings.filterwarnings("ignore", module=r"timm\.layers\.interpolate")
        # With at least one class in the file and none in the encoder, timm drops the classifier.
        donor = _timm_model(name, state, max(classes, 1), in_chans=slices_in, **arguments)
    return {f"model.{key}": value for key, value in donor.state_dict().items()}


def _timm_model(name: str, state: dict[str, Tensor], classes: int, **arguments: Any) -> nn.Module:
    """A timm model with `state` (from a file with `classes` classes) loaded; passes a copy because timm empties it."""
    overlay = {"state_dict": dict(state), "num_classes": classes}
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)


def _adapt_first_convolution(state: dict[str, Tensor], encoder: nn.Module, slices_in: int) -> None:
    """Turn a convolution for 3 colours in `state` into one for `slices_in`, if the encoder has one there."""
    for key, wanted in encoder.state_dict().items():
        given = state.get(key)
        if given is not None and given.ndim == 4 and given.shape[1] == 3 != wanted.shape[1] == slices_in:
            state[key] = adapt_input_conv(slices_in, given)
