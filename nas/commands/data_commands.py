"""What `nas data` does: check, prepare, phantom."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.commands.progress import reporting
from search_spaces.errors import InputError
from trainers.data.check import CheckRow, check
from trainers.data.open_volumes import open_volumes
from trainers.data.phantom import PhantomConfig, write_phantoms
from trainers.data.prepare import default_cache
from trainers.data.soft_labels import DEFAULT_SET
from trainers.data.sources import scan
from trainers.data.volume import spacing_text


def prepare_folder(folder: Path, cache: Path | None, console: Console) -> None:
    """Convert every volume of a folder that is not yet converted."""
    with reporting(console) as report:
        sources = scan(folder, report)
        for volume in open_volumes(sources, cache or default_cache(), report):
            report.progress(f"converting {volume.name}", 1, 1)
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
    with reporting(console) as report:
        write_phantoms(folder, config, seed, report)
    console.print(f"{kidneys} phantom kidneys in {folder}", soft_wrap=True)


def check_folder(folder: Path, out: Path, cache: Path | None, as_json: bool, console: Console) -> bool:
    """Print what `check` finds; False if a volume cannot be used."""
    with reporting(console) as report:
        rows = check(folder, out, cache, report)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=2, default=str))
    else:
        console.print(_check_table(rows))
        for row in rows:
            for text in (*row.notes, *([f"cannot be used: {row.error}"] if row.error else [])):
                console.print(Text(f"{row.name}: {text}"), soft_wrap=True)
        console.print(f"pictures: {out}", soft_wrap=True)
    return all(row.error is None for row in rows)


def _check_table(rows: list[CheckRow]) -> Table:
    table = Table(pad_edge=False)
    for name in ("volume", "kidney", "shape", "type", "spacing (µm)", "labels", "annotated", "vessels", "grey values"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(
            row.name,
            row.kidney or "–",
            "–" if row.shape is None else " x ".join(map(str, row.shape)),
            row.dtype or "–",
            "–" if row.spacing_um is None else spacing_text(row.spacing_um) + ("" if row.spacing_known else " ?"),
            _labels(row),
            _percent(row.annotated),
            _percent(row.vessel_share, digits=2),
            "–" if row.grey_low is None else f"{row.grey_low:.0f} – {row.grey_high:.0f}",
            style="red" if row.error else None,
        )
    return table


def _labels(row: CheckRow) -> str:
    """Where labels are read from; of a set that is not the usual one, its name."""
    named = row.labels if row.label_set in (None, DEFAULT_SET) else row.label_set
    return (named or "–") + (" (soft)" if row.soft else "")


def _percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"
