"""Changes what dataset.toml says about one volume, and keeps everything else: order, comments, spaces."""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError

Value = str | bool | float


def table_text(name: str, facts: Mapping[str, Value]) -> str:
    """The lines of dataset.toml that state `facts` about a volume."""
    return "\n".join([_header(name), *(_line(key, value) for key, value in facts.items())])


def with_facts(path: Path, text: str, name: str, facts: Mapping[str, Value]) -> str:
    """The text of a dataset.toml whose table for volume `name` states `facts`; a missing table is added.

    path: for messages. Raises InputError if the volume is described in a form that cannot be edited here, such as an
    inline table: the new text is parsed again, and must differ only in these facts.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if _names_table(line, name)), None)
    if first is None:
        changed = [*lines, *([""] if lines else []), *table_text(name, facts).split("\n")]
    else:
        after = (i for i in range(first + 1, len(lines)) if lines[i].lstrip().startswith("["))
        last = next(after, len(lines))
        changed = [*lines[: first + 1], *_with_lines(lines[first + 1 : last], facts), *lines[last:]]
    result = newline.join(changed) + newline
    try:
        wanted = tomllib.loads(text)
        volumes = wanted.setdefault("volumes", {})
        volumes[name] = {**volumes.get(name, {}), **facts}
        done = tomllib.loads(result) == wanted
    except tomllib.TOMLDecodeError:
        done = False
    if not done:
        said = ", ".join(_line(key, value) for key, value in facts.items())
        raise InputError(f"{path}: {name} is described in a form that cannot be edited here; add by hand: {said}")
    return result


def _with_lines(table: list[str], facts: Mapping[str, Value]) -> list[str]:
    """The lines of a table with new values; missing keys are added after its last key."""
    missing = dict(facts)
    changed = []
    for line in table:
        key = next((key for key in missing if re.match(rf"\s*{key}\s*=", line)), None)
        changed.append(line if key is None else f"{_line(key, missing.pop(key))}{_comment(line)}")
    end = max((i for i, line in enumerate(changed, start=1) if line.strip() and line.lstrip()[0] != "#"), default=0)
    return [*changed[:end], *(_line(key, value) for key, value in missing.items()), *changed[end:]]


def _comment(line: str) -> str:
    """The comment after the value of a line, including the spaces before it."""
    for place in (match.start() for match in re.finditer(r"\s*#", line)):
        if _parsed(line[:place]) is not None:  # otherwise the # is inside a string
            return line[place:]
    return ""


def _names_table(line: str, name: str) -> bool:
    return line.lstrip().startswith("[") and _parsed(line) == {"volumes": {name: {}}}


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None


def _header(name: str) -> str:
    return f"[volumes.{name if re.fullmatch(r'[A-Za-z0-9_-]+', name) else json.dumps(name, ensure_ascii=False)}]"


def _line(key: str, value: Value) -> str:
    return f"{key} = {json.dumps(value, ensure_ascii=False)}"
