"""Borders of targets, and the losses that depend on them, compared with loops over voxels."""

import math

import pytest
import torch
from torch import Tensor

from trainers.losses.surface import BoundaryDoU, EdgeCrossEntropy, border_voxels


def _targets(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(2, 3, 7, 9, generator=generator) < 0.5).double()


def _border_by_loops(targets: Tensor) -> Tensor:
    found = torch.zeros_like(targets)
    batch, slices, height, width = targets.shape
    for b in range(batch):
        for s in range(slices):
            for y in range(height):
                for x in range(width):
                    for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                        if 0 <= y + dy < height and 0 <= x + dx < width:
                            found[b, s, y, x] += targets[b, s, y, x] != targets[b, s, y + dy, x + dx]
    return (found > 0).double()


@pytest.mark.parametrize("seed", range(3))
def test_borders_equal_those_of_a_loop(seed: int) -> None:
    assert torch.equal(border_voxels(_targets(seed)), _border_by_loops(_targets(seed)))


def test_a_vessel_cut_by_the_patch_has_no_border_there() -> None:
    targets = torch.zeros(1, 1, 4, 4)
    targets[..., :2] = 1
    assert border_voxels(targets)[0, 0].tolist() == [[0, 1, 1, 0]] * 4
    assert border_voxels(torch.ones(1, 1, 4, 4)).sum() == 0


@pytest.mark.parametrize("seed", range(3))
def test_edge_cross_entropy_equals_a_loop(seed: int) -> None:
    targets = _targets(seed)
    logits = torch.randn(targets.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    border, total, weights = _border_by_loops(targets), 0.0, 0.0
    for logit, target, edge in zip(logits.flatten(), targets.flatten(), border.flatten(), strict=True):
        probability = 1 / (1 + math.exp(-float(logit)))
        weight = 3.0 if edge else 1.0
        total -= weight * math.log(probability if target else 1 - probability)
        weights += weight
    assert EdgeCrossEntropy(3.0)(logits, targets).item() == pytest.approx(total / weights, rel=1e-12)


def test_boundary_dou_follows_its_formula_for_thick_and_thin_vessels() -> None:
    thick, thin = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    thick[..., 4:28, 4:28] = 1  # 576 voxels, 92 of them border: alpha = 1 - 2 * 92 / 576
    thin[..., :, 15] = 1  # all border: alpha = -1, which is the dice loss
    for targets, alpha in ((thick, 1 - 2 * 92 / 576), (thin, -1.0)):
        logits = 4 * targets - 2
        p, area = torch.sigmoid(torch.tensor(2.0)).item(), targets.sum().item()
        overlap, both = p * area, p * area + (1 - p) * (targets.numel() - area) + area
        expected = (both - 2 * overlap) / (both - (1 + alpha) * overlap)
        assert BoundaryDoU()(logits, targets).item() == pytest.approx(expected, rel=1e-5)
