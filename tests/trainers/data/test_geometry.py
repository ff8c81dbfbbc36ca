"""Where voxels lie: stated by every format, compared where two stacks meet, kept by what is written."""

import itertools
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from nibabel.orientations import inv_ornt_aff
from niftis import AFFINE, GREY, nifti, voxels_of
from PIL import Image, ImageOps

from nas.bundles.score_masks import score_masks
from search_spaces.errors import InputError
from trainers.data.geometry import Geometry, Turn, bring_together
from trainers.data.masks import read_mask, write_mask
from trainers.data.place import VolumeSource
from trainers.data.readers import open_slices
from trainers.data.sources import scan, scan_one
from trainers.data.turned import brought_onto
from trainers.metrics.surface_dice import surface_dice
from trainers.report import Report

MASK = np.random.default_rng(1).random(GREY.shape) < 0.2
CODES = [
    "".join(axes)
    for order in itertools.permutations("RAS")
    for axes in itertools.product(*({"R": "RL", "A": "AP", "S": "SI"}[a] for a in order))
]


@pytest.mark.parametrize("codes", CODES)
def test_labels_in_any_orientation_are_laid_onto_their_image(tmp_path, codes: str) -> None:
    nifti(tmp_path / "k.nii.gz", GREY)
    nifti(tmp_path / "k_labels.nii.gz", MASK, codes=codes)
    notes: list[str] = []
    (source,) = scan(tmp_path, Report(notes.append))
    assert source.label is not None
    assert np.array_equal(voxels_of(source.label), MASK)
    assert np.array_equal(voxels_of(source.image), GREY)
    assert any("is turned onto k.nii.gz" in note for note in notes) == (codes != "RAS")


@pytest.mark.parametrize("codes", ["LPS", "PIR", "SAR"])
def test_one_mask_in_two_orientations_agrees_with_itself(tmp_path, codes: str) -> None:
    one, other = nifti(tmp_path / "a.nii.gz", MASK), nifti(tmp_path / "b.nii.gz", MASK, codes=codes)
    assert score_masks(one, other, None, 0.0)["surface_dice"] == 1.0
    assert score_masks(other, one, None, 0.0)["surface_dice"] == 1.0


def moved(**parts: float) -> np.ndarray:
    affine = AFFINE.copy()
    for axis, distance in parts.items():
        affine["xyz".index(axis), 3] += distance
    return affine


def rotated(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = AFFINE.copy()
    affine[:3, :3] = turn @ affine[:3, :3]
    return affine


REFUSED = {
    "ten times coarser": (
        AFFINE @ np.diag([10, 10, 10, 1]),
        "its voxels are 500 x 300 x 200 µm and those of the other",
    ),
    "five per cent coarser": (AFFINE @ np.diag([1.05, 1, 1, 1]), r"its voxels are 50 x 30 x 21 µm"),
    "one voxel further": (moved(x=0.02), r"its first voxel lies 1\.0 voxels away"),
    "half a voxel further": (moved(y=0.015), r"its first voxel lies 0\.8 voxels away"),
    "turned by five degrees": (rotated(5), r"its axes are turned by 5\.0 degrees"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_labels_that_lie_elsewhere_are_refused(tmp_path, case: str) -> None:
    affine, says = REFUSED[case]
    nifti(tmp_path / "k.nii.gz", GREY)
    nifti(tmp_path / "k_labels.nii.gz", MASK, affine)
    with pytest.raises(InputError, match=rf"k_labels\.nii\.gz does not lie on .*k\.nii\.gz: {says}"):
        scan(tmp_path)
    with pytest.raises(InputError, match=says):
        score_masks(tmp_path / "k_labels.nii.gz", nifti(tmp_path / "other.nii.gz", MASK), None, 0.0)


@pytest.mark.parametrize("affine", [AFFINE @ np.diag([1.003, 1.003, 1.003, 1]), moved(x=1e-4), rotated(0.02)])
def test_what_rounding_changes_is_the_same_place(tmp_path, affine: np.ndarray) -> None:
    nifti(tmp_path / "k.nii.gz", GREY)
    nifti(tmp_path / "k_labels.nii.gz", MASK, affine)
    (source,) = scan(tmp_path)
    assert np.array_equal(voxels_of(source.label), MASK)


LONG = Geometry((3000, 2000, 1000), tuple(range(3000)), False, (50.0, 50.0, 50.0), "NIfTI")


def lying(degrees: float, precision: type = np.float64) -> Geometry:
    """LONG, turned about x by 30 degrees and some more, as an affine of that precision says it."""
    angle = np.radians(30 + degrees)
    cosine, sine = np.cos(angle), np.sin(angle)
    directions = np.array([(0, -sine, cosine), (0, cosine, sine), (1, 0, 0)])
    columns = (directions * 0.05).astype(precision).astype(float)
    edges = 1000 * np.linalg.norm(columns, axis=1)
    z, y, x = (tuple(column) for column in columns * 1000 / edges[:, None])
    return replace(LONG, spacing_um=tuple(edges), directions=(z, y, x), origin_um=(7e3, -11e3, 3e3))


def test_labels_turned_by_a_little_are_refused_where_their_farthest_corner_is_another_voxel() -> None:
    """The farthest corner of 3000 x 2000 voxels lies 3604 voxels from the first: 0.5 of one are 0.00795 degrees."""
    assert bring_together(lying(0), lying(0.0079)) == Turn()
    with pytest.raises(ValueError, match=r"turned by 0\.0081 degrees, so that its farthest corner lies 0\.5 voxels"):
        bring_together(lying(0), lying(0.0081))
    with pytest.raises(ValueError, match=r"turned by 2\.4 degrees, so that its farthest corner lies 151\.0 voxels"):
        bring_together(lying(0), lying(2.4))


def test_an_affine_in_single_precision_says_the_same_place() -> None:
    assert bring_together(lying(0), lying(0, np.float32)) == Turn()
    assert bring_together(lying(0, np.float32), lying(0)) == Turn()


def test_an_oblique_scan_and_its_labels_lie_together(tmp_path) -> None:
    nifti(tmp_path / "k.nii.gz", GREY, rotated(30))
    flipped = nibabel.Nifti1Image(
        MASK.transpose(2, 1, 0)[::-1].astype(np.uint8),
        rotated(30) @ inv_ornt_aff([[0, -1], [1, 1], [2, 1]], GREY.shape[::-1]),
    )
    flipped.header.set_xyzt_units("mm")
    nibabel.save(flipped, tmp_path / "k_labels.nii.gz")
    (source,) = scan(tmp_path)
    assert np.array_equal(voxels_of(source.label), MASK)


@pytest.mark.parametrize(("image", "label"), list(itertools.product(range(1, 9), [1, 3, 6])))
def test_slices_are_laid_onto_each_other_by_their_orientation_tag(tmp_path, image: int, label: int) -> None:
    """Pillow, asked to show each slice upright, must see the same tissue."""
    stored = {"images": np.random.default_rng(2).integers(0, 250, (3, 8, 8)).astype(np.uint8)}
    stored["labels"] = np.zeros((3, 8, 8), np.uint8)
    stored["labels"][:, 1, 2:5] = 255
    for name, value in (("images", image), ("labels", label)):
        (tmp_path / "k" / name).mkdir(parents=True)
        for z, one in enumerate(stored[name]):
            tifffile.imwrite(tmp_path / "k" / name / f"{z:04d}.tif", one, extratags=[(274, "H", 1, value, True)])
    source = scan_one(tmp_path / "k")
    shown = {}
    for name, stack in (("images", source.image), ("labels", source.label)):
        shown[name] = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "k" / name / "0000.tif")))
        assert stack is not None
    # Brought onto the image's own rows and columns, the label that is shown must be the label that is read.
    upright = Image.fromarray(voxels_of(source.label)[0])
    upright.getexif()[274] = image
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(upright)), shown["labels"])


def test_slices_of_one_folder_lie_alike(tmp_path) -> None:
    for z, value in enumerate((1, 1, 4)):
        tifffile.imwrite(tmp_path / f"{z:04d}.tif", GREY[z], extratags=[(274, "H", 1, value, True)])
    with pytest.raises(InputError, match=r"0002\.tif: its orientation tag is 4, but that of 0000\.tif is 1"):
        voxels_of(open_slices(tmp_path))


def ome_zarr(path: Path, voxels: np.ndarray, scale: list[float], moved_to: list[float] | None = None) -> Path:
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", shape=voxels.shape, dtype=voxels.dtype)[:] = voxels
    steps: list[dict[str, object]] = [{"type": "scale", "scale": scale}]
    if moved_to is not None:
        steps.append({"type": "translation", "translation": moved_to})
    axes = [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]
    return path


def test_the_place_of_an_ome_zarr_image_is_compared(tmp_path) -> None:
    ome_zarr(tmp_path / "k.zarr", GREY, [0.05] * 3, [1.0, 2.0, 3.0])
    ome_zarr(tmp_path / "k_labels.zarr", MASK, [0.05] * 3, [1.0, 2.0, 3.0])
    (source,) = scan(tmp_path)
    assert source.spacing_um == pytest.approx((50.0, 50.0, 50.0))
    ome_zarr(tmp_path / "k_labels.zarr", MASK, [0.05] * 3, [1.0, 2.0, 3.15])
    with pytest.raises(InputError, match=r"its first voxel lies 3\.0 voxels away"):
        scan(tmp_path)


def test_slice_numbers_are_compared_where_both_have_them(tmp_path) -> None:
    target = Geometry(GREY.shape, tuple(range(5, 11)), numbered=True)
    write_mask(tmp_path / "predicted", MASK, Geometry.counted(GREY.shape))
    write_mask(tmp_path / "target", MASK, target)
    write_mask(tmp_path / "target.tif", MASK, target)
    with pytest.raises(InputError, match="it has slices 0 to 5 and the other 5 to 10"):
        score_masks(tmp_path / "predicted", tmp_path / "target", None, 0.0)
    assert score_masks(tmp_path / "predicted", tmp_path / "target.tif", None, 0.0)["surface_dice"] == 1.0


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("name", ["mask", "mask.tif"])
def test_a_mask_of_a_turned_scan_lies_on_it(tmp_path, name: str, value: int) -> None:
    for z, one in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"{z:04d}.tif", one, extratags=[(274, "H", 1, value, True)])
    scanned = open_slices(tmp_path)
    written = open_slices(write_mask(tmp_path / "out" / name, MASK, scanned.geometry))
    stack, turned = brought_onto(scanned, written)
    assert turned == ()
    assert np.array_equal(read_mask(tmp_path / "out" / name), MASK)
    assert stack.geometry.directions == scanned.geometry.directions


def test_a_mask_of_an_ome_zarr_scan_lies_on_it(tmp_path) -> None:
    scanned = open_slices(ome_zarr(tmp_path / "k.zarr", GREY, [0.05] * 3, [1.0, 2.0, 3.0]))
    written = open_slices(write_mask(tmp_path / "mask.zarr", MASK, scanned.geometry))
    assert written.geometry.origin_um == pytest.approx(scanned.geometry.origin_um)
    assert written.spacing_um == pytest.approx(scanned.spacing_um)


def noted(root: Path) -> tuple[VolumeSource, list[str]]:
    notes: list[str] = []
    (source,) = scan(root, Report(notes.append))
    return source, notes


@pytest.mark.parametrize(("said", "told"), [(500.0, True), (50.0, False), (50.16, False)])
def test_the_spacing_in_dataset_toml_wins_over_that_of_labels_and_it_is_said(tmp_path, said: float, told: bool) -> None:
    np.save(tmp_path / "k.npy", GREY)
    write_mask(tmp_path / "k_labels.tif", MASK, Geometry.counted(MASK.shape, (50.0, 50.0, 50.0)))
    (tmp_path / "dataset.toml").write_text(f"[volumes.k]\nvoxel_spacing_um = {said}\n")
    source, notes = noted(tmp_path)
    assert source.spacing_um == (said, said, said)
    assert notes == ([f"k: k_labels.tif states voxels of 50 µm, taken as {said:g} µm"] if told else [])


@pytest.mark.parametrize("wrong", [np.inf, np.nan, 0.0, 25.4])
@pytest.mark.parametrize("whose", ["k.zarr", "k_labels.zarr"])
def test_dataset_toml_repairs_a_spacing_that_makes_no_sense(tmp_path, whose: str, wrong: float) -> None:
    for name, voxels in (("k.zarr", GREY), ("k_labels.zarr", MASK)):
        ome_zarr(tmp_path / name, voxels, [wrong if name == whose else 0.05] * 3, [0.0, 0.0, 0.0])
    with pytest.raises(InputError, match=r"voxel_spacing_um in dataset\.toml"):
        scan(tmp_path)
    with pytest.raises(InputError, match=r"\.zarr.* µm.*dataset\.toml"):
        score_masks(tmp_path / "k_labels.zarr", tmp_path / "k.zarr", None, 0.0)
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = 50.0\n")
    assert scan(tmp_path)[0].spacing_um == (50.0, 50.0, 50.0)


def test_a_score_uses_the_spacing_that_is_given_or_that_dataset_toml_states_of_either_mask(tmp_path) -> None:
    shifted = np.roll(MASK, 1, axis=2)
    predicted = write_mask(tmp_path / "out.tif", shifted, Geometry.counted(MASK.shape, (50.0, 50.0, 50.0)))
    write_mask(tmp_path / "data" / "k" / "labels", MASK, Geometry.counted(MASK.shape, (10.0, 10.0, 10.0)))
    write_mask(tmp_path / "data" / "l_seg.tif", MASK, Geometry.counted(MASK.shape, (10.0, 10.0, 10.0)))
    targets = [tmp_path / "data" / name for name in ("k", "k/labels", "l_seg.tif")]
    for target in targets:
        with pytest.raises(InputError, match="its voxels are 50 µm and those of the other 10 µm"):
            score_masks(predicted, target, None, 50.0)
        given = score_masks(predicted, target, "50", 50.0)["surface_dice"]
        assert given == surface_dice(shifted, MASK, (50.0, 50.0, 50.0), 50.0)
    (tmp_path / "data" / "dataset.toml").write_text(
        "[volumes.k]\nvoxel_spacing_um = 30.0\n[volumes.l]\nvoxel_spacing_um = 30.0\n"
    )
    for target in targets:
        by_manifest = score_masks(predicted, target, None, 50.0)["surface_dice"]
        assert by_manifest == surface_dice(shifted, MASK, (30.0, 30.0, 30.0), 50.0) != given


def test_what_only_one_of_two_files_says_about_its_place_is_said_to_be_left_aside(tmp_path) -> None:
    np.save(tmp_path / "k.npy", GREY)
    nifti(tmp_path / "k_labels.nii.gz", MASK, codes="LPS")
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = [50, 30, 20]\n")
    expected = "k_labels.nii.gz says how it lies, and k.npy does not: both are taken as they are stored"
    assert noted(tmp_path)[1] == [f"k: {expected}"]
    notes: list[str] = []
    mask = write_mask(tmp_path / "m.tif", MASK, Geometry.counted(MASK.shape))
    score_masks(tmp_path / "k_labels.nii.gz", mask, None, 0.0, Report(notes.append))
    assert notes == ["k_labels.nii.gz says how it lies, and m.tif does not: both are taken as they are stored"]
    mask.unlink()
    (tmp_path / "k.npy").unlink()
    ome_zarr(tmp_path / "k.zarr", GREY, [0.05, 0.03, 0.02], [1.0, 2.0, 3.0])
    assert noted(tmp_path)[1] == [
        "k: k_labels.nii.gz and k.zarr say how they lie in terms that cannot be compared: both are taken as they are "
        "stored"
    ]


def test_dataset_toml_may_correct_what_both_files_state(tmp_path) -> None:
    nifti(tmp_path / "k.nii.gz", GREY)
    nifti(tmp_path / "k_labels.nii.gz", MASK)
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = 63.0\n")
    source, notes = noted(tmp_path)
    assert source.spacing_um == (63.0, 63.0, 63.0)
    assert notes == [
        f"k: {name} states voxels of 50 x 30 x 20 µm, taken as 63 µm" for name in ("k.nii.gz", "k_labels.nii.gz")
    ]


@pytest.mark.parametrize("whose", ["image", "labels"])
def test_a_distance_of_slices_that_is_only_assumed_is_not_compared(tmp_path, whose: str) -> None:
    """OME-XML of one states three edges, that of the other only two."""
    for name, voxels in (("k.ome.tif", GREY), ("k_labels.ome.tif", MASK.astype(np.uint8))):
        sizes = {"PhysicalSizeY": 0.5, "PhysicalSizeX": 0.5}
        if (name == "k.ome.tif") == (whose == "image"):
            sizes["PhysicalSizeZ"] = 3.0
        tifffile.imwrite(tmp_path / name, voxels, ome=True, metadata={"axes": "ZYX", **sizes})
    (source,) = scan(tmp_path)
    assert source.spacing_um == (3.0, 0.5, 0.5)
