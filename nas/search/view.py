"""View: where a search shows what it does."""

from typing import Protocol

from nas.workers.protocol import Progress, Scored
from results.leaderboard.leaderboard import Leaderboard
from results.record import Job, Record
from trainers.cell_search.run import CellFindings, CellPlan


class View(Protocol):
    """What a terminal, a log or a test is told."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def working(self, what: str, done: int, total: int) -> None:
        """Progress of the preparation."""

    def plan(self, candidates: int, finished: int, minutes_left: float | None) -> None:
        """How much there is to do."""

    def started(self, job: Job, resumed: bool) -> None:
        """A trial begins or goes on."""

    def cells_started(self, plan: CellPlan, steps: int, resumed: bool) -> None:
        """A cell search begins or goes on."""

    def cells_ended(self, plan: CellPlan, findings: CellFindings | None) -> None:
        """A cell search has found something, or has failed."""

    def progress(self, event: Progress) -> None:
        """A trial or a cell search has come this far."""

    def scored(self, event: Scored, answer: str) -> None:
        """A trial was scored at a rung."""

    def ended(self, record: Record, board: Leaderboard) -> None:
        """A trial has ended."""
