from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kidneys import tube

from trainers.data.contrast import share_contrast
from trainers.data.open_volumes import open_volumes
from trainers.data.sources import scan
from trainers.data.volume import Volume


def _flat(name: str, grey: int, shape: tuple[int, int, int] = (10, 20, 20), kidney: str = "k") -> Volume:
    return replace(
        tube(name, shape), kidney=kidney, image=np.full(shape, grey, np.uint16), grey_low=grey, grey_high=grey
    )


def test_pieces_of_one_kidney_share_the_scale_of_the_whole() -> None:
    air, tissue = share_contrast([_flat("air", 100), _flat("tissue", 900)])
    assert (air.grey_low, air.grey_high) == (tissue.grey_low, tissue.grey_high) == (100.0, 900.0)
    assert float(air.normalise(air.image).max()) == 0.0
    assert float(tissue.normalise(tissue.image).min()) == 1.0


def test_a_piece_counts_by_its_voxels() -> None:
    """One hundredth of the voxels lies below the second percentile."""
    large, small = _flat("large", 500, (99, 10, 10)), _flat("small", 100, (1, 10, 10))
    assert share_contrast([large, small])[0].grey_low == 500.0


def test_a_kidney_of_one_volume_keeps_its_own_scale() -> None:
    one = tube("one")
    other = _flat("other", 7, kidney="other")
    assert share_contrast([one, other]) == (one, other)


def test_another_voxel_spacing_is_another_scan() -> None:
    coarse, fine = _flat("coarse", 100), replace(_flat("fine", 900), spacing_um=(5.2, 5.2, 5.2))
    assert [v.grey_low for v in share_contrast([coarse, fine])] == [100.0, 900.0]


@pytest.mark.parametrize("other", ["float32", "int16", "uint16"])
def test_pieces_of_different_types_look_alike(tmp_path: Path, other: str) -> None:
    """A half that two pieces have in common, of which one is spread over 16 bits with its own brightest voxels."""
    half = np.random.default_rng(0).integers(1_000, 3_000, (8, 20, 20))
    bright = np.random.default_rng(1).integers(3_000, 9_000, (8, 20, 20))
    np.save(tmp_path / "k_top.npy", half.astype(np.float32))
    np.save(tmp_path / "k_bottom.npy", np.concatenate([half, bright]).astype(other))
    (tmp_path / "dataset.toml").write_text(
        "".join(f'[volumes.{name}]\nkidney = "k"\nvoxel_spacing_um = 50.0\n' for name in ("k_top", "k_bottom"))
    )
    bottom, top = open_volumes(scan(tmp_path), tmp_path / "cache")
    assert (bottom.name, top.name) == ("k_bottom", "k_top")
    assert np.allclose(top.normalise(top.image), bottom.normalise(bottom.image[:8]), atol=1e-3)
