"""How to read a leaderboard: what is exported and how surely it is best, in a few sentences."""

from results.leaderboard.agreement import sentence
from results.leaderboard.leaderboard import SCRATCH, Leaderboard, Row


def reading(board: Leaderboard) -> str:
    """The first sentence says what is exported, and why."""
    chosen = board.chosen
    if chosen is None:
        return "No candidate was trained to its end and scored, so there is nothing to rank yet."
    parts = [
        _choice(board, chosen),
        _ties(board, chosen),
        _spread(board),
        sentence(board.agreements),
        _starts(board),
        _limits(board),
    ]
    return " ".join(part for part in parts if part)


def _choice(board: Leaderboard, chosen: Row) -> str:
    """What is exported, and how surely it is best."""
    if chosen.probability_best is None:
        if sum(row.rank is not None for row in board.rows) == 1:
            return "There is only one row, so there is nothing to compare it with."
        return (
            f"{chosen.name} scores highest, but is not confirmed: no leader was trained with a fresh seed, so its "
            "place may be luck."
        )
    others = [row for row in board.rows if row.judged and row.trial != chosen.trial]
    if chosen.default:
        rivals = [row for row in others if row.probability_above_default is not None]
        if not rivals:
            return f"The default, {chosen.name}, is exported: no other network was trained with a fresh seed."
        rival = max(rivals, key=lambda row: row.probability_above_default or 0.0)
        return (
            f"The default, {chosen.name}, is exported, because nothing beats it beyond noise: the closest, "
            f"{rival.name}, is better with a probability of {rival.probability_above_default:.2f}, and {board.sure:g} "
            "is asked."
        )
    sentence = f"{chosen.name} is best with a probability of {chosen.probability_best:.2f}"
    if chosen.probability_above_default is not None:
        sentence += f", and better than the default with one of {chosen.probability_above_default:.2f}"
    return f"{sentence} (differences up to {board.margin:g} do not count)."


def _ties(board: Leaderboard, chosen: Row) -> str:
    tied = [row for row in board.rows if row.tied_with_best and row.trial != chosen.trial]
    if chosen.probability_best is None:
        return f"{len(tied)} other row(s) cannot be told apart from it by slabs." if tied else ""
    if not tied or chosen.default:  # the default is exported whatever it costs
        return ""
    return f"{len(tied)} other row(s) are more likely than not as good, and it is the cheapest of them."


def _spread(board: Leaderboard) -> str:
    if board.seed_deviation is None:
        return "No candidate was trained with two seeds, so how much a seed changes is unknown."
    return f"Training again with another seed changes a score by {board.seed_deviation:.3f} (standard deviation)."


def _starts(board: Leaderboard) -> str:
    """A warning that rows of different starts compare unfairly, if there are both kinds."""
    ranked = [row for row in board.rows if row.rank is not None and row.start is not None]
    scratch = sum(row.start == SCRATCH for row in ranked)
    if not 0 < scratch < len(ranked):
        return ""
    return (
        f"{scratch} of {len(ranked)} ranked row(s) started from random weights (start: scratch) and the others from "
        "pretrained ones: between the two kinds, a difference in score mixes start and network."
    )


def _limits(board: Leaderboard) -> str:
    """What the intervals do not show."""
    second = (
        ""
        if board.second_um is None
        else f" Values at {board.second_um:.0f} µm (shown if the terminal is wide enough) are from the same kidney, "
        "resampled, at the same thresholds. They show how well a network copes with another voxel size; they do not "
        "affect the ranking."
    )
    if (chosen := board.chosen) is not None and chosen.kidneys:
        return _over_kidneys(board, chosen) + second
    if chosen is not None and chosen.ci_low is not None and chosen.ci_low == chosen.ci_high:
        return (
            f"The interval over slabs has no width: too little of {board.held_out} is labelled for the ranking to mean "
            "anything." + second
        )
    return (
        "The interval shows how the score depends on which part of this kidney is scored. One kidney cannot show how "
        "much kidneys differ, and the leader was chosen on it, so expect a somewhat lower score on the next." + second
    )


def _over_kidneys(board: Leaderboard, chosen: Row) -> str:
    """What scores on several kidneys say about the next one."""
    each = ", ".join(f"{kidney} {value:.3f}" for kidney, value in chosen.kidneys.items())
    text = f"The finalists are ranked by their mean over kidneys, each held out in turn: {each} for what is exported."
    if chosen.kidneys_low is not None and chosen.kidneys_high is not None:
        bounds = f"{chosen.kidneys_low:.3f} to {chosen.kidneys_high:.3f}"
        text += f" As far as so few can say, the mean over many such kidneys lies in {bounds} (95 %)."
    else:
        text += " These are too few to say how much kidneys differ."
    missing = [row for row in board.rows if row.kidneys and len(row.kidneys) < len(board.kidneys)]
    if missing:
        text += (
            f" {len(missing)} finalist(s) lack a kidney: the order of finalists is what a model of kidneys, designs "
            "and noise expects, not that of the means."
        )
    if any(row.kidneys and row.supernet for row in board.rows):
        text += (
            f" Cells were searched with only {board.held_out} held out, so finalists with found cells have an "
            "advantage on the other kidneys."
        )
    return f"{text} All other rows are scored on {board.held_out} alone."
