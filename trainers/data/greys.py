"""From the values in files to those in the cache: uint16 grey values, uint8 labels (0 and 1, or levels)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt

from search_spaces.errors import InputError
from trainers.compiled import compiled
from trainers.data.slices import Slices

SliceName = Callable[[int], str]  # position in the block -> the slice's file or place, for messages

_HIGHEST = 65535
_LABEL_VALUES_OR_NONE = (0, 1, 255)
_NEAR_WHOLE = 1e-3
_CLASSES = 1 << 16  # of values
_OUTLIERS = 0.001  # share of the voxels at either end that does not decide how values are spread


class Scaling(BaseModel, frozen=True, extra="forbid"):
    """How values that do not fit into 16 bits are spread: low becomes 0, and high 65535; what lies beyond, too.

    NaN becomes 0, as does what is infinitely low.
    """

    low: float
    high: float
    minimum: float  # of the finite values
    maximum: float
    not_finite: NonNegativeInt = 0  # voxels that are NaN or infinite


def needs_scaling(stack: Slices) -> bool:
    """Whether grey values must be scaled into 16 bits. Raises InputError for types that are not grey values."""
    if stack.dtype.kind not in "buif":
        raise InputError(f"{stack.path}: values of type {stack.dtype} are not grey values; write them as uint16")
    return stack.dtype.kind == "f" or stack.dtype.itemsize > 2


@dataclass
class ValueRange:
    """The values of a volume, in as many classes as 16 bits have, each as wide as their upper half as float32.

    One hot voxel or a no-data value of -3e38 must not decide how all others are spread. So the ends are those between
    which all but 0.1 % at either side lie, and as much again beyond them on both sides, but not beyond what there is: a
    scan without such values keeps its whole range. The sum does not depend on the order of the blocks.
    """

    classes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_CLASSES, np.int64))
    minimum: float = np.inf
    maximum: float = -np.inf
    not_finite: int = 0

    def add(self, other: "ValueRange") -> None:
        """Add a block."""
        self.classes += other.classes
        self.minimum, self.maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        self.not_finite += other.not_finite

    def scaling(self) -> Scaling | None:
        """How the values are spread over 16 bits; None if none of them is finite."""
        if self.minimum > self.maximum:
            return None
        summed = np.cumsum(self.classes)
        ranks = np.array([_OUTLIERS, 1 - _OUTLIERS]) * (summed[-1] - 1)
        first, last = (int(place) for place in np.searchsorted(summed, np.floor(ranks), side="right"))
        low, high = max(_lower_end(first), self.minimum), min(_lower_end(last + 1), self.maximum)
        span = high - low
        return Scaling(
            low=max(low - span, self.minimum),
            high=min(high + span, self.maximum),
            minimum=self.minimum,
            maximum=self.maximum,
            not_finite=self.not_finite,
        )


def range_of(block: NDArray[Any]) -> ValueRange:
    """The values of one block."""
    finite = block[np.isfinite(block)] if block.dtype.kind == "f" else block.ravel()
    found = ValueRange(not_finite=block.size - finite.size)
    if finite.size:
        found.minimum, found.maximum = float(finite.min()), float(finite.max())
        with np.errstate(over="ignore"):  # what float32 cannot hold counts as the highest
            bits = finite.astype(np.float32).view(np.uint32)
        # Turned so that the order of the numbers is that of the values.
        ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
        found.classes += np.bincount(ordered >> 16, minlength=_CLASSES)
    return found


def _lower_end(number: int) -> float:
    """The lowest value of a class; the highest of float32 for what is beyond it."""
    ordered = np.uint32(min(number, _CLASSES - 1) << 16)
    bits = ordered & np.uint32(~(1 << 31) & 0xFFFFFFFF) if ordered >> 31 else ~ordered
    value = float(np.array(bits, np.uint32).view(np.float32))
    if np.isinf(value):
        return float(np.finfo(np.float32).max)
    return float(np.copysign(np.finfo(np.float64).max, value)) if np.isnan(value) else value


def what_is_changed(stack: Slices, scaling: Scaling | None) -> list[str]:
    """What the conversion does to the grey values, in words; empty for 16-bit grey."""
    notes = []
    if stack.samples > 1 and stack.sample is None:
        notes.append(
            f"{stack.samples} samples per pixel, the first of them kept: the others are equal to it or opacity"
        )
    if stack.dtype.kind in "bu" and stack.dtype.itemsize == 1:
        notes.append("8-bit grey values, kept as they are; 16-bit scans show more")
    if stack.dtype.kind == "i" and scaling is None:
        notes.append(f"signed values ({stack.dtype}), shifted up by {_shift(stack.dtype)}")
    if scaling is not None:
        notes.append(f"{stack.dtype} values, scaled from {scaling.low:g}..{scaling.high:g} to 0..{_HIGHEST}")
        if (scaling.low, scaling.high) != (scaling.minimum, scaling.maximum):
            notes.append(
                f"its values reach from {scaling.minimum:g} to {scaling.maximum:g}: what lies beyond the scaled range, "
                "far from nearly all others, was set to its ends"
            )
        if scaling.not_finite:
            notes.append(
                f"{scaling.not_finite} voxels were NaN or infinite and were set to the ends, NaN to the low one"
            )
    return notes


def to_grey(block: NDArray[Any], scaling: Scaling | None, name_of: SliceName) -> NDArray[np.uint16]:
    """A block of (n, H, W) or (n, H, W, samples) as uint16 (n, H, W); 16-bit grey is returned unchanged.

    Raises InputError for colour images whose channels differ.
    """
    grey = one_channel(block, name_of)
    if scaling is not None:
        span = max(scaling.high - scaling.low, np.finfo(np.float64).tiny)
        unit = (grey.astype(np.float64) - scaling.low) / span
        unit = np.where(np.isnan(unit), 0.0, unit).clip(0.0, 1.0)
        return np.asarray(np.rint(unit * _HIGHEST), np.uint16)
    if grey.dtype.kind == "i":
        shifted: NDArray[np.uint16] = (grey.astype(np.int32) + _shift(grey.dtype)).astype(np.uint16)
        return shifted
    return np.ascontiguousarray(grey, np.uint16)


def meaning(dtype: np.dtype[Any], scaling: Scaling | None) -> tuple[float, float]:
    """The value in the source of grey level 0, and how far apart two levels are there."""
    if scaling is not None:
        return scaling.low, max(scaling.high - scaling.low, np.finfo(np.float64).tiny) / _HIGHEST
    return (-float(_shift(dtype)) if dtype.kind == "i" else 0.0), 1.0


class VesselValue(BaseModel, frozen=True, extra="forbid"):
    """The value of vessel in the labels of a volume, 1 or 255, and the first slice that has it."""

    value: int
    where: str

    def agreed(self, other: "VesselValue | None") -> "VesselValue":
        """Itself. Raises InputError if a later slice has the other value: then one of them means something else."""
        if other is not None and other.value != self.value:
            raise InputError(
                f"{other.where}: its highest label value is {other.value}, but in {self.where} it is {self.value}: the "
                "labels of one volume are 0 and 255, or 0 and 1; write 0 where a voxel is to be ignored"
            )
        return self


def to_mask(
    block: NDArray[Any], name_of: SliceName, white: int | None = None
) -> tuple[NDArray[np.uint8], VesselValue | None]:
    """Labels as uint8 of 0 and 1, and the value that 1 stands for; None if no voxel of the block is vessel.

    A block may contain 0 and 1, or 0 and 255; anything else raises InputError. Values this near to a whole number are
    that number, because scaled integers (NIfTI) give 1.00000006. white: see Slices.
    """
    label = one_channel(block, name_of)
    mask = np.empty(label.shape, np.uint8)
    vessel: VesselValue | None = None
    for z, stored in enumerate(label):
        one = stored
        if label.dtype.kind == "f":
            whole = np.rint(stored)
            one = np.where(np.abs(stored - whole) <= _NEAR_WHOLE, whole, stored)
        highest = one.max()
        # A slice of zeros passes too, because nothing in it differs from 0.
        if highest not in _LABEL_VALUES_OR_NONE or not _is_two_valued(one.ravel(), highest, mask[z].ravel()):
            raise _no_labels(np.unique(one).astype(float), name_of(z), white)
        if highest:
            found = VesselValue(value=int(highest), where=name_of(z))
            vessel = found if vessel is None else vessel.agreed(found)
    return mask, vessel


def _no_labels(values: NDArray[np.float64], where: str, white: int | None) -> InputError:
    """The error for labels of other values, which it shows as they are in the file."""
    in_file = values if white is None else np.sort(white - values)
    shown = ", ".join(f"{value:.9g}" for value in in_file[:6]) + (" ..." if in_file.size > 6 else "")
    why = "" if white is None else ", and its tag says WhiteIsZero, so they are read inverted"
    return InputError(
        f"{where}: label values {shown}{why}; labels are 0 and 255, or 0 and 1 (soft = true allows levels)"
    )


def to_levels(block: NDArray[Any], name_of: SliceName) -> NDArray[np.uint8]:
    """Soft labels, unchanged: uint8, 0 to 255. Raises InputError for another type, whose scale would be a guess."""
    levels = one_channel(block, name_of)
    if levels.dtype != np.uint8:
        raise InputError(
            f"{name_of(0)}: soft labels of type {levels.dtype}; write them as uint8, 255 for surely vessel"
        )
    return np.ascontiguousarray(levels)


def one_channel(block: NDArray[Any], name_of: SliceName) -> NDArray[Any]:
    """One of several equal channels. A sample beside one or three colours may also be opacity, the same everywhere.

    Raises InputError for a slice with other ones.
    """
    if block.ndim == 3:
        return block
    samples = block.shape[-1]
    colours = 3 if samples > 2 else 1
    for z, one in enumerate(block):
        first = one[..., :1]
        opacities = (one[..., number] for number in range(colours, samples))
        opaque = all((more == more[:1, :1]).all() or (more == first[..., 0]).all() for more in opacities)
        if not (first == one[..., :colours]).all() or not opaque:
            raise InputError(
                f"{name_of(z)}: a picture whose {samples} samples differ: say sample = 0 in dataset.toml to read the "
                "first of them, or write it as grey values"
            )
    return np.ascontiguousarray(block[..., 0])


@compiled
def _is_two_valued(label: Any, highest: Any, mask: Any) -> bool:
    """Fill the mask and return whether the labels are only 0 and `highest`, in one pass; nan is neither."""
    others = 0
    for index in range(label.size):
        inside = label[index] != 0
        mask[index] = inside
        others += inside & (label[index] != highest)
    return others == 0


def _shift(dtype: np.dtype[Any]) -> int:
    return int(-np.iinfo(dtype).min)
