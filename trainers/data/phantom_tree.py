"""Branching vessel trees for phantoms: grown as line segments with radii, then drawn as signed distances.

Radii follow Murray's law (Murray, "The physiological principle of minimum work", PNAS 12, 1926): where a vessel of
radius r0 splits, r0^3 = r1^3 + r2^3, and the branching angles minimise work for these radii.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]  # (3,): z, y, x in voxels

# A vessel of radius r runs for this many radii before it splits, drawn evenly between the two numbers. Human renal
# arteries and other trees have about 5 to 10 diameters per generation at the small end; shorter vessels fill small
# phantoms better.
LENGTHS_IN_RADII = (4.0, 10.0)
STEP_IN_RADII = 1.2
TURN_PER_STEP = 0.14  # radians; how strongly a vessel winds
MOST_SEGMENTS = 2_000_000  # a safeguard: no volume that fits in memory has a tree this large


@dataclass(frozen=True)
class Segments:
    """Straight pieces of vessels: `starts` and `ends` (N, 3) in voxels, `radii` (N, 2) at both ends.

    `forks` (M, 3) holds the radii (r0, r1, r2) at each place where a vessel splits.
    """

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    radii: NDArray[np.float64]
    forks: NDArray[np.float64]


def trunk_radius(vessel_voxels: float, smallest_radius: float) -> float:
    """Radius of a trunk whose tree fills about `vessel_voxels` voxels; never below `smallest_radius`.

    Under Murray's law with lengths proportional to radii, every generation holds the same volume, so the volume is
    that of one generation times the number of generations, 3 log2(r0 / smallest) + 1.
    """
    length_in_radii = sum(LENGTHS_IN_RADII) / 2
    radius = smallest_radius
    for _ in range(30):
        generations = 3 * math.log2(max(radius / smallest_radius, 1.0)) + 1
        radius = 0.5 * radius + 0.5 * (vessel_voxels / (generations * math.pi * length_in_radii)) ** (1 / 3)
    return max(radius, smallest_radius)


def grow_tree(
    root: Point,
    direction: Point,
    radius: float,
    smallest_radius: float,
    depth_at: Callable[[Point], float],
    inwards_at: Callable[[Point], Point],
    rng: np.random.Generator,
) -> Segments:
    """A tree from `root` down to vessels of `smallest_radius`, kept inside the organ.

    depth_at: voxels below the organ's surface at a point, negative outside. inwards_at: the unit vector that points
    away from the surface. Vessels that come close to the surface turn back; those that cross it end there.
    """
    starts: list[Point] = []
    ends: list[Point] = []
    radii: list[tuple[float, float]] = []
    forks: list[tuple[float, float, float]] = []
    waiting = [(root, _unit(direction), radius)]
    while waiting and len(starts) < MOST_SEGMENTS:
        point, heading, here = waiting.pop()
        inside = True
        steps = max(2, round(rng.uniform(*LENGTHS_IN_RADII) / STEP_IN_RADII))
        for _ in range(steps):
            heading = _turn(heading, point, here, depth_at, inwards_at, rng)
            towards = point + heading * here * STEP_IN_RADII
            starts.append(point)
            ends.append(towards)
            radii.append((here, here))
            point = towards
            # The trunk enters from outside through the hilum, so only later vessels end at the surface.
            if here < radius and depth_at(point) < here + 1.0:
                inside = False
                break
        if not inside:
            continue
        first, second = _split(here, rng)
        forks.append((here, first, second))
        for child, child_heading in zip((first, second), _fork(heading, here, first, second, rng), strict=True):
            if child >= smallest_radius:
                waiting.append((point, child_heading, child))
    return Segments(
        np.array(starts).reshape(-1, 3),
        np.array(ends).reshape(-1, 3),
        np.array(radii).reshape(-1, 2),
        np.array(forks).reshape(-1, 3),
    )


def draw_segments(distance: NDArray[np.float32], segments: Segments, reach: float, wall: NDArray[np.float32]) -> None:
    """Lower `distance` (D, H, W), in place, to the signed distance from the nearest segment's surface.

    Negative inside. Only voxels closer than `reach` plus the wall are changed. `wall` (D, H, W) becomes the wall
    thickness of the segment nearest to each voxel.
    """
    shape = np.array(distance.shape)
    for start, end, (r_start, r_end) in zip(segments.starts, segments.ends, segments.radii, strict=True):
        thickness = wall_thickness(max(r_start, r_end))
        margin = max(r_start, r_end) + thickness + reach
        low = np.maximum(np.floor(np.minimum(start, end) - margin), 0).astype(int)
        high = np.minimum(np.ceil(np.maximum(start, end) + margin) + 1, shape).astype(int)
        if (low >= high).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        z, y, x = (np.arange(a, b, dtype=np.float32) - s for a, b, s in zip(low, high, start, strict=True))
        along = end - start
        squared = float(along @ along)
        products = (z * along[0])[:, None, None] + (y * along[1])[None, :, None] + (x * along[2])[None, None, :]
        share = np.clip(products / np.float32(squared or 1.0), 0.0, 1.0)
        gap = (
            (z[:, None, None] - share * np.float32(along[0])) ** 2
            + (y[None, :, None] - share * np.float32(along[1])) ** 2
            + (x[None, None, :] - share * np.float32(along[2])) ** 2
        )
        new = np.sqrt(gap) - (np.float32(r_start) + share * np.float32(r_end - r_start))
        nearer = new < distance[box]
        distance[box][nearer] = new[nearer]
        wall[box][nearer] = thickness


def wall_thickness(radius: float) -> float:
    """Thickness in voxels of the wall around a lumen: thin vessels have relatively thicker walls."""
    return 0.6 + 0.22 * radius


def _turn(
    heading: Point,
    point: Point,
    radius: float,
    depth_at: Callable[[Point], float],
    inwards_at: Callable[[Point], Point],
    rng: np.random.Generator,
) -> Point:
    """The next heading: a small random turn, and a larger turn inwards if the surface is near."""
    turned = heading + rng.normal(0.0, TURN_PER_STEP, 3)
    room = depth_at(point + heading * 3 * radius)
    wanted = 2.0 * radius + 2.0
    if room < wanted:
        turned = turned + inwards_at(point) * min(1.0, (wanted - room) / wanted) * 0.6
    return _unit(turned)


def _split(radius: float, rng: np.random.Generator) -> tuple[float, float]:
    """Radii of the two branches, r1^3 + r2^3 = radius^3, from nearly equal to one small side branch."""
    share = rng.uniform(0.5, 0.9)
    return radius * share ** (1 / 3), radius * (1 - share) ** (1 / 3)


def _fork(heading: Point, r0: float, r1: float, r2: float, rng: np.random.Generator) -> tuple[Point, Point]:
    """Headings of two branches in one random plane, at Murray's angles of minimum work."""
    sideways = _unit(np.cross(heading, rng.normal(size=3)))
    cos_1 = (r0**4 + r1**4 - r2**4) / (2 * r0**2 * r1**2)
    cos_2 = (r0**4 + r2**4 - r1**4) / (2 * r0**2 * r2**2)
    angle_1, angle_2 = (math.acos(min(1.0, max(-1.0, c))) for c in (cos_1, cos_2))
    first = heading * math.cos(angle_1) + sideways * math.sin(angle_1)
    second = heading * math.cos(angle_2) - sideways * math.sin(angle_2)
    return _unit(first), _unit(second)


def _unit(vector: Point) -> Point:
    length = float(np.sqrt(vector @ vector))
    return vector / length if length > 0 else np.array([1.0, 0.0, 0.0])
