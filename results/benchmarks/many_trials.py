"""A study of thousands of trials: what the driver itself costs, and how long the commands take to answer.

    python results/benchmarks/many_trials.py FOLDER [--trials 2000] [--workers 16]

The driver, its executor, the study and the run folder are the real ones; the workers are stand-ins in the same process
that answer every job at once with a made-up score, so that all the time that passes is the driver's. Then `nas status`,
`nas leaderboard` and `nas search` (up to its first task for a worker) are timed on the result, each in a process of its
own, and the dashboard's server is sent the requests that its page makes. Prints a report in Markdown.
"""

import argparse
import os
import queue
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from nas.config.read import parse_config
from nas.config.write import write_config
from nas.jobs.kidneys import check_same_data, open_fold
from nas.jobs.task import Task, TrialTask
from nas.search.driver import Driver
from nas.search.plan_rows import PlanRow
from nas.study.buildable import find_buildable
from nas.study.study import open_study
from nas.workers.executor import Executor
from nas.workers.launcher import Received
from nas.workers.protocol import Ended, Order, Progress, Ready, Scored, Start
from results.leaderboard.leaderboard import Leaderboard
from results.record import Job, Outcome
from results.run_folder import RunFolder, create
from trainers.metrics.score import Score, Slab, VolumeScore

SLABS = 16
CONFIG = {
    "study": {"name": "many", "seeds": 1, "random_trials": 12},
    "data": {"hold_out": "phantom_3"},
    "phantom": {"kidneys": 3, "shape": [24, 48, 48]},
    "space": {
        "unet": {
            "encoder": ["resnet18", "resnet34", "resnet50", "efficientnet-b0", "efficientnet-b5", "mit_b2"],
            "decoder": ["Unet", "UnetPlusPlus", "FPN", "MAnet"],
            "slices_in": [1, 3, 5],
        },
        "fit": {
            "loss": ["dice", "dice + focal", "dice + bce", "tversky", "lovasz"],
            "batch_size": [4, 8],
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "vessel_share": {"low": 0.3, "high": 1.0},
        },
    },
    "fit": {"steps": 90, "crop": 32, "batch_size": 4},
}


def made_up(job: Job) -> Score:
    """A score that depends on the candidate and on chance, in slabs."""
    rng = np.random.default_rng(job.trial)
    rate = np.log10(job.fit.learning_rate) + 3
    dice = float(np.clip(0.7 - 0.1 * rate**2 + 0.05 * (job.candidate.slices_in == 3) + rng.normal(0, 0.02), 0.01, 0.99))
    total = rng.uniform(100, 1000, SLABS)
    parts = np.clip(dice + rng.normal(0, 0.05, SLABS), 0, 1) * total
    slabs = tuple(
        Slab(volume="phantom_3", threshold=0.5, parts={"surface_dice": (float(o), float(t))})
        for o, t in zip(parts, total, strict=True)
    )
    return Score(
        rank_by="surface_dice",
        values={"surface_dice": dice, "voxel_dice": dice},
        ci_low=dice - 0.02,
        ci_high=dice + 0.02,
        threshold=0.5,
        best=dice,
        mean_over_thresholds=dice,
        volumes=(VolumeScore(volume="phantom_3", values={"surface_dice": dice, "voxel_dice": dice}),),
        slabs=slabs,
    )


@dataclass
class StandIn:
    """A stand-in worker that answers at once."""

    inbox: "queue.Queue[Received]"
    log: Path
    device: str = "none"
    task: str | None = None
    since: float = 0.0
    started: float = 0.0
    ready: bool = False

    def open(self) -> None:
        self.inbox.put((self, Ready(device=self.device)))

    def send(self, message: Order) -> None:
        if not isinstance(message, Start):
            return
        assert isinstance(message.task, TrialTask)
        job, facts = message.task.job, {"step": 90, "parameters": 10**7, "train_seconds": 60.0, "seconds": 70.0}
        found = made_up(job)
        if job.until is None:
            outcome = Outcome(state="complete", score=found, **facts)
        else:
            outcome = Outcome(state="paused", so_far=found.value * job.until / 90, **{**facts, "step": job.until})
        self.inbox.put((self, Ended(task=message.task.id, outcome=outcome)))

    def close_input(self) -> None:
        return None

    def end(self, at_once: bool) -> None:
        return None


@dataclass(frozen=True)
class StandIns:
    """Starts the stand-in workers."""

    workers: int

    def devices(self) -> list[str]:
        return ["none"] * self.workers

    def threads(self, workers: int) -> int:
        return 1

    def start(self, device: str, threads: int, log: Path, inbox: "queue.Queue[Received]") -> StandIn:
        return StandIn(inbox, log)

    def close(self) -> None:
        return None


@dataclass
class Clock:
    """A view that notes when trials end, and how much memory the driver holds then."""

    ends: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def ended(self, task: Task, outcome: Outcome, board: Leaderboard | None) -> None:
        self.ends.append(time.process_time())
        if len(self.ends) % 100 == 0:
            self.memory.append(psutil.Process().memory_info().rss)
            print(f"{len(self.ends)} trials, {time.process_time():.0f} s of CPU", file=sys.stderr, flush=True)

    def note(self, text: str) -> None: ...
    def working(self, what: str, done: int, total: int) -> None: ...
    def plan(self, candidates: int, finished: int, minutes_left: float | None) -> None: ...
    def planned(self, rows: Sequence[PlanRow]) -> None: ...
    def started(self, task: Task, description: str, resumed: bool) -> None: ...
    def progress(self, event: Progress) -> None: ...
    def scored(self, task: Task, event: Scored) -> None: ...


def answered(arguments: list[str], until: str | None = None) -> float:
    """Seconds from a command to its end, or to the first line that begins with `until`, when it is told to stop."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "nas", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as command:
        assert command.stdout is not None
        for line in command.stdout:
            if until is not None and line.startswith(until):
                seconds = time.monotonic() - began
                command.terminate()
                command.communicate()
                return seconds
        assert command.wait() == 0 and until is None
    return time.monotonic() - began


def dashboard(folder: Path) -> list[tuple[str, float]]:
    """Seconds from the start to the page, and for each of the requests that the page makes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    began = time.monotonic()
    server = subprocess.Popen(
        [sys.executable, "-m", "nas", "dashboard", "--run", str(folder), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    found = []
    try:
        for name, path in [
            ("its page", "dashboard/studies/0"),
            ("the list of studies", "api/studies"),
            ("all trials of the study", "api/studies/0?after=0"),
            ("the same once more", "api/studies/0?after=0"),
            ("what is new since", "api/studies/0?after=2000"),
            ("the importance of parameters", "api/studies/0/param_importances"),
        ]:
            while True:
                asked = time.monotonic()
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=600) as answer:
                        size = len(answer.read())
                    break
                except (ConnectionError, urllib.error.URLError) as error:
                    if time.monotonic() - began > 60:
                        raise TimeoutError("the dashboard does not answer") from error
                    time.sleep(0.05)
            since = began if not found else asked
            found.append((f"{name} ({size / 1e6:.1f} MB)", time.monotonic() - since))
    finally:
        server.terminate()
        server.wait()
    return found


def fill(root: Path, trials: int, workers: int) -> None:
    """Search with stand-in workers; print what a trial costs the driver."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    config = parse_config({**CONFIG, "study": {**CONFIG["study"], "trials": trials}}, "many_trials")
    folder = create(root / "run")
    check_same_data(folder, [open_fold(config, folder)])
    folder.config.write_text(write_config(config))
    clock = Clock()
    possible = find_buildable(config)
    driver = Driver(open_study(folder, config), config, folder, ("phantom_3",), clock, possible)
    began = time.process_time()
    with Executor(StandIns(workers), folder.worker_log) as executor:
        executor.open()
        driver.run(executor)
    each = np.diff([began, *clock.ends])
    print(f"{len(each)} trials with {workers} stand-in workers.\n")
    print("| trials ended | CPU seconds per trial (mean of the last 100) | memory (MB) |\n|---:|---:|---:|")
    for last in sorted({100, 200, 500, 1000, trials}):
        if last <= len(each):
            memory = clock.memory[last // 100 - 1] / 1e6 if last >= 100 else 0
            print(f"| {last:,} | {each[max(0, last - 100) : last].mean():.3f} | {memory:.0f} |")
    print(f"\nJournal: {folder.journal.stat().st_size / 1e6:.0f} MB.\n")


def main() -> None:
    """Fill a study, ask about it, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--ask-only", action="store_true", help="the folder was filled before")
    arguments = parser.parse_args()
    os.environ["NAS_CACHE"] = str(arguments.folder / "cache")
    folder = RunFolder(arguments.folder / "run")
    if not arguments.ask_only:
        fill(arguments.folder, arguments.trials, arguments.workers)
    run = ["--run", str(folder.path)]
    more = ["--trials", str(arguments.trials + 1)]
    answered(["search", *run, *more], "trial ")  # a real search would already have built its space
    print("| command | seconds (median of 3) |\n|---|---:|")
    for name, words, until in [
        ("nas --help", ["--help"], None),
        ("nas status", ["status", *run], None),
        ("nas leaderboard", ["leaderboard", *run], None),
        ("nas search, to the first trial", ["search", *run, *more], "trial "),
    ]:
        print(f"| `{name}` | {statistics.median(answered(words, until) for _ in range(3)):.2f} |", flush=True)
    print("\n| of the dashboard | seconds |\n|---|---:|")
    for name, seconds in dashboard(folder.path):
        print(f"| {name} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
