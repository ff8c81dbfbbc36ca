import os
import shutil
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from stacks import a_volume, one_source, write_kaggle, write_slices

from search_spaces.errors import InputError
from trainers.data import statistics
from trainers.data.convert import needed_bytes
from trainers.data.prepare import default_cache, prepare, statistics_of
from trainers.data.rle import decode, read_rles
from trainers.data.sources import scan, scan_one
from trainers.report import Report


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_volume_is_what_its_files_hold(tmp_path, cache) -> None:
    image, label = write_kaggle(tmp_path, "kidney_2")
    volume = prepare(scan(tmp_path)[0], cache)
    assert np.array_equal(volume.image, image)
    assert np.array_equal(volume.label, label)
    assert (volume.image.dtype, volume.label.dtype) == (np.uint16, np.uint8)
    assert volume.vessel_voxels.tolist() == np.flatnonzero(label).tolist()
    assert (volume.name, volume.kidney, volume.spacing_um, volume.annotated) == (
        "kidney_2",
        "kidney_2",
        (50.0,) * 3,
        0.65,
    )


def test_the_statistics_are_exact(tmp_path, cache) -> None:
    image, label = write_kaggle(tmp_path, "kidney_2")
    source = scan(tmp_path)[0]
    volume = prepare(source, cache)
    measured = statistics_of(source, cache)
    for q, value in measured.percentiles.items():
        assert value == pytest.approx(np.percentile(image, q), abs=1e-9)
    assert (volume.grey_low, volume.grey_high) == (measured.percentiles[2.0], measured.percentiles[98.0])
    assert (measured.minimum, measured.maximum) == (image.min(), image.max())
    assert measured.vessel_share == label.mean()
    assert measured.labelled_share == 1.0
    assert measured.notes == ()


def test_the_second_time_nothing_is_read_again(tmp_path, cache) -> None:
    write_kaggle(tmp_path, "kidney_2")
    source = scan(tmp_path)[0]
    first = prepare(source, cache)
    shutil.rmtree(tmp_path / "train")
    progress = []
    started = time.process_time()  # what others do on this machine does not count
    second = prepare(source, cache, Report(progress=lambda *done: progress.append(done)))
    assert time.process_time() - started < 0.1
    assert not progress
    assert np.array_equal(first.image, second.image)
    assert isinstance(second.image, np.memmap)
    assert not second.image.flags.writeable


def test_stating_a_spacing_converts_nothing_again(tmp_path) -> None:
    write_kaggle(tmp_path, "k")
    before = scan(tmp_path)[0]
    (tmp_path / "dataset.toml").write_text("[volumes.k]\nvoxel_spacing_um = 20\n")
    after = scan(tmp_path)[0]
    assert (before.spacing_um, after.spacing_um) == (None, (20.0, 20.0, 20.0))
    assert after.key == before.key


def test_a_changed_source_is_converted_again(tmp_path, cache) -> None:
    image, _ = write_kaggle(tmp_path, "kidney_2")
    before = prepare(scan(tmp_path)[0], cache)
    tifffile.imwrite(tmp_path / "train" / "kidney_2" / "images" / "0002.tif", image[2] + np.uint16(1))
    after = prepare(scan(tmp_path)[0], cache)
    assert after.image[2, 0, 0] == image[2, 0, 0] + 1
    assert before.content_hash != after.content_hash


def test_equal_voxels_have_equal_hashes_whatever_their_format_and_kidney(tmp_path, cache) -> None:
    image, _ = write_kaggle(tmp_path, "kidney_2")
    np.save(tmp_path / "copy.npy", image)
    np.save(tmp_path / "turned.npy", image.reshape(image.shape[0], image.shape[2], image.shape[1]))
    swapped = image.copy()
    swapped[0, 0, [0, 1]] = swapped[0, 0, [1, 0]]
    np.save(tmp_path / "swapped.npy", swapped)
    hashes = [prepare(scan(tmp_path)[0], cache).content_hash]
    hashes += [
        prepare(scan_one(tmp_path / f"{name}.npy"), cache).content_hash for name in ("copy", "turned", "swapped")
    ]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_every_single_voxel_changes_the_hash() -> None:
    image = a_volume(shape=(1, 17, 23))[0]
    whole = statistics.measure(image, None, 0).fingerprints.tobytes()
    for index in np.ndindex(image.shape):
        changed = image.copy()
        changed[index] ^= 1
        assert statistics.measure(changed, None, 0).fingerprints.tobytes() != whole


def test_of_many_vessel_voxels_a_million_is_drawn_the_same_way_each_time(tmp_path, cache, monkeypatch) -> None:
    monkeypatch.setattr(statistics, "MOST_VESSEL_VOXELS", 50)
    label = np.zeros((6, 20, 24), np.uint8)
    label[2:4] = 1
    np.save(tmp_path / "a.npy", a_volume()[0])
    np.save(tmp_path / "a_labels.npy", label)
    (source,) = scan(tmp_path)
    voxels = prepare(source, cache).vessel_voxels
    shutil.rmtree(cache)
    assert np.array_equal(prepare(source, cache).vessel_voxels, voxels)
    assert voxels.size == np.unique(voxels).size == 50
    assert label.ravel()[voxels].all()
    assert 10 < np.count_nonzero(voxels < 3 * 480) < 40  # neither slice is favoured


def test_where_there_are_no_labels_there_are_no_vessels(tmp_path, cache) -> None:
    source = one_source(tmp_path, a_volume()[0])
    volume = prepare(source, cache)
    assert volume.label is None
    assert volume.vessel_voxels.size == 0
    assert statistics_of(source, cache).vessel_share is None


ACCEPTED = {
    "8 bit": (lambda image: (image >> 8).astype(np.uint8), lambda image: image >> 8, "8-bit grey values"),
    "signed": (lambda image: (image - 32768.0).astype(np.int16), lambda image: image, "shifted up by 32768"),
    "colour of equal channels": (
        lambda image: np.stack([image] * 3, -1),
        lambda image: image,
        "3 samples per pixel, the first of them kept",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_other_grey_values_are_accepted_and_reported(tmp_path, cache, case: str) -> None:
    store, expected, says = ACCEPTED[case]
    image, _ = a_volume()
    notes: list[str] = []
    source = one_source(tmp_path, store(image))
    volume = prepare(source, cache, Report(notes.append))
    assert np.array_equal(volume.image, expected(image))
    assert len(notes) == 1
    assert says in notes[0]
    assert notes[0] == f"a: {statistics_of(source, cache).notes[0]}"


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.float64])
def test_wide_values_are_stretched_over_16_bits(tmp_path, cache, dtype: type) -> None:
    stack = np.zeros((3, 4, 4), dtype)
    stack[0, 0, :3] = 100, 150, 200
    stack[stack == 0] = 100
    notes: list[str] = []
    volume = prepare(one_source(tmp_path, stack), cache, Report(notes.append))
    assert volume.image[0, 0].tolist() == [0, 32768, 65535, 0]
    assert "scaled from 100..200 to 0..65535" in notes[0]


def test_nan_becomes_the_lowest_value_and_is_counted(tmp_path, cache) -> None:
    stack = np.full((3, 4, 4), 2.0, np.float32)
    stack[0, 0, 0], stack[1, 1, 1], stack[2, 2, 2], stack[2, 2, 3] = 1.0, np.nan, np.inf, 3.0
    notes: list[str] = []
    volume = prepare(one_source(tmp_path, stack), cache, Report(notes.append))
    nan, infinite, lowest, highest = (int(volume.image[at]) for at in ((1, 1, 1), (2, 2, 2), (0, 0, 0), (2, 2, 3)))
    assert (nan, infinite, lowest, highest) == (0, 65535, 0, 65535)
    assert "2 voxels were NaN or infinite" in notes[1]


def test_a_volume_of_nothing_but_nan_is_refused(tmp_path, cache) -> None:
    with pytest.raises(InputError, match="images: none of its voxels is a finite number"):
        prepare(one_source(tmp_path, np.full((2, 4, 4), np.nan, np.float32)), cache)


@pytest.mark.parametrize("inside", [1, 255])
def test_labels_of_0_and_1_or_0_and_255_are_accepted(tmp_path, cache, inside: int) -> None:
    image, label = a_volume()
    assert np.array_equal(prepare(one_source(tmp_path, image, label * np.uint8(inside)), cache).label, label)


@pytest.mark.parametrize(
    ("values", "shown"), [((0, 2), "0, 2"), ((0, 1, 255), "0, 1, 255"), ((0, 128, 255), "0, 128, 255")]
)
def test_other_label_values_are_named_with_their_file(tmp_path, cache, values: tuple[int, ...], shown: str) -> None:
    image, label = a_volume()
    label[3] = 0
    label[3].ravel()[: len(values)] = values
    with pytest.raises(InputError, match=rf"labels/0003\.tif: label values {shown}; labels are 0 and 255"):
        prepare(one_source(tmp_path, image, label), cache)


def damage_colour(path) -> None:
    picture = np.zeros((20, 24, 3), np.uint16)
    picture[0, 0] = 1, 2, 3
    tifffile.imwrite(path, picture, photometric="rgb")


DAMAGES = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:500]), "0003.tif: (cannot be read|truncated)"),
    "empty": (lambda path: path.write_bytes(b""), "0003.tif: cannot be read as TIFF"),
    "other shape": (
        lambda path: tifffile.imwrite(path, np.zeros((20, 25), np.uint16)),
        "0003.tif: 20 x 25 voxels, but 0000.tif has 20 x 24",
    ),
    "other type": (
        lambda path: tifffile.imwrite(path, np.zeros((20, 24), np.uint8)),
        "0003.tif: uint8 grey, but 0000.tif is uint16 grey",
    ),
    "colour": (damage_colour, "0003.tif: uint16 colour, but 0000.tif is uint16 grey"),
}


@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_slice_is_named_in_one_line(tmp_path, cache, case: str, compression: str | None) -> None:
    damage, says = DAMAGES[case]
    folder = write_slices(tmp_path / "a" / "images", a_volume()[0], compression=compression)
    damage(folder / "0003.tif")
    with pytest.raises(InputError, match=says) as error:
        prepare(scan_one(tmp_path / "a"), cache)
    assert "\n" not in str(error.value)
    assert not (cache / scan_one(tmp_path / "a").key).exists()


def test_a_colour_picture_whose_channels_differ_is_refused(tmp_path, cache) -> None:
    write_slices(tmp_path / "a" / "images", np.zeros((3, 20, 24, 3), np.uint16))
    damage_colour(tmp_path / "a" / "images" / "0001.tif")
    with pytest.raises(InputError, match=r"0001\.tif: a picture whose 3 samples differ: say sample = 0"):
        prepare(scan_one(tmp_path / "a"), cache)


def test_an_absurd_header_takes_no_memory(tmp_path, cache) -> None:
    folder = write_slices(tmp_path / "a" / "images", a_volume()[0], compression="deflate")
    for tag in ("ImageWidth", "ImageLength"):
        with tifffile.TiffFile(folder / "0000.tif", mode="r+") as tif:
            tif.pages[0].tags[tag].overwrite(60_000)
    before = psutil.Process().memory_info().rss
    with pytest.raises(InputError, match=r"0000\.tif: its header states a slice of 60000 x 60000"):
        scan_one(tmp_path / "a")
    assert psutil.Process().memory_info().rss - before < 100e6


def test_a_volume_that_does_not_fit_on_the_disk_is_refused_before_it_is_begun(tmp_path, cache) -> None:
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1, 1), np.uint16))
    edge = 20_000
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (edge, edge, 1000)})
        file.truncate(file.tell() + 2 * edge * edge * 1000)  # sparse: no disk is taken
    source = scan_one(tmp_path / "a.npy")
    if shutil.disk_usage(tmp_path).free > needed_bytes(source):
        pytest.skip("this disk has 800 GB free")
    with pytest.raises(
        InputError, match=r"cache: no room to convert a: 800\.\d\d GB more are needed and .* GB are free"
    ):
        prepare(source, cache)
    assert not list(cache.glob("*.part"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_half_way_is_named_and_left_clean(tmp_path, cache) -> None:
    source = one_source(tmp_path, a_volume()[0])
    part = cache / f"{source.key}.part"
    part.mkdir(parents=True)
    (part / "image.npy").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"cache: no room to convert a: .* GB more are needed"):
        prepare(source, cache)
    assert not part.exists()


def test_a_cache_that_cannot_be_a_folder_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.*cannot be written.*NAS_CACHE"):
        prepare(one_source(tmp_path, a_volume()[0]), tmp_path / "file" / "cache")


def test_a_damaged_cache_is_made_again_and_reported(tmp_path, cache) -> None:
    image, _ = a_volume()
    source = one_source(tmp_path, image)
    prepare(source, cache)
    file = cache / source.key / "image.npy"
    file.write_bytes(file.read_bytes()[:-10])
    notes: list[str] = []
    assert np.array_equal(prepare(source, cache, Report(notes.append)).image, image)
    assert "damaged" in notes[0]


def test_nothing_is_written_beside_the_source(tmp_path, cache) -> None:
    source = one_source(tmp_path, *a_volume())
    before = sorted((tmp_path / "data").rglob("*"))
    prepare(source, cache)
    assert sorted((tmp_path / "data").rglob("*")) == before


def test_progress_counts_slices_up_to_all(tmp_path, cache) -> None:
    seen: list[tuple[str, int, int]] = []
    prepare(one_source(tmp_path, *a_volume()), cache, Report(progress=lambda *done: seen.append(done)))
    assert seen[-1] == ("converting a", 6, 6)
    assert seen == sorted(seen)


def test_the_cache_follows_the_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "here"))
    assert default_cache() == tmp_path / "here"
    monkeypatch.delenv("NAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "vessel-nas"


@pytest.mark.parametrize(("chosen", "named"), [(None, r"~/\.cache/vessel-nas"), ("~nobody-here/x", "~nobody-here/x")])
def test_a_user_without_a_home_is_asked_for_a_cache(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, named: str
) -> None:
    """As in a container that runs as any user."""
    for variable in ("HOME", "XDG_CACHE_HOME", "NAS_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    if chosen is not None:
        monkeypatch.setenv("NAS_CACHE", chosen)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    with pytest.raises(InputError, match=rf"^{named}: there is no such home; set NAS_CACHE to a folder"):
        default_cache()


@pytest.mark.data
def test_real_volumes_are_prepared_and_their_run_lengths_are_their_labels(real_data, cache) -> None:
    rles = read_rles(real_data / "train_rles.csv")
    for source in scan(real_data):
        volume = prepare(source, cache)
        first = tifffile.imread(source.image.files[0])
        assert np.array_equal(volume.image[0], first)
        assert volume.grey_low < volume.grey_high
        for z, number in enumerate(source.image.numbers):
            decoded = decode(rles[source.name][number].rle, *volume.shape[1:])
            assert np.array_equal(decoded, volume.label[z].astype(bool)), (source.name, number)


def test_a_statement_that_slices_needed_is_needed_again_after_they_were_converted(tmp_path, cache) -> None:
    """Of slices of 50 and 40 µm."""
    image, _ = a_volume()
    (tmp_path / "k").mkdir()
    for z, one in enumerate(image):
        per_cm = (200, 200) if z else (250, 250)
        place = tmp_path / "k" / f"{z:04d}.tif"
        tifffile.imwrite(place, one, metadata=None, resolution=per_cm, resolutionunit="CENTIMETER")
    statement = tmp_path / "dataset.toml"
    for _ in range(2):
        statement.write_text("[volumes.k]\nvoxel_spacing_um = 45\n")
        assert np.array_equal(prepare(scan(tmp_path)[0], cache).image, image)
        statement.unlink()
        with pytest.raises(InputError, match=r"0001\.tif: its voxels are 50 µm, but 0000\.tif has voxels of 40 µm"):
            prepare(scan(tmp_path)[0], cache)
