"""TOML from people: whatever is wrong with it is one line."""

import tomllib
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a file, with or without a byte order mark. Raises InputError for one that is no TOML, OSError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The values in a text; name: what it is, for messages."""
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise InputError(f"{name}: not valid TOML: its values are nested too deeply") from None
    except ValueError as error:  # of the syntax, or of an integer with thousands of digits
        raise InputError(f"{name}: not valid TOML: {' '.join(str(error).split())[:200]}") from None
