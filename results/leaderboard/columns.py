"""The leaderboard as people read it: its columns, and a page of them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

from results.leaderboard.leaderboard import Leaderboard, Row
from results.leaderboard.reading import reading
from results.text import escape, millions, seconds


@dataclass(frozen=True)
class Column:
    """What one column of the leaderboard shows of a row."""

    heading: str
    text: Callable[[Row], str]
    narrowest: int = 0  # width in characters of the narrowest terminal that shows it
    right: bool = True  # aligned to the right, as numbers are


def columns(board: Leaderboard) -> list[Column]:
    """From left to right."""
    ranking = _metric(board, board.rank_by)
    others = (_metric(board, name) for name in board.titles if name != board.rank_by)
    return [
        Column("#", lambda row: "–" if row.rank is None else str(row.rank)),
        Column("trial", lambda row: str(row.trial)),
        Column("network", lambda row: row.name, right=False),
        Column("start", lambda row: row.start or "–", 100, right=False),
        ranking[0],
        Column("95 %, slabs", interval, 90),
        *(_of_kidney(kidney, 90 + 10 * place) for place, kidney in enumerate(board.kidneys)),
        *([Column("95 %, kidneys", _over_kidneys, 121)] if board.kidneys else []),
        *([Column("95 %, seeds", _over_seeds, 121)] if _judged(board) and not board.kidneys else []),
        *([Column("P(best)", _probability, 0)] if _judged(board) else []),
        *ranking[1:],
        *chain.from_iterable(others),
        Column("seeds", lambda row: str(row.seeds or "–"), 100),
        Column("size", lambda row: millions(row.parameters), 132),
        Column("training", lambda row: seconds(row.train_seconds), 123),
        Column("notes", lambda row: notes(row, board.best), right=False),
    ]


def to_markdown(board: Leaderboard) -> str:
    """The ranking as a Markdown page."""
    shown = columns(board)
    lines = [[escape(c.heading) for c in shown], ["---:" if c.right else "---" for c in shown]]
    lines += [[escape(c.text(row)) for c in shown] for row in board.rows]
    return "\n".join(
        [
            f"# {escape(board.study)}: leaderboard",
            "",
            f"Held-out: **{escape(board.scored_on)}**. Metric: {board.metric}.",
            "",
            *(f"| {' | '.join(cells)} |" for cells in lines),
            "",
            reading(board),
            "",
        ]
    )


def _metric(board: Leaderboard, name: str) -> list[Column]:
    """The column of one metric, and of its second score if there is one; only a wide terminal shows all of them."""
    title, before = board.titles[name], list(board.titles).index(name)  # columns of metrics further to the left
    ranks = name == board.rank_by
    shown = [Column(title, lambda row: _value(row.metrics, name), 0 if ranks else 136 + 12 * before)]
    if board.second_um is not None:
        at = f"at {board.second_um:.0f} µm"
        heading, room = (at, 112) if ranks else (f"{title} {at}", 150 + 22 * before)
        shown.append(Column(heading, lambda row: _value(row.second_metrics, name), room))
    return shown


def _value(values: dict[str, float], name: str) -> str:
    return f"{values[name]:.4f}" if name in values else "–"


def interval(row: Row) -> str:
    """The 95 % interval over slabs, or a dash."""
    return "–" if row.ci_low is None or row.ci_high is None else f"{row.ci_low:.3f} – {row.ci_high:.3f}"


def _over_seeds(row: Row) -> str:
    """The 95 % interval over seeds, or a dash."""
    return "–" if row.seeds_low is None or row.seeds_high is None else f"{row.seeds_low:.3f} – {row.seeds_high:.3f}"


def _of_kidney(kidney: str, narrowest: int) -> Column:
    """The score with one kidney held out."""
    return Column(kidney, lambda row: f"{row.kidneys[kidney]:.4f}" if kidney in row.kidneys else "–", narrowest)


def _over_kidneys(row: Row) -> str:
    """The 95 % interval over kidneys, or a dash."""
    if row.kidneys_low is None or row.kidneys_high is None:
        return "–"
    return f"{row.kidneys_low:.3f} – {row.kidneys_high:.3f}"


def _probability(row: Row) -> str:
    return "–" if row.probability_best is None else f"{row.probability_best:.2f}"


def _judged(board: Leaderboard) -> bool:
    """Whether any design was trained with fresh seeds."""
    return any(row.judged for row in board.rows)


def notes(row: Row, best: int | None = None) -> str:
    """What is special about a row. best: the trial to export."""
    words = []
    if row.default:
        words.append("default")
    elif row.baseline:
        words.append("baseline")
    if row.trial == best and row.rank is not None:
        words.append("exported")
    elif row.tied_with_best:
        words.append("tied with best")
    if row.state != "complete":
        words.append(f"{row.state}: {row.reason}" if row.reason and row.state == "failed" else row.state)
    return ", ".join(words)
