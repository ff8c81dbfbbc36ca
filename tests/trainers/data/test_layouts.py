"""What people's folders look like: each is read right, or left out or refused for the right reason."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scans import GREY, MASK, as_npy, found_in, slices

from search_spaces.errors import InputError
from trainers.data.masks import read_mask
from trainers.data.sources import scan, scan_one

UNREAD = [
    "k.img", "k.hdr", "k.zarr.zip", "k.am", "k.mhd", "k.raw", "k.nrrd", "k.h5", "k.vol", "k.DCM", "k.czi", "k.jp2",
    "k.lsm", "k.mrc",
]  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_a_scan_in_another_format_is_left_out_for_that_reason(tmp_path, name: str) -> None:
    slices(tmp_path / "a" / "images")
    (tmp_path / "k").mkdir()
    for folder in (tmp_path, tmp_path / "k"):
        (folder / name).write_bytes(b"")
    unread = f"{name}: not in a supported format (TIFF, Zarr, .npy, NIfTI)"
    assert sorted(found_in(tmp_path)[1]) == sorted([f"k: left out, {unread}", f"left out: {unread}"])


def test_labels_in_another_format_beside_images_are_left_out_for_that_reason(tmp_path) -> None:
    slices(tmp_path / "k" / "images")
    (tmp_path / "k" / "labels.nrrd").write_bytes(b"")
    told = "k: left out: labels.nrrd: not in a supported format (TIFF, Zarr, .npy, NIfTI)"
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "none")}, [told])


LAYOUTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a scan with a name of its own": (
        lambda k: (np.save(k / "scan.npy", GREY), as_npy(k / "scan_seg.npy")),
        "k: left out, it holds scan.npy, scan_seg.npy, and nothing that is called images: rename it, or name this "
        "folder as the data",
    ),
    "slices in a folder of another name": (
        lambda k: slices(k / "raw"),
        "k: left out, it holds raw, and nothing that is called images: rename it, or name this folder as the data",
    ),
    "volumes in folders of their own": (
        lambda k: slices(k / "l" / "images"),
        "k: left out, it holds l, and nothing that is called images: rename it, or name this folder as the data",
    ),
    "nothing but folders": (lambda k: (k / "empty").mkdir(), "k: left out, it contains no images"),
    "hidden files": (lambda k: (k / "._0000.tif").write_bytes(b""), "k: left out, it contains no images"),
    "files without an ending": (
        lambda k: (k / "IM0001").write_bytes(b""),
        "k: left out, none of its files is in a supported format",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_without_images_is_left_out_for_what_it_holds(tmp_path, layout: str) -> None:
    slices(tmp_path / "a" / "images")
    (tmp_path / "k").mkdir()
    make, says = LAYOUTS[layout]
    make(tmp_path / "k")
    assert found_in(tmp_path) == ({"a": ((4, 9, 13), "none")}, [says])


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "pictures in place of slices": (
        lambda k: (k / "0000.png").write_bytes(b""),
        r"labels: no TIFF slices in it; .* it holds 0000\.png: not in a supported format",
    ),
    "one file in place of slices": (lambda k: as_npy(k / "scan.npy"), r"labels: no TIFF slices in it; .* scan\.npy"),
    "a file of many pages": (
        lambda k: tifffile.imwrite(k / "scan.tif", MASK, photometric="minisblack", metadata=None),
        r"labels: holds scan\.tif of many pages, and slices have one; call a volume NAME/images\.tif, or NAME\.tif",
    ),
    "one more slice": (
        lambda k: slices(k, np.concatenate([MASK, MASK[:1]])),
        r"labels/0004\.tif: label slice without image",
    ),
    "a pipe among the slices": (
        lambda k: (slices(k, MASK), os.mkfifo(k / "0004.tif")),
        r"labels/0004\.tif: is not a file, or is a link to one that is gone",
    ),
    "a link to a slice that is gone": (
        lambda k: (slices(k, MASK), (k / "0004.tif").symlink_to(k / "gone.tif")),
        r"labels/0004\.tif: is not a file, or is a link to one that is gone",
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_of_labels_that_is_no_stack_is_refused_for_what_it_holds(tmp_path, case: str) -> None:
    slices(tmp_path / "k" / "images")
    (tmp_path / "k" / "labels").mkdir()
    make, says = REFUSED[case]
    make(tmp_path / "k" / "labels")
    with pytest.raises(InputError, match=says):
        scan(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["k_labels.tif", "k_labels.npy", "k_labels.nii.gz"])
def test_a_pipe_is_no_file(tmp_path, name: str) -> None:
    np.save(tmp_path / "k.npy", GREY)
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=r"k_labels\..*: is neither a file nor a folder"):
        scan(tmp_path)
    with pytest.raises(InputError, match=r"k_labels\..*: is neither a file nor a folder"):
        read_mask(tmp_path / name)


def test_a_folder_that_is_only_named_like_a_zarr_store_is_named(tmp_path) -> None:
    (tmp_path / "k.zarr").mkdir()
    with pytest.raises(
        InputError, match=r"k\.zarr: not a Zarr store: none of zarr\.json, \.zarray and \.zgroup is in it"
    ):
        scan(tmp_path)


def test_what_systems_leave_beside_slices_is_no_slice(tmp_path) -> None:
    for folder, voxels in (("images", GREY), ("labels", MASK)):
        slices(tmp_path / "k" / folder, voxels, "slice_")
        for name in ("._slice_0001.tif", ".DS_Store", "Thumbs.db", "slice_0000.tif:Zone.Identifier"):
            (tmp_path / "k" / folder / name).write_bytes(b"\0")
        (tmp_path / "k" / folder / "empty").mkdir()
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "files")}, [])


def test_labels_inside_a_folder_of_slices_are_theirs(tmp_path) -> None:
    slices(tmp_path / "k")
    slices(tmp_path / "k" / "masks", MASK)
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "files")}, [])
    assert scan_one(tmp_path / "k").labels == "files"


@pytest.mark.parametrize("name", ["labels_k", "mask-1", "k_gt", "k_annotations", "k_label_v2", "Ground truth of k"])
def test_a_scan_that_sounds_like_labels_is_read_and_said(tmp_path, name: str) -> None:
    np.save(tmp_path / "k.npy", GREY)
    as_npy(tmp_path / f"{name}.npy")
    volumes, notes = found_in(tmp_path)
    assert set(volumes) == {"k", name}
    assert notes == [f"{name}.npy: read as a scan; labels of a scan NAME are called NAME_labels"]


@pytest.mark.parametrize("name", ["masked_kidney", "segmented", "kidney_lab_3", "unmask", "legato"])
def test_a_word_that_only_contains_one_for_labels_is_none(tmp_path, name: str) -> None:
    np.save(tmp_path / f"{name}.npy", GREY)
    assert found_in(tmp_path) == ({name: ((4, 9, 13), "none")}, [])


def test_what_lies_beside_train_and_test_is_said_to_be_left_out(tmp_path) -> None:
    slices(tmp_path / "train" / "k" / "images")
    slices(tmp_path / "validation" / "l" / "images")
    np.save(tmp_path / "m.npy", GREY)
    (tmp_path / "pictures").mkdir()
    told = "left out, where there is train/ or test/ nothing else is looked at"
    assert found_in(tmp_path) == ({"k": ((4, 9, 13), "none")}, [f"m.npy: {told}", f"validation: {told}"])


def test_a_link_to_a_folder_that_is_gone_is_said(tmp_path) -> None:
    np.save(tmp_path / "k.npy", GREY)
    (tmp_path / "l").symlink_to(tmp_path / "gone")
    assert found_in(tmp_path)[1] == ["l: left out, it is a link to something that is gone"]


def test_a_pipe_holds_no_volumes(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for find in (scan, scan_one):
        with pytest.raises(InputError, match="pipe: there is no such file or folder"):
            find(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["images", "labels", "mask"])
def test_a_link_in_a_volume_that_leads_nowhere_is_named(tmp_path, name: str) -> None:
    slices(tmp_path / "k" / "images" if name != "images" else tmp_path / "k" / "labels")
    (tmp_path / "k" / name).symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match=rf"k/{name}: there is no such file or folder"):
        scan(tmp_path)
