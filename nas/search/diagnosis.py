"""Diagnosis: whether the latest trials show that no other will fare better."""

from collections import Counter
from collections.abc import Sequence

from results.leaderboard.leaderboard import Leaderboard, State
from results.run_folder import RunFolder

LAST_ENDED = 20  # latest trials among which failures are counted
ENOUGH_ENDED = 5  # trials before failures say anything about the search


def diagnose(ended: Sequence[State], failing_share: float, board: Leaderboard, folder: RunFolder) -> str | None:
    """What most trials died of, and which log to read; None if the search may go on.

    It may not if more than `failing_share` of the last trials failed, or if LAST_ENDED did not fit into memory.
    ended: the states of the last trials, LAST_ENDED at most; all of them are on the board.
    """
    failed, infeasible = ended.count("failed"), ended.count("infeasible")
    failing = len(ended) >= ENOUGH_ENDED and failed > failing_share * len(ended)
    if not failing and infeasible < LAST_ENDED:
        return None
    rows = [row for row in board.rows if row.state in ("failed", "infeasible")]
    common, count = Counter(row.reason for row in rows).most_common(1)[0]
    first = min(row.trial for row in rows if row.reason == common)
    return (
        f"{failed + infeasible} of the last {len(ended)} trials failed or did not fit into memory "
        f"(study.failing_share = {failing_share:g}); most often ({count} x): {common}; see {folder.trial(first).log}"
    )
