"""Attributes: what a search notes in its study and trials, checked before it is believed.

A journal may be a stranger's, and other programs can write into a study on a server.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna

from nas.config.study_config import (
    BUSY_SECONDS,
    CONTINUES,
    FIXED,
    FOUND,
    HOLD_OUT,
    REPEATS,
    RUNG,
    SCORING,
    SECONDS,
    SEED_INDEX,
    SPENT,
    STEPS,
)
from search_spaces.errors import InputError

_MOST = 2**53  # as far as numbers are exact in JSON; NaN is not below it either
PAUSED = "paused"  # user attribute of a trial: its score at the rung at which it pauses


class _Kind(NamedTuple):
    """What a search writes."""

    words: str
    types: tuple[type, ...]
    least: int = 0  # of numbers


_NUMBER, _WHOLE, _TEXT = _Kind("a number", (int, float)), _Kind("a whole number", (int,)), _Kind("text", (str,))
_OF_STUDIES = {SECONDS: _NUMBER, BUSY_SECONDS: _NUMBER}
_OF_TRIALS = {
    **dict.fromkeys((FIXED, REPEATS, CONTINUES, RUNG, SEED_INDEX), _WHOLE),
    STEPS: _Kind("a whole number above 0", (int,), least=1),
    **dict.fromkeys((SPENT, SCORING, PAUSED), _NUMBER),
    **dict.fromkeys((FOUND, HOLD_OUT), _TEXT),
}


def check_attributes(study: optuna.Study, fixed: int | None = None) -> None:
    """Raise InputError for the first attribute that no search has written.

    fixed: how many fixed trials the search has that is going to read them, if that is known.
    """
    whose = f"study {study.study_name!r}"
    _check(study.user_attrs, _OF_STUDIES, {}, whose)
    last_fixed = {} if fixed is None else {FIXED: fixed - 1}
    for trial in study.get_trials(deepcopy=False):
        earlier = dict.fromkeys((REPEATS, CONTINUES), trial.number - 1)
        _check(trial.user_attrs, _OF_TRIALS, last_fixed | earlier, f"trial {trial.number} of {whose}")


def _check(attributes: Mapping[str, Any], kinds: Mapping[str, _Kind], ends: Mapping[str, int], whose: str) -> None:
    for name, kind in kinds.items():
        if name not in attributes:
            continue
        if not _is(attributes[name], kind):
            raise InputError(
                f"{whose} has {repr(attributes[name])[:60]} as {name}, where a search writes {kind.words}: "
                "something else wrote it"
            )
        if name in ends and attributes[name] > ends[name]:
            raise InputError(
                f"{whose} has {attributes[name]} as {name}, where this search writes at most {ends[name]}: "
                "it is of a search with other settings, or something else wrote it"
            )


def _is(value: Any, kind: _Kind) -> bool:
    fits = isinstance(value, kind.types) and not isinstance(value, bool)
    return fits and (isinstance(value, str) or bool(kind.least <= value <= _MOST))
