"""AUGMENTATIONS: random changes of a patch, described by a text that gives their strength and the parts left out.

The position of a patch's grid in its volume (turned, scaled, bent) is drawn before the patch is cut. So its voxels are
interpolated once, from the volume itself, and rotation brings real tissue into view, not a border. Symmetries and
changes of grey values follow after the cut.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError, unknown_name
from trainers.data.grey_changes import change_gamma, change_light, change_noise
from trainers.data.soft_labels import Label

Patch = tuple[NDArray[np.float32], Label]
Rectangle = tuple[slice, slice]  # rows and columns of a patch


@dataclass(frozen=True)
class Changes:
    """How strongly each part may change a sample; a part that is None is off.

    A share is the share of samples that the part changes. Angles are in degrees, lengths in voxels of the patch.
    """

    symmetries: bool = False  # the eight symmetries of the square, with equal probability
    turn: float | None = None  # largest angle within the plane
    tilt: float | None = None  # largest angle out of the plane, about any line in it
    scale: tuple[float, float] | None = None  # factor on the apparent size, drawn on a logarithmic scale
    elastic: float | None = None  # standard deviation of the displacement far from the anchor
    moved: float = 0.0  # share of samples that turn, tilt, scale and elastic change together
    light: tuple[float, float, float] | None = None  # share, largest shift of brightness, largest change of contrast
    gamma: tuple[float, float] | None = None  # share, largest logarithm of the exponent
    noise: tuple[float, float] | None = None  # share, largest standard deviation, in units of the two percentiles
    cutmix: float | None = None  # share of samples that get a rectangle from elsewhere in the same kidney


# Sources for the numbers of "strong" in the competition's solutions. Tilt of 30 degrees: the first place. Scale 0.55 to
# 1.3: the third (0.55 to 1.05) and the first (0.7 to 1.3). CutMix within a kidney: the fourth, sixth and ninth.
AUGMENTATIONS: dict[str, Changes] = {
    "none": Changes(),
    "flips": Changes(symmetries=True),
    # Mild changes within the plane.
    "standard": Changes(
        symmetries=True,
        turn=30.0,
        scale=(0.75, 1.25),
        moved=0.4,
        light=(0.5, 0.18, 0.12),
        gamma=(0.3, 0.22),
        noise=(0.2, 0.06),
    ),
    "strong": Changes(
        symmetries=True,
        turn=45.0,
        tilt=30.0,
        scale=(0.55, 1.3),
        elastic=0.5,
        moved=0.5,
        light=(0.5, 0.25, 0.3),
        gamma=(0.3, 0.35),
        noise=(0.3, 0.12),
        cutmix=0.3,
    ),
}
_OFF = Changes()
PARTS: tuple[str, ...] = tuple(field.name for field in fields(Changes) if field.name != "moved")
_NODES = 5  # nodes of the elastic grid along each edge of a patch, including its border


@dataclass(frozen=True)
class Move:
    """How a patch's grid is moved about its anchor.

    matrix: float64 (3, 3), over (slice, row, column): a step along an axis of the patch, in steps of an unmoved patch
    with cubic voxels.
    bend: float32 (2, rows, columns) or None; see `oblique.Grid`.
    """

    matrix: NDArray[np.float64]
    bend: NDArray[np.float32] | None


def check_augmentation(text: str) -> str:
    """The text itself, if it names an augmentation. Raises InputError if Augmentation does."""
    _parse(text)
    return text


class Augmentation:
    """The changes that a text like "strong" or "strong - tilt - cutmix" names.

    Raises InputError for an unknown name or part, and for a part that is off already.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.changes = _parse(text)

    def move(self, rng: np.random.Generator, crop: int, smallest: float | None = None) -> Move | None:
        """How the grid of a patch of edge `crop` is moved, or None if it stays as it is.

        smallest: at most 1; the scale then varies evenly around 1, from this value to its inverse. None: the scale is
        drawn as the recipe says.
        """
        drawn = self.changes
        if not (drawn.turn or drawn.tilt or drawn.scale or drawn.elastic) or rng.random() >= drawn.moved:
            return None
        matrix = np.eye(3)
        if drawn.tilt:
            matrix = _tilted(np.deg2rad(rng.uniform(0, drawn.tilt)), rng.uniform(0, 2 * np.pi))
        if drawn.turn:
            matrix = matrix @ _turned(np.deg2rad(rng.uniform(-drawn.turn, drawn.turn)))
        if drawn.scale:
            matrix = matrix / np.exp(rng.uniform(*np.log(_scales(drawn.scale, smallest))))
        return Move(matrix, _bend(rng, crop, drawn.elastic) if drawn.elastic else None)

    def wants_partner(self, rng: np.random.Generator) -> bool:
        """Whether a sample is to be mixed with another one; see `draw_rectangle`."""
        return self.changes.cutmix is not None and bool(rng.random() < self.changes.cutmix)

    def change(self, patch: Patch, rng: np.random.Generator) -> Patch:
        """Symmetries and changes of grey values: image (slices_in, crop, crop) and label (slices_out, crop, crop).

        Both get the same symmetry; nothing else changes the labels. Shapes stay the same, and grey values stay within
        the range that normalising gives.
        """
        image, label = patch
        if self.changes.symmetries:
            turns, flipped = int(rng.integers(4)), bool(rng.integers(2))
            image, label = _symmetry(image, turns, flipped), _symmetry(label, turns, flipped)
        greys: list[tuple[tuple[float, ...] | None, Callable[..., NDArray[np.float32]]]] = [
            (self.changes.light, change_light),
            (self.changes.gamma, change_gamma),
            (self.changes.noise, change_noise),
        ]
        for part, change in greys:
            if part is not None and rng.random() < part[0]:
                image = change(image, rng, *part[1:])
        return np.ascontiguousarray(image), label


def _scales(scales: tuple[float, float], smallest: float | None) -> tuple[float, float]:
    if smallest is None:
        return scales
    low = max(smallest, float(np.sqrt(scales[0] / scales[1])))
    return low, 1 / low


def draw_rectangle(rng: np.random.Generator, crop: int) -> Rectangle:
    """Rows and columns that CutMix (arXiv 1905.04899) takes from another patch: a tenth to a half of the plane."""
    share = rng.uniform(0.1, 0.5)
    ratio = np.exp(rng.uniform(-0.7, 0.7))
    rows = min(crop, max(1, round(crop * np.sqrt(share * ratio))))
    columns = min(crop, max(1, round(crop * np.sqrt(share / ratio))))
    top, left = int(rng.integers(crop - rows + 1)), int(rng.integers(crop - columns + 1))
    return slice(top, top + rows), slice(left, left + columns)


def _parse(text: str) -> Changes:
    name, *removed = (part.strip() for part in text.split("-"))
    if name not in AUGMENTATIONS:
        raise unknown_name("augmentation", name, AUGMENTATIONS)
    changes = AUGMENTATIONS[name]
    for part in removed:
        if part not in PARTS:
            raise unknown_name(f"part in augmentation {text!r},", part, PARTS)
        if not getattr(changes, part):
            raise InputError(f"augmentation {text!r} removes {part!r}, which {name!r} does not have, or no longer has")
        changes = replace(changes, **{part: getattr(_OFF, part)})
    return changes


def _turned(angle: float) -> NDArray[np.float64]:
    """Rotation within the plane of rows and columns."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]])


def _tilted(angle: float, towards: float) -> NDArray[np.float64]:
    """Rotation by `angle` about a line in the plane in direction `towards` (Rodrigues' formula)."""
    row, column = np.cos(towards), np.sin(towards)
    cross = np.array([[0.0, -column, row], [column, 0.0, 0.0], [-row, 0.0, 0.0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross))


def _bend(rng: np.random.Generator, crop: int, deviation: float) -> NDArray[np.float32]:
    """A smooth field of displacements, (2, crop, crop): cubic B-splines over a coarse grid of normal deviates."""
    # At a node, a spline is 1/6, 4/6 and 1/6 of three coefficients, which halves the deviation in two dimensions.
    nodes = rng.normal(0.0, 2 * deviation, (2, _NODES + 2, _NODES + 2)).astype(np.float32)
    basis = _splines(crop)
    return np.ascontiguousarray(basis @ nodes @ basis.T)


@lru_cache(maxsize=8)
def _splines(crop: int) -> NDArray[np.float32]:
    """Weights of a uniform cubic B-spline's nodes at each of `crop` positions, (crop, nodes + 2)."""
    places = np.linspace(0, _NODES - 1, crop)
    first = np.minimum(places.astype(int), _NODES - 2)
    t = places - first
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    basis = np.zeros((crop, _NODES + 2), np.float32)
    for k in range(4):
        basis[np.arange(crop), first + k] = weights[:, k]
    return basis


def _symmetry(slices: NDArray[Any], turns: int, flipped: bool) -> NDArray[Any]:
    turned = np.rot90(slices, turns, (1, 2))
    return np.ascontiguousarray(turned[:, ::-1] if flipped else turned)
