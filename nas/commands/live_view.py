"""What a search shows while it runs: a live table in a terminal, plain lines elsewhere."""

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from nas.commands.leaderboard_table import leaderboard_table
from nas.commands.progress import progress_bars
from nas.workers import protocol
from results.leaderboard.leaderboard import Leaderboard
from results.record import Job, Record
from results.text import printable, seconds
from trainers.cell_search.run import CellFindings, CellPlan
from trainers.metrics.score import said

SHOWN_ROWS = 8


@dataclass
class _Running:
    name: str
    phase: str = "start"
    done: int = 0
    total: int = 1
    loss: float | None = None
    last_score: float | None = None


class PlainView:
    """One line for each thing that happens, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._jobs: dict[int, Job] = {}
        self._decile: dict[str, int] = {}

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def note(self, text: str) -> None:
        self._say(f"note: {text}")

    def working(self, what: str, done: int, total: int) -> None:
        decile = 10 * done // max(total, 1)
        if self._decile.get(what) != decile and (decile == 10 or decile % 5 == 0):
            self._say(f"{what}: {100 * done // max(total, 1)} %")
        self._decile[what] = decile

    def plan(self, candidates: int, finished: int, minutes_left: float | None) -> None:
        limit = "" if minutes_left is None else f", {max(minutes_left, 0):.1f} minutes left"
        self._say(f"{candidates} candidates, {finished} done{limit}")

    def started(self, job: Job, resumed: bool) -> None:
        self._jobs[job.trial] = job
        again = f" (trial {job.repeats} again, seed {job.seed})" if job.repeats is not None else ""
        self._say(f"trial {job.trial}: {job.name}{again}{', resumed' if resumed else ''}")

    def cells_started(self, plan: CellPlan, steps: int, resumed: bool) -> None:
        self._say(f"cell search {plan.id}: {steps} steps{', resumed' if resumed else ''}")

    def cells_ended(self, plan: CellPlan, findings: CellFindings | None) -> None:
        if findings is not None:
            found = f"{len(findings.genotypes)} genotypes to train in {seconds(findings.search_seconds)}"
            self._say(f"cell search {plan.id}: {found}")

    def progress(self, event: protocol.Progress) -> None:
        return None

    def scored(self, event: protocol.Scored, answer: str) -> None:
        verdict = ", stopped: others are ahead" if answer == "stop" else ""
        self._say(f"trial {event.trial}: score {event.value:.3f} at step {event.step}{verdict}")

    def ended(self, record: Record, board: Leaderboard) -> None:
        outcome = record.outcome
        best = f"; best so far {board.value(board.rows[0]):.4f}" if board.best is not None else ""
        value = said(outcome.score.values) if outcome.score else outcome.reason or ""
        self._say(f"trial {record.job.trial}: {outcome.state}, {value}, {seconds(outcome.seconds)}{best}")

    def _say(self, text: str) -> None:
        self._console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A table of the leaders, the running trials with their progress, and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: dict[protocol.Work, _Running] = {}
        self._board: Leaderboard | None = None
        self._counts = {"complete": 0, "pruned": 0, "failed": 0, "interrupted": 0}
        self._candidates = 0
        self._finished = 0
        self._began = time.monotonic()
        self._deadline: float | None = None
        self._ended = 0
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

    def started(self, job: Job, resumed: bool) -> None:
        self._running[job.trial] = _Running(job.name)

    def cells_started(self, plan: CellPlan, steps: int, resumed: bool) -> None:
        self._running[plan.id] = _Running(f"cell search {plan.id}", total=steps)

    def cells_ended(self, plan: CellPlan, findings: CellFindings | None) -> None:
        self._running.pop(plan.id, None)
        if findings is not None:
            spent = seconds(findings.search_seconds)
            self.note(f"cell search {plan.id}: {len(findings.genotypes)} genotypes to train in {spent}")

    def progress(self, event: protocol.Progress) -> None:
        if (run := self._running.get(event.work)) is not None:
            run.phase, run.done, run.total = event.phase, event.done, event.total
            run.loss = event.loss if event.loss is not None else run.loss

    def scored(self, event: protocol.Scored, answer: str) -> None:
        if (run := self._running.get(event.trial)) is not None:
            run.last_score = event.value

    def ended(self, record: Record, board: Leaderboard) -> None:
        self._running.pop(record.job.trial, None)
        self._board = board
        self._ended += record.job.repeats is None
        self._counts[record.outcome.state] += 1
        if record.outcome.state == "failed":
            self.note(f"trial {record.job.trial} failed: {record.outcome.reason}")

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
        for name in ("trial", "network", "phase", "", "loss", "so far"):
            table.add_column(name, no_wrap=True, overflow="ellipsis")
        for number, run in sorted(self._running.items(), key=lambda item: str(item[0])):
            filled = int(20 * run.done / max(run.total, 1))
            table.add_row(
                str(number) if isinstance(number, int) else "",
                run.name,
                f"{run.phase} {run.done}/{run.total}" if run.phase in ("train", "search") else run.phase,
                "█" * filled + "░" * (20 - filled),
                "–" if run.loss is None else f"{run.loss:.3f}",
                "–" if run.last_score is None else f"{run.last_score:.3f}",
            )
        return table

    def _status(self) -> str:
        done = self._finished + self._ended
        counts = ", ".join(f"{number} {state}" for state, number in self._counts.items() if number)
        now = time.monotonic()
        left = None
        if self._ended:
            left = (now - self._began) / self._ended * max(self._candidates - done, 0)
        if self._deadline is not None:
            left = self._deadline - now if left is None else min(left, self._deadline - now)
        time_left = "" if left is None else f" · about {seconds(max(left, 0))} left"
        return (
            f"{done} of {self._candidates} candidates ({counts or 'none ended yet'}){time_left} "
            "· Ctrl-C stops, the same command goes on"
        )


def make_view(console: Console) -> PlainView | LiveView:
    """The live view where there is a terminal, plain lines where there is none."""
    return LiveView(console) if console.is_terminal else PlainView(console)
