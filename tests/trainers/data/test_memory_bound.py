"""Files that unpack to far more than they say end in one line, not in all of the machine's memory."""

import bz2
import json
import mmap
import resource
import sys
import threading
from pathlib import Path

import pytest

from search_spaces.errors import InputError
from trainers.data.memory_bound import memory_bound
from trainers.data.readers import open_slices

MIB = 2**20
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
