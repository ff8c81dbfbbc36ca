"""Voxel spacings: by every name that formats have for them, unknown where they are not stated, refused where absurd."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from nas.bundles.score_masks import score_masks
from search_spaces.errors import InputError
from trainers.data.axes import Pick
from trainers.data.check import check
from trainers.data.folds import DataConfig, choose
from trainers.data.geometry import Geometry
from trainers.data.masks import write_mask
from trainers.data.readers import open_slices
from trainers.data.sources import scan, scan_one
from trainers.report import Report

GREY = np.random.default_rng(0).integers(0, 60_000, (4, 9, 13)).astype(np.uint16)
MASK = np.random.default_rng(1).random(GREY.shape) < 0.2


def tiff(folder: Path, voxels: np.ndarray = GREY, **options: object) -> Path:
    tifffile.imwrite(folder / "k.tif", voxels, photometric="minisblack", **options)
    return folder / "k.tif"


def slices(folder: Path, **options: object) -> Path:
    for z, one in enumerate(GREY):
        tifffile.imwrite(folder / f"{z:04d}.tif", one, **{"metadata": None, **options})
    return folder


def fiji(folder: Path, metadata: dict[str, object], resolution: tuple[float, float]) -> Path:
    """Slices saved one by one."""
    return slices(folder, imagej=True, resolution=resolution, metadata=metadata)


def imagej(folder: Path, unit: str | None, spacing: float | None, x: float, y: float, **units: str) -> Path:
    metadata = {"axes": "ZYX", "spacing": spacing, "unit": unit, **units}
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
    "imagej, units of the axes": (
        lambda at: imagej(at, "micron", 5.0, 2.0, 3.0, yunit="mm", zunit="nm"), (0.005, 3000, 2),
    ),
    "imagej, by the tag": (
        lambda at: tiff(
            at, imagej=True, resolution=(200, 200), resolutionunit="CENTIMETER",
            metadata={"axes": "ZYX", "spacing": 0.01},
        ), (100, 50, 50),
    ),
    "imagej, slices that state no distance": (
        lambda at: fiji(at, {"unit": "micron"}, (0.2, 0.2)), (5, 5, 5),
    ),
    "imagej, slices that keep that of their stack": (
        lambda at: fiji(at, {"unit": "micron", "spacing": 7.0}, (0.2, 0.2)), (7, 5, 5),
    ),
    "tifffile's own, pixels by the tag": (
        lambda at: tiff(
            at, resolution=(200, 200), resolutionunit="CENTIMETER", metadata={"spacing": 0.08, "unit": "mm"}
        ),
        (80, 50, 50),
    ),
    "tifffile's own": (
        lambda at: tiff(at, resolution=(0.5, 0.25), metadata={"axes": "ZYX", "unit": "um", "spacing": 3.0}), (3, 4, 2),
    ),
    "tifffile's own, by the names of ome": (
        lambda at: tiff(at, metadata={"PhysicalSizeZ": 5.0, "PhysicalSizeY": 3.0, "PhysicalSizeX": 2.0}), (5, 3, 2),
    ),
    "ome without a distance of slices": (
        lambda at: tiff(at, ome=True, metadata={"axes": "ZYX", "PhysicalSizeY": 2.0, "PhysicalSizeX": 2.0}), (2, 2, 2),
    ),
    "ome without sizes, by the tags": (
        lambda at: tiff(
            at, ome=True, metadata={"axes": "ZYX"}, resolution=(200, 200), resolutionunit="CENTIMETER"
        ), (50, 50, 50),
    ),
    "ome, slices": (
        lambda at: slices(at, metadata={"axes": "YX", "PhysicalSizeY": 3.0, "PhysicalSizeX": 3.0}, ome=True), (3, 3, 3),
    ),
    "tags, millimetre": (lambda at: slices(at, resolution=(20, 20), resolutionunit="MILLIMETER"), (50, 50, 50)),
    "tags, micrometre": (lambda at: slices(at, resolution=(0.2, 0.2), resolutionunit="MICROMETER"), (5, 5, 5)),
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
    "imagej, inches of a screen": lambda at: imagej(at, "inch", None, 1 / 72, 1 / 72),
    "imagej, centimetres of a printer": lambda at: imagej(at, "cm", None, 1 / 118.11, 1 / 118.11),
    "imagej, oblong pixels of slices": lambda at: fiji(at, {"unit": "micron"}, (0.2, 0.25)),
    "tifffile's own, edges that are no numbers": lambda at: tiff(
        at, metadata={"axes": "ZYX", "PhysicalSizeX": "0.5 um", "PhysicalSizeY": "0.5 um"}
    ),
    "imagej, a depth in seconds": lambda at: imagej(at, "micron", 5.0, 2.0, 3.0, zunit="sec"),
    "tifffile's own without a resolution": lambda at: tiff(at, metadata={"unit": "um", "spacing": 3.0}),
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


# The resolutions of screens and printers, as programs round them: pixels per centimetre, and per metre.
@pytest.mark.parametrize(("unit", "resolution"), [("CENTIMETER", 28.35), ("CENTIMETER", 37.8), ("CENTIMETER", 118.11),
                                                  ("CENTIMETER", 1), ("INCH", 72.009), ("INCH", 299.9994),
                                                  ("INCH", 1)])  # fmt: skip
def test_the_resolution_of_a_screen_or_a_printer_is_no_spacing(tmp_path, unit: str, resolution: float) -> None:
    stack = open_slices(slices(tmp_path, resolution=(resolution,) * 2, resolutionunit=unit))
    assert stack.spacing_um is None
    assert "dots per inch, as programs do that know no spacing" in stack.notes[0]


def test_a_resolution_near_that_of_a_printer_is_a_spacing(tmp_path) -> None:
    stack = open_slices(slices(tmp_path, resolution=(300.6, 300.6), resolutionunit="INCH"))
    assert stack.spacing_um == pytest.approx((84.4977,) * 3, rel=1e-5)  # 25,400 / 300.6


def unlike_slices(folder: Path, **other: object) -> Path:
    """Slices of 50 µm, of which one states something else."""
    slices(folder, resolution=(200, 200), resolutionunit="CENTIMETER")
    tifffile.imwrite(folder / "0002.tif", GREY[2], metadata=None, **other)
    return folder


def all_of(path: Path) -> np.ndarray:
    with open_slices(path).reading() as read:
        return read(0, len(GREY))


def test_a_slice_with_another_spacing_is_named(tmp_path) -> None:
    path = unlike_slices(tmp_path, resolution=(250, 250), resolutionunit="CENTIMETER")
    with pytest.raises(InputError, match=r"0002\.tif: its voxels are 40 µm, but 0000\.tif has voxels of 50 µm"):
        all_of(path)


def test_a_spacing_that_the_first_slice_does_not_state_is_named(tmp_path) -> None:
    slices(tmp_path)
    tifffile.imwrite(tmp_path / "0002.tif", GREY[2], metadata=None, resolution=(250, 250), resolutionunit="CENTIMETER")
    with pytest.raises(InputError, match=r"0002\.tif: its voxels are 40 µm, but 0000\.tif states no spacing"):
        all_of(tmp_path)


def test_slices_of_different_spacings_are_read_where_a_person_states_one(tmp_path) -> None:
    (tmp_path / "k").mkdir()
    unlike_slices(tmp_path / "k", resolution=(250, 250), resolutionunit="CENTIMETER")
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = 45\n")
    (source,) = scan(tmp_path)
    assert source.spacing_um == (45.0, 45.0, 45.0)
    with source.image.reading() as read:
        assert np.array_equal(read(0, len(GREY)), GREY)


@pytest.mark.parametrize("other", [{}, {"resolution": (200.5, 200.5), "resolutionunit": "CENTIMETER"}])
def test_a_slice_that_states_no_spacing_or_a_rounded_one_is_read(tmp_path, other: dict) -> None:
    assert np.array_equal(all_of(unlike_slices(tmp_path, **other)), GREY)


def test_a_page_with_another_resolution_is_said(tmp_path) -> None:
    with tifffile.TiffWriter(tmp_path / "k.tif") as file:
        for z, one in enumerate(GREY):
            edge = (250, 250) if z == 2 else (200, 200)
            file.write(one, metadata=None, resolution=edge, resolutionunit="CENTIMETER")
    stack = open_slices(tmp_path / "k.tif")
    assert stack.spacing_um == (50.0, 50.0, 50.0)
    assert "the resolution tags of its page 2 differ from those of the first, which count" in stack.notes


def test_a_slice_of_two_channels_states_no_distance_of_slices(tmp_path) -> None:
    path = tiff(tmp_path, GREY[:2], imagej=True, resolution=(0.2, 0.2), metadata={"axes": "CYX", "unit": "micron"})
    stack = open_slices(path, Pick({"channel": 1}))
    assert stack.spacing_um == (5.0, 5.0, 5.0)
    assert stack.notes == ("no distance of slices is stated; taken as the edge of a pixel, 5 µm",)


def test_edges_belong_to_the_axes_that_dataset_toml_names(tmp_path) -> None:
    path = ome_zarr(tmp_path, [5, 3, 2], *["micrometer"] * 3)
    assert open_slices(path, Pick(names=("x", "y", "z"))).spacing_um == (2, 3, 5)


def test_a_scale_for_other_axes_is_no_spacing(tmp_path) -> None:
    stack = open_slices(ome_zarr(tmp_path, [1, 5, 3, 2], *["micrometer"] * 3))
    assert stack.spacing_um is None
    assert stack.notes == ("its scale has 4 numbers for 3 axes, so the voxel spacing is not known",)


def test_what_was_assumed_is_said(tmp_path) -> None:
    assert open_slices(nifti(tmp_path, 0.05, None)).notes == ("the unit of its voxel size is not stated, taken as mm",)
    assert "furlong" in open_slices(imagej(tmp_path, "furlong", 5.0, 2.0, 3.0)).notes[0]
    assert "furlong" in open_slices(ome_zarr(tmp_path, [5, 3, 2], *["furlong"] * 3)).notes[0]


def raw_nifti(folder: Path, edge: float, code: int = 1) -> Path:
    """A header as nibabel does not write it: the edge along x, in pixdim and in an affine that counts if code is 1."""
    nifti(folder, 1.0, "micron")
    header = nibabel.load(folder / "k.nii").header
    header["vox_offset"] = 352
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


@pytest.mark.parametrize(("kind", "edge"), [(kind, edge) for kind, (_, edges) in ABSURD.items() for edge in edges])
def test_dataset_toml_repairs_a_spacing_that_no_scan_has(tmp_path, kind: str, edge: float) -> None:
    """Of an image, and of labels beside another one."""
    for name, place in (("k", tmp_path / "image"), ("k_labels", tmp_path / "label")):
        place.mkdir()
        made = ABSURD[kind][0](place, edge)
        if made == place:
            (place / name).mkdir()
            for slice_file in sorted(place.glob("*.tif")):
                slice_file.rename(place / name / slice_file.name)
        else:
            made.rename(place / made.name.replace("k", name, 1))
        np.save(place / ("k_labels.npy" if name == "k" else "k.npy"), GREY)
        if name == "k_labels":
            with pytest.raises(InputError, match=r"k_labels.*: states voxels of .* µm; those of a scan have 0\.01"):
                scan(place)
        (place / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = [5.0, 3.0, 2.0]\n")
        (source,) = scan(place)
        assert source.spacing_um == source.geometry.spacing_um == (5.0, 3.0, 2.0)
        assert source.geometry.origin_um is None or np.isfinite(source.geometry.origin_um).all()


@pytest.mark.parametrize("edge", [0.0, np.inf, np.nan])
def test_a_spacing_that_no_scan_has_decides_on_no_place(tmp_path, edge: float) -> None:
    """A scale of 0 of an image that is moved: how many voxels apart two such images lie has no answer."""
    for name in ("k", "k_labels"):
        path = ome_zarr(tmp_path, [edge] * 3, *["micrometer"] * 3, outer=[edge] * 3)
        group = zarr.open_group(str(path), mode="a", zarr_format=2)
        (scales,) = group.attrs["multiscales"]
        scales["datasets"][0]["coordinateTransformations"].append({"type": "translation", "translation": [1, 2, 3]})
        group.attrs["multiscales"] = [scales]
        path.rename(tmp_path / f"{name}.ome.zarr")
    for opened in (lambda: scan(tmp_path), lambda: score_masks(*sorted(tmp_path.iterdir()), None, 0.0)):
        with pytest.raises(InputError, match=r"k\w*\.ome\.zarr: states voxels of (0|inf|nan) "):
            opened()
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = 50.0\n")
    assert scan(tmp_path)[0].geometry.origin_um is None


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


def test_slices_of_imagej_without_a_distance_lie_one_unit_apart_and_it_is_said(tmp_path) -> None:
    told = "no distance of slices is stated; taken as one unit, 1 µm, as ImageJ does"
    stack = open_slices(imagej(tmp_path, "um", None, 50.0, 50.0))
    assert (stack.spacing_um, stack.notes) == (pytest.approx((1.0, 50.0, 50.0)), (told,))
    assert open_slices(imagej(tmp_path, "um", 50.0, 50.0, 50.0)).notes == ()
