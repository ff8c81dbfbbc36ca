"""Axes are read by their names, in every format that names them."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr

from search_spaces.errors import InputError
from trainers.data.axes import Pick
from trainers.data.prepare import prepare
from trainers.data.readers import open_slices
from trainers.data.sources import scan

GREY = np.random.default_rng(0).integers(0, 60_000, (12, 16, 20)).astype(np.uint16)
OTHER = np.uint16(60_000) - GREY
MASK = np.random.default_rng(1).random(GREY.shape) < 0.2
FIRST, SECOND = {"channel": 0}, {"channel": 1}


def read(path: Path, **pick: object) -> np.ndarray:
    """All voxels of a stack."""
    with open_slices(path, Pick(**pick)).reading() as block:
        return np.concatenate([block(start, start + 4).copy() for start in range(0, 12, 4)])


def imagej(voxels: np.ndarray, axes: str, **options: object) -> Callable[[Path], Path]:
    return tiff(voxels, imagej=True, metadata={"axes": axes}, **options)


def ome(voxels: np.ndarray, axes: str) -> Callable[[Path], Path]:
    return tiff(voxels, ome=True, metadata={"axes": axes})


def tiff(voxels: np.ndarray, **options: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        tifffile.imwrite(folder / "k.tif", voxels, **options)
        return folder / "k.tif"

    return write


def ome_zarr(voxels: np.ndarray, axes: list[dict[str, str]] | None, version: int = 2) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        group = zarr.open_group(str(folder / "k.zarr"), mode="w", zarr_format=version)
        chunks = tuple(max(1, edge // 2) for edge in voxels.shape)
        group.create_array("0", shape=voxels.shape, chunks=chunks, dtype=voxels.dtype)[:] = voxels
        image = {"datasets": [{"path": "0"}]} if axes is None else {"axes": axes, "datasets": [{"path": "0"}]}
        described = {"multiscales": [image]}
        group.attrs.update(described if version == 2 else {"ome": {"version": "0.5", **described}})
        return folder / "k.zarr"

    return write


def dimension_names(voxels: np.ndarray, names: list[str | None]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        array = zarr.create_array(
            str(folder / "k.zarr"), shape=voxels.shape, dtype=voxels.dtype, zarr_format=3, dimension_names=names
        )
        array[:] = voxels
        return folder / "k.zarr"

    return write


def array_dimensions(voxels: np.ndarray, names: list[str]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        array = zarr.create_array(str(folder / "k.zarr"), shape=voxels.shape, dtype=voxels.dtype, zarr_format=2)
        array[:] = voxels
        array.attrs["_ARRAY_DIMENSIONS"] = names
        return folder / "k.zarr"

    return write


def nifti(voxels: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / "k.nii.gz")
        return folder / "k.nii.gz"

    return write


def npy(voxels: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "k.npy", voxels)
        return folder / "k.npy"

    return write


def space(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "type": "space", "unit": "micrometer"} for name in names]


CHANNEL, TIME = {"name": "c", "type": "channel"}, {"name": "t", "type": "time"}
BOTH = np.stack([GREY, OTHER])

# One volume, by the names of its axes.
ONE = {
    "imagej zyx": imagej(GREY, "ZYX"),
    "imagej zyx in one run": imagej(GREY, "ZYX", contiguous=True),
    "ome zyx": ome(GREY, "ZYX"),
    "ome czyx, one channel": ome(GREY[None], "CZYX"),
    "ome zyx, deflate": tiff(GREY, ome=True, compression="zlib", metadata={"axes": "ZYX"}),
    "tifffile's own": tiff(GREY),
    "plain pages": tiff(GREY, metadata=None),
    "ome-zarr zyx": ome_zarr(GREY, space("z", "y", "x")),
    "ome-zarr 0.5": ome_zarr(GREY, space("z", "y", "x"), version=3),
    "ome-zarr tczyx": ome_zarr(GREY[None, None], [TIME, CHANNEL, *space("z", "y", "x")]),
    "ome-zarr xyz": ome_zarr(GREY.transpose(2, 1, 0).copy(), space("x", "y", "z")),
    "ome-zarr zyxc": ome_zarr(GREY[..., None], [*space("z", "y", "x"), CHANNEL]),
    "zarr with dimension names": dimension_names(GREY.transpose(1, 2, 0).copy(), ["y", "x", "z"]),
    "zarr with other names": dimension_names(GREY, ["dim_0", "dim_1", "dim_2"]),
    "zarr by an image's edges": dimension_names(GREY.transpose(2, 1, 0).copy(), ["width", "height", "depth"]),
    "zarr by rows": dimension_names(GREY.transpose(1, 0, 2).copy(), ["Row", "Plane", "Col"]),
    "zarr 2 by xarray": array_dimensions(GREY.transpose(1, 2, 0).copy(), ["row", "column", "slice"]),
    "zarr, the depth without a name": dimension_names(GREY, [None, "y", "x"]),
    "ome-zarr by other names": ome_zarr(GREY.transpose(2, 0, 1).copy(), space("width", "depth", "height")),
    "ome-zarr 0.2": ome_zarr(GREY[None, None], None),
    "nifti": nifti(GREY.transpose(2, 1, 0)),
    "nifti, one time": nifti(GREY.transpose(2, 1, 0)[..., None]),
    "npy": npy(GREY),
    "npy, fortran order": npy(np.asfortranarray(GREY)),
    "npy, leading axis": npy(GREY[None]),
}

# Two volumes in one file, and how its axis is called.
TWO = {
    "imagej zcyx": (imagej(np.stack([GREY, OTHER], 1), "ZCYX"), "channel"),
    "imagej tzyx": (imagej(BOTH, "TZYX"), "time"),
    "ome czyx": (ome(BOTH, "CZYX"), "channel"),
    "ome tzyx": (ome(BOTH, "TZYX"), "time"),
    "ome-zarr czyx": (ome_zarr(BOTH, [CHANNEL, *space("z", "y", "x")]), "channel"),
    "ome-zarr ztyx": (ome_zarr(np.stack([GREY, OTHER], 1), [*space("z"), TIME, *space("y", "x")]), "time"),
    "zarr with dimension names": (dimension_names(BOTH, ["c", "z", "y", "x"]), "channel"),
    "nifti of two times": (nifti(BOTH.transpose(3, 2, 1, 0)), "time"),
}


@pytest.mark.parametrize("kind", ONE)
def test_a_volume_is_read_by_the_names_of_its_axes(tmp_path, kind: str) -> None:
    assert np.array_equal(read(ONE[kind](tmp_path)), GREY)


HALF_NAMED = {
    "channel, row, col of two": (["channel", "row", "col"], BOTH[:, 0], "channel, y, x of 2 x 16 x 20"),
    "an unknown one": (["dim_0", "y", "x"], GREY, "dim_0, y, x of 12 x 16 x 20"),
    "one that is known": (["depth", "a", "b"], GREY, "z, a, b of 12 x 16 x 20"),
    "one that is named": (["z", None, None], GREY, r"z, \?, \? of 12 x 16 x 20"),
    "two that are one": (["row", "y", "x"], GREY, "y, y, x of 12 x 16 x 20"),
}


@pytest.mark.parametrize("kind", HALF_NAMED)
def test_names_that_are_half_known_are_not_guessed(tmp_path, kind: str) -> None:
    names, voxels, said = HALF_NAMED[kind]
    path = dimension_names(np.ascontiguousarray(voxels), names)(tmp_path)
    with pytest.raises(InputError, match=rf'k\.zarr: has axes {said}.*dataset\.toml.* axes = "'):
        open_slices(path)
    stack = open_slices(path, Pick(names=("z", "y", "x")))
    with stack.reading() as block:
        assert np.array_equal(block(0, len(voxels)), voxels)


def test_names_of_which_none_is_known_are_said(tmp_path) -> None:
    stack = open_slices(dimension_names(GREY, ["dim_0", None, "u"])(tmp_path))
    said = "the names of its axes (dim_0, ?, u) are not known here: the last three are taken as z, y, x"
    assert stack.notes == (said,)


def test_labels_whose_names_say_nothing_have_the_axes_that_are_said_of_their_image(tmp_path) -> None:
    np.save(tmp_path / "k.npy", GREY.transpose(2, 1, 0))
    path = dimension_names(MASK.astype(np.uint8).transpose(2, 1, 0).copy(), ["u", "v", "x"])(tmp_path)
    path.rename(tmp_path / "k_labels.zarr")
    (tmp_path / "dataset.toml").write_text("[volumes.k]\naxes = 'XYZ'\n")
    (source,) = scan(tmp_path)
    assert source.label is not None
    with source.label.reading() as block:
        assert np.array_equal(block(0, 12), MASK)


def test_an_array_that_names_its_axes_unlike_its_ome_image_is_refused(tmp_path) -> None:
    path = ome_zarr(GREY, space("z", "y", "x"), version=3)(tmp_path)
    described = json.loads((path / "0" / "zarr.json").read_text())
    (path / "0" / "zarr.json").write_text(json.dumps({**described, "dimension_names": ["x", "y", "z"]}))
    with pytest.raises(InputError, match=r"its OME axes are z, y, x, but the array names them x, y, z"):
        open_slices(path)


def test_more_axes_than_an_array_has_are_not_cut_off(tmp_path) -> None:
    path = ome_zarr(GREY, [CHANNEL, *space("x", "y", "z")])(tmp_path)
    with pytest.raises(InputError, match=r"has 3 axes \(12 x 16 x 20\), but names 4 \(channel, x, y, z\)"):
        open_slices(path)


@pytest.mark.parametrize("kind", TWO)
def test_of_two_channels_or_times_none_is_read_until_one_is_named(tmp_path, kind: str) -> None:
    write, name = TWO[kind]
    path = write(tmp_path)
    with pytest.raises(InputError, match=f"{name} .*2 x|{name}.* and a volume has one {name}: say {name} = 0"):
        open_slices(path)
    assert np.array_equal(read(path, entries={name: 0}), GREY)
    assert np.array_equal(read(path, entries={name: 1}), OTHER)
    with pytest.raises(InputError, match=f"{name} = 2 of dataset.toml is not there; it has 2, counted from 0"):
        open_slices(path, Pick({name: 2}))


def test_positions_of_an_ome_file_are_named_too(tmp_path) -> None:
    with tifffile.TiffWriter(tmp_path / "k.ome.tif", ome=True) as writer:
        for voxels in (GREY, OTHER):
            writer.write(voxels, metadata={"axes": "ZYX"})
    with pytest.raises(InputError, match="a volume has one position: say position = 0"):
        open_slices(tmp_path / "k.ome.tif")
    assert np.array_equal(read(tmp_path / "k.ome.tif", entries={"position": 1}), OTHER)


def test_axes_without_a_name_are_not_guessed(tmp_path) -> None:
    by = "2 x 12 x 16 x 20"
    for name, write, told in (
        ("k.npy", npy(BOTH), rf"has 4 axes without names \({by}\): say in dataset\.toml what they are"),
        ("k.tif", tiff(BOTH), rf"has axes \?.* of {by}, and a volume has none but z"),
    ):
        with pytest.raises(InputError, match=rf"k\.\w+: {told}"):
            open_slices(write(tmp_path))
        said = {"names": ("channel", "z", "y", "x"), "entries": SECOND}
        assert np.array_equal(read(tmp_path / name, **said), OTHER)


def test_a_file_that_calls_its_slices_channels_can_be_corrected(tmp_path) -> None:
    path = imagej(GREY, "CYX")(tmp_path)
    with pytest.raises(InputError, match=r'channel: say channel = 0 .*, or axes = "ZYX" if it is z'):
        open_slices(path)
    assert np.array_equal(read(path, names=("z", "y", "x")), GREY)
    with pytest.raises(InputError, match=r"has 3 axes \(12 x 16 x 20\), but axes of dataset.toml names 2"):
        open_slices(path, Pick(names=("y", "x")))


def test_one_of_several_colours_can_be_read(tmp_path) -> None:
    path = tiff(np.stack([GREY, OTHER, GREY], -1), photometric="rgb")(tmp_path)
    assert np.array_equal(read(path, entries={"sample": 1}), OTHER)
    with pytest.raises(InputError, match=r"sample = 3 of dataset\.toml is not there"):
        open_slices(path, Pick({"sample": 3}))


def test_a_single_slice_is_a_volume_of_one(tmp_path) -> None:
    stack = open_slices(tiff(GREY[0])(tmp_path))
    assert stack.shape == (1, 16, 20)
    with stack.reading() as block:
        assert np.array_equal(block(0, 1)[0], GREY[0])


@pytest.mark.parametrize("label", [MASK, MASK[None], np.stack([~MASK, MASK])])
@pytest.mark.parametrize("axes", ["CZYX", "czyx"])
def test_what_is_said_of_the_axes_of_an_image_counts_for_its_labels_where_it_fits(
    tmp_path, label: np.ndarray, axes: str
) -> None:
    np.save(tmp_path / "k.npy", BOTH)
    np.save(tmp_path / "k_labels.npy", label)
    (tmp_path / "dataset.toml").write_text(f"[volumes.k]\naxes = '{axes}'\nchannel = 1\n")
    (source,) = scan(tmp_path)
    assert source.label is not None
    for stack, expected in ((source.image, OTHER), (source.label, MASK)):
        with stack.reading() as block:
            assert np.array_equal(block(0, 12), expected)


NONE = {"npy": npy(GREY), "tiff": tiff(GREY), "ome": ome(GREY, "ZYX"), "nifti": nifti(GREY.transpose(2, 1, 0))}


@pytest.mark.parametrize("kind", NONE)
@pytest.mark.parametrize("name", ["channel", "time", "position", "sample"])
def test_an_axis_that_a_file_does_not_have_cannot_be_picked_from(tmp_path, kind: str, name: str) -> None:
    path = NONE[kind](tmp_path)
    assert np.array_equal(read(path, entries={name: 0}), GREY)
    with pytest.raises(InputError, match=rf"{name} = 1 of dataset\.toml is not there"):
        open_slices(path, Pick({name: 1}))


def test_an_axis_that_a_folder_of_slices_does_not_have_cannot_be_picked_from(tmp_path) -> None:
    for z, one in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"{z:04d}.tif", one)
    with pytest.raises(InputError, match=r"time = 2 of dataset\.toml is not there; it has no axis time"):
        open_slices(tmp_path, Pick({"time": 2}))


@pytest.mark.parametrize("write", [tiff(MASK.astype(np.uint8), ome=True, metadata={"axes": "ZYX"}),
                                   nifti(MASK.transpose(2, 1, 0).astype(np.uint8)),
                                   dimension_names(MASK.astype(np.uint8), ["z", "y", "x"]),
                                   tiff(MASK.astype(np.uint8), photometric="minisblack"),
                                   tiff(MASK.astype(np.uint8), photometric="minisblack", metadata=None)])  # fmt: skip
def test_labels_that_name_their_axes_keep_them_whatever_is_said_of_the_image(
    tmp_path, write: Callable[[Path], Path]
) -> None:
    np.save(tmp_path / "k.npy", GREY.transpose(1, 2, 0))
    made = write(tmp_path)
    ending = made.name.removeprefix("k")
    made.rename(tmp_path / f"k_labels{ending}")
    (tmp_path / "dataset.toml").write_text("[volumes.k]\naxes = 'YXZ'\n")
    (source,) = scan(tmp_path)
    assert source.label is not None
    for stack, expected in ((source.image, GREY), (source.label, MASK)):
        with stack.reading() as block:
            assert np.array_equal(block(0, 12), expected)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_pages_of_a_tiff_file_are_read_by_the_axes_that_are_said(tmp_path, options: dict) -> None:
    path = tiff(GREY.transpose(0, 2, 1).copy(), **options)(tmp_path)
    assert np.array_equal(read(path, names=("z", "x", "y")), GREY)


def test_slices_of_a_folder_have_the_axes_that_they_have(tmp_path) -> None:
    for z, image in enumerate(GREY):
        tifffile.imwrite(tmp_path / f"{z:04d}.tif", image)
    with pytest.raises(InputError, match=r"its slices have the axes ZYX; leave out axes in dataset.toml"):
        open_slices(tmp_path, Pick(names=("z", "x", "y")))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("stored", ["fortran", "turned"])
def test_a_volume_that_lies_in_another_order_is_converted_as_any(tmp_path, dtype: str, stored: str) -> None:
    grey = (GREY % 251).astype(dtype)
    np.save(tmp_path / "a.npy", grey)
    np.save(tmp_path / "b.npy", np.asfortranarray(grey) if stored == "fortran" else grey.transpose(2, 1, 0))
    if stored == "turned":
        (tmp_path / "dataset.toml").write_text("[volumes.a]\n[volumes.b]\naxes = 'XYZ'\n")
    plain, other = (prepare(source, tmp_path / "cache") for source in scan(tmp_path))
    assert np.array_equal(plain.image, other.image)


PAGES = {
    "bitspersample": {"data": GREY[0].astype(np.uint32)},
    "imagelength": {"data": GREY[0][:8]},
    "sampleformat": {"data": GREY[0].view(np.int16)},
    "photometric": {"data": GREY[0], "photometric": "miniswhite"},
    "compression": {"data": GREY[0], "compression": "zlib"},
    "samplesperpixel": {"data": np.stack([GREY[0]] * 3, axis=-1), "photometric": "rgb"},
    "orientation": {"data": GREY[0], "extratags": [(274, "H", 1, 4, True)]},
}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("place", [3, 5])
def test_a_page_unlike_the_others_is_named(tmp_path, name: str, place: int) -> None:
    """tifffile looks at a few pages only, and decodes all by the header of the first."""
    with tifffile.TiffWriter(tmp_path / "k.tif") as file:
        for z, image in enumerate(GREY):
            how = PAGES[name] if z == place else {"data": image}
            file.write(**{"photometric": "minisblack", "metadata": None, **how})
    with pytest.raises(
        InputError,
        match=f"k.tif: its page {place} has {name} |: its pages have different",
    ):
        open_slices(tmp_path / "k.tif")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"predictor": True}])
def test_pages_by_lzw_are_read(tmp_path, order: str, options: dict) -> None:
    tiff(GREY, compression="lzw", byteorder=order, photometric="minisblack", **options)(tmp_path)
    assert np.array_equal(read(tmp_path / "k.tif"), GREY)


@pytest.mark.parametrize(("axes", "name"), [("PZYX", "position"), ("SZYX", "sample")])
def test_positions_and_samples_in_front_of_the_slices_of_a_tiff_are_picked(tmp_path, axes: str, name: str) -> None:
    path = tiff(np.stack([GREY, OTHER]), photometric="minisblack", metadata={"axes": axes})(tmp_path)
    with pytest.raises(InputError, match=rf"a volume has one {name}: say {name} = 0 of it in dataset\.toml"):
        read(path)
    assert np.array_equal(read(path, entries={name: 0}), GREY)
    assert np.array_equal(read(path, entries={name: 1}), OTHER)
    with pytest.raises(InputError, match=rf"{name} = 2 of dataset\.toml is not there; it has 2"):
        read(path, entries={name: 2})
