"""The commands `nas data`: parse, call one function."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from nas.commands.console import AsJson, make_console

data_app = typer.Typer(help="Look at, convert, or make data.", no_args_is_help=True)


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder of volumes.")],
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("data-check"),
    cache: Annotated[Path | None, typer.Option(help="Where converted volumes lie.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Print a table of the volumes in a folder, and draw a picture of each."""
    from nas.commands.data_commands import check_folder

    if not check_folder(folder, out, cache, as_json, make_console(as_json)):
        sys.exit(1)


@data_app.command("prepare")
def data_prepare(
    folder: Annotated[Path, typer.Argument(help="Folder of volumes.")],
    cache: Annotated[Path | None, typer.Option(help="Where converted volumes lie.", show_default=False)] = None,
) -> None:
    """Convert all volumes of a folder now, so that a search starts at once."""
    from nas.commands.data_commands import prepare_folder

    prepare_folder(folder, cache, make_console())


@data_app.command("phantom")
def data_phantom(
    folder: Annotated[Path, typer.Argument(help="Folder to make; must not exist.")],
    kidneys: Annotated[int, typer.Option(min=1, help="How many kidneys.")] = 3,
    shape: Annotated[str, typer.Option(help="Voxels along z,y,x.")] = "64,128,128",
    seed: Annotated[int, typer.Option(help="Equal seeds make equal kidneys.")] = 0,
) -> None:
    """Make synthetic kidneys in the competition's layout."""
    from nas.commands.data_commands import make_phantoms

    make_phantoms(folder, kidneys, shape, seed, make_console())
