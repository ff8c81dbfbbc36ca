"""Where commands print."""

import os
import sys
from functools import cache
from typing import TYPE_CHECKING

from search_spaces.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200  # columns


def make_console(on_stderr: bool = False) -> "Console":
    """Where to print; wide enough for every column if there is no terminal to fit."""
    # A path may hold brackets, or a word between colons.
    console = _kind()(stderr=on_stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


@cache
def _kind() -> "type[Console]":
    from rich.console import Console

    class Told(Console):
        """A console that does not end the program in silence when nobody reads it any more."""

        def on_broken_pipe(self) -> None:  # as of `nas search | head`
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush fails, too
            raise InputError("nobody reads the output any more, so this stops; run the same command again to continue")

    return Told
