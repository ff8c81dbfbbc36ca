"""A mistake in a configuration, described in one line."""

from collections.abc import Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError

from search_spaces.errors import unknown_name

# Where pydantic has the words of Python, those of TOML.
_TABLE = "Input should be a table"
_WANTED = {"tuple_type": "Input should be a list", "dict_type": _TABLE, "model_type": _TABLE}


def one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first mistake of a validation, with its key, its value and what would be valid."""
    first = error.errors()[0]
    # If one of several choices is wrong, pydantic also says that there are too few of them.
    others = [other for other in error.errors()[1:] if first["loc"][: len(other["loc"])] != other["loc"]]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] == "extra_forbidden":
        return str(unknown_name("key", key, _keys(model, location[:-1])))
    if first["type"] == "missing":
        return f"{key} is missing"
    value, what = first["input"], _WANTED.get(first["type"], first["msg"].removeprefix("Value error, "))
    named = f"{key} = {value!r}: " if not isinstance(value, dict) else f"{key}: " if key else ""
    text = f"{named}{what}"
    return f"{text} (and {len(others)} more mistake(s))" if others else text


def _keys(model: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The keys that exist in the section at `location`, each with its section in front."""
    prefix = ""
    for part in location:
        prefix += f"{part}."
        if part.isdecimal() or part not in model.model_fields:
            continue
        annotation = model.model_fields[part].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [prefix + name for name in model.model_fields]
