"""A scan as NIfTI, in any orientation, for the tests of this folder."""

from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import aff2axcodes, axcodes2ornt, ornt_transform

GREY = np.random.default_rng(0).integers(0, 60_000, (6, 9, 13)).astype(np.uint16)
# A scan of 20 x 30 x 50 µm voxels (x, y, z), turned and moved in the body.
AFFINE = np.diag([0.02, 0.03, 0.05, 1.0])
AFFINE[:3, 3] = 7.0, -11.0, 3.0


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE, codes: str = "RAS", unit: str = "mm") -> Path:
    """Voxels (z, y, x) as an image that nibabel has turned, so that the same tissue lies at the same place."""
    stored = voxels.transpose(2, 1, 0).astype(np.uint16 if voxels.dtype == np.uint16 else np.uint8)
    image = nibabel.Nifti1Image(stored, affine).as_reoriented(
        ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(codes)))
    )
    assert "".join(aff2axcodes(image.affine)) == codes
    image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def voxels_of(stack) -> np.ndarray:
    with stack.reading() as read:
        parts = [read(z, min(z + 2, stack.shape[0])).copy() for z in range(0, stack.shape[0], 2)]
    return np.concatenate(parts)
