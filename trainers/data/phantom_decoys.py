"""Decoys in a phantom: structures as dark as vessels, or as bright as their walls, that are neither."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = NDArray[np.float64]  # (3,): z, y, x in voxels
Floats = NDArray[np.float32]

# Relative grey values, with surroundings at 0, lumens at 0.25, tissue around 1 and walls at 1.4.
DARK, BRIGHT = (0.05, 0.5), (1.3, 1.7)
KINDS = {"tubule": 0.55, "cyst": 0.18, "crack": 0.17, "spot": 0.1}  # with the probability of each


@dataclass(frozen=True)
class Decoy:
    """A rod with round ends or, if `thickness` is given, a disc; lengths in voxels.

    centre: its middle. direction: unit vector, along the rod or across the disc. length: that of the rod's axis; 0
    makes a ball. grey: relative, as above.
    """

    centre: Point
    direction: Point
    length: float
    radius: float
    thickness: float | None
    grey: float

    @classmethod
    def random(cls, centre: Point, smallest_radius: float, shortest_edge: int, rng: np.random.Generator) -> "Decoy":
        """A decoy around `centre`, as thick as the vessels of a volume with this shortest edge."""
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        largest = max(shortest_edge / 20, smallest_radius)
        radius = float(np.exp(rng.uniform(np.log(smallest_radius), np.log(largest))))
        dark, bright = rng.uniform(*DARK), rng.uniform(*BRIGHT)
        match rng.choice(list(KINDS), p=list(KINDS.values())):
            case "tubule":  # or a vein, whose wall is too thin to be seen
                return cls(centre, direction, rng.uniform(6, 16) * radius, radius, None, dark)
            case "cyst":
                return cls(centre, direction, rng.uniform(0, 1.2) * radius, 1.3 * radius, None, dark)
            case "crack":
                return cls(centre, direction, 0, rng.uniform(2.5, max(shortest_edge / 6, 3)), rng.uniform(1, 2), dark)
            case _:
                return cls(centre, direction, rng.uniform(0, 3), rng.uniform(0.7, 1.6), None, bright)

    def draw(self, distance: Floats, grey: Floats) -> float:
        """Lower `distance` (D, H, W) to the signed distance from this surface, set `grey` there; returns its voxels."""
        reach = self.length / 2 * abs(self.direction) + self.radius + 1.5
        low = np.maximum(np.floor(self.centre - reach), 0).astype(int)
        high = np.minimum(np.ceil(self.centre + reach) + 1, distance.shape).astype(int)
        if (low >= high).any():
            return 0.0
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = [np.arange(a, b) - c for a, b, c in zip(low, high, self.centre, strict=True)]
        offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        along = offsets @ self.direction
        if self.thickness is None:
            off_axis = offsets - np.clip(along, -self.length / 2, self.length / 2)[..., None] * self.direction
            new = np.linalg.norm(off_axis, axis=-1) - self.radius
        else:
            across = np.linalg.norm(offsets - along[..., None] * self.direction, axis=-1)
            new = np.maximum(abs(along) - self.thickness / 2, across - self.radius)
        nearer = new < distance[box]
        distance[box][nearer] = new[nearer]
        grey[box][nearer] = self.grey
        return float((new < 0).sum())
