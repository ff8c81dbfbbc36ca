"""The leaderboard as people read it: its columns, and a page of them."""

from collections.abc import Callable
from dataclasses import dataclass

from results.leaderboard.leaderboard import Leaderboard, Row, reading
from results.text import escape, millions, seconds


@dataclass(frozen=True)
class Column:
    """What one column of the leaderboard says of a row."""

    heading: str
    text: Callable[[Row], str]
    narrowest: int = 0  # terminal that has room for it, in characters
    right: bool = True  # numbers


def columns(board: Leaderboard) -> list[Column]:
    """From left to right."""
    second = (
        [Column(f"at {board.second_um:.0f} µm", lambda row: _dice(row.second_surface_dice), 105)]
        if board.second_um is not None
        else []
    )
    return [
        Column("#", lambda row: "–" if row.rank is None else str(row.rank)),
        Column("trial", lambda row: str(row.trial)),
        Column("network", lambda row: row.name, right=False),
        Column("start", lambda row: row.start or "–", 100, right=False),
        Column("surface dice", lambda row: _dice(row.surface_dice)),
        Column("95 % interval", interval, 90),
        *second,
        Column("voxel dice", lambda row: _dice(row.voxel_dice), 130),
        Column("seeds", lambda row: str(row.seeds or "–"), 100),
        Column("size", lambda row: millions(row.parameters), 120),
        Column("training", lambda row: seconds(row.train_seconds), 110),
        Column("notes", notes, right=False),
    ]


def to_markdown(board: Leaderboard) -> str:
    """The ranking as a Markdown page."""
    shown = columns(board)
    lines = [[c.heading for c in shown], ["---:" if c.right else "---" for c in shown]]
    lines += [[escape(c.text(row)) for c in shown] for row in board.rows]
    return "\n".join(
        [
            f"# {escape(board.study)}: leaderboard",
            "",
            f"Held-out: **{escape(board.held_out)}**. Metric: {board.metric}.",
            "",
            *(f"| {' | '.join(cells)} |" for cells in lines),
            "",
            reading(board),
            "",
        ]
    )


def _dice(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def interval(row: Row) -> str:
    """The 95 % interval, or a dash."""
    return "–" if row.ci_low is None or row.ci_high is None else f"{row.ci_low:.3f} – {row.ci_high:.3f}"


def notes(row: Row) -> str:
    """What is special about a row."""
    words = []
    if row.baseline:
        words.append("baseline")
    if row.tied_with_best and row.rank != 1:
        words.append("tied with best")
    if row.state != "complete":
        words.append(f"{row.state}: {row.reason}" if row.reason and row.state == "failed" else row.state)
    return ", ".join(words)
