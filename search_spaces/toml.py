"""TOML from people: whatever is wrong with it is one line."""

import tomllib
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError

LARGEST = 2**24  # bytes; the longest configuration has a few thousand
DEEPEST = 32  # tables or lists in each other; a configuration has six


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a file, with or without a byte order mark. Raises InputError for one that is not TOML, OSError."""
    try:
        text = toml_text(path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    return parse_toml(text, str(path))


def toml_text(path: Path) -> str:
    """What a file holds, for `parse_toml`. Raises InputError beyond LARGEST bytes, UnicodeDecodeError, OSError."""
    if (size := path.stat().st_size) > LARGEST:
        raise InputError(f"{path}: not valid TOML: it has {size:,} bytes, and {LARGEST:,} are read at most")
    return path.read_text(encoding="utf-8-sig")


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The values in a text; name: what it is, for messages."""
    too_deep = InputError(f"{name}: not valid TOML: its values are nested too deeply")
    try:
        values = tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise too_deep from None
    except ValueError as error:  # of the syntax, or of an integer with thousands of digits
        raise InputError(f"{name}: not valid TOML: {' '.join(str(error).split())[:200]}") from None
    if _is_deep(values):  # by dotted keys, which are read in a loop
        raise too_deep
    return values


def _is_deep(values: dict[str, Any]) -> bool:
    """Whether there are tables or lists in more than DEEPEST others."""
    inside: list[Any] = [values]
    for _ in range(DEEPEST):
        inside = [
            one
            for outer in inside
            for one in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(one, dict | list)
        ]
    return bool(inside)
