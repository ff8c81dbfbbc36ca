"""Skeletons by geometry, and how the loss reacts to breaks and rough borders."""

import pytest
import torch
from torch import Tensor

from trainers.losses.centreline import CentrelineDice, soft_skeleton


def _vessel(half_width: int, length: int = 40) -> Tensor:
    """A horizontal bar of 2 half_width + 1 voxels around row 15."""
    mask = torch.zeros(1, 1, 31, length + 20)
    mask[0, 0, 15 - half_width : 16 + half_width, 10 : 10 + length] = 1
    return mask


def _loss(predicted: Tensor, target: Tensor) -> float:
    return CentrelineDice()(60 * predicted - 30, target).item()


@pytest.mark.parametrize("half_width", [0, 1, 3, 5])
def test_the_skeleton_of_a_bar_is_its_middle_line(half_width: int) -> None:
    skeleton = soft_skeleton(_vessel(half_width))[0, 0]
    middle = skeleton[15, 10 + half_width : 50 - half_width]
    assert (middle == 1).all()
    corners = 10 + half_width + 1  # away from the ends, where branches run to the corners
    assert skeleton[:, corners : 60 - corners].sum() == 60 - 2 * corners


def test_a_bar_thicker_than_the_erosions_reach_has_no_middle_line() -> None:
    assert soft_skeleton(_vessel(7))[0, 0, 15, 25:35].sum() == 0


def test_a_break_costs_more_than_as_many_voxels_at_the_border() -> None:
    target = _vessel(2)
    broken, rough = target.clone(), target.clone()
    broken[0, 0, 13:18, 26:34] = 0  # 40 voxels: 8 columns of 5
    rough[0, 0, 13, 10:50] = 0  # 40 voxels: one of the rows at the border
    assert _loss(target, target) < 1e-5
    assert _loss(broken, target) > 0.05
    assert _loss(broken, target) > 2 * _loss(rough, target)


def test_a_false_branch_costs_though_all_of_the_vessel_is_found() -> None:
    target = _vessel(1)
    branched = target.clone()
    branched[0, 0, 2:14, 30] = 1
    assert _loss(branched, target) > 0.05
