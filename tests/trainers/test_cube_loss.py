"""The loss over cubes, compared with a loop over cubes and with the score that it approximates."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from search_spaces.errors import InputError
from trainers.losses.cubes import SurfaceCubes
from trainers.losses.losses import build_loss
from trainers.metrics.surface_area import surface_areas


def _by_loops(logits: Tensor, targets: Tensor) -> float:
    areas = surface_areas((1.0, 1.0, 1.0))
    areas = areas / areas[areas > 0].mean()
    sums = np.zeros((3, 2))  # of vessel, tissue, surface: overlap, and prediction plus target
    batch, slices, height, width = targets.shape
    for b, z, y, x in product(range(batch), range(slices - 1), range(height - 1), range(width - 1)):
        vessel, tissue, code = 1.0, 1.0, 0
        for bit, (dz, dy, dx) in enumerate(product((0, 1), repeat=3)):
            p = 1 / (1 + np.exp(-float(logits[b, z + dz, y + dy, x + dx])))
            vessel, tissue = vessel * p, tissue * (1 - p)
            code += int(targets[b, z + dz, y + dy, x + dx]) << bit
        here = (code == 255, code == 0, 0 < code < 255)
        weights = (1.0, 1.0, areas[code] if here[2] else 1.0)
        for index, chance in enumerate((vessel, tissue, 1 - vessel - tissue)):
            sums[index] += weights[index] * np.array([chance * here[index], chance + here[index]])
    there = [2 * overlap < both and (overlap > 0) for overlap, both in sums]
    return float(np.mean([1 - 2 * overlap / both for (overlap, both), use in zip(sums, there, strict=True) if use]))


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_equals_a_loop_over_cubes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 6, 5, dtype=torch.float64, generator=generator)
    targets = torch.zeros(2, 3, 6, 5, dtype=torch.float64)
    targets[:, :, 1:5, : 3 + seed % 2] = 1
    targets[0, 1, 3, 1] = 0
    assert SurfaceCubes()(logits, targets).item() == pytest.approx(_by_loops(logits, targets), rel=1e-6)


def test_one_cube_with_one_voxel_of_vessel() -> None:
    targets = torch.zeros(1, 2, 2, 2)
    targets[0, 0, 0, 0] = 1
    # At even chances a cube is all vessel or all tissue once in 128 times: 1 - 2 s / (s + 1) with s = 127 / 128.
    assert SurfaceCubes()(torch.zeros(1, 2, 2, 2), targets).item() == pytest.approx(1 / 255, abs=1e-6)


def test_the_right_answer_shifted_by_a_voxel_costs_at_the_surface() -> None:
    target = torch.zeros(1, 4, 24, 24)
    target[:, :, 8:16, 8:16] = 1
    costs = [SurfaceCubes()(20 * target.roll(shift, -1) * 2 - 20, target).item() for shift in range(4)]
    assert costs[0] < 1e-5
    assert costs == sorted(costs)


def test_a_network_that_gives_one_slice_is_refused() -> None:
    with pytest.raises(InputError, match="needs 2 neighbouring output slices"):
        build_loss("dice + surface_cubes")(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
