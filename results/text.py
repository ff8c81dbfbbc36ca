"""Text for people: text from outside made harmless for Markdown pages and terminals, numbers in fitting units."""

from search_spaces.errors import printable


def escape(text: str) -> str:
    """One line for a Markdown page, in which nothing is markup."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>|#~&!" else c for c in printable(text))


def millions(count: int | None) -> str:
    """A count of parameters in millions."""
    return "–" if count is None else f"{count / 1e6:.1f} M"


def seconds(value: float | None) -> str:
    """A duration in the largest fitting unit."""
    if value is None:
        return "–"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
