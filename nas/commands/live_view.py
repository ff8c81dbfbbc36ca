"""What a search shows while it runs: a live table in a terminal, plain lines elsewhere."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from nas.commands.leaderboard_table import leaderboard_table
from nas.commands.progress import progress_bars
from nas.jobs.task import Task
from nas.search.plan_rows import PlanRow, plan_lines
from nas.workers import protocol
from results.leaderboard.leaderboard import Leaderboard
from results.record import Outcome
from results.text import seconds
from search_spaces.errors import printable
from trainers.metrics.score import said

SHOWN_ROWS = 8


@dataclass
class _Running:
    title: str
    description: str
    phase: str = "start"
    done: int = 0
    total: int = 1
    loss: float | None = None
    last_score: float | None = None
    trained: int = 0  # the furthest step, on the trunk or in a branch


class PlainView:
    """One line for each thing that happens, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._decile: dict[str, int] = {}

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def note(self, text: str) -> None:
        self._print(f"note: {text}")

    def working(self, what: str, done: int, total: int) -> None:
        decile = 10 * done // max(total, 1)
        if self._decile.get(what) != decile and (decile == 10 or decile % 5 == 0):
            self._print(f"{what}: {100 * done // max(total, 1)} %")
        self._decile[what] = decile

    def plan(self, candidates: int, finished: int, minutes_left: float | None) -> None:
        limit = "" if minutes_left is None else f", {max(minutes_left, 0):.1f} minutes left"
        self._print(f"{candidates} candidates, {finished} done{limit}")

    def planned(self, rows: Sequence[PlanRow]) -> None:
        for line in plan_lines(rows):
            self._print(line)

    def started(self, task: Task, description: str, resumed: bool) -> None:
        self._print(f"{task.title}: {description}{', resumed' if resumed else ''}")

    def progress(self, event: protocol.Progress) -> None:
        return None

    def scored(self, task: Task, event: protocol.Scored) -> None:
        self._print(f"{task.title}: score {event.value:.3f} at step {event.step}")

    def ended(self, task: Task, outcome: Outcome, board: Leaderboard | None) -> None:
        leader = None if board is None or board.best is None else board.value(board.rows[0])
        best = "" if leader is None else f"; best so far {leader:.4f}"
        value = said(outcome.score.values) if outcome.score else outcome.reason
        words = [outcome.state, *([value] if value else []), seconds(outcome.seconds)]
        self._print(f"{task.title}: {', '.join(words)}{best}")

    def _print(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A table of the leaders, the running trials with their progress, and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: dict[str, _Running] = {}  # by task
        self._board: Leaderboard | None = None
        self._states: dict[str, str] = {}  # of the candidates that ended or paused, by task
        self._candidates = 0
        self._finished = 0
        self._began = time.monotonic()
        self._deadline: float | None = None
        self._preparing = progress_bars(console)
        self._tasks: dict[str, TaskID] = {}
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveView":
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._live.__exit__(*error)

    def note(self, text: str) -> None:
        self._console.print(Text(f"note: {printable(text)}", style="yellow"), soft_wrap=True)

    def working(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._preparing.add_task(what)
        self._preparing.update(self._tasks[what], completed=done, total=total, visible=done < total)

    def plan(self, candidates: int, finished: int, minutes_left: float | None) -> None:
        self._candidates, self._finished = candidates, finished
        self._began = time.monotonic()
        self._deadline = None if minutes_left is None else self._began + 60 * minutes_left

    def planned(self, rows: Sequence[PlanRow]) -> None:
        for line in plan_lines(rows):
            self._console.print(Text(line), soft_wrap=True)

    def started(self, task: Task, description: str, resumed: bool) -> None:
        self._running[task.id] = _Running(task.title, description)

    def progress(self, event: protocol.Progress) -> None:
        if (run := self._running.get(event.task)) is not None:
            run.phase, run.done, run.total = event.phase, event.done, event.total
            if run.phase == "train":  # after the branch of a rung the trunk goes on from an earlier step
                run.done = run.trained = max(run.trained, event.done)
            run.loss = event.loss if event.loss is not None else run.loss

    def scored(self, task: Task, event: protocol.Scored) -> None:
        if (run := self._running.get(task.id)) is not None:
            run.last_score = event.value

    def ended(self, task: Task, outcome: Outcome, board: Leaderboard | None) -> None:
        self._running.pop(task.id, None)
        self._board = board or self._board
        if task.is_candidate:
            self._states[task.id] = outcome.state
        if outcome.state == "failed":
            self.note(f"{task.title} failed: {outcome.reason}")
        elif board is None:
            self.note(f"{task.title}: {outcome.state}, {seconds(outcome.seconds)}")

    def _render(self) -> Group:
        parts: list[Any] = []
        if any(not task.finished for task in self._preparing.tasks):
            parts.append(self._preparing.get_renderable())
        if self._board is not None and self._board.rows:
            parts.append(leaderboard_table(self._board, self._console.width, SHOWN_ROWS))
        if self._running:
            parts.append(self._running_table())
        parts.append(Text(self._status(), style="dim"))
        return Group(*parts)

    def _running_table(self) -> Table:
        table = Table(title="running", title_justify="left", box=None, pad_edge=False)
        for name in ("task", "", "phase", "", "loss", "so far"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for run in self._running.values():
            filled = int(20 * run.done / max(run.total, 1))
            table.add_row(
                run.title,
                run.description,
                f"{run.phase} {run.done}/{run.total}" if run.phase in ("train", "search") else run.phase,
                "█" * filled + "░" * (20 - filled),
                "–" if run.loss is None else f"{run.loss:.3f}",
                "–" if run.last_score is None else f"{run.last_score:.3f}",
            )
        return table

    def _status(self) -> str:
        ended = len(self._states)
        done = self._finished + ended
        counts = ", ".join(f"{number} {state}" for state, number in sorted(Counter(self._states.values()).items()))
        now = time.monotonic()
        left = None
        if ended:
            left = (now - self._began) / ended * max(self._candidates - done, 0)
        if self._deadline is not None:
            left = self._deadline - now if left is None else min(left, self._deadline - now)
        time_left = "" if left is None else f" · about {seconds(max(left, 0))} left"
        return (
            f"{done} of {self._candidates} candidates ({counts or 'none ended yet'}){time_left} "
            "· Ctrl-C stops; the same command continues"
        )


def make_view(console: Console) -> PlainView | LiveView:
    """The live view on a terminal, plain lines elsewhere."""
    return LiveView(console) if console.is_terminal else PlainView(console)
