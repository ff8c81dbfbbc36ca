"""Two masks on disk, compared."""

from pathlib import Path

from search_spaces.errors import InputError
from trainers.data.masks import read_mask
from trainers.data.volume import Spacing
from trainers.metrics.slabs import cut_whole
from trainers.metrics.surface_dice import surface_dice
from trainers.metrics.table import METRICS


def score_masks(predicted: Path, target: Path, spacing: str, tolerance_um: float) -> dict[str, float]:
    """Every metric between two masks on disk; surface dice at the given tolerance."""
    try:
        numbers = [float(part) for part in spacing.split(",")]
        spacing_um: Spacing = (numbers[0],) * 3 if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])
        if len(numbers) not in (1, 3) or min(numbers) <= 0:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise InputError(f"--spacing-um takes one positive number or three as in 50,50,50; got {spacing!r}") from error
    first, second = read_mask(predicted), read_mask(target)
    if first.shape != second.shape:
        raise InputError(f"{predicted} has {first.shape} voxels and {target} has {second.shape}; they must be equal")
    cut = cut_whole(first, second, spacing_um)
    values = {name: metric.value(metric.parts_of(cut)) for name, metric in METRICS.items()}
    within = surface_dice(first, second, spacing_um, tolerance_um)
    return {**values, "surface_dice": within, "tolerance_um": tolerance_um}
