"""A configuration as TOML for people: every key with the comment that its field has in the source."""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import tomli_w
from pydantic import BaseModel

from nas.config.field_comments import field_comments, summary
from nas.config.search_config import SearchConfig
from search_spaces.families import FAMILIES
from search_spaces.space import Range
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig

WIDTH = 120  # columns
OFF = "..."  # stands for the value of a key that is off
HEAD = (
    "# Every key of a search. A key after a # is off: None, which TOML cannot write. Its comment says what that means."
)

Path = tuple[str, ...]  # the names that lead to a table
Seen = set[tuple[type, Path]]  # the kinds of tables that are explained already


def annotated(config: SearchConfig) -> str:
    """The whole configuration as TOML with a comment for each key. Read back, it is the same configuration."""
    return "\n".join([HEAD, "", *_table(config, (), set())]) + "\n"


def _table(table: BaseModel | dict[str, Any], path: Path, seen: Seen) -> Iterator[str]:
    """The keys of a table, then its tables. Only the first row of a kind has comments and keys that are off."""
    is_first = (type(table), path) not in seen
    seen.add((type(table), path))
    comments = _comments(table, path) if is_first else {}
    held = dict(table)  # the fields of a model, and its keys that are not fields
    values = table.model_dump(mode="json") if isinstance(table, BaseModel) else {k: _plain(v) for k, v in held.items()}
    for name, value in held.items():
        if not _is_table(value, (*path, name)) and (is_first or values[name] is not None):
            yield from _line(name, values[name], comments.get(name, ""))
    for name, value in held.items():
        if _is_table(value, (*path, name)):
            yield from _section(value, (*path, name), seen)


def _section(value: Any, path: Path, seen: Seen) -> Iterator[str]:
    """A table, or the rows of an array of tables, below the first line of its class's docstring."""
    name = ".".join(path)
    for table in value if _is_rows(value) else (value,):
        if isinstance(table, dict) and not table:
            continue
        yield ""
        if isinstance(table, BaseModel) and (type(table), path) not in seen:
            yield from _comment(summary(FAMILIES.get(path[-1], type(table)) if path[0] == "space" else type(table)))
        yield f"[[{name}]]" if _is_rows(value) else f"[{name}]"
        yield from _table(table, path, seen)


def _comments(table: BaseModel | dict[str, Any], path: Path) -> dict[str, str]:
    """The comments of a table's keys; for choices, those of the fields that they fill."""
    own = field_comments(type(table)) if isinstance(table, BaseModel) else {}
    owner = {"fit": FitConfig, "inference": InferenceConfig, **FAMILIES}.get(path[-1] if path else "")
    return own | (field_comments(owner) if owner is not None and path[0] == "space" else {})


def _is_rows(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, BaseModel) for item in value)


def _is_table(value: Any, path: Path) -> bool:
    """Whether a value has its own table: a section of choices has one; a range, or what differs in a row, has none."""
    if isinstance(value, dict):
        return path[0] == "space" or any(isinstance(item, BaseModel) for item in value.values())
    return (isinstance(value, BaseModel) and not isinstance(value, Range)) or _is_rows(value)


def _plain(value: Any) -> Any:
    """A choice as TOML has it."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else list(value)


def _line(key: str, value: Any, comment: str) -> Iterator[str]:
    """A key and its value, with the comment after them if there is room, else above them."""
    text = f"# {key} = {OFF}" if value is None else f"{key} = {_inline(value)}"
    whole = f"{text}  # {comment}" if comment else text
    if len(whole) <= WIDTH:
        yield whole
        return
    yield from _comment(comment)
    if isinstance(value, list) and len(text) > WIDTH:
        yield from (f"{key} = [", *(f"    {_inline(item)}," for item in value), "]")
    else:
        yield text


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _inline(value: Any) -> str:
    """A value in one line, as TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, dict):
        pairs = [f"{_key(key)} = {_inline(item)}" for key, item in value.items() if item is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    return tomli_w.dumps({"_": value}, multiline_strings=False).removeprefix("_ = ").rstrip("\n")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
