"""Where commands print."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200  # columns


def make_console(on_stderr: bool = False) -> "Console":
    """Where to print; wide enough for every column if there is no terminal to fit."""
    from rich.console import Console

    # A path may hold brackets, or a word between colons.
    console = Console(stderr=on_stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console
