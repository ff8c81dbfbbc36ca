"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from nas.config.presets import PRESETS

Run = Annotated[Path | None, typer.Option("--run", help="Run folder; the latest if not given.", show_default=False)]
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
