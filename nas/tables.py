"""The leaderboard as a table for a terminal."""

from collections.abc import Callable

from rich.table import Table
from rich.text import Text

from results.leaderboard import Leaderboard, Row, interval, millions, seconds
from results.leaderboard import notes as row_notes
from results.text import printable


def leaderboard_table(board: Leaderboard, width: int, most: int | None = None) -> Table:
    """The ranking for a terminal of so many columns; a narrow one goes without costs and voxel dice."""
    table = Table(title=f"held out: {printable(board.held_out)}", title_justify="left", pad_edge=False)
    at = f"at {board.second_um:.0f} µm" if board.second_um else ""
    columns: list[tuple[str, Callable[[Row], str], bool]] = [
        ("#", lambda row: "–" if row.rank is None else str(row.rank), True),
        ("trial", lambda row: str(row.trial), True),
        ("network", lambda row: row.name, True),
        ("start", lambda row: row.start or "–", width >= 100),
        ("surface dice", lambda row: _dice(row.surface_dice), True),
        ("95 % interval", interval, width >= 90),
        (at, lambda row: _dice(row.second_surface_dice), board.second_um is not None and width >= 105),
        ("voxel dice", lambda row: _dice(row.voxel_dice), width >= 130),
        ("seeds", lambda row: str(row.seeds or "–"), width >= 100),
        ("size", lambda row: millions(row.parameters), width >= 120),
        ("training", lambda row: seconds(row.train_seconds), width >= 110),
        ("", row_notes, True),
    ]
    shown = [(name, text) for name, text, fits in columns if fits]
    for name, _ in shown:
        free = name in ("network", "")
        table.add_column(name, no_wrap=not free, overflow="fold", min_width=16 if name == "network" else None)
    for row in board.rows[:most]:
        table.add_row(*(Text(printable(text(row))) for _, text in shown), style="bold" if row.rank == 1 else None)
    if most is not None and len(board.rows) > most:
        table.caption, table.caption_justify = f"and {len(board.rows) - most} more: nas leaderboard", "left"
    return table


def _dice(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
