"""What the header of a NIfTI file says, and what is done where it contradicts itself."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from niftis import AFFINE, GREY, nifti, voxels_of

from search_spaces.errors import InputError
from trainers.data.axes import Pick
from trainers.data.readers import open_slices
from trainers.data.sources import scan_one


def test_a_header_that_contradicts_itself_is_refused(tmp_path) -> None:
    image = nibabel.Nifti1Image(GREY.transpose(2, 1, 0), AFFINE)
    image.header.set_zooms((0.05, 0.05, 0.05))
    image.set_sform(AFFINE)
    nibabel.save(image, tmp_path / "k.nii.gz")
    with pytest.raises(InputError, match=r"its affine states voxels of 50 x 30 x 20 µm and pixdim 50 µm"):
        scan_one(tmp_path / "k.nii.gz")
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = 50.0\n")
    assert scan_one(tmp_path / "k.nii.gz").spacing_um == (50.0, 50.0, 50.0)


def changed_header(path: Path, **fields: object) -> Path:
    """A file by `nifti`, and then fields of its header as nibabel does not write them: values, or (place, value)."""
    nifti(path, GREY)
    stored = path.read_bytes()
    header = nibabel.load(path).header
    for name, value in {"vox_offset": 352, **fields}.items():
        if isinstance(value, tuple):
            header[name][value[0]] = value[1]
        else:
            header[name] = value
    path.write_bytes(header.binaryblock + stored[348:])
    return path


@pytest.mark.parametrize("edge", [0.0, np.nan, np.inf])
def test_an_edge_of_no_length_contradicts_an_affine_that_has_one(tmp_path, edge: float) -> None:
    path = changed_header(tmp_path / "k.nii", pixdim=(1, edge))
    with pytest.raises(InputError, match=rf"its affine states voxels of 50 x 30 x 20 µm and pixdim 50 x 30 x {edge:g}"):
        open_slices(path)
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = [50.0, 30.0, 20.0]\n")
    assert scan_one(path).spacing_um == (50.0, 30.0, 20.0)


def test_voxels_that_begin_inside_of_their_header_are_refused(tmp_path) -> None:
    """As those of a header that was written for a file of its own."""
    with pytest.raises(InputError, match=r"k\.nii: damaged: its voxels begin at byte 0, and its header ends at 352"):
        open_slices(changed_header(tmp_path / "k.nii", vox_offset=0))


# Three more affines of the same voxels, and whether they lie elsewhere than AFFINE.
FORMS = {
    "the same": (AFFINE, False),
    "rounded": (AFFINE * (1 + 1e-5), False),
    "moved": (AFFINE + np.array([[0, 0, 0, 0.01]] + [[0] * 4] * 3), True),  # by half a voxel along x
    "mirrored": (np.diag([-1.0, 1, 1, 1]) @ AFFINE, True),
}


@pytest.mark.parametrize("form", FORMS)
def test_of_two_affines_that_differ_the_sform_counts_and_that_is_said(tmp_path, form: str) -> None:
    qform, differs = FORMS[form]
    image = nibabel.Nifti1Image(GREY.transpose(2, 1, 0), AFFINE)
    image.set_qform(qform, 1)
    image.set_sform(AFFINE, 2)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "k.nii")
    stack = open_slices(tmp_path / "k.nii")
    assert stack.notes == (("its sform and its qform differ: it lies as the sform says",) if differs else ())
    assert stack.geometry.origin_um == pytest.approx((7_000, -11_000, 3_000))
    assert np.allclose(stack.geometry.directions, ((0, 0, 1), (0, 1, 0), (1, 0, 0)))


@pytest.mark.parametrize("quaternion", [5.0, np.nan])
def test_a_qform_that_is_no_rotation_differs_from_the_sform(tmp_path, quaternion: float) -> None:
    stack = open_slices(changed_header(tmp_path / "k.nii", qform_code=1, sform_code=1, quatern_b=quaternion))
    assert stack.notes == ("its sform and its qform differ: it lies as the sform says",)
    assert stack.spacing_um == pytest.approx((50, 30, 20))


@pytest.mark.parametrize(("slant", "sheared"), [(0.005, False), (0.1, True)])
def test_an_affine_that_is_sheared_is_refused(tmp_path, slant: float, sheared: bool) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = slant * 0.03  # the step along y also leads along x: by a cosine of 0.005 or 0.0995
    image = nibabel.Nifti1Image(GREY.transpose(2, 1, 0), affine)
    image.set_qform(None)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "k.nii")
    if sheared:
        with pytest.raises(InputError, match=r"its affine is sheared, its axes meet at 84\.3 degrees"):
            open_slices(tmp_path / "k.nii")
        (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = 50.0\n")
        directions = np.array(scan_one(tmp_path / "k.nii").geometry.directions)
        assert np.allclose(directions @ directions.T, np.eye(3))
        assert (np.diag(directions[:, ::-1]) > 0.998).all()  # each within half of the slant, 2.9 degrees
    else:
        assert open_slices(tmp_path / "k.nii").spacing_um == pytest.approx((50, 30, 20), rel=1e-4)


def test_labels_that_run_the_other_way_are_turned_onto_a_sheared_scan_whose_spacing_is_stated(tmp_path) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = 0.012 * 0.03  # 0.7 degrees, which moves no corner of this scan by half a voxel
    mask = np.random.default_rng(1).random(GREY.shape) < 0.2
    for name, voxels in (("k.nii", GREY), ("k_labels.nii", mask.astype(np.uint8)[:, :, ::-1])):
        lies = (
            affine
            if name == "k.nii"
            else AFFINE @ np.array([[-1, 0, 0, GREY.shape[2] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        )
        image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), lies)
        image.set_qform(None)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, tmp_path / name)
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = [50.0, 30.0, 20.0]\n")
    source = scan_one(tmp_path / "k.nii")
    assert source.label is not None
    assert np.array_equal(voxels_of(source.label), mask)


def test_edges_and_directions_belong_to_the_axes_that_dataset_toml_names(tmp_path) -> None:
    stack = open_slices(nifti(tmp_path / "k.nii", GREY), Pick(names=("y", "z", "x")))
    assert np.array_equal(voxels_of(stack), GREY.transpose(1, 2, 0))
    assert stack.spacing_um == pytest.approx((30, 20, 50))
    assert np.allclose(stack.geometry.directions, ((0, 1, 0), (1, 0, 0), (0, 0, 1)))


def test_a_single_slice_states_no_spacing(tmp_path) -> None:
    nibabel.save(nibabel.Nifti1Image(GREY[0].T, AFFINE), tmp_path / "k.nii")
    stack = open_slices(tmp_path / "k.nii")
    assert (stack.shape, stack.spacing_um) == ((1, 9, 13), None)


@pytest.mark.parametrize("code", [4, 5, 6, 7, 7 | 0o70])
def test_a_code_of_a_unit_that_is_not_known_is_named_and_taken_as_mm(tmp_path, code: int) -> None:
    stack = open_slices(changed_header(tmp_path / "k.nii", xyzt_units=code))
    assert stack.spacing_um == pytest.approx((50.0, 30.0, 20.0))
    assert stack.notes == (f"the unit of its voxel size has the code {code & 7}, which is not known here, taken as mm",)


def test_slices_along_the_fourth_axis_are_read_as_the_advice_says_and_without_the_affine_of_others(tmp_path) -> None:
    path = tmp_path / "k.nii"
    voxels = np.arange(60, dtype=np.uint8).reshape(5, 4, 1, 3)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([0.05, 0.05, 0.05, 1])), path)
    with pytest.raises(InputError, match=r'say time = 0 of it .* to read the first of 3, or axes = "XYCZ" if it is z'):
        open_slices(path)
    stack = open_slices(path, Pick(names=("x", "y", "channel", "z")))
    with stack.reading() as read:
        assert np.array_equal(read(0, 3), voxels[:, :, 0].T)
    assert stack.spacing_um is None
    assert stack.notes == (
        "its affine and pixdim are those of its first three axes, one of which is not read: not taken",
    )
