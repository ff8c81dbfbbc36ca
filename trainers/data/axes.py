"""Axes by name: which axis of an array in a file is depth, height or width, and what is taken of all the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.geometry import Spacing

UNNAMED = ""
LETTERS = {"Z": "z", "Y": "y", "X": "x", "C": "channel", "T": "time", "S": "sample", "P": "position"}
KNOWN = frozenset(LETTERS.values())
PICKABLE = tuple(name for name in LETTERS.values() if len(name) > 1)  # axes of which dataset.toml can pick one entry
_OTHER_NAMES = {  # of NGFF, xarray, scikit-image and rasterio
    "z": ("depth", "plane", "pln", "slice", "slices"),
    "y": ("height", "row", "rows"),
    "x": ("width", "col", "cols", "column", "columns"),
    "channel": ("c", "ch", "channels", "band"),
    "time": ("t", "frame"),
    "sample": ("s",),
    "position": ("p",),
}
_BY_OTHER_NAME = {other: name for name, others in _OTHER_NAMES.items() for other in others}

LONGEST_EDGE = 2**20  # voxels; a kidney has thousands along each axis, a damaged header may state millions


@dataclass(frozen=True)
class Pick:
    """What a person says about the axes of a file. entries: by the name of an axis, which entry is read.

    names: those of all axes, in place of what the file says. where_it_fits: it was said of another file, as of the
    images to which labels belong, and counts only for axes that this one has, too. spacing_um: the edges of its voxels
    along z, y and x; then it does not matter whether the file contradicts itself there.
    """

    entries: Mapping[str, int] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    where_it_fits: bool = False
    spacing_um: Spacing | None = None

    def without(self, *handled: str) -> "Pick":
        """What is left to be done when these axes are taken care of."""
        return replace(self, entries={name: entry for name, entry in self.entries.items() if name not in handled})

    def of(self, own: Sequence[str], count: int, stated: bool) -> "Pick":
        """As it counts for a file of so many axes; own: their names, if the file or its format states them.

        What was said of images counts for labels of the same number of axes, unless these name some themselves, all by
        known names, and others so.
        """
        said = self.names or ()
        other = any(name not in (UNNAMED, new) for name, new in zip(own, said, strict=False))
        other &= stated and KNOWN.issuperset({*own} - {UNNAMED})
        return replace(self, names=None) if self.where_it_fits and (len(said) != count or other) else self

    def entry(self, name: str, size: int) -> int | None:
        """The entry of an axis of this length that is read; None if nothing was said that counts."""
        return None if self.where_it_fits and size == 1 else self.entries.get(name)

    def check_used(self, path: Path, names: Sequence[str]) -> None:
        """Raise InputError if an entry other than the first is asked for of an axis that a file does not have."""
        for name, entry in self.entries.items():
            if entry and name not in names and not self.where_it_fits:
                raise InputError(f"{path}: {name} = {entry} of dataset.toml is not there; it has no axis {name}")


AS_STORED = Pick()  # nothing


@dataclass(frozen=True)
class Axes:
    """How a (D, H, W) stack lies in an array of more axes, or of axes in another order.

    depth: the array's axis along D, None for a single slice; height and width: along H and W. taken: for every axis the
    entry that is read, which counts for the others only.
    """

    shape: tuple[int, int, int]
    depth: int | None
    height: int
    width: int
    taken: tuple[int, ...]

    def index(self, start: int, stop: int) -> tuple[int | slice, ...]:
        """The index of slices start to stop in the array."""
        found: list[int | slice] = list(self.taken)
        found[self.height], found[self.width] = slice(None), slice(None)
        if self.depth is not None:
            found[self.depth] = slice(start, stop)
        return tuple(found)

    def arranged(self, block: NDArray[Any]) -> NDArray[Any]:
        """What that index gives, as (n, H, W)."""
        if self.depth is None:
            return (block if self.height < self.width else block.T)[None]
        present = sorted((self.depth, self.height, self.width))
        return np.transpose(block, [present.index(axis) for axis in (self.depth, self.height, self.width)])


def axis_name(said: object) -> str:
    """The name of an axis by what a file calls it, in any case; UNNAMED for None. What is not KNOWN is kept."""
    name = UNNAMED if said is None else str(said).strip().lower()
    return _BY_OTHER_NAME.get(name, name)


def find_axes(path: Path, names: Sequence[str], shape: Sequence[int], pick: Pick, stated: bool = True) -> Axes:
    """The axes of an array whose axes have these names: those in KNOWN, UNNAMED, and any other.

    stated: the file itself says so, as far as they have names; otherwise it is what files mean that say nothing.

    Without z, the only longer axis without a name is the depth; without any, there is one slice. Raises InputError for
    another axis that is longer than one and of which `pick` names no entry, and for a shape that no volume has.
    """
    sizes = [int(size) for size in shape]
    pick = pick.of(names, len(sizes), stated)
    if pick.names is not None and len(pick.names) != len(sizes):
        raise InputError(
            f"{path}: has {len(sizes)} axes ({_by(sizes)}), but axes of dataset.toml names {len(pick.names)}"
        )
    named = list(pick.names or names)
    if len(named) != len(sizes):
        if not stated:
            volume_shape(path, tuple(sizes))
        raise InputError(
            f"{path}: has {len(sizes)} axes ({_by(sizes)}), but names {len(named)} ({', '.join(named)}): say in "
            'dataset.toml what they are, as in axes = "ZYX"'
        )
    if "z" not in named:
        longer = [axis for axis, name in enumerate(named) if name == UNNAMED and sizes[axis] > 1]
        if len(longer) == 1:
            named[longer[0]] = "z"
    said = f"axes {', '.join(name or '?' for name in named)} of {_by(sizes)}"
    if any(named.count(name) != 1 for name in "yx") or named.count("z") > 1:
        raise InputError(
            f'{path}: has {said}; a volume has the axes z, y, x: say in dataset.toml what they are, as in axes = "ZYX"'
        )
    taken = [0] * len(sizes)
    for axis, (name, size) in enumerate(zip(named, sizes, strict=True)):
        if name in ("z", "y", "x"):
            continue
        wanted = pick.entry(name, size)
        if wanted is None and size != 1:
            if not stated and pick.names is None:
                raise InputError(f"{path}: has {len(sizes)} axes without names ({_by(sizes)}){_as_in(sizes)}")
            raise InputError(f"{path}: has {said}, and a volume has {_one_of(named, sizes, axis)}")
        if (wanted or 0) >= size:
            raise InputError(f"{path}: {name} = {wanted} of dataset.toml is not there; it has {size}, counted from 0")
        taken[axis] = wanted or 0
    pick.check_used(path, named)
    depth = named.index("z") if "z" in named else None
    height, width = named.index("y"), named.index("x")
    volume = volume_shape(path, (1 if depth is None else sizes[depth], sizes[height], sizes[width]))
    return Axes(volume, depth, height, width, tuple(taken))


def find_position(path: Path, count: int, pick: Pick) -> int:
    """Which of several images of their own in a file is read: the only one, or the one that was picked."""
    wanted = pick.entry("position", count)
    if wanted is None and count != 1:
        raise InputError(
            f"{path}: holds {count} images, and a volume has one position: say position = 0 of it in dataset.toml to "
            "read the first"
        )
    if (wanted or 0) >= count:
        raise InputError(f"{path}: position = {wanted} of dataset.toml is not there; it has {count}, counted from 0")
    return wanted or 0


def _one_of(named: Sequence[str], sizes: Sequence[int], axis: int) -> str:
    """What a volume has of an axis that is too long, and what can be said of it in dataset.toml."""
    name, as_z = named[axis], list(named)
    if "z" not in named or sizes[named.index("z")] == 1:
        as_z = [UNNAMED if one == "z" else one for one in named]
        as_z[axis] = "z"
    letters = _letters(as_z)
    if name in PICKABLE:
        way = f', or axes = "{letters}" if it is z' if as_z[axis] == "z" else ""
        return f"one {name}: say {name} = 0 of it in dataset.toml to read the first of {sizes[axis]}{way}"
    also = "" if as_z[axis] == "z" else f" and {LETTERS.get(letters[axis], 'channel')} = 0"
    return f'none but z, y and x: say in dataset.toml what they are, as in axes = "{letters}"{also}'


def _as_in(sizes: Sequence[int]) -> str:
    """How to say what the axes of an array are that does not name them: the long ones, if there are three, z, y, x."""
    longer = [axis for axis, size in enumerate(sizes) if size > 1]
    places = longer if len(longer) == 3 else range(len(sizes) - 3, len(sizes))
    named = [UNNAMED] * len(sizes)
    for name, place in zip("zyx", places, strict=True):
        named[place] = name
    also = "" if len(longer) == 3 else " and channel = 0"
    return f': say in dataset.toml what they are, as in axes = "{_letters(named)}"{also}'


def _letters(named: Sequence[str]) -> str:
    """Names as dataset.toml has them; those that are not known get letters that are free."""
    letter_of = {name: letter for letter, name in LETTERS.items()}
    free = iter([letter for name, letter in letter_of.items() if name in PICKABLE and name not in named])
    return "".join(letter_of.get(name) or next(free, "?") for name in named)


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))


def volume_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape itself. Raises InputError unless it has three axes of a length that a volume can have."""
    if len(shape) != 3 or not all(shape):
        raise InputError(f"{path}: has shape {tuple(shape)}; a volume has three axes (z, y, x), none of them empty")
    if max(shape) > LONGEST_EDGE:
        raise InputError(f"{path}: its header states {' x '.join(map(str, shape))} voxels and is damaged")
    depth, height, width = shape
    return int(depth), int(height), int(width)
