"""The masks of slabs: each at its own threshold, without a surface where it was cut, and made only if needed."""

from pathlib import Path

import numpy as np
import pytest
from kidneys import tube
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.metrics.cross_fit import score
from trainers.metrics.score import ScoreConfig
from trainers.metrics.slabs import CutSlabs, LabelledPrediction, SlabMasks, Slabs, check_slabs, cut_into_slabs

SPACING = (50.0, 25.0, 63.0)
STARTS = (0, 3, 5)
COLUMNS = np.array([99, 149, 99, 49, 149, 99])  # of six slabs in two volumes


def two_volumes(folder: Path | None = None) -> Slabs:
    rng = np.random.default_rng(0)
    volumes = []
    for name in "ab":
        probabilities, target = rng.integers(0, 256, (9, 6, 7)).astype(np.uint8), rng.random((9, 6, 7)) < 0.3
        if folder is not None:
            np.save(folder / f"{name}.npy", probabilities)
            probabilities = np.load(folder / f"{name}.npy", mmap_mode="r")
        volumes.append(LabelledPrediction(name, probabilities, target, SPACING, STARTS))
    return Slabs(tuple(volumes))


def in_order(cut: CutSlabs, margin: int = 0) -> list[SlabMasks]:
    found = {masks.number: masks for masks in cut.masks(margin)}
    assert sorted(found) == list(range(len(cut.columns)))
    return [found[number] for number in sorted(found)]


def test_the_masks_of_slabs_are_the_volume_each_at_its_own_threshold() -> None:
    slabs = two_volumes()
    masks = in_order(slabs.cut(COLUMNS))
    for index, volume in enumerate(slabs.volumes):
        own = masks[3 * index : 3 * index + 3]
        np.testing.assert_array_equal(np.concatenate([m.target for m in own]), volume.target)
        levels = np.repeat(COLUMNS[3 * index : 3 * index + 3] + 1, (3, 2, 4))[:, None, None]
        np.testing.assert_array_equal(np.concatenate([m.predicted for m in own]), volume.probabilities >= levels)
        assert {m.spacing_um for m in own} == {SPACING}


@pytest.mark.parametrize("smallest", [None, 4])
@pytest.mark.parametrize("in_files", [False, True])
def test_masks_hold_what_the_curve_counted(smallest: int | None, in_files: bool, tmp_path: Path) -> None:
    cut = two_volumes(tmp_path if in_files else None).cut(COLUMNS, smallest)
    masks = in_order(cut)
    assert [int(m.predicted.sum()) for m in masks] == cut.at(cut.curve.predicted_voxels).tolist()
    assert [int(m.target.sum()) for m in masks] == cut.curve.target_voxels.tolist()
    assert [int((m.predicted & m.target).sum()) for m in masks] == cut.at(cut.curve.true_positives).tolist()


def steps_along_z(mask: NDArray[np.bool_], own: slice) -> int:
    """Steps between vessel and background from a slab's own slices to the slice before, and those at the very end."""
    return int((np.diff(mask.astype(np.int8), axis=0) != 0)[max(own.start - 1, 0) : own.stop - 1].sum())


def test_with_a_margin_a_cut_is_no_surface() -> None:
    target = np.zeros((9, 6, 7), bool)
    target[2:7, 1:3, 1:4] = True  # a bar that is cut twice: two caps of six voxels in all
    slabs = Slabs((LabelledPrediction("k", target * np.uint8(200), target, SPACING, STARTS),))
    masks = in_order(slabs.cut(np.array([99, 99, 99])), margin=1)
    assert [(len(m.target), m.own) for m in masks] == [(4, slice(0, 3)), (4, slice(1, 3)), (5, slice(1, 5))]
    assert [steps_along_z(m.predicted, m.own) for m in masks] == [6, 0, 6]


def test_a_margin_is_cut_at_the_threshold_of_the_slab_it_belongs_to() -> None:
    slabs = two_volumes()
    middle = in_order(slabs.cut(COLUMNS), margin=2)[1]
    np.testing.assert_array_equal(middle.predicted, slabs.volumes[0].probabilities[1:7] >= 150)


def test_surface_and_voxel_dice_make_no_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a mask was made")

    monkeypatch.setattr(CutSlabs, "masks", refuse)
    volume = tube("k")
    assert volume.label is not None
    assert score({"k": volume.label * np.uint8(255)}, [volume], ScoreConfig()).value == 1.0


def test_one_slab_chooses_for_no_other() -> None:
    thin = tube("thin", (3, 16, 16))
    with pytest.raises(InputError, match="thin has too few slices"):
        check_slabs([thin], 8)
    check_slabs([thin, thin], 8)
    assert cut_into_slabs({"thin": np.zeros(thin.shape, np.uint8)}, [thin], 8).owners == ["thin"]
