"""What values mean: types at the door, inverted and packed TIFFs, values that do not fit into 16 bits."""

import re
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from stacks import one_source

from search_spaces.errors import InputError
from trainers.data.greys import ValueRange, range_of
from trainers.data.masks import read_mask
from trainers.data.prepare import prepare
from trainers.data.readers import open_slices
from trainers.data.sources import scan_one
from trainers.report import Report

RNG = np.random.default_rng(0)
GREY = (20_000 + 40 * np.arange(20) + RNG.integers(0, 3000, (6, 16, 20))).astype(np.uint16)
MASK = RNG.random(GREY.shape) < 0.1


def prepared(tmp_path: Path, voxels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The converted grey values of a .npy scan, and what was said."""
    np.save(tmp_path / "k.npy", voxels)
    notes: list[str] = []
    volume = prepare(scan_one(tmp_path / "k.npy"), tmp_path / "cache", Report(notes.append))
    return np.asarray(volume.image), notes


def as_nifti(path: Path, voxels: np.ndarray, dtype: str) -> Path:
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), np.eye(4), nibabel.Nifti1Header(endianness=dtype[0]))
    image.set_data_dtype(dtype)
    nibabel.save(image, path)
    return path


def as_zarr(path: Path, voxels: np.ndarray, version: int = 2) -> Path:
    zarr.create_array(str(path), shape=voxels.shape, dtype=voxels.dtype, zarr_format=version)[:] = voxels
    return path


def as_npy(path: Path, voxels: np.ndarray) -> Path:
    np.save(path, voxels)
    return path


def as_tiff(path: Path, voxels: np.ndarray, **options: object) -> Path:
    tifffile.imwrite(path, voxels, **options)
    return path


LABELS = {
    "imagej, big-endian": lambda at: as_tiff(
        at / "m.tif", MASK.astype(np.uint16) * 255, imagej=True, byteorder=">", metadata={"axes": "ZYX"}
    ),
    "tiff, big-endian, deflate": lambda at: as_tiff(
        at / "m.tif", MASK.astype(">u2"), byteorder=">", compression="zlib"
    ),
    "nifti, big-endian": lambda at: as_nifti(at / "m.nii", MASK.astype(np.int16), ">i2"),
    "npy, big-endian": lambda at: as_npy(at / "m.npy", MASK.astype(">u4")),
    "npy, big-endian float": lambda at: as_npy(at / "m.npy", MASK.astype(">f8")),
    "npy, float16": lambda at: as_npy(at / "m.npy", MASK.astype(np.float16)),
    "npy, long double": lambda at: as_npy(at / "m.npy", MASK.astype(np.longdouble)),
    "npy, bool": lambda at: as_npy(at / "m.npy", MASK),
    "npy, int64": lambda at: as_npy(at / "m.npy", MASK.astype(np.int64) * 255),
    "zarr 2, big-endian": lambda at: as_zarr(at / "m.zarr", MASK.astype(">u2")),
    "zarr 3, float16": lambda at: as_zarr(at / "m.zarr", MASK.astype(np.float16), version=3),
    "nifti, scaled to uint8": lambda at: as_nifti(at / "m.nii.gz", MASK.astype(np.float64), "<u1"),
    "nifti, scaled to int16": lambda at: as_nifti(at / "m.nii.gz", MASK.astype(np.float64), "<i2"),
    "float, nearly whole": lambda at: as_npy(at / "m.npy", MASK * np.float32(255.0004)),
    "tiff, 1 bit": lambda at: as_tiff(at / "m.tif", MASK),
    "tiff, 1 bit, deflate": lambda at: as_tiff(at / "m.tif", MASK, compression="zlib"),
    "tiff, 1 bit, white is zero": lambda at: as_tiff(at / "m.tif", ~MASK, photometric="miniswhite", software="camera"),
    "tiff, 8 bits, white is zero": lambda at: as_tiff(
        at / "m.tif", np.where(MASK, 0, 255).astype(np.uint8), photometric="miniswhite"
    ),
    "tiff, 16 bits, white is zero": lambda at: as_tiff(
        at / "m.tif", np.where(MASK, 65535 - 255, 65535).astype(np.uint16), photometric="miniswhite"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_type_are_the_same_mask(tmp_path, kind: str) -> None:
    assert np.array_equal(read_mask(LABELS[kind](tmp_path)), MASK)


@pytest.mark.parametrize(
    ("value", "shown"), [(1.01, "1.01"), (0.5, "0.5"), (254.0, "254"), (1.0011, "1.0011"), (np.nan, "nan")]
)
def test_other_label_values_are_shown_with_the_digits_that_tell_why(tmp_path, value: float, shown: str) -> None:
    voxels = MASK.astype(np.float64)
    voxels[0, 0, 0] = value
    with pytest.raises(InputError, match=rf"label values 0,.*{shown}.*; labels are 0 and 255, or 0 and 1"):
        read_mask(as_npy(tmp_path / "m.npy", voxels))


def test_labels_that_are_inverted_are_shown_as_they_are_in_the_file(tmp_path) -> None:
    path = as_tiff(tmp_path / "m.tif", MASK.astype(np.uint8), photometric="miniswhite")
    with pytest.raises(InputError, match=r"label values 0, 1, and its tag says WhiteIsZero, so they are read inverted"):
        read_mask(path)


@pytest.mark.parametrize("kind", [".npy", ".tif", ".zarr", "folder"])
@pytest.mark.parametrize("first", [1, 255])
def test_one_value_is_vessel_in_all_slices_of_a_volume(tmp_path, kind: str, first: int) -> None:
    """255 in labels of 0 and 1 means to others that a voxel is to be ignored."""
    labels = MASK.astype(np.uint8) * np.uint8(first)
    labels[4:] = 0
    labels[5, :8] = 256 - first
    as_npy(tmp_path / "k.npy", GREY)
    if kind == "folder":
        (tmp_path / "k_labels").mkdir()
        for z, one in enumerate(labels):
            as_tiff(tmp_path / "k_labels" / f"{z:04d}.tif", one)
    else:
        write = {".npy": as_npy, ".tif": as_tiff, ".zarr": as_zarr}[kind]
        write(tmp_path / f"k_labels{kind}", labels)
    path = tmp_path / f"k_labels{'' if kind == 'folder' else kind}"
    told = rf"5.*: its highest label value is {256 - first}, but in .*0.* it is {first}: the labels of one volume are"
    with pytest.raises(InputError, match=told):
        read_mask(path)
    with pytest.raises(InputError, match=told):
        prepare(scan_one(tmp_path / "k.npy"), tmp_path / "cache")


@pytest.mark.parametrize(
    "values", [GREY.astype(np.complex64), GREY.astype("S4"), np.zeros(GREY.shape, "datetime64[s]")]
)
def test_what_is_no_number_is_refused(tmp_path, values: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"k\.npy: values of type .* are not grey values; write them as uint16"):
        open_slices(as_npy(tmp_path / "k.npy", values))


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_white_is_zero_is_read_as_pillow_shows_it(tmp_path, bits: int) -> None:
    stored = {1: ~MASK, 8: (GREY >> 8).astype(np.uint8), 16: GREY}[bits]
    (tmp_path / "k" / "images").mkdir(parents=True)
    for z, one in enumerate(stored):
        as_tiff(tmp_path / "k" / "images" / f"{z:04d}.tif", one, photometric="miniswhite", software="camera")
    notes: list[str] = []
    source = scan_one(tmp_path / "k", Report(notes.append))
    with source.image.reading() as read:
        found = read(0, 6).copy()
    if bits < 16:  # which Pillow shows as stored
        shown = [np.asarray(Image.open(tmp_path / "k" / "images" / f"{z:04d}.tif")) for z in range(6)]
        assert np.array_equal(found, np.stack(shown))
    else:
        assert np.array_equal(found, 65535 - GREY)
    assert any("WhiteIsZero: values are read inverted" in note for note in notes)


def test_a_mask_of_bool_by_tifffile_is_read_as_tifffile_reads_it(tmp_path) -> None:
    """tifffile writes WhiteIsZero for it, and ignores the tag: to its users True is inside."""
    stack = open_slices(as_tiff(tmp_path / "m.tif", MASK))
    with tifffile.TiffFile(tmp_path / "m.tif") as tif:
        assert tif.pages.first.photometric == 0
    with stack.reading() as read:
        assert np.array_equal(read(0, 6), tifffile.imread(tmp_path / "m.tif"))
    assert stack.notes == (
        "its tag says WhiteIsZero, as tifffile writes for every array of bool: values are read as stored",
    )


def test_white_is_zero_of_negative_values_has_no_meaning(tmp_path) -> None:
    with pytest.raises(InputError, match=r"k\.tif: its tag says WhiteIsZero of int16 values"):
        open_slices(as_tiff(tmp_path / "k.tif", GREY.astype(np.int16), photometric="miniswhite"))


def packed_tiff(path: Path, values: np.ndarray, bits: int) -> Path:
    """A file made by hand after TIFF 6.0: rows of values of so many bits, high bits first, each from a new byte."""
    high = np.unpackbits(values[..., None].astype(">u2").view(np.uint8).reshape(*values.shape, 2), axis=-1)[..., -bits:]
    rows = np.packbits(high.reshape(*values.shape[:2], -1), axis=-1)
    with path.open("wb") as file:
        file.write(struct.pack("<2sHI", b"II", 42, 8))
        for z, page in enumerate(rows):
            data = file.tell() + 2 + 12 * 9 + 4
            tags = (
                (256, values.shape[2]),
                (257, values.shape[1]),
                (258, bits),
                (259, 1),
                (262, 1),
                (273, data),
                (277, 1),
            )
            file.write(struct.pack("<H", 9))
            for code, value in (*tags, (278, values.shape[1]), (279, page.nbytes)):
                file.write(struct.pack("<HHII", code, 4, 1, value))
            end = data + page.nbytes + page.nbytes % 2
            file.write(struct.pack("<I", end if z < len(rows) - 1 else 0) + page.tobytes() + b"\0" * (page.nbytes % 2))
    return path


@pytest.mark.parametrize(("bits", "shift"), [(12, 4), (10, 6), (4, 12), (1, 15)])
def test_packed_values_are_read(tmp_path, bits: int, shift: int) -> None:
    values = ((GREY.astype(int) * 2) >> shift).astype(np.uint16) & (2**bits - 1)
    stack = open_slices(packed_tiff(tmp_path / "k.tif", values, bits))
    with stack.reading() as read:
        assert np.array_equal(read(0, 6), values)


FEW_LEVELS = (
    r"k\.npy: 96 % of its voxels, without what it is padded with, would have \d+ of 65,536 grey levels, "
    "and 32 are needed"
)
HOT = {
    "one hot voxel": (1e6, np.float32),
    "no data": (-3.4028235e38, np.float32),
    "no data, double": (-1e300, np.float64),
    "highest of 32 bits": (2**31 - 1, np.int32),
    "lowest of 64 bits": (-(2**63), np.int64),
}


@pytest.mark.parametrize("case", HOT)
def test_one_voxel_far_away_does_not_decide_how_all_others_are_spread(tmp_path, case: str) -> None:
    value, dtype = HOT[case]
    voxels = GREY.astype(dtype) if np.dtype(dtype).kind == "i" else (GREY / 65535).astype(dtype)
    plain, _ = prepared(tmp_path, voxels)
    voxels[2, 3, 4] = value
    hot, notes = prepared(tmp_path, voxels)
    assert hot[2, 3, 4] == (65535 if value > 0 else 0)
    others = np.arange(voxels.size) != np.ravel_multi_index((2, 3, 4), voxels.shape)
    assert len(np.unique(hot.ravel()[others])) == len(np.unique(GREY.ravel()[others]))
    assert np.corrcoef(hot.ravel()[others], plain.ravel()[others])[0, 1] > 0.999_999
    assert any("far from nearly all others" in note for note in notes)


def test_a_scan_without_such_voxels_keeps_its_whole_range(tmp_path) -> None:
    image, notes = prepared(tmp_path, GREY.astype(np.float32))
    assert (image.min(), image.max()) == (0, 65535)
    assert not any("far from" in note for note in notes)
    span = int(GREY.max()) - int(GREY.min())
    assert np.abs(image - (GREY - float(GREY.min())) / span * 65535).max() <= 0.5


def test_infinite_values_are_at_their_ends(tmp_path) -> None:
    voxels = GREY.astype(np.float32)
    voxels[0, 0, :3] = np.inf, -np.inf, np.nan
    image, notes = prepared(tmp_path, voxels)
    assert list(image[0, 0, :3]) == [65535, 0, 0]
    assert any(
        note.endswith("3 voxels were NaN or infinite and were set to the ends, NaN to the low one") for note in notes
    )


def test_a_scan_of_which_hardly_a_grey_value_is_left_is_refused(tmp_path) -> None:
    voxels = RNG.normal(0, 1, GREY.shape).astype(np.float32)
    voxels.ravel()[::70] = 1e5  # too many to be set aside, too few to be the contrast
    with pytest.raises(InputError, match=FEW_LEVELS):
        prepared(tmp_path, voxels)


def test_tissue_that_would_become_one_grey_level_is_no_padding(tmp_path) -> None:
    """It is the most frequent level, but its values differ."""
    voxels = RNG.normal(100, 10, (8, 40, 40)).astype(np.float32)
    voxels.ravel()[::200] = RNG.uniform(1e8, 2e8, 64)  # 0.5 %: too many to be set aside
    with pytest.raises(InputError, match=r"would have 1 of 65,536 grey levels"):
        prepared(tmp_path, voxels)


# Beside values from 0 to 1: constants, and how many levels they leave to these, which are all that there are if few.
NO_DATA = {
    "-1e4": ([-1e4], 65_535 / 1e4),
    "-1000": ([-1000.0], 65_535 / 1e3),
    "-1e38": ([-1e38], 0),
    "two": ([-1e4, 1e4], 65_535 / 2e4),
    "0": ([0.0], 65_535),
    "nan": ([np.nan], 65_535),
}


@pytest.mark.parametrize("case", NO_DATA)
def test_what_a_scan_is_padded_with_counts_as_no_grey_levels(tmp_path, case: str) -> None:
    constants, left = NO_DATA[case]
    voxels = RNG.uniform(0, 1, (8, 40, 40)).astype(np.float32)
    for number, constant in enumerate(constants):
        voxels[:, 8 * number : 8 * number + 12] = constant  # 28 %
    if left < 32:
        with pytest.raises(InputError, match=FEW_LEVELS) as raised:
            prepared(tmp_path, voxels)
        # Both ends of the values are levels, and so is one of the constants.
        assert int(re.findall(r"would have (\d+) of", str(raised.value))[0]) <= left + 3
    else:
        image, _ = prepared(tmp_path, voxels)
        values = np.setdiff1d(voxels[np.isfinite(voxels)], constants).size  # of which two may share a level
        assert 0.9 * min(left, values) <= len(np.unique(image)) <= left + 3


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_scan_of_few_grey_values_keeps_them(tmp_path, dtype: type) -> None:
    voxels = RNG.integers(0, 4, GREY.shape).astype(dtype)
    image, _ = prepared(tmp_path, voxels)
    assert np.array_equal(image, voxels.astype(int) * 21_845)  # 65535 / 3


@pytest.mark.parametrize("sign", [1, -1])
def test_values_beyond_single_precision_are_spread_alike(tmp_path, sign: int) -> None:
    voxels = sign * 1e39 * (1 + GREY / 65_535)
    image, _ = prepared(tmp_path, voxels)
    span = int(GREY.max()) - int(GREY.min())
    expected = (GREY - int(GREY.min())) / span if sign == 1 else (int(GREY.max()) - GREY.astype(int)) / span
    assert np.abs(image - expected * 65_535).max() <= 0.5


def test_values_too_far_apart_to_be_spread_are_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"k\.npy: values from -1\.\d+e\+308 to 1\.\d+e\+308 are too far apart"):
        prepared(tmp_path, RNG.uniform(-1, 1, GREY.shape) * 1.7e308)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint32, np.int64])
def test_the_range_does_not_depend_on_how_a_volume_is_cut(dtype: type) -> None:
    values = (RNG.normal(0, 1e4, 40_000) if dtype != np.uint32 else RNG.uniform(0, 4e9, 40_000)).astype(dtype)
    sums = []
    for parts in (1, 7, 100):
        whole = ValueRange()
        for part in np.array_split(values, parts):
            whole.add(range_of(part))
        sums.append(whole.scaling())
    assert sums[0] == sums[1] == sums[2]
    assert sums[0] is not None
    low, high = np.quantile(values.astype(float), [0.001, 0.999])
    span = high - low
    assert sums[0].low <= max(low - 0.98 * span, values.min())
    assert sums[0].high >= min(high + 0.98 * span, values.max())


def test_labels_that_fill_most_of_a_volume_are_told_every_time(tmp_path) -> None:
    source = one_source(tmp_path, GREY, (~MASK).astype(np.uint8))
    for _ in range(2):
        notes: list[str] = []
        prepare(source, tmp_path / "cache", Report(notes.append))
        assert any("of its voxels are labelled as vessel" in note for note in notes)


def with_samples(folder: Path, others: list[np.ndarray], planar: str) -> Path:
    """A scan of pages with several samples, of which GREY is the first."""
    voxels = np.stack([GREY, *others], axis=-1 if planar == "contig" else 1)
    colours = "rgb" if len(others) > 1 else "minisblack"
    with tifffile.TiffWriter(folder / "k.tif") as file:
        for one in voxels:
            file.write(np.ascontiguousarray(one), photometric=colours, planarconfig=planar, metadata=None)
    return folder / "k.tif"


OPAQUE = np.full_like(GREY, 65535)
CHANGED = GREY.copy()
CHANGED[4, 3, 2] += 1
SPOTTED = OPAQUE.copy()
SPOTTED[4, 3, 2] = 0


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    "others",
    [[OPAQUE], [GREY], [GREY, GREY], [GREY, GREY, OPAQUE], [GREY, GREY, OPAQUE, 0 * GREY]],
    ids=["opacity", "two", "colours", "colours and opacity", "five"],
)
def test_samples_that_say_nothing_are_left_out_and_it_is_said(tmp_path, others: list[np.ndarray], planar: str) -> None:
    notes: list[str] = []
    source = scan_one(with_samples(tmp_path, others, planar))
    assert np.array_equal(prepare(source, tmp_path / "cache", Report(notes.append)).image, GREY)
    assert any(note.startswith(f"k: {len(others) + 1} samples per pixel, the first of them kept") for note in notes)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    "others",
    [[SPOTTED], [CHANGED], [GREY, CHANGED], [GREY, GREY, SPOTTED], [GREY, GREY, OPAQUE, CHANGED]],
    ids=["opacity", "two", "colours", "colours and opacity", "five"],
)
def test_samples_that_differ_on_one_page_are_not_chosen_from(tmp_path, others: list[np.ndarray], planar: str) -> None:
    path = with_samples(tmp_path, others, planar)
    says = rf"k\.tif \(slice 4\): a picture whose {len(others) + 1} samples differ: say sample = 0 in dataset\.toml"
    with pytest.raises(InputError, match=says):
        prepare(scan_one(path), tmp_path / "cache")
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nsample = 0\n")
    notes: list[str] = []
    volume = prepare(scan_one(path), tmp_path / "cache", Report(notes.append))
    assert np.array_equal(volume.image, GREY)
    assert not any("samples per pixel" in note for note in notes)
