"""From the values in files to those in the cache: uint16 grey values, uint8 labels (0 and 1, or levels)."""

from collections.abc import Callable
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


class Scaling(BaseModel, frozen=True, extra="forbid"):
    """The finite range of a volume whose values do not fit into 16 bits; low becomes 0, and high becomes 65535."""

    low: float
    high: float
    not_finite: NonNegativeInt = 0  # voxels that are NaN or infinite; they become 0

    def merge(self, other: "Scaling") -> "Scaling":
        """The combined range of both."""
        return Scaling(
            low=min(self.low, other.low), high=max(self.high, other.high), not_finite=self.not_finite + other.not_finite
        )


def needs_scaling(stack: Slices) -> bool:
    """Whether grey values must be scaled into 16 bits. Raises InputError for types that are not grey values."""
    if stack.dtype.kind not in "buif":
        raise InputError(f"{stack.path}: values of type {stack.dtype} are not grey values; write them as uint16")
    return stack.dtype.kind == "f" or stack.dtype.itemsize > 2


def range_of(block: NDArray[Any]) -> Scaling:
    """The finite range of one block; an infinite, reversed range if no value is finite."""
    finite = block[np.isfinite(block)] if block.dtype.kind == "f" else block.ravel()
    if not finite.size:
        return Scaling(low=np.inf, high=-np.inf, not_finite=block.size)
    return Scaling(low=float(finite.min()), high=float(finite.max()), not_finite=block.size - finite.size)


def what_is_changed(stack: Slices, scaling: Scaling | None) -> list[str]:
    """What the conversion does to the grey values, in words; empty for 16-bit grey."""
    notes = []
    if stack.samples > 1:
        notes.append(f"{stack.samples} equal colour channels, one of them kept")
    if stack.dtype.kind in "bu" and stack.dtype.itemsize == 1:
        notes.append("8-bit grey values, kept as they are; 16-bit scans show more")
    if stack.dtype.kind == "i" and scaling is None:
        notes.append(f"signed values ({stack.dtype}), shifted up by {_shift(stack.dtype)}")
    if scaling is not None:
        notes.append(f"{stack.dtype} values, scaled from {scaling.low:g}..{scaling.high:g} to 0..{_HIGHEST}")
        if scaling.not_finite:
            notes.append(f"{scaling.not_finite} voxels were NaN or infinite and were set to the lowest value")
    return notes


def to_grey(block: NDArray[Any], scaling: Scaling | None, name_of: SliceName) -> NDArray[np.uint16]:
    """A block of (n, H, W) or (n, H, W, samples) as uint16 (n, H, W); 16-bit grey is returned unchanged.

    Raises InputError for colour images whose channels differ.
    """
    grey = one_channel(block, name_of)
    if scaling is not None:
        span = max(scaling.high - scaling.low, np.finfo(np.float64).tiny)
        unit = (grey.astype(np.float64) - scaling.low) / span
        unit = np.where(np.isfinite(unit), unit, 0.0).clip(0.0, 1.0)
        return np.asarray(np.rint(unit * _HIGHEST), np.uint16)
    if grey.dtype.kind == "i":
        shifted: NDArray[np.uint16] = (grey.astype(np.int32) + _shift(grey.dtype)).astype(np.uint16)
        return shifted
    return np.ascontiguousarray(grey, np.uint16)


def to_mask(block: NDArray[Any], name_of: SliceName) -> NDArray[np.uint8]:
    """Labels as uint8 of 0 and 1. A slice may contain 0 and 1, or 0 and 255; anything else raises InputError."""
    label = one_channel(block, name_of)
    mask = np.empty(label.shape, np.uint8)
    for z, one in enumerate(label):
        highest = one.max()
        # A slice of zeros passes too, because nothing in it differs from 0.
        if highest not in _LABEL_VALUES_OR_NONE or not _is_two_valued(one.ravel(), highest, mask[z].ravel()):
            values = np.unique(one)
            shown = ", ".join(f"{value:g}" for value in values[:6].astype(float)) + (" ..." if values.size > 6 else "")
            raise InputError(
                f"{name_of(z)}: label values {shown}; labels are 0 and 255, or 0 and 1 (soft = true allows levels)"
            )
    return mask


def to_levels(block: NDArray[Any], name_of: SliceName) -> NDArray[np.uint8]:
    """Soft labels, unchanged: uint8, 0 to 255. Raises InputError for another type, whose scale would be a guess."""
    levels = one_channel(block, name_of)
    if levels.dtype != np.uint8:
        raise InputError(
            f"{name_of(0)}: soft labels of type {levels.dtype}; write them as uint8, 255 for surely vessel"
        )
    return np.ascontiguousarray(levels)


def one_channel(block: NDArray[Any], name_of: SliceName) -> NDArray[Any]:
    """One of several equal channels; of two samples the second is opacity, and so is a fourth sample."""
    if block.ndim == 3:
        return block
    for z, one in enumerate(block):
        if one.shape[-1] > 2 and not (one[..., :1] == one[..., 1:3]).all():
            raise InputError(f"{name_of(z)}: a colour image whose channels differ; write it as grey values")
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
