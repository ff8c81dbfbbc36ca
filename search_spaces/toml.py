"""TOML from people: whatever is wrong with it is one line."""

import tomllib
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError

DEEPEST = 32  # tables or lists in each other; a configuration has six


def read_toml(path: Path) -> dict[str, Any]:
    """The values in a file, with or without a byte order mark. Raises InputError for one that is not TOML, OSError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
    return parse_toml(text, str(path))


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
