"""Files that unpack to far more than they say end in one line, not in all of the machine's memory."""

import bz2
import json
import mmap
import resource
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
import zarr

from search_spaces.errors import InputError
from trainers.data.memory_bound import memory_bound
from trainers.data.readers import open_slices

MIB = 2**20
NO_MEMORY = "it unpacks to more than it says, or to more than fits into memory"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the bound is the Linux kernel's")


def take(mebibytes: int) -> None:
    """Memory from the kernel: an array may lie in what earlier tests gave back to malloc. Raises OSError if refused."""
    mmap.mmap(-1, mebibytes * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()


def test_more_than_the_bound_is_refused_and_afterwards_given() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_bound(64 * MIB):
        take(32)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            take(512)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    take(512)


def test_bounds_of_several_threads_add_up_and_end_one_by_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with memory_bound(512 * MIB):
            entered.set()
            leave.wait()

    with memory_bound(64 * MIB):
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait()
        take(400)
        leave.set()
        thread.join()
        with pytest.raises(OSError, match="Cannot allocate memory"):
            take(400)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def tile(path: Path, edge: int) -> Path:
    """A slice of 16 x 16 voxels in one tile of that edge, as a header of a hundred bytes may say."""
    stored = zlib.compress(bytes(MIB))
    tags = [(256, 16), (257, 16), (258, 16), (259, 8), (262, 1), (277, 1), (322, edge), (323, edge)]
    tags += [(324, 8 + 2 + 12 * 10 + 4), (325, len(stored))]
    header = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + header + bytes(4) + stored)
    return path


def test_a_tile_far_larger_than_its_slice_is_not_unpacked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"k\.tif: its header states tiles of 32768 x 32768 for slices of 16 x 16"):
        open_slices(tile(tmp_path / "k.tif", 32_768))
    assert open_slices(tile(tmp_path / "small.tif", 256)).shape == (1, 16, 16)


READ_WITH = """
import resource, sys
from pathlib import Path
from search_spaces.errors import InputError
from trainers.data.readers import open_slices
stack = open_slices(Path(sys.argv[1]))
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    with stack.reading() as read:
        read(0, 64)
except InputError as error:
    print(error)
"""


@pytest.mark.timeout(240)
@pytest.mark.parametrize("mebibytes", [8, 80, 120])
def test_a_zarr_store_read_without_memory_ends_in_one_line(tmp_path: Path, mebibytes: int) -> None:
    """Where the memory ends in the library's own threads: for a thread, for its stack, for a chunk."""
    store = tmp_path / "v.zarr"
    array = zarr.create_array(str(store), shape=(64, 512, 512), chunks=(64, 256, 256), dtype="u2", compressors=None)
    array[:] = 1
    run = subprocess.run(
        [sys.executable, "-c", READ_WITH, str(store), str(mebibytes)], capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout in ("", f"{store}: cannot be read as Zarr in slices 0 to 63, {NO_MEMORY}\n")


@pytest.mark.slow
def test_a_small_chunk_that_unpacks_to_gigabytes_is_named(tmp_path: Path) -> None:
    """bz2 packs zeros to a 700,000th, so the size of a chunk's file says nothing."""
    store = tmp_path / "v.zarr"
    store.mkdir()
    described = {"zarr_format": 2, "shape": [8, 16, 16], "chunks": [8, 16, 16], "dtype": "<u2", "fill_value": 0}
    packed = {"order": "C", "compressor": {"id": "bz2", "level": 9}, "filters": None}
    (store / ".zarray").write_text(json.dumps(described | packed))
    (store / "0.0.0").write_bytes(bz2.compress(bytes(64 * MIB)) * 64)
    assert (store / "0.0.0").stat().st_size < 8192
    stack = open_slices(store)
    with stack.reading() as read, pytest.raises(InputError, match=r"v.zarr.*unpacks to more than it says"):
        read(0, 8)
