"""The run folder: the only file that knows the names inside it."""

import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from results.links import refuse_links
from search_spaces.errors import InputError
from trainers.atomic import write_atomically

RUNS = Path("results") / "runs"
_LATEST = "latest"
ARTIFACTS = "artifacts"  # the pictures of the dashboard
_JOURNAL = "study.journal"
# Ends of the names of files that grow; all others are replaced.
_APPENDED = (_JOURNAL, ".torn", ".jsonl", ".log", "log.txt")


def read_seconds(file: Path) -> float:
    """A time spent so far, in seconds; 0.0 if there is none, or if the file is damaged: nothing depends on it."""
    try:
        return float(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0.0


@dataclass(frozen=True)
class TrialFolder:
    """What one trial leaves behind."""

    path: Path

    @property
    def job(self) -> Path:
        """What was asked for: the candidate, its recipe and its seed."""
        return self.path / "candidate.json"

    @property
    def record(self) -> Path:
        """How the trial ended; see results/record.py."""
        return self.path / "record.json"

    @property
    def scores(self) -> Path:
        """One JSON line for each score before the end."""
        return self.path / "scores.jsonl"

    @property
    def losses(self) -> Path:
        """One JSON line for the mean loss of each run of steps."""
        return self.path / "losses.jsonl"

    @property
    def curve(self) -> Path:
        """A picture of loss and score over steps."""
        return self.path / "curve.png"

    @property
    def attempts(self) -> Path:
        """One JSON line for each worker that died on it."""
        return self.path / "attempts.jsonl"

    @property
    def seconds(self) -> Path:
        """Time spent in optimiser steps so far."""
        return self.path / "seconds"

    @property
    def checkpoints(self) -> Path:
        """What the training continues from after a stop; removed when the trial is over."""
        return self.path / "checkpoint"

    @property
    def last_step(self) -> Path:
        """The step at which a training that has a time limit ends; there from its last cool-down on."""
        return self.path / "last_step"

    @property
    def trunk(self) -> Path:
        """A checkpoint from before the last cool-down, which a full training continues; kept for the leaders only."""
        return self.path / "trunk"

    @property
    def weights(self) -> Path:
        """The averaged weights at the end; kept for the leaders only."""
        return self.path / "weights.safetensors"

    @property
    def overlay(self) -> Path:
        """A picture of the prediction on the held-out kidney."""
        return self.path / "overlay.png"

    @property
    def genotype(self) -> Path:
        """A picture of its cells, if it has any; `.png`, and `.svg` beside it."""
        return self.path / "genotype.png"

    @property
    def log(self) -> Path:
        """What the libraries printed, and the traceback of a failure."""
        return self.path / "log.txt"

    @property
    def scratch(self) -> Path:
        """Large arrays while predicting; removed afterwards."""
        return self.path / "scratch"


@dataclass(frozen=True)
class CellsFolder:
    """What the search of one supernet leaves behind."""

    path: Path

    @property
    def findings(self) -> Path:
        """The genotypes found, with probabilities and costs; there when the search is over."""
        return self.path / "findings.json"

    @property
    def failure(self) -> Path:
        """Why the search failed; there if it did."""
        return self.path / "failure.txt"

    @property
    def history(self) -> Path:
        """One JSON line for losses, entropy, expected cost and probabilities, at regular steps."""
        return self.path / "history.jsonl"

    @property
    def checkpoints(self) -> Path:
        """What the search continues from after a stop; afterwards, the supernet's weights."""
        return self.path / "checkpoint"

    @property
    def attempts(self) -> Path:
        """One JSON line for each worker that died on it."""
        return self.path / "attempts.jsonl"

    @property
    def costs(self) -> Path:
        """Seconds and bytes of every part of its networks, as measured."""
        return self.path / "costs.json"

    @property
    def alphas_picture(self) -> Path:
        """The probabilities over time."""
        return self.path / "alphas.png"

    @property
    def log(self) -> Path:
        """What was printed."""
        return self.path / "log.txt"

    @property
    def seconds(self) -> Path:
        """Time spent so far, over all attempts."""
        return self.path / "seconds"

    def genotype(self, name: str) -> Path:
        """One genotype by itself, for other programs and `nas show`."""
        return self.path / "genotypes" / f"{name}.json"


@dataclass(frozen=True)
class RunFolder:
    """Everything that one search keeps."""

    path: Path

    @property
    def config(self) -> Path:
        """The whole configuration; running it again repeats the search."""
        return self.path / "config.toml"

    @property
    def identity(self) -> Path:
        """Hashes of the voxels, labels and spacings of this run, and the version that began it."""
        return self.path / "identity.json"

    @property
    def journal(self) -> Path:
        """The Optuna study."""
        return self.path / _JOURNAL

    @property
    def mark(self) -> Path:
        """What tells this folder's study from another folder's on the same server."""
        return self.path / "study.mark"

    @property
    def artifacts(self) -> Path:
        """Pictures that the dashboard shows."""
        return self.path / ARTIFACTS

    @property
    def lock(self) -> Path:
        """Held by the one process that may write the study."""
        return self.path / "driver.lock"

    @property
    def trials(self) -> Path:
        """One folder per trial."""
        return self.path / "trials"

    @property
    def measuring(self) -> TrialFolder:
        """The log of what was measured before the first trial."""
        return TrialFolder(self.path / "measuring")

    @property
    def costs(self) -> Path:
        """What trainings cost on this machine; there if the search has a time limit."""
        return self.path / "costs.json"

    @property
    def plan(self) -> Path:
        """How the time of the search is spent; there if it has a limit."""
        return self.path / "plan.json"

    @property
    def buildable(self) -> Path:
        """Which choices of the space make a network, found once."""
        return self.path / "buildable.json"

    @property
    def leaderboard_json(self) -> Path:
        """The ranking, for scripts."""
        return self.path / "leaderboard.json"

    @property
    def leaderboard_markdown(self) -> Path:
        """The ranking, for people."""
        return self.path / "LEADERBOARD.md"

    @property
    def best(self) -> Path:
        """The bundle of the leader."""
        return self.path / "best"

    @property
    def retrained(self) -> Path:
        """Bundles of full trainings."""
        return self.path / "retrained"

    @property
    def phantoms(self) -> Path:
        """The kidneys a search made itself."""
        return self.path / "phantoms"

    def worker_log(self, index: int) -> Path:
        """What a worker process printed between trials."""
        return self.path / f"worker-{index}.log"

    def retraining(self, name: str) -> TrialFolder:
        """What a full training leaves until its bundle is complete."""
        return TrialFolder(self.retrained / f"{name}.work")

    def retraining_lock(self, name: str) -> Path:
        """Held by the process that trains it."""
        return self.retrained / f".{name}.lock"

    def cells(self, identity: str) -> CellsFolder:
        """The folder of a supernet, whether or not it exists."""
        return CellsFolder(self.path / "cells" / identity)

    def cell_folders(self) -> list[tuple[str, CellsFolder]]:
        """Id and folder of every supernet that has one, in order."""
        return [(path.name, CellsFolder(path)) for path in sorted(self.path.glob("cells/*")) if path.is_dir()]

    @property
    def is_begun(self) -> bool:
        """Whether a search has left anything here beside its configuration; who copies a run may leave out a part."""
        kept = (
            self.trials, self.identity, self.journal, self.mark, self.plan, self.buildable, self.leaderboard_json,
            self.leaderboard_markdown, self.best, self.retrained,
        )  # fmt: skip
        return any(place.exists() for place in kept)

    @property
    def named(self) -> str:
        """How `nas search` is told to go on with this run."""
        return f"--run {shlex.quote(str(self.path))}"

    @property
    def option(self) -> str:
        """What another command needs to mean this run: nothing if it is the latest, otherwise " --run PATH"."""
        with suppress(InputError, OSError):
            if _latest().resolve() == self.path.resolve():
                return ""
        return f" {self.named}"

    def trial(self, number: int) -> TrialFolder:
        """The folder of a trial, whether or not it exists."""
        return TrialFolder(self.trials / f"{number:04d}")

    def trial_folders(self) -> list[tuple[int, TrialFolder]]:
        """Number and folder of every trial that has one, in order."""
        if not self.trials.is_dir():
            return []
        names = sorted((p.name for p in self.trials.iterdir() if p.name.isdecimal()), key=int)
        return [(int(name), TrialFolder(self.trials / name)) for name in names]


def create(path: Path) -> RunFolder:
    """The run folder at `path`, made if it does not exist.

    Raises InputError if it cannot be written, or if a link in it leads out of it.
    """
    if not str(path.absolute()).isprintable():
        raise InputError(f"the run folder {path}: its path is not readable text (UTF-8); choose another with --run")
    refuse_outward(path, writes=True)
    try:
        (path / "trials").mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"the run folder {path} cannot be written: {error.strerror}; choose another with --run"
        ) from error
    return RunFolder(path)


def remember(folder: RunFolder) -> None:
    """Make a run below results/runs the latest: the one that commands mean if none is named."""
    if folder.path.resolve().parent == RUNS.resolve():
        write_atomically(RUNS / _LATEST, folder.path.name + "\n")


def find(path: Path | None, guarded: str | None = None, writes: bool = False) -> RunFolder:
    """The run folder given, or the latest below results/runs.

    guarded: a folder in it of which the caller follows no link. writes: whether the caller adds to its files. Raises
    InputError if there is none, or if a link in it leads out of it.
    """
    if path is None:
        path = _latest()
    if not (path / "config.toml").is_file():
        raise InputError(
            f"{path} is not a run folder: it has no config.toml; start one with "
            f"`nas search --run {shlex.quote(str(path))}`"
        )
    refuse_outward(path, guarded, writes)
    return RunFolder(path)


def refuse_outward(path: Path, guarded: str | None = None, writes: bool = False) -> None:
    """Raise InputError for a link in a run folder that leads out of it. guarded, writes: as in `find`."""
    refuse_links(path, guarded, _JOURNAL, lambda name: writes and name.endswith(_APPENDED))


def _latest() -> Path:
    """The folder that `remember` named last."""
    pointer = RUNS / _LATEST
    if not os.path.lexists(pointer):
        raise InputError(f"no run below {RUNS}; start one with `nas search`, or name a folder with --run")
    if not pointer.is_file():
        raise InputError(f"{pointer} is not a file that names the latest run: remove it, and name the run with --run")
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()
    found = next((path for path in RUNS.iterdir() if path.name == name and path.is_dir()), None)
    if found is None:
        raise InputError(f"{pointer} does not name a folder below {RUNS}; name one with --run")
    return found
