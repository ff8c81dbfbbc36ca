"""The phantom's organ: a bean with a hilum, as a field of depths below its surface; and smooth noise."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]  # (3,): z, y, x in voxels
Floats = NDArray[np.float32]

ROUNDING = 0.15  # width of the rounding of the hilum's lips, in half axes


@dataclass(frozen=True)
class Organ:
    """An ellipsoid turned about the z axis, with a round notch, the hilum, on one side.

    Depths are in voxels below the surface, negative outside, and exact to a few per cent near the surface.
    """

    shape: tuple[int, int, int]
    centre: Point
    half: Point  # half axes in voxels
    angle: float  # direction of the hilum in the plane (y, x), in radians
    notch: float  # radius of the hilum, in half axes
    cortex: float  # mean thickness of the cortex in voxels

    @classmethod
    def random(cls, shape: tuple[int, int, int], rng: np.random.Generator) -> "Organ":
        """An organ that nearly fills a volume of this shape."""
        edges = np.array(shape, float)
        half = edges / 2 * rng.uniform(0.84, 0.92, 3)
        centre = (edges - 1) / 2 + rng.uniform(-0.02, 0.02, 3) * edges
        angle = rng.uniform(0, 2 * math.pi)
        return cls(shape, centre, half, angle, rng.uniform(0.26, 0.4), float(half.min()) * rng.uniform(0.28, 0.38))

    def depth_at(self, point: Point) -> float:
        """Depth in voxels at one point."""
        scaled = (point - self.centre) / self.half
        to_notch = math.dist(scaled, self._notch_centre()) - self.notch
        return float(_rounded_minimum(1.0 - math.hypot(*scaled), to_notch)) * float(self.half.min())

    def inwards_at(self, point: Point) -> Point:
        """Unit vector from a point away from the nearest surface."""
        scaled = (point - self.centre) / self.half
        notch = self._notch_centre()
        if 1.0 - math.hypot(*scaled) < math.dist(scaled, notch) - self.notch:
            towards = -scaled / self.half
        else:
            towards = (scaled - notch) / self.half
        length = math.hypot(*towards)
        return np.asarray(towards / length) if length > 0 else np.array([1.0, 0.0, 0.0])

    def entrance(self, number: int, of: int, rng: np.random.Generator) -> tuple[Point, Point]:
        """Where trunk `number` enters through the hilum, and its heading; the trunks fan out along z and across it."""
        notch = self._notch_centre()
        spread = (number + 0.5) / of - 0.5
        sideways = np.array([1.2 * spread, *(0.5 * rng.uniform(-1, 1) * self._across())])
        heading = (-notch + sideways + rng.normal(0, 0.1, 3)) * self.half
        root = self.centre + (notch * (1.0 - 0.8 * self.notch) + 0.25 * sideways * self.notch) * self.half
        return root, np.asarray(heading / np.linalg.norm(heading))

    def random_inside(self, rng: np.random.Generator) -> Point:
        """A random point at least three voxels below the surface."""
        while True:
            point = self.centre + rng.uniform(-1, 1, 3) * self.half
            if self.depth_at(point) > 3.0:
                return np.asarray(point)

    def slice(self, z: int) -> tuple[Floats, Floats]:
        """Depth in voxels and share of sinus fat, 0 to 1, for slice z; (H, W) each."""
        half, notch = self.half.astype(np.float32), self._notch_centre().astype(np.float32)
        centre = self.centre.astype(np.float32)
        zs = (np.float32(z) - centre[0]) / half[0]
        ys = (np.arange(self.shape[1], dtype=np.float32) - centre[1])[:, None] / half[1]
        xs = (np.arange(self.shape[2], dtype=np.float32) - centre[2])[None, :] / half[2]
        to_notch = np.sqrt((zs - notch[0]) ** 2 + (ys - notch[1]) ** 2 + (xs - notch[2]) ** 2) - np.float32(self.notch)
        depth = _rounded_minimum(1.0 - np.sqrt(zs**2 + ys**2 + xs**2), to_notch) * half.min()
        sinus = np.clip((0.16 - to_notch) / 0.08, 0.0, 1.0)
        return depth.astype(np.float32), sinus.astype(np.float32)

    def _notch_centre(self) -> Point:
        return np.array([0.0, math.sin(self.angle), math.cos(self.angle)])

    def _across(self) -> NDArray[np.float64]:
        return np.array([math.cos(self.angle), -math.sin(self.angle)])


class SmoothNoise:
    """Noise of mean 0 and standard deviation about 1 that varies over `wavelength` voxels, made slice by slice.

    It interpolates a coarse random grid with smooth weights, so memory and time do not grow with the wavelength.
    """

    def __init__(self, shape: tuple[int, int, int], wavelength: float, rng: np.random.Generator) -> None:
        self.wavelength = wavelength
        cells = [math.ceil(edge / wavelength) + 2 for edge in shape]
        # Interpolation averages neighbours, which shrinks the deviation to about 0.6 in three dimensions.
        self.grid = (rng.standard_normal(cells, np.float32) / np.float32(0.64)).astype(np.float32)
        self.rows = _weights(shape[1], cells[1], wavelength)
        self.columns = _weights(shape[2], cells[2], wavelength).T.copy()

    def slice(self, z: int) -> Floats:
        """The noise in slice z, (H, W)."""
        low = int(z / self.wavelength)
        share = _smooth(np.float32(z / self.wavelength - low))
        plane = self.grid[low] * (1 - share) + self.grid[low + 1] * share
        return np.asarray(self.rows @ plane @ self.columns, np.float32)


class Rings:
    """Ring artefacts: noise that depends on the distance from the rotation axis (z) and drifts from slice to slice."""

    def __init__(self, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
        axis = np.array(shape[1:]) / 2 + rng.uniform(-3, 3, 2)
        ys, xs = np.arange(shape[1])[:, None] - axis[0], np.arange(shape[2])[None, :] - axis[1]
        self.radius = np.sqrt(ys**2 + xs**2)
        self.drift = 12.0
        bins = int(self.radius.max()) + 3
        self.profiles = rng.standard_normal((math.ceil(shape[0] / self.drift) + 2, bins), np.float32)
        # A few detector pixels deviate strongly, most of them hardly at all.
        self.profiles *= rng.random((1, bins), np.float32) ** 3 * 2.6

    def slice(self, z: int) -> Floats:
        """The rings in slice z, (H, W), with a standard deviation of about 1."""
        low = int(z / self.drift)
        share = z / self.drift - low
        profile = self.profiles[low] * (1 - share) + self.profiles[low + 1] * share
        return np.asarray(np.interp(self.radius, np.arange(len(profile)), profile), np.float32)


def _rounded_minimum(a: "float | Floats", b: "float | Floats") -> Floats:
    """The smaller of two distances, with the edge where the surfaces meet rounded off: the lips of the hilum."""
    blend = np.clip(0.5 + (b - a) / (2 * ROUNDING), 0.0, 1.0)
    return np.asarray(b + (a - b) * blend - ROUNDING * blend * (1.0 - blend), np.float32)


def _weights(edge: int, cells: int, wavelength: float) -> Floats:
    """(edge, cells): the weight of each coarse cell for each voxel along one axis."""
    places = np.arange(edge, dtype=np.float32) / np.float32(wavelength)
    low = places.astype(int)
    share = _smooth(places - low)
    weights = np.zeros((edge, cells), np.float32)
    weights[np.arange(edge), low] = 1 - share
    weights[np.arange(edge), low + 1] = share
    return weights


def _smooth(share: Floats | np.float32) -> Floats:
    return np.asarray(share * share * (3 - 2 * share), np.float32)
