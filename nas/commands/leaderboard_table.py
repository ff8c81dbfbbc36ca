"""The leaderboard as a table for a terminal."""

from rich.table import Table
from rich.text import Text

from results.leaderboard.columns import columns
from results.leaderboard.leaderboard import Leaderboard
from search_spaces.errors import printable


def leaderboard_table(board: Leaderboard, width: int, most: int | None = None, all_by: str = "") -> Table:
    """The ranking for a terminal of this width; a narrow one leaves out costs and all metrics but one.

    most: how many rows; all_by: the command that shows the others, if there are any.
    """
    table = Table(title=f"held out: {printable(board.scored_on)}", title_justify="left", pad_edge=False)
    shown = [column for column in columns(board) if column.narrowest <= width]
    for column in shown:
        free = column.heading in ("network", "notes")
        table.add_column(
            Text(printable(column.heading)),
            justify="right" if column.right else "left",
            no_wrap=not free,
            overflow="fold",
            min_width=16 if column.heading == "network" else None,
        )
    for row in board.rows[:most]:
        cells = (Text(printable(column.text(row))) for column in shown)
        table.add_row(*cells, style="bold" if row.trial == board.best else None)
    if most is not None and len(board.rows) > most:
        more = f"and {len(board.rows) - most} more"
        table.caption, table.caption_justify = f"{more}: {all_by}" if all_by else more, "left"
    return table
