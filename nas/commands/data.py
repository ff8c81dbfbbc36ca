"""`nas data`: look at, convert, or make volumes."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from nas.commands.console import make_console
from nas.config.options import AsJson
from search_spaces.errors import InputError

Folder = Annotated[Path, typer.Argument(help="Folder of volumes.")]
Cache = Annotated[Path | None, typer.Option(help="Where converted volumes are kept.", show_default=False)]

data = typer.Typer(help="Look at, convert, or make data.", no_args_is_help=True)


@data.command()
def check(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("data-check"),
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Print a table of the volumes in a folder, and draw a picture of each."""
    from dataclasses import asdict

    from nas.commands.progress import reporting
    from nas.commands.volumes_table import volume_remarks, volumes_table
    from trainers.data.check import check as check_folder

    console = make_console(as_json)
    with reporting(console) as report:
        rows = check_folder(folder, out, cache, report)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2, default=str))
    else:
        console.print(volumes_table(rows))
        for line in volume_remarks(rows):
            console.print(line, soft_wrap=True)
        console.print(f"pictures: {out}", soft_wrap=True)
    if any(row.error for row in rows):
        sys.exit(1)


@data.command()
def prepare(folder: Folder, cache: Cache = None) -> None:
    """Convert all volumes of a folder now, so that a search starts at once."""
    from nas.commands.progress import reporting
    from trainers.data.open_volumes import open_volumes
    from trainers.data.prepare import default_cache
    from trainers.data.sources import scan

    console, place = make_console(), cache or default_cache()
    with reporting(console) as report:
        sources = scan(folder, report)
        for volume in open_volumes(sources, place, report):
            report.progress(f"converting {volume.name}", 1, 1)
    console.print(f"{len(sources)} volumes ready in {place}", soft_wrap=True)


@data.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder to make; must not exist.")],
    kidneys: Annotated[int, typer.Option(min=1, help="How many kidneys.")] = 3,
    shape: Annotated[str, typer.Option(help="Voxels along z,y,x.")] = "64,128,128",
    seed: Annotated[int, typer.Option(help="Equal seeds make equal kidneys.")] = 0,
) -> None:
    """Make synthetic kidneys in the competition's layout."""
    from nas.commands.progress import reporting
    from trainers.data.phantom import PhantomConfig, write_phantoms

    try:
        depth, height, width = (int(edge) for edge in shape.split(","))
    except ValueError as error:
        raise InputError(f"--shape takes three numbers of voxels as in 64,128,128; got {shape!r}") from error
    if folder.exists():
        raise InputError(f"{folder} exists; name a folder that does not")
    settings, console = PhantomConfig(kidneys=kidneys, shape=(depth, height, width)), make_console()
    with reporting(console) as report:
        write_phantoms(folder, settings, seed, report)
    console.print(f"{kidneys} phantom kidneys in {folder}", soft_wrap=True)
