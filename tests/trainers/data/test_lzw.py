"""LZW strips are checked before they reach a decoder that trusts them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from search_spaces.errors import InputError
from trainers.data.lzw import is_lzw
from trainers.data.readers import open_slices

NOISE = np.random.default_rng(0).integers(0, 65536, (200, 300)).astype(np.uint16)
PICTURES = [NOISE, np.zeros((64, 64), np.uint16), NOISE // 4096, NOISE[:1, :1], np.arange(70_000).reshape(700, 100)]


def _pack(codes: list[int], low_first: bool = False) -> bytes:
    """Codes of nine bits as bytes, in either order."""
    bits = [format(code, "09b")[::-1] if low_first else format(code, "09b") for code in codes]
    text = "".join(bits)
    eights = [text[i : i + 8].ljust(8, "0") for i in range(0, len(text), 8)]
    return bytes(int(eight[::-1] if low_first else eight, 2) for eight in eights)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: f"{picture.shape}")
@pytest.mark.parametrize("writer", ["tifffile", "tifffile, differences", "libtiff"])
def test_what_an_encoder_writes_is_lzw(picture: np.ndarray, writer: str, tmp_path: Path) -> None:
    file, grey = tmp_path / "0.tif", picture.astype(np.uint16)
    if writer == "libtiff":
        Image.fromarray(grey).save(file, compression="tiff_lzw")
    else:
        tifffile.imwrite(file, grey, compression="lzw", predictor="," in writer)
    with tifffile.TiffFile(file) as tif:
        page = tif.pages.first
        strips = [s for s, *_ in tif.filehandle.read_segments(page.dataoffsets, page.databytecounts)]
    assert all(is_lzw(strip) for strip in strips if strip is not None)
    with open_slices(file).reading() as read:
        assert (read(0, 1)[0] == grey).all()


@pytest.mark.parametrize("low_first", [False, True])
@pytest.mark.parametrize(
    ("codes", "good"),
    [
        ([256, 65, 66, 258, 257], True),
        ([256, 65, 258, 257], True),  # an entry that is just being made
        ([256, 65, 66, 256, 67, 257], True),
        ([256, 257], True),
        ([256, 65, 259, 257], False),  # an entry that is not there yet
        ([256, 258, 257], False),  # an entry of a table that was just cleared
        ([256, 65, 66, 256, 258, 257], False),
        ([65, 66, 257], False),  # no table was made
    ],
)
def test_a_code_that_names_nothing_is_found(codes: list[int], good: bool, low_first: bool) -> None:
    assert is_lzw(_pack(codes, low_first)) == good


def test_a_strip_without_bytes_is_valid_and_one_byte_is_not() -> None:
    assert is_lzw(b"")
    assert not is_lzw(b"\x80")


def test_a_damaged_strip_is_named(tmp_path: Path) -> None:
    file = tmp_path / "0.tif"
    tifffile.imwrite(file, NOISE, compression="lzw", rowsperstrip=100)
    with tifffile.TiffFile(file) as tif:
        second = tif.pages.first.dataoffsets[1]
    data = bytearray(file.read_bytes())
    data[second : second + 4] = _pack([256, 300, 300])[:4]
    file.write_bytes(data)
    with open_slices(file).reading() as read, pytest.raises(InputError, match="strip or tile 1 is not valid LZW"):
        read(0, 1)


def test_a_file_that_keeps_the_low_bit_first_is_read(tmp_path: Path) -> None:
    file = tmp_path / "0.tif"
    Image.fromarray(NOISE).save(file, compression="tiff_lzw", tiffinfo={266: 2})
    with tifffile.TiffFile(file) as tif:
        page = tif.pages.first
        assert page.fillorder == 2
        strips = [s for s, *_ in tif.filehandle.read_segments(page.dataoffsets, page.databytecounts)]
    assert not any(is_lzw(strip) for strip in strips if strip is not None)
    with open_slices(file).reading() as read:
        assert (read(0, 1)[0] == NOISE).all()


def test_a_full_table_is_not_damage() -> None:
    def strip(literals: int) -> bytes:
        bits, width, entries = format(256, "09b"), 9, 258
        for number in range(literals):
            bits += format(number % 256, f"0{width}b")
            if number:
                entries += 1
            if entries + 1 >= 1 << width and width < 12:
                width += 1
        bits += format(257, f"0{width}b")
        return bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))

    assert all(is_lzw(strip(literals)) for literals in (3000, 3838, 3839, 3840, 3850))
