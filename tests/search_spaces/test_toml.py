"""TOML from people: whatever is wrong with it is one line, and a byte order mark is not wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nas.config.read import read_config
from search_spaces.errors import InputError
from search_spaces.toml import parse_toml, read_toml
from trainers.data.manifest import read_manifest


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "dataset.toml").write_bytes(b"\xef\xbb\xbf[volumes.a]\nkidney = 'k'\n")
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbf[study]\nseed = 7\n")
    manifest = read_manifest(tmp_path)
    assert manifest is not None and manifest.volumes["a"].kidney == "k"
    assert read_config(tmp_path / "c.toml").study.seed == 7


@pytest.mark.parametrize(
    "text", ["x = " + "[" * 100_000, "x = " + "1" * 5_000, "a." * 40 + "a = 1", "x = ", "x = 1\nx = 2", "[a", "\x00"]
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"^c\.toml: not valid TOML: ") as caught:
        parse_toml(text, "c.toml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("read", [read_toml, read_config])
def test_a_file_of_gigabytes_is_not_read(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with (tmp_path / "c.toml").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=r"c\.toml: not valid TOML: it has 1,099,511,627,776 bytes, and 16,7"):
        read(tmp_path / "c.toml")


def test_what_is_no_utf8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(InputError, match=r"c\.toml: not valid TOML: 'utf-8' codec can't decode"):
        read_toml(tmp_path / "c.toml")
