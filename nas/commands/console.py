"""What commands of `nas` share: where they print, and the options --run, --set, --device and --json."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 160  # columns

Run = Annotated[Path | None, typer.Option("--run", help="Run folder; the latest if not given.", show_default=False)]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, as in study.seeds=5.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def make_console(on_stderr: bool = False) -> "Console":
    """Where to print; wide enough for every column where there is no terminal to fit."""
    from rich.console import Console

    # No markup: a path may hold brackets.
    console = Console(stderr=on_stderr, markup=False, highlight=False)
    return console if console.is_terminal else Console(stderr=on_stderr, markup=False, highlight=False, width=WIDE)
