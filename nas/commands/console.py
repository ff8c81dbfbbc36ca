"""Where commands print."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 160  # columns


def note_on(console: "Console") -> Callable[[str], None]:
    """Tells what the user should know."""
    return lambda text: console.print(f"note: {text}", soft_wrap=True)


def make_console(on_stderr: bool = False) -> "Console":
    """Where to print; wide enough for every column where there is no terminal to fit."""
    from rich.console import Console

    # A path may hold brackets, or a word between colons.
    console = Console(stderr=on_stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console
