"""View: where a search shows what it does."""

from collections.abc import Sequence
from typing import Protocol

from nas.jobs.task import Task
from nas.search.plan_rows import PlanRow
from nas.workers.protocol import Progress, Scored
from results.leaderboard.leaderboard import Leaderboard
from results.record import Outcome


class View(Protocol):
    """What a terminal or a log shows. A search calls these as things happen."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def working(self, what: str, done: int, total: int) -> None:
        """Progress of the preparation."""

    def plan(self, candidates: int, finished: int, minutes_left: float | None) -> None:
        """How much there is to do."""

    def planned(self, rows: Sequence[PlanRow]) -> None:
        """How the time is going to be spent."""

    def started(self, task: Task, description: str, resumed: bool) -> None:
        """A task begins or goes on."""

    def progress(self, event: Progress) -> None:
        """How much of a task's phase is done."""

    def scored(self, task: Task, event: Scored) -> None:
        """A trial was scored at a rung."""

    def ended(self, task: Task, outcome: Outcome, board: Leaderboard | None) -> None:
        """A task has ended. board: the ranking that follows from it; None if nothing in it changes."""
