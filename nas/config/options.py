"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from nas.config.presets import PRESETS
from search_spaces.errors import InputError

Run = Annotated[Path | None, typer.Option("--run", help="Run folder; the latest if not given.", show_default=False)]
RunPlace = Annotated[
    Path | None, typer.Argument(metavar="[RUN]", help="Run folder, like --run.", show_default=False)
]  # of commands about a run as a whole
ConfigFile = Annotated[Path | None, typer.Argument(help="Configuration file.", show_default=False)]
Preset = Annotated[str | None, typer.Option(help=f"One of {', '.join(PRESETS)}.", show_default=False)]
Storage = Annotated[
    str | None,
    typer.Option(help="URL of the PostgreSQL database of the study, if it is yours.", show_default=False),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting, as in study.seeds=5.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def one_run(place: Path | None, run: Path | None) -> Path | None:
    """The run that a command is given, with --run or without; None for the latest. Raises InputError for two."""
    if place is not None and run is not None and place != run:
        raise InputError(f"two runs are named, {place} and --run {run}; give one of them")
    return place if run is None else run
