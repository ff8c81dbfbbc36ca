"""Geometry: where the voxels of a stack lie, as far as its file says, and how two stacks lie together.

It travels with the voxels from every reader. Where two stacks meet (an image and its labels, two masks), theirs are
compared: axes that only swap or run the other way are brought together, and anything else is refused. What a file does
not state is not compared.

A spacing that a person states (in dataset.toml, or with --spacing-um) comes in with `Pick`, is put beside that of the
file when a stack is opened, and wins over it here: in `believed`, `bring_together` and `best_known`. Two readers ask
whether there is one: of a NIfTI header that contradicts itself, and of TIFF slices that differ.
"""

import math
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from search_spaces.errors import InputError


def _each_once(axes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(axes)) < len(axes):
        raise ValueError(f"{list(axes)} names an axis twice")
    return axes


Axes = Annotated[  # of a stack, those along which something is done
    tuple[Literal[0, 1, 2], ...], Field(min_length=1, max_length=3), AfterValidator(_each_once)
]
Spacing = tuple[float, float, float]
Vector = tuple[float, float, float]

# From finer than any X-ray microscope resolves to longer than a hand: no scan of an organ has other voxels.
SMALLEST_UM, LARGEST_UM = 0.01, 100_000.0
Micrometres = Annotated[float, Field(ge=SMALLEST_UM, le=LARGEST_UM, allow_inf_nan=False)]  # the edge of a voxel
SPACING_TOLERANCE = 0.01  # relative: headers round, and 50 for 50.16 is the same scan
DIRECTION_TOLERANCE = 1e-3  # of a direction's cosines, at which two axes are the same one
ORIGIN_TOLERANCE = 0.1  # voxels
CORNER_TOLERANCE = 0.5  # voxels: beyond it, a voxel at the far end of a turned stack is another one
_AXES = ("z", "y", "x")
# Directions of files that count in (x, y, z) or in (z, y, x) and say nothing about how they lie.
_PLAIN = (((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a (D, H, W) stack lie.

    numbers: one per slice, as in ids and file names; numbered: whether the files say so, or they are only counted.
    spacing_um: edges of a voxel along (D, H, W). directions: for each of these axes the unit vector along which it runs
    in a world named by `world`, and origin_um the place of the first voxel there; places in different worlds are not
    compared. None: not stated. depth_is_assumed: the edge along D is not, and taken to be that along W. stated_um: the
    edges that a person states, along the axes of the images and so of labels once they are turned onto them.
    """

    shape: tuple[int, int, int]
    numbers: tuple[int, ...]
    numbered: bool = False
    spacing_um: Spacing | None = None
    world: str = ""
    directions: tuple[Vector, Vector, Vector] | None = None
    origin_um: Vector | None = None
    depth_is_assumed: bool = False
    # Not in the text from which the cache makes its keys: converted voxels are the same whatever their spacing is.
    stated_um: Spacing | None = field(default=None, repr=False)

    @staticmethod
    def counted(shape: tuple[int, int, int], spacing_um: Spacing | None = None) -> "Geometry":
        """The geometry of a stack of which at most the spacing is known; its slices are counted from 0."""
        return Geometry(shape, tuple(range(shape[0])), spacing_um=spacing_um)

    @property
    def says_how_it_lies(self) -> bool:
        """Whether its file states another orientation or place than that of an array of which nothing is known."""
        return any(self.origin_um or ()) or self.directions not in (None, *_PLAIN)

    def turned(self, turn: "Turn") -> "Geometry":
        """The geometry of the stack after a turn."""
        depth, height, width = (self.shape[axis] for axis in turn.order)
        spacing, directions, origin = self.spacing_um, self.directions, self.origin_um
        if spacing is not None:
            z, y, x = (spacing[axis] for axis in turn.order)
            spacing = (z, y, x)
        if directions is not None:
            if origin is not None and self.spacing_um is not None:
                steps = zip(turn.order, turn.flipped, strict=True)
                ends = [_times(directions[a], self.spacing_um[a] * (self.shape[a] - 1)) for a, over in steps if over]
                origin = _sum(origin, *ends)
            z_axis, y_axis, x_axis = (
                _times(directions[axis], -1.0 if over else 1.0)
                for axis, over in zip(turn.order, turn.flipped, strict=True)
            )
            directions = (z_axis, y_axis, x_axis)
        same_slices = turn.order[0] == 0 and not turn.flipped[0]
        numbers = self.numbers if same_slices else tuple(range(depth))
        return replace(
            self,
            shape=(depth, height, width),
            numbers=numbers,
            numbered=self.numbered and same_slices,
            spacing_um=spacing,
            directions=directions,
            origin_um=origin,
        )


@dataclass(frozen=True)
class Turn:
    """A new arrangement of axes: which old axis becomes each one of (D, H, W), and which of these are then reversed."""

    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self != Turn()

    def __call__(self, voxels: NDArray[Any]) -> NDArray[Any]:
        """The voxels (D, H, W) after the turn, as a view."""
        moved = np.transpose(voxels, self.order)
        return moved[tuple(slice(None, None, -1 if over else 1) for over in self.flipped)]

    def __str__(self) -> str:
        said = [
            f"axis {_AXES[old]} read as {new}" for old, new in zip(self.order, _AXES, strict=True) if _AXES[old] != new
        ]
        said += [f"{axis} reversed" for axis, over in zip(_AXES, self.flipped, strict=True) if over]
        return ", ".join(said)


def bring_together(still: Geometry, moving: Geometry) -> Turn:
    """How the second stack must be turned so that its voxels lie on those of the first.

    Their files may state different spacings if a person states one of both. Raises ValueError, saying how the two
    differ, if no turn does that.
    """
    turn = _turn(still, moving)
    moved = moving.turned(turn)
    if still.numbered and moved.numbered and still.numbers != moved.numbers:
        raise ValueError(f"it has slices {_range(moved.numbers)} and the other {_range(still.numbers)}")
    if still.shape != moved.shape:
        raise ValueError(f"it has {_shape(moved.shape)} voxels and the other {_shape(still.shape)}")
    alike = _same_edges(still, moved)
    if not alike and still.stated_um is None:
        raise ValueError(
            f"its voxels are {spacing_text(moved.spacing_um or ())} µm and those of the other "
            f"{spacing_text(still.spacing_um or ())} µm (voxel_spacing_um in dataset.toml, or --spacing-um, would win "
            "over both)"
        )
    if alike:  # otherwise the files do not measure places alike
        _check_place(still, moved)
    return turn


def best_known(*stacks: Geometry) -> Spacing | None:
    """The spacing of stacks on the same voxels: a person's, or that of the first that states all edges, or any."""
    for one in stacks:
        if one.stated_um is not None:
            return one.stated_um
    known = sorted((one for one in stacks if one.spacing_um is not None), key=lambda one: one.depth_is_assumed)
    return known[0].spacing_um if known else None


def _same_edges(one: Geometry, other: Geometry) -> bool:
    """Whether two stacks have the same spacing, as far as both state it."""
    if one.spacing_um is None or other.spacing_um is None or not (one.depth_is_assumed or other.depth_is_assumed):
        return same_spacing(one.spacing_um, other.spacing_um)
    depth = one.spacing_um[0]
    return same_spacing(one.spacing_um, (depth, *other.spacing_um[1:]))


def same_spacing(one: Spacing | None, other: Spacing | None) -> bool:
    """Whether two voxel spacings are the same but for rounding; one that is not stated may be any."""
    if one is None or other is None:
        return True
    return all(math.isclose(a, b, rel_tol=SPACING_TOLERANCE) for a, b in zip(one, other, strict=True))


def _check_place(still: Geometry, moved: Geometry) -> None:
    """Raise ValueError if the first voxels, or any corners, of two stacks of one shape lie apart."""
    edges = np.array(still.spacing_um or moved.spacing_um or (1.0, 1.0, 1.0))
    if still.world != moved.world or not (np.isfinite(edges).all() and edges.min() > 0):
        return
    first = np.zeros(3)
    if still.origin_um is not None and moved.origin_um is not None:
        away = math.dist(still.origin_um, moved.origin_um) / edges.min()
        if not away <= ORIGIN_TOLERANCE:
            raise ValueError(f"its first voxel lies {away:.1f} voxels away from that of the other")
        first = np.subtract(moved.origin_um, still.origin_um) / edges.min()
    if still.directions is None or moved.directions is None:
        return
    reach = (np.array(still.shape) - 1) * edges / edges.min()
    ends = np.subtract(moved.directions, still.directions) * reach[:, None]  # how far the end of each axis is off
    corners = [first + np.array(corner) @ ends for corner in product((0, 1), repeat=3)]
    apart = max(float(np.linalg.norm(corner)) for corner in corners)
    if not apart <= CORNER_TOLERANCE:
        raise ValueError(
            f"its axes are turned by {_degrees(still, moved):.2g} degrees, so that its farthest corner lies "
            f"{apart:.1f} voxels away from that of the other"
        )


def _degrees(still: Geometry, moved: Geometry) -> float:
    """The largest angle between axes that belong together."""
    assert still.directions is not None and moved.directions is not None
    chords = np.linalg.norm(np.subtract(still.directions, moved.directions), axis=1)
    return math.degrees(2 * math.asin(min(1.0, float(chords.max()) / 2)))


def _turn(still: Geometry, moving: Geometry) -> Turn:
    if still.world != moving.world or still.directions is None or moving.directions is None:
        return Turn()
    cosines = np.array(still.directions) @ np.array(moving.directions).T
    near = np.abs(cosines) > 1 - DIRECTION_TOLERANCE
    if not ((near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all()):
        degrees = math.degrees(math.acos(min(1.0, float(np.abs(cosines).max(axis=1).min()))))
        raise ValueError(f"its axes are turned by {degrees:.1f} degrees")
    first, second, third = (int(axis) for axis in near.argmax(axis=1))
    order = first, second, third
    z, y, x = (bool(cosines[new, old] < 0) for new, old in enumerate(order))
    return Turn(order, (z, y, x))


def check_possible(spacing_um: Spacing, where: str, instead: str = "") -> None:
    """Raise InputError, naming where a spacing is stated and what to do instead, if no scan can have such voxels."""
    if not _is_possible(spacing_um):
        raise InputError(
            f"{where}: states voxels of {spacing_text(spacing_um)} µm; those of a scan have {SMALLEST_UM:g} to "
            f"{LARGEST_UM:,.0f} µm{instead}"
        )


def believed(geometry: Geometry, where: str) -> Geometry:
    """What a file says, without the spacing and the place if no scan can have such voxels and a person states others.

    Raises InputError if nobody does.
    """
    if geometry.spacing_um is None or _is_possible(geometry.spacing_um):
        return geometry
    if geometry.stated_um is None:
        instead = ": state voxel_spacing_um in dataset.toml, or --spacing-um of nas score"
        check_possible(geometry.spacing_um, where, instead)
    return replace(geometry, spacing_um=None, origin_um=None)


def _is_possible(spacing_um: Spacing) -> bool:
    return all(SMALLEST_UM <= edge <= LARGEST_UM for edge in spacing_um)


def spacing_text(spacing: tuple[float, ...]) -> str:
    """A voxel spacing as text: a single number if all three are equal."""
    return f"{spacing[0]:g}" if len(set(spacing)) == 1 else " x ".join(f"{s:g}" for s in spacing)


def _times(vector: Vector, factor: float) -> Vector:
    x, y, z = vector
    return x * factor, y * factor, z * factor


def _sum(*vectors: Vector) -> Vector:
    x, y, z = (sum(parts) for parts in zip(*vectors, strict=True))
    return x, y, z


def _shape(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def _range(numbers: tuple[int, ...]) -> str:
    return f"{numbers[0]} to {numbers[-1]}"
