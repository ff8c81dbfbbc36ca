"""How far a run has got."""

from collections import Counter
from pathlib import Path

from pydantic import BaseModel

from nas.config.study_config import CONTINUES, FIXED, REPEATS, read_study_config
from nas.search.plan_rows import PlanRow, plan_lines, plan_rows
from nas.study.attributes import check_attributes
from nas.study.budget import seconds_used
from nas.study.own_storages import storage_of
from nas.study.plan import read_plan
from nas.study.storage import open_storage
from results.leaderboard.leaderboard import read_leaderboard
from results.run_folder import CellsFolder, find
from results.text import seconds
from search_spaces.errors import printable


class Status(BaseModel, frozen=True, extra="forbid"):
    """A run in numbers."""

    run: str
    running: bool  # whether a driver holds the folder's lock now
    candidates: int  # asked for so far
    wanted: int
    complete: int
    paused: int  # scored at a rung, not promoted so far
    failed: int
    infeasible: int  # did not fit into memory
    interrupted: int
    repeats: int
    minutes_used: float
    minutes: float | None
    best_trial: int | None
    best_metrics: dict[str, float]  # of that trial, by name; the ranking metric first
    titles: dict[str, str]  # what people call these metrics, by name
    failures: dict[int, str]  # trial -> reason
    plan: tuple[PlanRow, ...]  # what is trained in the time there is, and what has come of it; empty without a limit
    cell_searches: dict[str, str]  # id -> waiting, begun, complete, or failed with the reason

    def text(self) -> str:
        """The same as text for people."""
        limit = "" if self.minutes is None else f" (limit {self.minutes:g} min)"
        reached = ", ".join(f"{printable(self.titles[name])} {value:.4f}" for name, value in self.best_metrics.items())
        best = "no trial is complete yet" if self.best_trial is None else f"best: trial {self.best_trial}, {reached}"
        lines = [
            f"{self.run}: {'running' if self.running else 'not running'}",
            f"{self.candidates} of {self.wanted} candidates begun; with fixed trials, {self.complete} complete, "
            f"{self.paused} paused, {self.failed} failed, {self.infeasible} infeasible, "
            f"{self.interrupted} interrupted; {self.repeats} repeated trainings",
            f"searched for {seconds(60 * self.minutes_used)}{limit}",
            best,
            *plan_lines(self.plan),
            *(f"cell search {identity}: {state}" for identity, state in self.cell_searches.items()),
            *(f"trial {trial} failed: {printable(reason)}" for trial, reason in self.failures.items()),
        ]
        return "\n".join(lines)


def read_status(run: Path | None, storage: str | None = None) -> Status:
    """The state of a run, read without disturbing it. storage: what the command line says it is kept in."""
    import optuna
    from filelock import FileLock, Timeout

    folder = find(run)
    config, made = read_study_config(folder), read_plan(folder)
    url = storage_of(folder, config.storage, storage)
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
        lock.release()
        running = False
    except Timeout:
        running = True
    except OSError:  # a folder that cannot be written to has no driver
        running = False
    used, asked, repeats, begun, plan = 0.0, 0, set[int](), False, list[PlanRow]()
    if url is not None or folder.journal.is_file():
        opened = open_storage(folder, url)
        begun = any(study.study_name == config.name for study in opened.get_all_studies())
    if begun:
        study = optuna.load_study(study_name=config.name, storage=opened)
        check_attributes(study)
        trials = [t for t in study.get_trials(deepcopy=False) if t.state != optuna.trial.TrialState.WAITING]
        repeats = {t.number for t in trials if REPEATS in t.user_attrs}
        asked = sum(not {FIXED, REPEATS, CONTINUES} & t.user_attrs.keys() for t in trials)
        used = seconds_used(study) / 60
        plan = plan_rows(made, study)
    board = read_leaderboard(folder.leaderboard_json) if folder.leaderboard_json.is_file() else None
    rows = [] if board is None else [row for row in board.rows if row.trial not in repeats]
    counts = Counter(row.state for row in rows)
    return Status(
        run=str(folder.path),
        running=running,
        candidates=asked,
        wanted=config.candidates if made is None else made.candidates,
        complete=counts["complete"],
        paused=counts["paused"],
        failed=counts["failed"],
        infeasible=counts["infeasible"],
        interrupted=counts["interrupted"],
        repeats=len(repeats),
        minutes_used=used,
        minutes=config.minutes,
        best_trial=None if board is None else board.best,
        best_metrics={} if board is None or board.chosen is None else board.in_order(board.chosen),
        titles={} if board is None else board.titles,
        plan=tuple(plan),
        cell_searches={identity: _cells_state(place) for identity, place in folder.cell_folders()},
        failures={row.trial: row.reason or "" for row in board.rows if row.state == "failed"} if board else {},
    )


def _cells_state(place: CellsFolder) -> str:
    if place.findings.is_file():
        return "complete"
    if place.failure.is_file():
        return f"failed: {printable(place.failure.read_text(encoding='utf-8', errors='replace').strip())}"
    return "begun" if place.history.is_file() else "waiting"
