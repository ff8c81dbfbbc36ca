"""How far a run is."""

from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from nas.budget import seconds_used
from nas.cells import plans
from nas.runs import read_run
from nas.storage import open_storage
from nas.study import REPEATS
from results.leaderboard import Leaderboard, rank, seconds
from results.record import State, read_record
from results.run_folder import CellsFolder, RunFolder
from search_spaces.errors import InputError


class Status(BaseModel, frozen=True, extra="forbid"):
    """A run in numbers."""

    run: str
    running: bool  # whether a driver holds the folder's lock now
    candidates: int  # asked for so far
    wanted: int
    complete: int
    pruned: int
    failed: int
    infeasible: int  # did not fit into memory
    interrupted: int
    repeats: int
    minutes_used: float
    minutes: float | None
    best_trial: int | None
    best_surface_dice: float | None
    failures: dict[int, str]  # trial -> reason
    cell_searches: dict[str, str]  # id -> waiting, begun, complete, or failed with the reason

    def text(self) -> str:
        """The same for people."""
        limit = "" if self.minutes is None else f" (limit {self.minutes:g} min)"
        best = (
            "no trial is complete yet"
            if self.best_trial is None
            else f"best: trial {self.best_trial} with surface dice {self.best_surface_dice:.4f}"
        )
        lines = [
            f"{self.run}: {'running' if self.running else 'not running'}",
            f"{self.candidates} of {self.wanted} candidates: {self.complete} complete, {self.pruned} pruned, "
            f"{self.failed} failed, {self.infeasible} infeasible, {self.interrupted} interrupted; "
            f"{self.repeats} repeated trainings",
            f"searched for {seconds(60 * self.minutes_used)}{limit}",
            best,
            *(f"cell search {identity}: {state}" for identity, state in self.cell_searches.items()),
            *(f"trial {trial} failed: {reason}" for trial, reason in self.failures.items()),
        ]
        return "\n".join(lines)


def current_leaderboard(run: Path | None) -> tuple[Leaderboard, RunFolder]:
    """The ranking of a run as its folder has it. Raises InputError where nothing has been ranked yet."""
    _, folder = read_run(run)
    if not folder.leaderboard_json.is_file():
        raise InputError(f"{folder.path} has no leaderboard yet: no trial has ended")
    return read_leaderboard(folder), folder


def read_leaderboard(folder: RunFolder) -> Leaderboard:
    """The ranking in leaderboard.json. Raises InputError where it is damaged."""
    try:
        return Leaderboard.model_validate_json(folder.leaderboard_json.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{folder.leaderboard_json} is damaged; `nas search --run {folder.path}` writes it again"
        ) from error


def _cells_state(place: CellsFolder) -> str:
    if place.findings.is_file():
        return "complete"
    if place.failure.is_file():
        return f"failed: {place.failure.read_text(encoding='utf-8').strip()}"
    return "begun" if place.history.is_file() else "waiting"


def read_status(run: Path | None) -> Status:
    """The state of a run, read without disturbing it."""
    import optuna
    from filelock import FileLock, Timeout

    config, folder = read_run(run)
    records = [r for _, place in folder.trial_folders() if (r := read_record(place.record)) is not None]
    lock = FileLock(folder.lock)
    try:
        lock.acquire(timeout=0)
        lock.release()
        running = False
    except Timeout:
        running = True
    used, asked, repeats = 0.0, 0, 0
    if config.study.storage is not None or folder.journal.is_file():
        study = optuna.load_study(study_name=config.study.name, storage=open_storage(folder, config))
        trials = [t for t in study.get_trials(deepcopy=False) if t.state != optuna.trial.TrialState.WAITING]
        repeats = sum(REPEATS in t.user_attrs for t in trials)
        asked = len(trials) - repeats
        used = seconds_used(study) / 60
    board = rank(records, config.study.name, "")
    candidates = [r for r in records if r.job.repeats is None]
    counts = {s: sum(r.outcome.state == s for r in candidates) for s in get_args(State)}
    return Status(
        run=str(folder.path),
        running=running,
        candidates=asked,
        wanted=config.study.trials,
        complete=counts["complete"],
        pruned=counts["pruned"],
        failed=counts["failed"],
        infeasible=counts["infeasible"],
        interrupted=counts["interrupted"],
        repeats=repeats,
        minutes_used=used,
        minutes=config.study.minutes,
        best_trial=board.best,
        best_surface_dice=board.rows[0].surface_dice if board.best is not None else None,
        cell_searches={plan.id: _cells_state(folder.cells(plan.id)) for plan in plans(config)},
        failures={r.job.trial: r.outcome.reason or "" for r in records if r.outcome.state == "failed"},
    )
