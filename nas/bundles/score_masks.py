"""Two masks on disk, compared."""

import math
from pathlib import Path

import numpy as np

from search_spaces.errors import InputError
from trainers.data.geometry import Spacing, best_known, check_possible
from trainers.data.masks import inside, is_table, open_mask, unlikely
from trainers.data.slices import Slices
from trainers.data.sources import stated_spacing
from trainers.data.turned import brought_onto
from trainers.data.volume import CUBE
from trainers.machine import free_memory
from trainers.metrics.slabs import cut_whole
from trainers.metrics.surface_dice import surface_dice
from trainers.metrics.table import METRICS
from trainers.report import SILENT, Report


def score_masks(
    predicted: Path, target: Path, spacing: str | None, tolerance_um: float, report: Report = SILENT
) -> dict[str, float | Spacing | None]:
    """Every metric between two masks on disk; surface dice at the given tolerance. And that tolerance and the spacing.

    spacing: one number or three, in place of what dataset.toml and the files state. Raises InputError for masks that do
    not lie on the same voxels or do not fit into memory, and for a tolerance where no spacing is known.
    """
    stated = stated_spacing(target) or stated_spacing(predicted) if spacing is None else _spacing(spacing)
    moving, still = (stack.believed() for stack in _opened(predicted, target, stated))
    for stack in (still, moving):
        for note in stack.notes:
            report.note(f"{stack.path}: {note}")
    moving, notes = brought_onto(still, moving)
    for note in notes:
        report.note(note)
    spacing_um = best_known(still.geometry, moving.geometry)
    if spacing_um is None and tolerance_um > 0:
        raise InputError(
            f"neither {predicted} nor {target} states a voxel spacing, so {tolerance_um:g} µm have no meaning; give "
            "--spacing-um"
        )
    _check_room(still)
    first, second = inside(moving), inside(still)
    for stack, mask in ((still, second), (moving, first)):
        if (doubt := unlikely(int(np.count_nonzero(mask)), math.prod(stack.shape))) is not None:
            report.note(f"{stack.path}: {doubt}")
    cut = cut_whole(first, second, spacing_um or CUBE)
    values = {name: metric.value(metric.parts_of(cut)) for name, metric in METRICS.items()}
    within = surface_dice(first, second, spacing_um or CUBE, tolerance_um)
    return {**values, "surface_dice": within, "tolerance_um": tolerance_um, "spacing_um": spacing_um}


def _opened(predicted: Path, target: Path, stated: Spacing | None) -> tuple[Slices, Slices]:
    """Both masks; run lengths, which may not state their shape, have that of the other mask."""
    if is_table(predicted) and not is_table(target):
        still = open_mask(target, spacing_um=stated)
        return open_mask(predicted, shape=still.shape, spacing_um=stated), still
    moving = open_mask(predicted, spacing_um=stated)
    return moving, open_mask(target, shape=moving.shape if is_table(target) else None, spacing_um=stated)


def _check_room(stack: Slices) -> None:
    """Refuse what a header claims before memory is taken for it: both masks have a byte for each voxel."""
    needed, free = 2 * math.prod(stack.shape), free_memory()
    if needed > free:
        raise InputError(
            f"{stack.path}: two masks of {' x '.join(map(str, stack.shape))} voxels take {needed / 2**30:,.0f} GiB of "
            f"memory, and {free / 2**30:,.0f} GiB are free; compare crops of them"
        )


def _spacing(given: str) -> Spacing:
    try:
        numbers = [float(part) for part in given.split(",")]
        z, y, x = numbers * 3 if len(numbers) == 1 else numbers
    except ValueError:
        raise InputError(f"--spacing-um takes one positive number or three as in 50,50,50; got {given!r}") from None
    check_possible((z, y, x), f"--spacing-um {given}")
    return z, y, x
