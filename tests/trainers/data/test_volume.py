"""A part of a volume is a volume: its slices, and its vessels counted from its own first slice."""

import numpy as np
import pytest
from kidneys import tube

from trainers.data.volume import Volume, middle_part


def branch(last: int) -> Volume:
    """A kidney of 24 slices whose vessels end after slice `last`."""
    volume = tube("a")
    assert volume.label is not None
    label = volume.label.copy()
    label[last + 1 :] = 0
    return Volume(**{**vars(volume), "label": label, "vessel_voxels": np.flatnonzero(label)})


@pytest.mark.parametrize(("last", "first"), [(23, 9), (11, 3), (1, 0)])  # slice (last + 1) / 2, less three
def test_the_middle_part_lies_around_the_middle_vessel_voxel(last: int, first: int) -> None:
    whole = branch(last)
    part = middle_part(whole, 6)
    assert part.shape == (6, 48, 48)
    assert np.array_equal(part.image, whole.image[first : first + 6])
    assert part.label is not None
    assert np.array_equal(part.vessel_voxels, np.flatnonzero(part.label))


def test_a_part_of_a_part_is_the_part() -> None:
    whole = branch(23)
    assert np.array_equal(middle_part(middle_part(whole, 12), 6).image, middle_part(whole, 6).image)


@pytest.mark.parametrize("slices", [None, 24, 100])
def test_a_volume_without_more_slices_stays_whole(slices: int | None) -> None:
    whole = branch(23)
    assert middle_part(whole, slices) is whole
