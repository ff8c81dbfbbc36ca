"""Text from outside, made harmless: for Markdown pages, and for terminals."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """One line without control characters, which a terminal would obey."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def escape(text: str) -> str:
    """One line for a Markdown page, in which nothing is markup."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#~&!" else c for c in printable(text))
