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

WIDTH = 120  # columns
OFF = "..."  # stands for the value of a key that is off
HEAD = "# Every key of a search. A key behind a # is off; its comment says what None, which TOML cannot write, means."

Path = tuple[str, ...]  # the names that lead to a table
Seen = set[tuple[type[BaseModel], Path]]  # the kinds of tables that are explained already


def annotated(config: SearchConfig) -> str:
    """The whole configuration as TOML with a comment for each key. Read back, it is the same configuration."""
    return "\n".join([HEAD, "", *_table(config, (), set())]) + "\n"


def _table(model: BaseModel, path: Path, seen: Seen) -> Iterator[str]:
    """The keys of a table, then the tables in it. Of rows of one kind the first alone has comments and what is off."""
    is_first = (type(model), path) not in seen
    seen.add((type(model), path))
    comments = field_comments(type(model)) if is_first else {}
    values = model.model_dump(mode="json")
    inner = {name: value for name, value in model if isinstance(value, BaseModel) or _is_rows(value)}
    for name in type(model).model_fields:
        if name not in inner and (is_first or values[name] is not None):
            yield from _line(name, values[name], comments.get(name, ""))
    for name, value in inner.items():
        yield from _section(value, (*path, name), seen)


def _section(value: Any, path: Path, seen: Seen) -> Iterator[str]:
    """A table, or the rows of an array of tables, under what the docstring of its class says first."""
    name = ".".join(path)
    for model in value if _is_rows(value) else (value,):
        yield ""
        if (type(model), path) not in seen:
            yield from _comment(summary(type(model)))
        yield f"[[{name}]]" if _is_rows(value) else f"[{name}]"
        yield from _table(model, path, seen)


def _is_rows(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, BaseModel) for item in value)


def _line(key: str, value: Any, comment: str) -> Iterator[str]:
    """A key and its value, with the comment behind them where there is room, else above."""
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
