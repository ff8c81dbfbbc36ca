"""Arrays of NumPy: what their headers claim is compared with the file before anything is made of it."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from search_spaces.errors import InputError
from trainers.data.readers import open_slices

GREY = np.arange(120, dtype=np.uint16).reshape(4, 5, 6)


def saved(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=True)


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=GREY)


def header(path: Path, shape: str, kind: str = "'<u2'") -> None:
    """A file of 100 bytes whose header is written by hand."""
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(100))


REFUSED = {
    "an archive": (archive, "is an archive of arrays (.npz); write one of them as .npy"),
    "objects": (lambda at: saved(at, np.array([[[None]]])), "cannot be read as a .npy array of numbers"),
    "a pickle": (lambda at: at.write_bytes(b"\x80\x04N."), "cannot be read as a .npy array of numbers"),
    "a structure": (lambda at: saved(at, np.zeros((2, 3, 4), [("a", "u2")])), "are not grey values"),
    "a number": (lambda at: saved(at, np.array(5)), "has shape (); a volume has three axes"),
    "no slices": (lambda at: saved(at, GREY[:0]), "has shape (0, 5, 6); a volume has three axes"),
    "a plane": (lambda at: saved(at, GREY[0]), "has shape (5, 6); a volume has three axes"),
    "nothing": (lambda at: at.write_bytes(b""), "cannot be read as a .npy array of numbers"),
    "a peta of voxels": (lambda at: header(at, "(100000, 100000, 100000)"), "cannot be read as a .npy array"),
    "more than 64 bits count": (
        lambda at: header(at, f"({2**60}, {2**60}, {2**60})"),
        "cannot be read as a .npy array",
    ),
    "a negative edge": (lambda at: header(at, "(-1, 5, 6)"), "cannot be read as a .npy array of numbers"),
    "values of no bytes": (lambda at: header(at, "(4, 5, 6)", "'|V0'"), "are not grey values"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_array_of_numbers_is_one_line(tmp_path, kind: str) -> None:
    write, says = REFUSED[kind]
    write(tmp_path / "k.npy")
    with pytest.raises(InputError, match=rf"k\.npy: .*{re.escape(says)}"):
        open_slices(tmp_path / "k.npy")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("stored", [GREY, np.asfortranarray(GREY), GREY.astype(">u2"), GREY.astype(np.longdouble)])
def test_every_version_and_order_of_a_file_is_read(tmp_path, version: tuple[int, int], stored: np.ndarray) -> None:
    with (tmp_path / "k.npy").open("wb") as file:
        np.lib.format.write_array(file, stored, version=version)
    with open_slices(tmp_path / "k.npy").reading() as read:
        assert np.array_equal(read(1, 3), GREY[1:3])


@pytest.mark.parametrize(
    ("shape", "said"), [((4, 5, 6, 1), '"ZYXC"'), ((4, 1, 5, 6), '"ZCYX"'), ((2, 4, 5, 6), '"CZYX" and channel = 0')]
)
def test_axes_that_are_not_named_are_said_to_be_so_with_an_example_that_fits(tmp_path, shape, said: str) -> None:
    np.save(tmp_path / "k.npy", np.zeros(shape, np.uint16))
    told = rf"has 4 axes without names \({' x '.join(map(str, shape))}\): say in dataset\.toml .* axes = {said}$"
    with pytest.raises(InputError, match=told):
        open_slices(tmp_path / "k.npy")
