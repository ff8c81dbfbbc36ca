"""METRICS: how well a predicted mask agrees with the target, by name; 1.0 for equal masks, 0.0 for disjoint ones."""

from collections.abc import Callable

from trainers.metrics.cube_layers import Mask
from trainers.metrics.surface_dice import surface_dice
from trainers.metrics.voxel_dice import voxel_dice

# predicted, target, spacing_um along (D, H, W) -> score
Metric = Callable[[Mask, Mask, tuple[float, float, float]], float]

METRICS: dict[str, Metric] = {
    "surface_dice": surface_dice,
    "voxel_dice": voxel_dice,
}
