"""The one exception that means "the input is wrong", and the sentence for an unknown name."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_BREAK = re.compile(r"\s*\n\s*")


def printable(text: str) -> str:
    """One line without what a terminal would obey, or could not print: control characters, halves of characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class InputError(ValueError):
    """Input from the user cannot be used; the message is one line that says what is wrong and what would work.

    The command line prints only the message and exits with 1. Every other exception is our own mistake and keeps its
    traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(_BREAK.sub(" ", message)))


def unknown_name(kind: str, name: str, choices: Iterable[str]) -> InputError:
    """The error for a name that is not in a table: it suggests the nearest names, or lists all if none is near."""
    names = sorted(choices)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"choose one of: {', '.join(names)}"
    return InputError(f"unknown {kind} {name!r}; {hint}")


def name_in(kind: str, table: Mapping[str, object]) -> Callable[[str], str]:
    """A validator that returns a name if it is in the table, and raises the error of `unknown_name` otherwise."""

    def check(name: str) -> str:
        if name not in table:
            raise unknown_name(kind, name, table)
        return name

    return check
