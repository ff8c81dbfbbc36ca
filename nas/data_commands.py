"""What `nas data` does: check, prepare, phantom."""

import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from search_spaces.errors import InputError
from trainers.data.phantom import PhantomConfig, write_phantoms
from trainers.data.prepare import default_cache, prepare
from trainers.data.sources import scan


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=console,
    )


def prepare_folder(folder: Path, cache: Path | None, console: Console) -> None:
    """Convert every volume of a folder that is not yet converted."""

    def note(text: str) -> None:
        console.print(Text(f"note: {text}"), soft_wrap=True)

    sources = scan(folder, note)
    with _bars(console) as bars:
        for source in sources:
            task = bars.add_task(source.name, total=source.shape[0])
            prepare(
                source,
                cache or default_cache(),
                lambda done, of, t=task: bars.update(t, completed=done, total=of),
                note,
            )
            bars.update(task, completed=1, total=1)
    console.print(f"{len(sources)} volumes ready in {cache or default_cache()}", soft_wrap=True)


def make_phantoms(folder: Path, kidneys: int, shape: str, seed: int, console: Console) -> None:
    """Write phantom kidneys; InputError for a shape that is none, or a folder that exists."""
    try:
        depth, height, width = (int(edge) for edge in shape.split(","))
    except ValueError as error:
        raise InputError(f"--shape takes three numbers of voxels as in 64,128,128; got {shape!r}") from error
    if folder.exists():
        raise InputError(f"{folder} exists; name a folder that does not")
    config = PhantomConfig(kidneys=kidneys, shape=(depth, height, width))
    with _bars(console) as bars:
        task = bars.add_task("phantom kidneys")
        write_phantoms(folder, config, seed, lambda done, of: bars.update(task, completed=done, total=of))
    console.print(f"{kidneys} phantom kidneys in {folder}", soft_wrap=True)


def check_folder(folder: Path, out: Path, cache: Path | None, as_json: bool, console: Console) -> bool:
    """Print what `check` finds; False if a volume cannot be used."""
    from trainers.data.check import check

    with _bars(console) as bars:
        task = bars.add_task("reading")
        rows = check(
            folder, out, cache or default_cache(), lambda done, of: bars.update(task, completed=done, total=of)
        )
    if as_json:
        print(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
    else:
        console.print(rows)
    return all(row.error is None for row in rows)
