"""Weights and alphas never learn from the same voxels."""

from dataclasses import replace

import numpy as np
import pytest
from kidneys import tube

from search_spaces.errors import InputError
from trainers.cell_search.bilevel import bilevel_split
from trainers.data.volume import Volume
from trainers.report import Report


def _of(kidney: str, name: str, vessels: int) -> Volume:
    return replace(tube(name), kidney=kidney, vessel_voxels=np.arange(vessels))


def test_two_kidneys_are_one_side_each() -> None:
    notes: list[str] = []
    first, second = bilevel_split([_of("k1", "a", 50), _of("k1", "b", 30), _of("k2", "c", 60)], 8, Report(notes.append))
    assert {v.kidney for v in first} == {"k1"}
    assert {v.kidney for v in second} == {"k2"}
    assert notes == []


def test_several_kidneys_are_dealt_so_that_both_sides_have_vessels() -> None:
    volumes = [_of(f"k{i}", f"v{i}", vessels) for i, vessels in enumerate((10, 40, 25, 35))]
    first, second = bilevel_split(volumes, 8)
    assert not {v.kidney for v in first} & {v.kidney for v in second}
    sides = [sum(len(v.vessel_voxels) for v in side) for side in (first, second)]
    assert sorted(sides) == [50, 60]


def test_if_one_kidney_has_nearly_all_vessels_its_volumes_are_split() -> None:
    notes: list[str] = []
    volumes = [_of("k1", "a", 50), _of("k1", "b", 48), _of("k2", "c", 2)]
    first, second = bilevel_split(volumes, 8, Report(notes.append))
    assert {v.name for v in first} == {"a"}
    assert {v.name for v in second} == {"b", "c"}
    assert "different volumes of it" in notes[0]


def test_volumes_inside_each_other_stay_on_one_side() -> None:
    whole, zoom, other = _of("k3", "kidney_3_sparse", 50), _of("k3", "kidney_3_dense", 45), _of("k3", "a", 40)
    first, second = bilevel_split([whole, zoom, other], 8)
    assert [{v.name for v in side} for side in (first, second)] == [{"kidney_3_sparse", "kidney_3_dense"}, {"a"}]


def test_of_volumes_inside_each_other_one_is_cut() -> None:
    whole, zoom = (replace(tube(name, (40, 32, 32)), kidney="k3") for name in ("kidney_3_sparse", "kidney_3_dense"))
    first, second = bilevel_split([whole, zoom], 12)
    assert len(first) == len(second) == 1
    assert first[0].shape[0] + second[0].shape[0] == 40 - 12


def test_one_volume_is_cut_into_slabs_with_a_gap() -> None:
    volume = tube("a", (40, 32, 32))
    notes: list[str] = []
    (first,), (second,) = bilevel_split([volume], 12, Report(notes.append))
    assert first.shape[0] + second.shape[0] == 40 - 12
    np.testing.assert_array_equal(first.image, volume.image[: first.shape[0]])
    np.testing.assert_array_equal(second.image, volume.image[-second.shape[0] :])
    for part in (first, second):
        assert part.label is not None
        np.testing.assert_array_equal(np.flatnonzero(part.label), part.vessel_voxels)
    assert "12 slices apart" in notes[0]


@pytest.mark.parametrize(
    "volume", [tube("thin", (6, 32, 32)), replace(tube("bare"), vessel_voxels=np.zeros(0, np.int64))]
)
def test_a_volume_that_cannot_be_split_is_named_with_what_would_do(volume: Volume) -> None:
    with pytest.raises(InputError, match=rf"cells cannot be searched on {volume.name}: .* add a kidney"):
        bilevel_split([volume], 16)
