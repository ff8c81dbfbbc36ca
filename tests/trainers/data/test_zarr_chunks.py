"""What lies in a Zarr store is what is read of it, or it is said what is not."""

import bz2
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from search_spaces.errors import InputError
from trainers.data.axes import Pick
from trainers.data.readers import open_slices

GREY = np.random.default_rng(0).integers(1, 60_000, (8, 9, 13)).astype(np.uint16)
FLAT, NESTED = {"name": "v2", "separator": "."}, {"name": "v2", "separator": "/"}
NAMES: dict[str, tuple[int, dict[str, str], Any, str]] = {
    # version, how chunks are named, what the description says of that (None: nothing), how it then asks for them
    "2, nested, not stated": (2, NESTED, None, "0.0.0 (dimension_separator in .zarray"),
    "2, nested, stated flat": (2, NESTED, ".", "0.0.0 (dimension_separator in .zarray"),
    "2, flat, stated nested": (2, FLAT, "/", "0/0/0 (dimension_separator in .zarray"),
    "3, as in version 2": (3, NESTED, {"name": "default"}, "c/0/0/0 (chunk_key_encoding in zarr.json"),
    "3, stated as in version 2": (3, {"name": "default", "separator": "/"}, NESTED, "0/0/0 (chunk_key_encoding"),
    "3, stated flat": (
        3, {"name": "default", "separator": "/"}, {"name": "default", "configuration": {"separator": "."}}, "c.0.0.0 (",
    ),
}  # fmt: skip


def a_store(path: Path, version: int = 3, **how: Any) -> Path:
    zarr.create_array(str(path), shape=GREY.shape, chunks=(4, 4, 4), dtype="u2", zarr_format=version, **how)[:] = GREY
    return path


def say(store: Path, key: str, value: Any) -> None:
    """State something else in its description; None: nothing."""
    place = next(file for file in (store / "zarr.json", store / ".zarray") if file.is_file())
    described = json.loads(place.read_text()) | {key: value}
    if value is None:
        del described[key]
    place.write_text(json.dumps(described))


@pytest.mark.parametrize("case", NAMES)
def test_chunks_that_their_array_never_asks_for_are_refused_by_the_key_that_says_so(tmp_path, case: str) -> None:
    """They were read as empty space."""
    version, names, stated, asked = NAMES[case]
    store = a_store(tmp_path / "k.zarr", version, chunk_key_encoding=names)
    with open_slices(store).reading() as read:
        assert np.array_equal(read(0, 8), GREY)
    say(store, "dimension_separator" if version == 2 else "chunk_key_encoding", stated)
    with pytest.raises(InputError) as refused:
        open_slices(store)
    first = "0.0.0" if names == FLAT else "0/0/0" if names == NESTED else "c/0/0/0"
    assert str(refused.value).startswith(
        f"{store}/{first}: is named like a chunk, but its array asks for names like {asked}"
    )


def test_a_chunk_with_too_few_numbers_is_refused_and_other_files_are_not_counted(tmp_path) -> None:
    store = a_store(tmp_path / "k.zarr", 2)
    (store / "README").write_text("a kidney")
    assert open_slices(store).notes == ()
    (store / "1.2.3").rename(store / "1.2.3.part")
    assert open_slices(store).notes == ("1 of its 24 chunks are not there, so empty or not copied: read as 0",)
    (store / "1.2.3.part").rename(store / "1.2")
    with pytest.raises(InputError, match=r"k\.zarr/1\.2: is named like a chunk"):
        open_slices(store)


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_beyond_the_shape_are_said(tmp_path, version: int) -> None:
    store = a_store(tmp_path / "k.zarr", version)
    say(store, "shape", [4, 9, 13])
    stack = open_slices(store)
    assert stack.shape == (4, 9, 13)
    first = "1.0.0" if version == 2 else "c/1/0/0"
    assert stack.notes == (f"chunks beyond its shape of 4 x 9 x 13 are not read: 12 files, as {first}",)


def test_labels_may_be_sparse_but_not_gone_in_silence(tmp_path) -> None:
    of_labels = Pick(where_it_fits=True)
    store = tmp_path / "k.zarr"
    array = zarr.create_array(str(store), shape=GREY.shape, chunks=(4, 4, 4), dtype="u1")
    assert open_slices(store, of_labels).notes == (
        "24 of its 24 chunks are not there, so empty or not copied: read as 0",
    )
    array[0, 0, 0] = 1
    assert open_slices(store, of_labels).notes == ()


def test_a_chunk_far_larger_than_its_array_is_not_unpacked(tmp_path) -> None:
    """Of 700 MiB, for 4 KiB of voxels: within half of the memory, but not within what reading is granted."""
    store = tmp_path / "k.zarr"
    store.mkdir()
    described = {"zarr_format": 2, "shape": [8, 16, 16], "chunks": [1_433_600, 16, 16], "dtype": "<u2", "order": "C"}
    packed = {"fill_value": 0, "compressor": {"id": "bz2", "level": 9}, "filters": None}
    (store / ".zarray").write_text(json.dumps(described | packed))
    (store / "0.0.0").write_bytes(bz2.compress(bytes(2**20)))
    with pytest.raises(InputError, match=r"k\.zarr: a chunk of it unpacks to 0\.7 GiB, far more than the 4,096 bytes"):
        open_slices(store)


def test_fewer_chunks_are_unpacked_at_a_time_the_larger_they_are(tmp_path) -> None:
    """In what reading 4 KiB is granted, 1 GiB, is room for two chunks of 256 MiB, each as two copies."""
    store = tmp_path / "k.zarr"
    zarr.create_array(str(store), shape=(8, 64, 64), chunks=(2**20, 16, 8), dtype="u2")
    assert open_slices(store).at_once == 2
