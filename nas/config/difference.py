"""A base and what differs from it, as nested values: what a preset, a user's file and `--set` have in common."""

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from nas.config.search_config import SearchConfig
from search_spaces.cells.cell_space import CellSpace
from search_spaces.families import FAMILIES
from search_spaces.field import OFF, read_value
from trainers.cell_search.config import ALGORITHMS
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig

Values = dict[str, Any]  # as TOML has them
Path = tuple[str, ...]  # the names that lead to a value

# Names that stand for several numbers: if a difference gives such a name, the base's numbers must not override it.
_GOVERNS: dict[Path, frozenset[str]] = {
    ("cell_search", "algorithm"): frozenset(key for settings in ALGORITHMS.values() for key in settings),
    ("cell_space", "level"): frozenset(CellSpace.model_fields) - {"nodes", "edges", "levels"},
}


def merge(base: Values, difference: Values, path: Path = ()) -> Values:
    """The base with what differs from it; `path` leads to both in the whole configuration.

    Tables are merged key by key. Numbers, names, lists, rows and ranges (`{ low = 1, high = 2 }`) replace the base's
    value as a whole. The name "none" removes a key that can be off.
    """
    governed = {key for name in difference for key in _GOVERNS.get((*path, name), ())}
    merged = {key: value for key, value in base.items() if key not in governed}
    for key, value in difference.items():
        if _is_none(value) and _can_be_off((*path, key)):
            merged.pop(key, None)
        elif _is_table(value):
            before = merged.get(key, {})
            merged[key] = merge(before if _is_table(before) else {}, value, (*path, key))
        else:
            merged[key] = value
    return merged


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) and not value.keys() & {"low", "high"}


def _is_none(value: Any) -> bool:
    return isinstance(value, str) and value.lower() == "none"


def _can_be_off(path: Path) -> bool:
    """Whether the key takes None; elsewhere "none" is a name, for example of a promotion or an augmentation."""
    model: Any = SearchConfig
    for part in path[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field and field.annotation
    if path[0] == "space":  # its keys are optional, but a bare "none" may also be the one value to choose
        return not _chooses_none(path)
    if get_origin(model) is dict:
        return True
    field = getattr(model, "model_fields", {}).get(path[-1])
    # If the default is a number, removing the key would bring the number back, so "none" must stay.
    return field is not None and field.default is None and type(None) in get_args(field.annotation)


def _chooses_none(path: Path) -> bool:
    """Whether "none" is a value of the field that a choice of the space fills."""
    owners: dict[str, type[BaseModel]] = {"fit": FitConfig, "inference": InferenceConfig, **FAMILIES}
    owner = owners.get(path[-2])
    if owner is None or path[-1] not in owner.model_fields:
        return False
    try:
        read_value(owner, path[-1], OFF)
    except ValidationError:
        return False
    return True
