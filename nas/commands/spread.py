"""Commands whose arguments and options are the fields of a request, so that each is written once."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command of a function whose first argument is a request: its fields become arguments and options.

    The request is a dataclass. Its fields come before the function's other parameters.
    """
    first, *own = inspect.signature(command).parameters.values()
    request: Callable[..., Any] = first.annotation
    asked = inspect.signature(request).parameters

    @wraps(command)
    def parsed(**given: Any) -> None:
        rest = {name: value for name, value in given.items() if name not in asked}
        command(request(**{name: value for name, value in given.items() if name in asked}), **rest)

    del parsed.__annotations__[first.name]  # where typer would look for it
    parsed.__signature__ = inspect.Signature([*asked.values(), *own])  # type: ignore[attr-defined]
    return parsed
