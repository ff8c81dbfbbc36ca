"""LOSSES: what training minimises, from logits and float targets of the same shape, and weighted sums of them.

Most come from segmentation-models-pytorch in binary mode; the others have their own files. Every voxel, in any sample,
slice and place, is the same binary question, and the region losses sum over the whole batch, not per sample. A batch
without any vessel adds nothing to dice, tversky, jaccard and boundary_dou (loss and gradient are 0), so they do not
penalise false positives there; combine them with bce or focal. Lovasz works on the margins of the logits, and is small
only if these exceed 1.
"""

import math
import re
from collections.abc import Callable
from functools import partial

import torch
from segmentation_models_pytorch import losses as smp_losses
from torch import Tensor, nn

from search_spaces.errors import InputError, unknown_name
from trainers.losses.centreline import CentrelineDice
from trainers.losses.cubes import SLICES, SurfaceCubes
from trainers.losses.sparse import weigh_unsure
from trainers.losses.surface import BoundaryDoU, EdgeCrossEntropy

LOSSES: dict[str, Callable[[], nn.Module]] = {
    "bce": partial(smp_losses.SoftBCEWithLogitsLoss, ignore_index=None),
    "boundary_dou": BoundaryDoU,
    "cldice": CentrelineDice,
    "dice": partial(smp_losses.DiceLoss, "binary"),
    # From the competition's fifth place: labels are least certain at borders, and surface dice depends only on them.
    "edge_bce": partial(EdgeCrossEntropy, weight=2.0),
    # No class weight: alpha would trade recall for precision, which the threshold does after training.
    "focal": partial(smp_losses.FocalLoss, "binary", alpha=None, gamma=2.0),
    "jaccard": partial(smp_losses.JaccardLoss, "binary"),
    "lovasz": partial(smp_losses.LovaszLoss, "binary"),
    "surface_cubes": SurfaceCubes,  # for networks with at least two neighbouring output slices
    # A missed voxel costs more than a false positive (arXiv 1706.05721): alpha weights false positives, beta misses.
    "tversky": partial(smp_losses.TverskyLoss, "binary", alpha=0.3, beta=0.7),
}

_TERM = re.compile(r"(?:(?P<weight>[0-9.]+(?:e-?[0-9]+)?)\s*\*\s*)?(?P<name>[A-Za-z_]\w*)")


class WeightedSum(nn.Module):
    """The weighted sum of losses.

    unsure_weight: weight of unsure background, 0.0 to 1.0 (trainers/losses/sparse.py). The sum is computed in float32
    even under mixed precision, because the sums of the region losses would overflow.
    """

    def __init__(self, terms: dict[str, float], unsure_weight: float = 1.0) -> None:
        super().__init__()
        self.unsure_weight = unsure_weight
        self.weights = dict(terms)
        self.losses = nn.ModuleDict({name: LOSSES[name]() for name in terms})

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Logits and float targets, both (B, m, H, W) -> scalar. Targets are 0 to 1, or UNSURE.

        Raises ValueError if the shapes differ; smp would hide that by flattening.
        """
        if logits.shape != targets.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape")
        with torch.autocast(logits.device.type, enabled=False):
            logits, targets = _at_least_float32(logits), _at_least_float32(targets)
            logits, targets = weigh_unsure(logits, targets, self.unsure_weight)
            terms = [weight * self.losses[name](logits, targets) for name, weight in self.weights.items()]
        return torch.stack(terms).sum()


def build_loss(spec: str, unsure_weight: float = 1.0) -> nn.Module:
    """The loss for a text like `dice` or `dice + 0.5*focal`: names in LOSSES, with positive weights (1 if not given).

    Raises InputError for an unknown name and for text of another form.
    """
    return WeightedSum(_parse(spec), unsure_weight)


def check_loss(spec: str) -> str:
    """The text itself, if it describes a loss. Raises InputError if `build_loss` does."""
    _parse(spec)
    return spec


def _parse(spec: str) -> dict[str, float]:
    """The weight of each loss in a sum, by name."""
    terms: dict[str, float] = {}
    for part in spec.split("+"):
        match = _TERM.fullmatch(part.strip())
        if match is None:
            raise InputError(f"loss {spec!r} is not a sum like 'dice + 0.5*focal'; {part.strip()!r} is not a term")
        name, weight = match["name"], _weight(spec, match["weight"])
        if name not in LOSSES:
            raise unknown_name("loss", name, LOSSES)
        if name in terms:
            raise InputError(f"loss {spec!r} names {name!r} twice; add the two weights")
        terms[name] = weight
    return terms


def check_slices_out(spec: str, slices_out: int, what: str = "the network") -> None:
    """Raise InputError if a loss needs more neighbouring slices than a network gives. what: its name in the message."""
    if "surface_cubes" in spec and slices_out < SLICES:
        raise InputError(
            f"loss {spec!r} compares neighbouring slices, but {what} gives {slices_out}: with surface_cubes a network "
            f"must give a mask of all its slices (masks 'all'), and slices_in must be at least {SLICES}"
        )


def _weight(spec: str, text: str | None) -> float:
    try:
        weight = 1.0 if text is None else float(text)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight > 0):
        raise InputError(f"loss {spec!r} has the weight {text!r}; a weight is a positive number")
    return weight


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()
