import errno
import os

import numpy as np
import pytest
import tifffile
import zarr
from stacks import a_volume, write_kaggle, write_slices

from search_spaces.errors import InputError
from trainers.data.manifest import read_manifest
from trainers.data.prepare import prepare
from trainers.data.rle import encode
from trainers.data.slices import decoding
from trainers.data.sources import scan, scan_one
from trainers.report import Report


def test_the_layout_of_the_competition_is_understood(tmp_path) -> None:
    write_kaggle(tmp_path, "kidney_1_dense", first=10)
    write_kaggle(tmp_path, "kidney_5", "test")
    first, second = scan(tmp_path)
    assert (first.name, first.kidney, first.split, first.labels) == ("kidney_1_dense", "kidney_1", "train", "files")
    assert (first.shape, first.spacing_um, first.annotated) == ((6, 20, 24), (50.0, 50.0, 50.0), 1.0)
    assert (second.name, second.split, second.labels, second.annotated) == ("kidney_5", "test", "none", 0.0)


def test_the_folder_train_alone_is_understood(tmp_path) -> None:
    write_kaggle(tmp_path, "kidney_1_dense")
    assert [source.split for source in scan(tmp_path / "train")] == ["train"]


def test_without_train_a_volume_with_labels_is_for_training(tmp_path) -> None:
    image, label = a_volume()
    write_slices(tmp_path / "a" / "images", image)
    write_slices(tmp_path / "a" / "labels", label)
    write_slices(tmp_path / "b" / "images", image)
    assert {source.name: source.split for source in scan(tmp_path)} == {"a": "train", "b": "test"}


def test_kidney_3_dense_borrows_its_images(tmp_path) -> None:
    image, label = write_kaggle(tmp_path, "kidney_3_sparse", first=494)
    write_slices(tmp_path / "train" / "kidney_3_dense" / "labels", label[2:5], first=496)
    dense, sparse = scan(tmp_path)
    assert (dense.name, dense.shape, dense.image.numbers) == ("kidney_3_dense", (3, 20, 24), (496, 497, 498))
    assert dense.annotated == 1.0
    assert sparse.shape == (6, 20, 24)
    assert np.array_equal(prepare(dense, tmp_path / "cache").image, image[2:5])


def test_labels_come_from_the_csv_file_where_there_is_no_folder(tmp_path) -> None:
    image, label = a_volume()
    write_slices(tmp_path / "train" / "kidney_3_sparse" / "images", image, first=494)
    rows = [f"kidney_3_sparse_{494 + z:04d},{encode(one)}" for z, one in enumerate(label)]
    rows += [f"kidney_3_dense_{496 + z:04d},{encode(one)}" for z, one in enumerate(label[2:4])]
    (tmp_path / "train_rles.csv").write_text("id,rle\n" + "\n".join(rows))
    dense, sparse = scan(tmp_path)
    assert (dense.labels, sparse.labels) == ("rles", "rles")
    assert np.array_equal(prepare(sparse, tmp_path / "cache").label, label)
    assert np.array_equal(prepare(dense, tmp_path / "cache").label, label[2:4])
    assert np.array_equal(prepare(dense, tmp_path / "cache").image, image[2:4])


def write_ome(path, stack: np.ndarray, zarr_format: int) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.create_array("0", data=stack[None], chunks=(1, 4, 8, 8))
    group.create_array("1", data=stack[None, ::2, ::2, ::2], chunks=(1, 4, 8, 8))
    units = [{"name": "c", "type": "channel"}]
    units += [{"name": axis, "type": "space", "unit": "millimeter"} for axis in "zyx"]
    scales = [[{"type": "scale", "scale": [1, 0.05, 0.02, 0.03]}], [{"type": "scale", "scale": [1, 0.1, 0.04, 0.06]}]]
    datasets = [{"path": str(k), "coordinateTransformations": scale} for k, scale in enumerate(scales)]
    scales = [{"axes": units, "datasets": datasets}]
    group.attrs.update({"multiscales": scales} if zarr_format == 2 else {"ome": {"multiscales": scales}})


def write_nifti(path, stack: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(np.transpose(stack), np.diag([0.03, 0.02, 0.05, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def write_zarr(path, stack: np.ndarray, zarr_format: int) -> None:
    array = zarr.create_array(path, shape=stack.shape, chunks=(4, 8, 8), dtype=stack.dtype, zarr_format=zarr_format)
    array[:] = stack


WRITERS = {
    "images.npy": lambda path, stack: np.save(path, stack),
    "image.npy": lambda path, stack: np.save(path, np.asfortranarray(stack)),
    "images.tif": lambda path, stack: tifffile.imwrite(path, stack, photometric="minisblack"),
    "images.tiff": lambda path, stack: tifffile.imwrite(path, stack, photometric="minisblack", compression="zstd"),
    "image.tif": lambda path, stack: tifffile.imwrite(path, stack, photometric="minisblack", byteorder=">"),
    "images.zarr": lambda path, stack: write_zarr(path, stack, 2),
    "image.zarr": lambda path, stack: write_zarr(path, stack, 3),
    "images.ome.zarr": lambda path, stack: write_ome(path, stack, 2),
    "image.ome.zarr": lambda path, stack: write_ome(path, stack, 3),
    "images.nii": write_nifti,
    "images.nii.gz": write_nifti,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_voxels(tmp_path, name: str) -> None:
    image, label = a_volume()
    folder = tmp_path / "data" / "scan"
    folder.mkdir(parents=True)
    WRITERS[name](folder / name, image)
    np.save(folder / "labels.npy", label)
    (source,) = scan(tmp_path / "data")
    assert (source.name, source.shape) == ("scan", image.shape)
    volume = prepare(source, tmp_path / "cache")
    assert np.array_equal(volume.image, image)
    assert np.array_equal(volume.label, label)
    assert (source.spacing_um is not None) == ("ome" in name or "nii" in name)
    if source.spacing_um is not None:
        assert source.spacing_um == pytest.approx((50.0, 20.0, 30.0))


def test_spacing_comes_from_an_imagej_file(tmp_path) -> None:
    image, _ = a_volume()
    meta = {"spacing": 5.0, "unit": "micron", "axes": "ZYX"}
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, resolution=(1 / 2, 1 / 4), metadata=meta)
    source = scan_one(tmp_path / "a.tif")
    assert source.spacing_um == pytest.approx((5.0, 4.0, 2.0))
    assert np.array_equal(prepare(source, tmp_path / "cache").image, image)


def test_files_beside_each_other_are_volumes_and_their_labels(tmp_path) -> None:
    image, label = a_volume()
    np.save(tmp_path / "a.npy", image)
    np.save(tmp_path / "a_labels.npy", label)
    tifffile.imwrite(tmp_path / "b.tif", image, photometric="minisblack")
    assert [(source.name, source.labels) for source in scan(tmp_path)] == [("a", "files"), ("b", "none")]


def test_one_volume_is_found_from_its_folder_its_slices_or_its_file(tmp_path) -> None:
    image, _ = write_kaggle(tmp_path, "kidney_6", "test")
    folder = tmp_path / "test" / "kidney_6"
    np.save(tmp_path / "scan.npy", image)
    sources = [scan_one(folder), scan_one(folder / "images"), scan_one(tmp_path / "scan.npy")]
    assert [source.name for source in sources] == ["kidney_6", "kidney_6", "scan"]
    assert [source.spacing_um for source in sources] == [(63.08,) * 3, (63.08,) * 3, None]
    assert {source.shape for source in sources} == {image.shape}


def test_an_unknown_spacing_is_reported(tmp_path) -> None:
    np.save(tmp_path / "a.npy", a_volume()[0])
    notes: list[str] = []
    (source,) = scan(tmp_path, Report(notes.append))
    assert source.spacing_um is None
    assert ["spacing" in note and note.startswith("a: ") for note in notes] == [True]


def test_a_volume_that_the_manifest_does_not_list_is_left_out_and_reported(tmp_path) -> None:
    for name in ("a", "b"):
        write_kaggle(tmp_path, name)
    text = "[volumes.a]\nkidney = 'left'\nvoxel_spacing_um = [2, 1, 1]\nannotated = 0.5\n[volumes.c]\nkidney = 'left'\n"
    (tmp_path / "dataset.toml").write_text(text)
    notes: list[str] = []
    (source,) = scan(tmp_path, Report(notes.append))
    assert (source.name, source.kidney, source.spacing_um, source.annotated) == ("a", "left", (2.0, 1.0, 1.0), 0.5)
    assert [note.split(":")[0] for note in notes] == ["b", "c"]


def test_the_folder_test_and_its_volumes_read_singly_are_the_same_sources(tmp_path) -> None:
    for name in ("kidney_7", "kidney_8"):
        write_kaggle(tmp_path, name)
    (tmp_path / "train").rename(tmp_path / "test")
    (tmp_path / "dataset.toml").write_text("[volumes.kidney_7]\nkidney = 'left'\nvoxel_spacing_um = 40.0\n")
    together = scan(tmp_path / "test")
    alone = [scan_one(tmp_path / "test" / name) for name in ("kidney_7", "kidney_8")]
    assert [(s.name, s.kidney, s.spacing_um) for s in together] == [(s.name, s.kidney, s.spacing_um) for s in alone]
    assert together[0].spacing_um == (40.0,) * 3 and together[1].spacing_um is None


def remove(path) -> None:
    path.unlink()


def rewrite(shape: tuple[int, ...], dtype: type = np.uint16):
    return lambda path: tifffile.imwrite(path, np.zeros(shape, dtype), photometric="minisblack")


BROKEN = {
    "missing slice": ("images/0003.tif", remove, "images: slice 0003 is missing between 0002.tif and 0004.tif"),
    "missing last image": ("images/0005.tif", remove, "labels/0005.tif: label slice without image"),
    "missing first label": ("labels/0000.tif", remove, "images/0000.tif: image slice without label"),
    "extra label": ("labels/0006.tif", rewrite((20, 24), np.uint8), "labels/0006.tif: label slice without image"),
    "unnumbered slice": ("images/last.tif", rewrite((20, 24)), "images/last.tif: a slice needs a number"),
    "slice twice": ("images/3.tif", rewrite((20, 24)), r"images/3\.tif: slice 3 appears twice"),
    "not a TIFF": (
        "images/0000.tif",
        lambda path: path.write_bytes(b"hello"),
        "images/0000.tif: cannot be read as TIFF",
    ),
    "several pages": ("images/0000.tif", rewrite((3, 20, 24)), "images/0000.tif: holds 3 pages"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_stack_is_named_in_one_line(tmp_path, case: str) -> None:
    name, damage, says = BROKEN[case]
    write_kaggle(tmp_path, "kidney_9")
    damage(tmp_path / "train" / "kidney_9" / name)
    with pytest.raises(InputError, match=says) as error:
        scan(tmp_path)
    assert "\n" not in str(error.value)


def test_labels_of_another_shape_are_named(tmp_path) -> None:
    image, label = a_volume()
    write_slices(tmp_path / "a" / "images", image)
    write_slices(tmp_path / "a" / "labels", label[:, :-1])
    with pytest.raises(InputError, match=r"labels does not lie on .*images: it has 6 x 19 x 24 voxels and the other"):
        scan(tmp_path)


def test_a_csv_file_without_a_slice_or_with_one_too_many_is_named(tmp_path) -> None:
    write_slices(tmp_path / "train" / "a" / "images", a_volume()[0])
    csv = tmp_path / "train_rles.csv"
    csv.write_text("id,rle\n" + "".join(f"a_{z:04d},1 0\n" for z in range(5)))
    with pytest.raises(InputError, match=r"train_rles\.csv: no row for slice 0005"):
        scan(tmp_path)
    csv.write_text("id,rle\n" + "".join(f"a_{z:04d},1 0\n" for z in range(7)))
    with pytest.raises(InputError, match=r"train_rles\.csv: a row for slice 0006"):
        scan(tmp_path)


def test_a_folder_without_volumes_says_what_is_understood(tmp_path) -> None:
    for folder in (tmp_path, tmp_path / "empty"):
        folder.mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"no volumes in it; expected train/NAME/images/0000\.tif"):
            scan(folder)
    with pytest.raises(InputError, match="no such file or folder"):
        scan(tmp_path / "typo")
    (tmp_path / "a" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match="images: no TIFF slices in it"):
        scan(tmp_path)


def test_files_that_are_not_whole_are_named(tmp_path) -> None:
    np.save(tmp_path / "a.npy", a_volume()[0])
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.npy: cannot be read as a \.npy array of numbers, it is truncated"):
        scan_one(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"a\.npy: cannot be read as a \.npy array of numbers, .*Python objects"):
        scan_one(tmp_path / "a.npy")


def test_pages_that_lead_in_a_circle_or_into_voxels_are_named(tmp_path) -> None:
    file = tmp_path / "a.tif"
    with tifffile.TiffWriter(file) as writer:
        for z in range(3):
            writer.write(np.full((4, 5), z, np.uint16), contiguous=False, metadata=None)
    whole = file.read_bytes()
    with tifffile.TiffFile(file) as tif:
        first, last = tif.pages[0].offset, tif.pages[2].offset
    end = last + 2 + 12 * int.from_bytes(whole[last : last + 2], "little")  # where the last page says what comes next
    for target, says in ((first, "leads back to an earlier one"), (len(whole) - 8, "page 3 states 0 tags|damaged")):
        file.write_bytes(whole[:end] + target.to_bytes(4, "little") + whole[end + 4 :])
        with pytest.raises(InputError, match=says):
            scan_one(file)


def test_a_compressed_slice_with_too_few_strips_is_named_before_memory_is_taken(tmp_path) -> None:
    file = tmp_path / "0000.tif"
    tifffile.imwrite(file, np.zeros((24, 20), np.uint16), compression="zlib", rowsperstrip=4)
    with tifffile.TiffFile(file, mode="r+") as tif:
        tif.pages[0].tags["ImageLength"].overwrite(9_000_000)
    with pytest.raises(InputError, match=r"9000000 x 20 voxels lie in 2250000 strips or tiles, but the file has 6"):
        scan_one(tmp_path)


def test_a_colour_channel_axis_in_zarr_is_refused(tmp_path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(3, 4, 5, 6), dtype="uint16")
    with pytest.raises(
        InputError, match=r"a\.zarr: has 4 axes without names \(3 x 4 x 5 x 6\): say in dataset.toml what they are"
    ):
        scan_one(tmp_path / "a.zarr")


def test_an_impossible_header_is_refused_before_memory_is_allocated(tmp_path) -> None:
    zarr.create_array(tmp_path / "a.zarr", shape=(4, 5, 6), dtype="uint16", chunks=(4, 5, 6))[:] = 1
    header = tmp_path / "a.zarr" / "zarr.json"
    header.write_text(header.read_text().replace("4,", "999999999999999999999,", 1))
    with pytest.raises(InputError, match=r"a\.zarr: its header states 999999999999999999999 x 5 x 6 voxels and is da"):
        scan_one(tmp_path / "a.zarr")


def test_the_key_changes_with_the_source_and_not_with_its_place(tmp_path) -> None:
    write_kaggle(tmp_path / "one", "a")
    before = scan(tmp_path / "one")[0].key
    (tmp_path / "one").rename(tmp_path / "two")
    assert scan(tmp_path / "two")[0].key == before
    file = tmp_path / "two" / "train" / "a" / "images" / "0003.tif"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert scan(tmp_path / "two")[0].key != before


@pytest.mark.parametrize("part", ["images", "labels"])
def test_the_key_changes_with_what_was_corrected_in_a_file_of_the_same_size_and_time(tmp_path, part: str) -> None:
    write_kaggle(tmp_path, "kidney_2")
    file = tmp_path / "train" / "kidney_2" / part / "0003.tif"
    state, voxels = file.stat(), tifffile.imread(file)
    before = scan(tmp_path)[0].key
    voxels[5, 7] = 255 - voxels[5, 7] if part == "labels" else 1
    tifffile.imwrite(file, voxels, photometric="minisblack", metadata=None)
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert file.stat().st_size == state.st_size
    assert scan(tmp_path)[0].key != before


def test_the_key_changes_with_the_channel(tmp_path) -> None:
    np.save(tmp_path / "k.npy", np.stack([a_volume()[0], a_volume(1)[0]]))
    keys = set()
    for channel in (0, 1):
        (tmp_path / "dataset.toml").write_text(f"[volumes.k]\naxes = 'CZYX'\nchannel = {channel}\n")
        keys.add(scan(tmp_path)[0].key)
    assert len(keys) == 2


def test_the_key_does_not_depend_on_the_manifest(tmp_path) -> None:
    write_kaggle(tmp_path, "a")
    before = scan(tmp_path)[0].key
    (tmp_path / "dataset.toml").write_text("[volumes.a]\nvoxel_spacing_um = 7\n")
    assert scan(tmp_path)[0].spacing_um == (7.0, 7.0, 7.0)
    assert scan(tmp_path)[0].key == before


def test_volumes_that_differ_only_in_their_voxels_have_different_keys(tmp_path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        write_kaggle(tmp_path / name, "a", seed=seed)
        for file in (tmp_path / name).rglob("*.tif"):
            os.utime(file, ns=(0, 0))
    assert scan(tmp_path / "one")[0].key != scan(tmp_path / "two")[0].key


@pytest.mark.data
def test_every_volume_of_the_real_manifest_is_found(real_data) -> None:
    manifest = read_manifest(real_data)
    assert manifest is not None
    sources = scan(real_data)
    assert [source.name for source in sources] == sorted(manifest.volumes)
    assert all(source.labels == "files" and source.spacing_um is not None for source in sources)


def test_what_may_not_be_read_is_not_called_damaged(tmp_path) -> None:
    with (
        pytest.raises(InputError, match=r"x.tif: cannot be read \(Permission denied\)$"),
        decoding(tmp_path / "x.tif", "TIFF"),
    ):
        raise PermissionError(errno.EACCES, "Permission denied")
