"""Parameters of tests, split between the quick and the full run."""

from collections.abc import Iterable

import pytest


def first_is_quick(values: Iterable[object]) -> list[object]:
    """The first value stays in the quick run, and the others are marked slow."""
    first, *others = values
    return [first, *(pytest.param(*_arguments(value), marks=pytest.mark.slow) for value in others)]


def _arguments(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)
