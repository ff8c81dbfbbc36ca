"""Voxel spacings: by every name that formats have for them, unknown where they are not stated, refused where absurd."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from command_line import nas

from nas.bundles.score_masks import score_masks
from search_spaces.errors import InputError
from trainers.data.check import check
from trainers.data.folds import DataConfig, choose
from trainers.data.geometry import Geometry
from trainers.data.masks import write_mask
from trainers.data.readers import open_slices
from trainers.data.sources import scan, scan_one
from trainers.metrics.surface_dice import surface_dice
from trainers.report import Report

GREY = np.random.default_rng(0).integers(0, 60_000, (4, 9, 13)).astype(np.uint16)
MASK = np.random.default_rng(1).random(GREY.shape) < 0.2


def tiff(folder: Path, **options: object) -> Path:
    tifffile.imwrite(folder / "k.tif", GREY, **options)
    return folder / "k.tif"


def slices(folder: Path, **options: object) -> Path:
    for z, one in enumerate(GREY):
        tifffile.imwrite(folder / f"{z:04d}.tif", one, metadata=None, **options)
    return folder


def imagej(folder: Path, unit: str | None, spacing: float | None, x: float, y: float) -> Path:
    metadata = {"axes": "ZYX", "spacing": spacing, "unit": unit}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return tiff(folder, imagej=True, resolution=(1 / x, 1 / y), metadata=metadata)


def ome(folder: Path, size: tuple[float, float, float], *units: str) -> Path:
    metadata: dict[str, object] = {"axes": "ZYX"}
    for number, (axis, edge) in enumerate(zip("ZYX", size, strict=True)):
        metadata[f"PhysicalSize{axis}"] = edge
        if units:
            metadata[f"PhysicalSize{axis}Unit"] = units[number % len(units)]
    return tiff(folder, ome=True, metadata=metadata)


def ome_zarr(folder: Path, scale: list[float] | None, *units: str | None, outer: list[float] | None = None) -> Path:
    group = zarr.open_group(str(folder / "k.zarr"), mode="w", zarr_format=2)
    group.create_array("0", shape=GREY.shape, dtype=GREY.dtype)[:] = GREY
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    for axis, unit in zip(axes, units, strict=False):
        if unit is not None:
            axis["unit"] = unit
    data: dict[str, object] = {"path": "0"}
    if scale is not None:
        data["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
    described: dict[str, object] = {"axes": axes, "datasets": [data]}
    if outer is not None:
        described["coordinateTransformations"] = [{"type": "scale", "scale": outer}]
    group.attrs["multiscales"] = [described]
    return folder / "k.zarr"


def nifti(folder: Path, edge: float, unit: str | None, code: int = 1) -> Path:
    image = nibabel.Nifti1Image(GREY.transpose(2, 1, 0), np.diag([edge, edge, 2 * edge, 1]))
    image.set_sform(image.affine, code)
    image.set_qform(image.affine, code)
    if unit is not None:
        image.header.set_xyzt_units(unit)
    nibabel.save(image, folder / "k.nii")
    return folder / "k.nii"


Write = Callable[[Path], Path]
STATED: dict[str, tuple[Write, tuple[float, float, float]]] = {
    "imagej, micron": (lambda at: imagej(at, "micron", 5.0, 2.0, 3.0), (5, 3, 2)),
    "imagej, um": (lambda at: imagej(at, "um", 5.0, 2.0, 3.0), (5, 3, 2)),
    "imagej, mm": (lambda at: imagej(at, "mm", 0.05, 0.02, 0.03), (50, 30, 20)),
    "imagej, inch": (lambda at: imagej(at, "inch", 0.002, 0.001, 0.001), (50.8, 25.4, 25.4)),
    "imagej, slices one unit apart": (lambda at: imagej(at, "micron", None, 1.0, 1.0), (1, 1, 1)),
    "ome, default unit": (lambda at: ome(at, (5.0, 3.0, 2.0)), (5, 3, 2)),
    "ome, nm": (lambda at: ome(at, (5.0, 3.0, 2.0), "nm", "µm", "mm"), (0.005, 3, 2000)),
    "ome, angstrom": (lambda at: ome(at, (500.0, 300.0, 200.0), "Å"), (0.05, 0.03, 0.02)),
    "tags, centimetre": (lambda at: slices(at, resolution=(200, 200), resolutionunit="CENTIMETER"), (50, 50, 50)),
    "tags, inch": (lambda at: slices(at, resolution=(508, 508), resolutionunit="INCH"), (50, 50, 50)),
    "ome-zarr, micrometer": (lambda at: ome_zarr(at, [5, 3, 2], *["micrometer"] * 3), (5, 3, 2)),
    "ome-zarr, micrometre": (lambda at: ome_zarr(at, [5, 3, 2], *["micrometre"] * 3), (5, 3, 2)),
    "ome-zarr, centimeter": (lambda at: ome_zarr(at, [5e-3, 3e-3, 2e-3], *["centimeter"] * 3), (50, 30, 20)),
    "ome-zarr, angstrom": (lambda at: ome_zarr(at, [5e4, 3e4, 2e4], *["angstrom"] * 3), (5, 3, 2)),
    "ome-zarr, three units": (lambda at: ome_zarr(at, [5, 3, 2], "um", "nanometer", "millimeter"), (5, 0.003, 2e3)),
    "ome-zarr, scaled twice": (
        lambda at: ome_zarr(at, [5, 3, 2], *["micrometer"] * 3, outer=[10, 10, 10]), (50, 30, 20),
    ),
    "nifti, mm": (lambda at: nifti(at, 0.05, "mm"), (100, 50, 50)),
    "nifti, micron": (lambda at: nifti(at, 50.0, "micron"), (100, 50, 50)),
    "nifti, meter": (lambda at: nifti(at, 5e-5, "meter"), (100, 50, 50)),
    "nifti, no unit": (lambda at: nifti(at, 0.05, None), (100, 50, 50)),
    "nifti, no unit and no place": (lambda at: nifti(at, 0.05, None, code=0), (100, 50, 50)),
}  # fmt: skip
UNKNOWN: dict[str, Write] = {
    "imagej without a unit": lambda at: imagej(at, None, 5.0, 2.0, 3.0),
    "imagej, pixels": lambda at: imagej(at, "pixel", 5.0, 2.0, 3.0),
    "imagej, another unit": lambda at: imagej(at, "furlong", 5.0, 2.0, 3.0),
    "ome without sizes": lambda at: tiff(at, ome=True, metadata={"axes": "ZYX"}),
    "ome, reference frame": lambda at: ome(at, (5.0, 3.0, 2.0), "reference frame"),
    "tags of a screen": lambda at: slices(at, resolution=(72, 72), resolutionunit="INCH"),
    "tags of a printer": lambda at: slices(at, resolution=(300, 300), resolutionunit="INCH"),
    "tags without a unit": lambda at: slices(at, resolution=(200, 200), resolutionunit="NONE"),
    "tags of oblong pixels": lambda at: slices(at, resolution=(200, 100), resolutionunit="CENTIMETER"),
    "ome-zarr without units": lambda at: ome_zarr(at, [5, 3, 2]),
    "ome-zarr, one unit missing": lambda at: ome_zarr(at, [5, 3, 2], "micrometer", None, "micrometer"),
    "ome-zarr, another unit": lambda at: ome_zarr(at, [5, 3, 2], *["furlong"] * 3),
    "ome-zarr without a scale": lambda at: ome_zarr(at, None, *["micrometer"] * 3),
}


@pytest.mark.parametrize("kind", STATED)
def test_the_spacing_that_a_file_states_counts(tmp_path, kind: str) -> None:
    write, expected = STATED[kind]
    assert open_slices(write(tmp_path)).spacing_um == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", UNKNOWN)
def test_a_spacing_that_is_not_stated_stays_unknown(tmp_path, kind: str) -> None:
    assert open_slices(UNKNOWN[kind](tmp_path)).spacing_um is None


def test_what_was_assumed_is_said(tmp_path) -> None:
    assert open_slices(nifti(tmp_path, 0.05, None)).notes == ("the unit of its voxel size is not stated, taken as mm",)
    assert "furlong" in open_slices(imagej(tmp_path, "furlong", 5.0, 2.0, 3.0)).notes[0]
    assert "furlong" in open_slices(ome_zarr(tmp_path, [5, 3, 2], *["furlong"] * 3)).notes[0]


def raw_nifti(folder: Path, edge: float, code: int = 1) -> Path:
    """A header as nibabel does not write it: the edge along x, in pixdim and in an affine that counts if code is 1."""
    nifti(folder, 1.0, "micron")
    header = nibabel.load(folder / "k.nii").header
    header["pixdim"][1], header["srow_x"][0], header["qform_code"], header["sform_code"] = edge, edge, 0, code
    (folder / "k.nii").write_bytes(header.binaryblock + bytes(4) + GREY.tobytes())
    return folder / "k.nii"


ABSURD: dict[str, tuple[Callable[[Path, float], Path], list[float]]] = {
    "ome-zarr": (lambda at, edge: ome_zarr(at, [edge, 3, 2], *["micrometer"] * 3), [0, np.inf, np.nan, -1, 0.001, 1e6]),
    "ome": (lambda at, edge: ome(at, (edge, 3, 2)), [0, np.inf, np.nan, -1, 0.001, 1e6]),
    "imagej": (lambda at, edge: imagej(at, "micron", edge, 2, 3), [0, np.inf, np.nan, -1, 0.001, 1e6]),
    "tags": (lambda at, edge: slices(at, resolution=(1e4 / edge,) * 2, resolutionunit="CENTIMETER"), [0.001, 1e6]),
    "nifti": (raw_nifti, [0, np.inf, np.nan, 0.001, 1e6]),
    "nifti without a place": (lambda at, edge: raw_nifti(at, edge, code=0), [0, np.inf, np.nan, 0.001, 1e6]),
}


@pytest.mark.parametrize(("kind", "edge"), [(kind, edge) for kind, (_, edges) in ABSURD.items() for edge in edges])
def test_a_spacing_that_no_scan_has_is_refused_before_anything_else(tmp_path, kind: str, edge: float) -> None:
    path = ABSURD[kind][0](tmp_path, edge)
    with pytest.raises(InputError, match=r"states voxels of .* µm; those of a scan have 0\.01 to 100,000 µm"):
        scan_one(path)


def test_data_check_names_the_file(tmp_path) -> None:
    (tmp_path / "scans").mkdir()
    ome_zarr(tmp_path / "scans", [0.0, 3, 2], *["micrometer"] * 3)
    (row,) = check(tmp_path / "scans", cache=tmp_path / "cache")
    assert row.error is not None and "k.zarr: states voxels of 0 x 3 x 2 µm" in row.error


def test_the_spacing_of_the_labels_counts_where_the_image_states_none(tmp_path) -> None:
    np.save(tmp_path / "k.npy", GREY)
    write_mask(tmp_path / "k_labels.tif", MASK, Geometry.counted(MASK.shape, (50.0, 50.0, 50.0)))
    assert scan_one(tmp_path / "k.npy").spacing_um == (50.0, 50.0, 50.0)


def two_kidneys(folder: Path, said: str) -> None:
    for name in "ab":
        np.save(folder / f"{name}.npy", GREY)
        np.save(folder / f"{name}_labels.npy", MASK)
    (folder / "dataset.toml").write_text(said)


@pytest.mark.parametrize(
    "said", ["[volumes.a]\n[volumes.b]\nvoxel_spacing_um = 50", "[volumes.a]\nvoxel_spacing_um = 50\n[volumes.b]"]
)
def test_a_scan_of_unknown_spacing_is_trained_and_scored_on(tmp_path, said: str) -> None:
    two_kidneys(tmp_path, said)
    notes: list[str] = []
    train, held_out = choose(scan(tmp_path), DataConfig(hold_out="b"), Report(notes.append))
    assert ([s.name for s in train], [s.name for s in held_out]) == (["a"], ["b"])
    assert not notes


def test_a_mask_of_unknown_spacing_states_none(tmp_path) -> None:
    unknown = Geometry.counted(MASK.shape)
    write_mask(tmp_path / "m.tif", MASK, unknown)
    write_mask(tmp_path / "m", MASK, unknown)
    write_mask(tmp_path / "m.zarr", MASK, unknown)
    for path in (tmp_path / "m.tif", tmp_path / "m" / "0000.tif"):
        with tifffile.TiffFile(path) as tif:
            assert int(tif.pages.first.tags["ResolutionUnit"].value) == 1
    described = zarr.open_group(str(tmp_path / "m.zarr"), mode="r").attrs["ome"]["multiscales"][0]
    assert all("unit" not in axis for axis in described["axes"])
    assert all(open_slices(tmp_path / name).spacing_um is None for name in ("m", "m.tif", "m.zarr"))


def test_the_tolerance_of_a_score_is_measured_with_the_spacing_of_the_files(tmp_path) -> None:
    shifted = np.roll(MASK, 1, axis=2)
    place = Geometry.counted(MASK.shape, (50.0, 40.0, 30.0))
    one, other = write_mask(tmp_path / "p.tif", shifted, place), write_mask(tmp_path / "t.tif", MASK, place)
    np.save(tmp_path / "t.npy", MASK)
    np.save(tmp_path / "p.npy", shifted)
    for tolerance in (0.0, 29.0, 31.0):
        expected = surface_dice(shifted, MASK, (50.0, 40.0, 30.0), tolerance)
        assert score_masks(one, other, None, tolerance)["surface_dice"] == expected
        assert score_masks(one, tmp_path / "t.npy", None, tolerance)["surface_dice"] == expected
        assert score_masks(tmp_path / "p.npy", tmp_path / "t.npy", "50,40,30", tolerance)["surface_dice"] == expected
    with pytest.raises(InputError, match=r"neither .*p\.npy nor .*t\.npy states a voxel spacing, so 31 µm"):
        score_masks(tmp_path / "p.npy", tmp_path / "t.npy", None, 31.0)
    assert score_masks(tmp_path / "p.npy", tmp_path / "t.npy", None, 0.0)["surface_dice"] > 0


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "1,2", "fifty", "", "1e9"])
def test_a_spacing_that_makes_no_sense_is_refused(tmp_path, given: str) -> None:
    path = write_mask(tmp_path / "m.tif", MASK, Geometry.counted(MASK.shape))
    with pytest.raises(InputError, match="--spacing-um"):
        score_masks(path, path, given, 0.0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["m.zarr", "m.csv"])
def test_masks_that_memory_cannot_hold_are_refused_before_it_is_taken(tmp_path, name: str) -> None:
    if name == "m.csv":
        rows = "".join(f"m_{z:04d},1 0,32768,32768\n" for z in range(3000))
        (tmp_path / name).write_text(f"id,rle,height,width\n{rows}")
        says = "3000 x 32768 x 32768 voxels take 6,000 GiB of memory"
    else:
        zarr.create_array(str(tmp_path / name), shape=(30_000,) * 3, chunks=(64, 64, 64), dtype="uint8")
        says = "30000 x 30000 x 30000 voxels take 50,291 GiB of memory"
    with pytest.raises(InputError, match=says):
        score_masks(tmp_path / name, tmp_path / name, None, 0.0)


def test_a_score_says_with_which_spacing_it_was_made(tmp_path) -> None:
    place = Geometry.counted(MASK.shape, (50.0, 40.0, 30.0))
    stated, unknown = write_mask(tmp_path / "p.tif", MASK, place), tmp_path / "p.npy"
    np.save(unknown, MASK)
    used = [(stated, unknown), (unknown, unknown), (unknown, unknown, "--spacing-um", "7")]
    said = [json.loads(nas("score", *arguments, "--json").stdout)["spacing_um"] for arguments in used]
    assert said == [[50.0, 40.0, 30.0], None, [7.0, 7.0, 7.0]]
    assert "spacing um: 50 x 40 x 30\n" in nas("score", stated, unknown).stdout
    assert "spacing um: not stated\n" in nas("score", unknown, unknown).stdout
