"""One rule decides for every command what a file or a folder is."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from scans import GREY, MASK, as_npy, found_in, slices

from search_spaces.errors import InputError
from trainers.data.check import check
from trainers.data.folds import DataConfig, choose
from trainers.data.masks import read_mask
from trainers.data.naming import is_stack
from trainers.data.readers import open_slices
from trainers.data.slices import Slices
from trainers.data.sources import scan, scan_one
from trainers.report import Report


@pytest.mark.parametrize("prefix", ["", "slice_", "kidney.", "scan 7 z"])
def test_slices_of_one_name_are_one_volume_for_every_command(tmp_path, prefix: str) -> None:
    slices(tmp_path / "root" / "k", prefix=prefix)
    assert found_in(tmp_path / "root") == ({"k": ((4, 9, 13), "none")}, [])
    assert found_in(tmp_path / "root" / "k") == ({"k": ((4, 9, 13), "none")}, [])
    assert scan_one(tmp_path / "root" / "k").shape == (4, 9, 13)


def test_slices_of_ome_are_one_volume(tmp_path) -> None:
    (tmp_path / "k").mkdir()
    for z, one in enumerate(GREY):
        tifffile.imwrite(tmp_path / "k" / f"slice_{z:04d}.ome.tif", one)
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "none")}, [])


def test_files_of_many_pages_are_volumes_whatever_they_are_called(tmp_path) -> None:
    for number in (1, 2):
        tifffile.imwrite(tmp_path / f"kidney_{number}.tif", GREY, photometric="minisblack", metadata=None)
    assert set(found_in(tmp_path)[0]) == {"kidney_1", "kidney_2"}


def test_files_of_two_channels_are_volumes_of_which_one_is_named(tmp_path) -> None:
    for number in (1, 2):
        both = np.stack([GREY, GREY + np.uint16(number)], 1)
        tifffile.imwrite(tmp_path / f"scan{number}.tif", both, imagej=True, metadata={"axes": "ZCYX"})
    (tmp_path / "dataset.toml").write_text("[volumes.scan1]\nchannel = 0\n[volumes.scan2]\nchannel = 1\n")
    one, other = scan(tmp_path)
    for source, expected in ((one, GREY), (other, GREY + np.uint16(2))):
        with source.image.reading() as read:
            assert np.array_equal(read(0, len(GREY)), expected)


def test_a_damaged_file_among_slices_is_named_and_one_among_volumes_as_well(tmp_path) -> None:
    slices(tmp_path / "k")
    (tmp_path / "k" / "0000.tif").write_bytes(b"II*\0")
    with pytest.raises(InputError, match=r"k/0000\.tif: cannot be read as TIFF"):
        scan(tmp_path)
    assert is_stack(tmp_path / "k")
    (tmp_path / "scans").mkdir()
    for number in (1, 2):
        (tmp_path / "scans" / f"scan{number}.tif").write_bytes(b"II*\0")
    assert not is_stack(tmp_path / "scans")
    with pytest.raises(InputError, match=r"scans/scan1\.tif: cannot be read as TIFF"):
        scan(tmp_path / "scans")


def test_a_single_file_with_a_name_is_a_volume_and_one_that_is_a_number_is_a_slice(tmp_path) -> None:
    (tmp_path / "one").mkdir()
    tifffile.imwrite(tmp_path / "one" / "kidney_1.tif", GREY[0])
    assert found_in(tmp_path / "one")[0] == {"kidney_1": ((1, 9, 13), "none")}
    slices(tmp_path / "other", GREY[:1])
    assert found_in(tmp_path / "other")[0] == {"other": ((1, 9, 13), "none")}


def as_nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(MASK.transpose(2, 1, 0), np.eye(4)), path)


LABELS: dict[str, Callable[[Path], None]] = {
    "k_labels.npy": as_npy,
    "k_label.npy": as_npy,
    "k-seg.nii.gz": as_nifti,
    "k_segmentation.nii": as_nifti,
    "k.mask.npy": as_npy,
    "k_Masks.npy": as_npy,
    "k labels.npy": as_npy,
    "k_labels.ome.tif": lambda path: tifffile.imwrite(path, MASK, ome=True, metadata={"axes": "ZYX"}),
    "k_labels.zarr": lambda path: zarr.save_array(str(path), MASK),
    "k_labels": lambda path: slices(path, MASK),
    "k-mask": lambda path: slices(path, MASK, "slice_"),
}


@pytest.mark.parametrize("image", ["k.npy", "k.ome.tif", "k"])
@pytest.mark.parametrize("name", LABELS)
def test_labels_beside_a_scan_are_its_labels_and_no_second_scan(tmp_path, image: str, name: str) -> None:
    match image:
        case "k":
            slices(tmp_path / "k")
        case "k.npy":
            np.save(tmp_path / image, GREY)
        case _:
            tifffile.imwrite(tmp_path / image, GREY, ome=True, metadata={"axes": "ZYX"})
    LABELS[name](tmp_path / name)
    assert found_in(tmp_path)[0] == {"k": ((4, 9, 13), "files")}
    assert scan_one(tmp_path / image).labels == "files"


def test_two_labels_beside_one_scan_are_refused(tmp_path) -> None:
    np.save(tmp_path / "k.npy", GREY)
    as_npy(tmp_path / "k_labels.npy")
    as_npy(tmp_path / "k-seg.npy")
    with pytest.raises(InputError, match=r"both k-seg\.npy and k_labels\.npy exist; keep one of them, or name one"):
        scan(tmp_path)


def test_of_two_labels_beside_one_scan_dataset_toml_names_one(tmp_path) -> None:
    np.save(tmp_path / "k.npy", GREY)
    np.save(tmp_path / "m.npy", GREY)
    as_npy(tmp_path / "k_labels.npy")
    np.save(tmp_path / "k_mask.npy", 1 - MASK)
    rows = {row.name: row for row in check(tmp_path, None, tmp_path / "cache")}
    assert "both k_labels.npy and k_mask.npy" in str(rows["k"])
    assert rows["m"].error is None  # one volume does not stop the others
    (tmp_path / "dataset.toml").write_text('[volumes.k]\nlabels = "k_mask"\n')
    (source,) = scan(tmp_path)
    with source.label.reading() as read:
        assert np.array_equal(read(0, 4), 1 - MASK)


def test_of_two_masks_in_a_folder_of_slices_dataset_toml_names_one(tmp_path) -> None:
    slices(tmp_path / "k")
    slices(tmp_path / "k" / "mask", MASK * 255)
    slices(tmp_path / "k" / "seg", (1 - MASK) * 255)
    (tmp_path / "dataset.toml").write_text('[volumes.k]\nlabels = "seg"\n')
    (source,) = scan(tmp_path)
    assert source.label.path == tmp_path / "k" / "seg"
    (tmp_path / "dataset.toml").write_text('[volumes.k]\nlabels = "other"\n')
    with pytest.raises(InputError, match=r"k has no label set 'other' \(in dataset.toml\); the sets there: mask, seg$"):
        scan(tmp_path)


def test_what_is_left_out_is_said(tmp_path) -> None:
    np.save(tmp_path / "k.npy", GREY)
    as_npy(tmp_path / "other_seg.npy")
    (tmp_path / "preview.png").write_bytes(b"")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0000.png").write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "README.md").write_text("")
    volumes, notes = found_in(tmp_path)
    assert set(volumes) == {"k"}
    assert sorted(notes) == [
        "left out: preview.png: not in a supported format (TIFF, Zarr, .npy, NIfTI)",
        "nothing: left out, it contains no images",
        "other_seg.npy: left out, it is named like labels, and there are no images other beside it",
        "pictures: left out, 0000.png: not in a supported format (TIFF, Zarr, .npy, NIfTI)",
    ]


def ome(path: Path, voxels: np.ndarray) -> None:
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", shape=voxels.shape, dtype=voxels.dtype)[:] = voxels
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]


def test_labels_inside_an_ome_zarr_store_are_found(tmp_path) -> None:
    ome(tmp_path / "k.zarr", GREY)
    zarr.open_group(str(tmp_path / "k.zarr" / "labels"), mode="w", zarr_format=2).attrs["labels"] = ["vessels"]
    ome(tmp_path / "k.zarr" / "labels" / "vessels", MASK)
    assert found_in(tmp_path)[0] == {"k": ((4, 9, 13), "files")}
    zarr.open_group(str(tmp_path / "k.zarr" / "labels"), mode="a").attrs["labels"] = ["vessels", "organ"]
    ome(tmp_path / "k.zarr" / "labels" / "organ", 1 - MASK)
    volumes, notes = found_in(tmp_path)
    assert volumes["k"][1] == "none"
    assert notes == ["k.zarr: holds several labels, of which `labels` in dataset.toml can name one: organ, vessels"]
    (tmp_path / "dataset.toml").write_text('[volumes.k]\nlabels = "organ"\n')
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "files")}, [])
    (source,) = scan(tmp_path)
    assert source.label is not None
    with source.label.reading() as read:
        assert np.array_equal(read(0, 4), 1 - MASK)


def labels_in(image: Path, **masks: np.ndarray) -> None:
    zarr.open_group(str(image / "labels"), mode="w", zarr_format=2).attrs["labels"] = list(masks)
    for name, mask in masks.items():
        ome(image / "labels" / name, mask)


def test_labels_inside_the_images_of_a_bioformats2raw_store_are_found(tmp_path) -> None:
    root = zarr.open_group(str(tmp_path / "k.zarr"), mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    expected = {0: MASK, 1: 1 - MASK}
    for number, mask in expected.items():
        ome(tmp_path / "k.zarr" / str(number), GREY + number)
        labels_in(tmp_path / "k.zarr" / str(number), vessels=mask)
        if number == 0:
            (source,) = scan(tmp_path)
            assert voxels_of(source.label).tolist() == MASK.tolist()
    with pytest.raises(InputError, match="a volume has one position: say position = 0"):
        scan(tmp_path)
    for number, mask in expected.items():
        for said in ("", "labels = 'vessels'"):
            (tmp_path / "dataset.toml").write_text(f"[volumes.k]\nposition = {number}\n{said}\n")
            for source in (*scan(tmp_path), scan_one(tmp_path / "k.zarr")):
                assert voxels_of(source.image).tolist() == (GREY + number).tolist()
                assert voxels_of(source.label).tolist() == mask.tolist()
    labels_in(tmp_path / "k.zarr" / "1", vessels=MASK, organ=MASK)
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nposition = 1\n")
    volumes, notes = found_in(tmp_path)
    assert volumes["k"][1] == "none"
    assert notes == ["k.zarr: holds several labels, of which `labels` in dataset.toml can name one: organ, vessels"]


def voxels_of(stack: Slices | None) -> np.ndarray:
    assert stack is not None
    with stack.reading() as read:
        return read(0, stack.shape[0]).copy()


def test_the_only_image_of_a_bioformats2raw_store_is_read(tmp_path) -> None:
    root = zarr.open_group(str(tmp_path / "k.zarr"), mode="w", zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    ome(tmp_path / "k.zarr" / "0", GREY)
    with open_slices(tmp_path / "k.zarr").reading() as read:
        assert np.array_equal(read(0, 4), GREY)
    ome(tmp_path / "k.zarr" / "1", GREY)
    with pytest.raises(InputError, match="a volume has one position: say position = 0"):
        open_slices(tmp_path / "k.zarr")


def test_labels_beside_the_folder_of_a_volume_are_used_if_it_has_none(tmp_path) -> None:
    slices(tmp_path / "k" / "images")
    as_npy(tmp_path / "k_labels.npy")
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "files")}, [])
    slices(tmp_path / "k" / "labels", 1 - MASK)
    volumes, notes = found_in(tmp_path)
    assert (volumes["k"][1], notes) == ("files", ["k_labels.npy: left out, k has labels of its own"])
    (source,) = scan(tmp_path)
    assert source.label is not None and source.label.path == tmp_path / "k" / "labels"


def test_a_name_is_the_same_however_its_letters_are_composed(tmp_path) -> None:
    """A Mac writes an umlaut as two characters, and a keyboard as one."""
    composed, apart = (unicodedata.normalize(form, "nière_ü") for form in ("NFC", "NFD"))
    assert composed != apart
    for name in (apart, "other"):
        np.save(tmp_path / f"{name}.npy", GREY)
        as_npy(tmp_path / f"{name}_labels.npy")
    (tmp_path / "dataset.toml").write_text(f"[volumes.'{composed}']\nannotated = 0.5\n[volumes.other]\n", "utf-8")
    sources = scan(tmp_path)
    assert [(source.name, source.annotated) for source in sources] == [(composed, 0.5), ("other", 1.0)]
    for written in (composed, apart):
        train, _ = choose(sources, DataConfig(hold_out="other", train=(written,)))
        assert [source.name for source in train] == [composed]


def test_labels_are_paired_however_the_letters_of_both_names_are_composed(tmp_path) -> None:
    composed, apart = (unicodedata.normalize(form, "nière_ü") for form in ("NFC", "NFD"))
    np.save(tmp_path / f"{composed}.npy", GREY)
    as_npy(tmp_path / f"{apart}_labels.npy")
    assert found_in(tmp_path) == ({composed: ((4, 9, 13), "files")}, [])
    assert scan_one(tmp_path / f"{composed}.npy").labels == "files"
    inside = tmp_path / "more" / "k"
    slices(inside / "images")
    slices(inside / apart, MASK)
    (tmp_path / "more" / "dataset.toml").write_text(f"[volumes.k]\nlabels = '{composed}'\n", "utf-8")
    assert found_in(tmp_path / "more")[0] == {"k": ((4, 9, 13), "files")}


@pytest.mark.parametrize("ending", [".TIF", ".Tiff", ".btf", ".tf8", ".TF2"])
def test_every_ending_of_tiff_is_read_in_any_case(tmp_path, ending: str) -> None:
    tifffile.imwrite(tmp_path / f"k{ending}", GREY, bigtiff=True, photometric="minisblack", metadata=None)
    tifffile.imwrite(tmp_path / f"k_Labels{ending}", MASK, bigtiff=True, photometric="minisblack", metadata=None)
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "files")}, [])


@pytest.mark.parametrize("name", ["labels", "Label", "masks", "Mask", "seg", "SEGMENTATION"])
def test_labels_in_a_folder_of_a_volume_may_be_one_file_of_any_such_name(tmp_path, name: str) -> None:
    (tmp_path / "k").mkdir()
    np.save(tmp_path / "k" / "Images.npy", GREY)
    as_npy(tmp_path / "k" / f"{name}.npy")
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "files")}, [])
    assert np.array_equal(read_mask(tmp_path / "k"), MASK)


def test_labels_go_before_masks_and_of_several_masks_dataset_toml_names_one(tmp_path) -> None:
    slices(tmp_path / "k" / "images")
    slices(tmp_path / "k" / "seg", MASK)
    as_npy(tmp_path / "k" / "mask.npy")
    volumes, notes = found_in(tmp_path)
    assert volumes == {"k": ((4, 9, 13), "none")}
    assert notes == ["k: holds several labels, of which `labels` in dataset.toml can name one: mask, seg"]
    (tmp_path / "dataset.toml").write_text('[volumes.k]\nlabels = "seg"\n')
    told: list[str] = []
    for source in (scan_one(tmp_path / "k", Report(told.append)), *scan(tmp_path, Report(told.append))):
        assert source.label is not None and source.label.path.name == "seg"
    assert told == ["k: its voxel spacing is not stated; state it in dataset.toml"] * 2
    (tmp_path / "dataset.toml").unlink()
    slices(tmp_path / "k" / "labels", 1 - MASK)
    (source,) = scan(tmp_path)
    assert source.label is not None and source.label.path.name == "labels"


@pytest.mark.parametrize("inside", ["images", "labels"])
def test_slices_of_two_names_are_no_volume(tmp_path, inside: str) -> None:
    slices(tmp_path / "k" / "images", prefix="left_")
    slices(tmp_path / "k" / "labels", MASK, prefix="left_")
    tifffile.imwrite(tmp_path / "k" / inside / "overview_0004.tif", GREY[0], metadata=None)
    with pytest.raises(InputError, match=rf"{inside}/overview_0004\.tif is named unlike left_0000\.tif"):
        scan(tmp_path)


def test_slices_beside_other_pictures_are_left_out_and_said(tmp_path) -> None:
    """Rather than read as one volume, or as a volume each."""
    np.save(tmp_path / "k.npy", GREY)
    for place in (tmp_path, tmp_path / "folder"):
        slices(place, prefix="left_")
        slices(place, prefix="right_")
    volumes, notes = found_in(tmp_path)
    assert set(volumes) == {"k"}
    told = "look like slices, and other TIFF files lie beside them; give the slices of a volume a folder of their own"
    assert notes == [
        f"left out: left_0000.tif to left_0003.tif {told}",
        f"left out: right_0000.tif to right_0003.tif {told}",
        "folder: left out, right_0000.tif is named unlike the slices left_0000.tif to left_0003.tif beside it",
    ]


NOT_AT_THE_END = {
    "channels": ["s_z0000_ch00", "s_z0000_ch01", "s_z0001_ch00", "s_z0001_ch01"],
    "brackets": ["slice (1)", "slice (2)", "slice (3)"],
    "two": ["slice (1)", "slice (2)"],
    "of how many": ["z001_of_012", "z002_of_012", "z003_of_012"],
    "bits": ["z001_8bit", "z002_8bit", "z003_8bit"],
    "copies": ["slice-1 copy", "slice-2 copy", "slice-3 copy"],
}


@pytest.mark.parametrize("case", NOT_AT_THE_END)
def test_slices_whose_number_is_not_at_the_end_are_said_to_be_slices(tmp_path, case: str) -> None:
    """Rather than read as a volume each, or in an order that is guessed."""
    names = NOT_AT_THE_END[case]
    np.save(tmp_path / "k.npy", GREY)
    for folder in (tmp_path, tmp_path / "folder"):
        folder.mkdir(exist_ok=True)
        for name, one in zip(names, GREY, strict=False):
            tifffile.imwrite(folder / f"{name}.tif", one, metadata=None)
    told = (
        f"{names[0]}.tif to {names[-1]}.tif look like slices, but their number is not at the end of their names: "
        "rename them to 0000.tif, 0001.tif and so on, in a folder for each volume and channel"
    )
    volumes, notes = found_in(tmp_path)
    assert set(volumes) == {"k"}
    assert notes == [f"left out: {told}", f"folder: left out, {told}"]
    (tmp_path / "folder").rename(tmp_path / "images")
    for place in ("folder", "images"):
        (tmp_path / place).mkdir(exist_ok=True)
    with pytest.raises(InputError) as refused:
        scan_one(tmp_path / "images")
    assert str(refused.value) == f"{tmp_path / 'images'}: {told}"
    (tmp_path / "folder").rmdir()
    (tmp_path / "images").rename(tmp_path / "folder")
    with pytest.raises(InputError) as refused:
        scan_one(tmp_path / "folder")
    assert str(refused.value) == f"{tmp_path / 'folder'}: {told}"


def test_a_folder_of_pages_is_not_said_to_be_a_folder_of_volumes(tmp_path) -> None:
    np.save(tmp_path / "k.npy", GREY)
    (tmp_path / "folder").mkdir()
    for name, one in zip("ab", GREY, strict=False):
        tifffile.imwrite(tmp_path / "folder" / f"{name}.tif", one, metadata=None)
    told = "it holds a.tif, b.tif, of one page each: name the slices of a volume 0000.tif, 0001.tif and so on"
    assert found_in(tmp_path)[1] == [f"folder: left out, {told}"]


def test_volumes_with_a_number_in_their_names_are_volumes(tmp_path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"kidney_{number}_scan.tif", GREY, photometric="minisblack")
    assert set(found_in(tmp_path)[0]) == {f"kidney_{number}_scan" for number in range(3)}
