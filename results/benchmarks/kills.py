"""A search that is killed again and again ends like one that ran without a stop: kills, lost steps, time to continue.

    python results/benchmarks/kills.py FOLDER [--kills 50] [--seed 0]

Runs one small search without disturbance. Then runs it again and again in fresh folders, and at random moments hits the
driver, the worker or both with SIGKILL, SIGTERM or SIGINT; after each hit on the driver the same command is given
again, until the search ends by itself. Every such search must have the leaderboard of the undisturbed one, bit for bit,
and no trial twice. Prints a report in Markdown.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

CONFIG = """
[study]
name = "kills"
trials = 4
random_trials = 2
rungs = 1
leaders = 1
seeds = 2
promotion = "none"
attempts = 1000
checkpoint_seconds = 1.0

[data]
hold_out = "phantom_3"

[phantom]
kidneys = 3
shape = [32, 64, 64]

[space]
families = ["unet", "cells"]

[space.fit]
loss = ["dice", "dice + bce"]
crop = [32]
batch_size = [4]
learning_rate = { low = 1e-4, high = 1e-2, log = true }

[space.unet]
encoder = ["tu-resnet10t", "tu-mobilenetv3_small_100"]
slices_in = [3]

[space.cells]
slices_in = [8]
width = [4]

[space.cells.fit]
crop = [16]
batch_size = [2]

[cell_space]
level = "L1"
same = ["identity", "conv3", "dil3"]
nodes = 1
levels = 2

[cell_search]
steps = 40
shrink_every = 5
perturbations = 1
perturbation_paths = 1
samples = 0
randoms = 1

[cell_search.supernets.cells]
crops = [16]
batch_size = 2
candidate = { slices_in = 8, width = 4 }

[fit]
steps = 40
crop = 32
batch_size = 4
learning_rate = 3e-3
augmentation = "flips"
"""
SPENT = {"train_seconds", "peak_memory_gib"}  # of a row; everything else must be equal
BLOWS = [
    *[(who, signal.SIGKILL) for who in ("driver", "worker", "both")],
    *[("driver", number) for number in (signal.SIGTERM, signal.SIGINT)],
]


@dataclass
class Figures:
    """What was done and what it cost."""

    blows: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    lost_steps: list[int] = field(default_factory=list)
    seconds_to_go_on: list[float] = field(default_factory=list)
    runs: int = 0
    different: list[str] = field(default_factory=list)


def begin(config: Path, folder: Path, cache: Path) -> tuple[subprocess.Popen[str], list[tuple[float, str]]]:
    """The search in a process; its lines arrive in the list with the time they came."""
    command = [sys.executable, "-m", "nas", "search", str(config), "--run", str(folder)]
    environment = {**os.environ, "NAS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    driver = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    lines: list[tuple[float, str]] = []

    def read() -> None:
        assert driver.stdout is not None
        for line in driver.stdout:
            lines.append((time.monotonic(), line.rstrip()))

    threading.Thread(target=read, daemon=True).start()
    return driver, lines


def rows(folder: Path) -> list[dict[str, Any]]:
    """The leaderboard without the values that differ between any two runs."""
    found = json.loads((folder / "leaderboard.json").read_text())["rows"]
    return [{key: value for key, value in row.items() if key not in SPENT} for row in found]


def newest_step(checkpoints: Path) -> int:
    """The newest step of the checkpoints in a folder; 0 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*")), default=0)


def lost(folder: Path) -> int | None:
    """Steps that were trained and lie in no checkpoint, of the trial or cell search that was being trained."""
    for place in (*folder.glob("trials/*"), *folder.glob("cells/*")):
        ended = (place / "record.json").is_file() or (place / "findings.json").is_file()
        curve = next((place / n for n in ("losses.jsonl", "history.jsonl") if (place / n).is_file()), None)
        if ended or curve is None:
            continue
        steps = [json.loads(line)["step"] for line in curve.read_text().splitlines() if line.endswith("}")]
        if steps:
            return max(0, steps[-1] - newest_step(place / "checkpoint"))
    return None


def where(lines: list[tuple[float, str]], folder: Path) -> str:
    """What the search was doing, from its last message and the files in its folder."""
    if not lines or not (folder / "study.journal").is_file():
        return "making or converting volumes, checks"
    if (folder / "best").exists() or any(path.name.startswith(".best") for path in folder.iterdir()):
        return "exporting"
    if any((place / "scratch").is_dir() for place in folder.glob("trials/*")):
        return "scoring"
    last = next((line for _, line in reversed(lines) if line.startswith(("trial", "cell search"))), "")
    if not last:
        return "starting workers"
    if last.startswith("cell search"):
        return "searching cells" if ": complete" not in last else "between trials"
    return "between trials" if ", surface dice" in last or ": complete" in last else "training"


def strike(driver: subprocess.Popen[str], who: str, number: int) -> None:
    """Hit the driver, its workers, or all of them."""
    try:
        workers = psutil.Process(driver.pid).children()
    except psutil.NoSuchProcess:
        workers = []
    if who in ("driver", "both"):
        driver.send_signal(number)
    if who in ("worker", "both"):
        for worker in workers:
            worker.kill()


def disturbed(config: Path, folder: Path, cache: Path, rng: random.Random, longest: float, figures: Figures) -> None:
    """One search to its end, with a hit every few seconds."""
    struck: float | None = None
    while True:
        driver, lines = begin(config, folder, cache)
        while driver.poll() is None:
            until = time.monotonic() + rng.uniform(0.0, longest)
            while driver.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            if driver.poll() is not None:
                break
            who, number = rng.choice(BLOWS)
            figures.blows[f"{who}, {signal.Signals(number).name}"] += 1
            figures.places[where(lines, folder)] += 1
            strike(driver, who, number)
            if who == "worker":
                continue
            driver.wait()
            if number == signal.SIGKILL and (steps := lost(folder)) is not None:
                figures.lost_steps.append(steps)
        if struck is not None:
            works = [at for at, line in lines if line.startswith(("trial", "cell search"))]
            if works:
                figures.seconds_to_go_on.append(works[0] - struck)
        if driver.returncode == 0:
            return
        struck = time.monotonic()


def main() -> None:
    """Run, compare, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    root = arguments.folder
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    config, cache = root / "kills.toml", root / "cache"
    config.write_text(CONFIG)
    began = time.monotonic()
    driver, _ = begin(config, root / "whole", cache)
    assert driver.wait() == 0
    whole, expected = time.monotonic() - began, rows(root / "whole")
    rng, figures = random.Random(arguments.seed), Figures()
    while figures.blows.total() < arguments.kills:
        folder = root / f"struck-{figures.runs}"
        # Every second search has its own cache, so that the hits also strike the conversion of volumes.
        own = root / f"cache-{figures.runs}" if figures.runs % 2 else cache
        if own != cache:  # timings differ from one measurement to the next, and with them the cells that are found
            shutil.copytree(cache / "costs", own / "costs")
        disturbed(config, folder, own, rng, whole / 2, figures)
        figures.runs += 1
        found = rows(folder)
        twice = [n for n, count in Counter(row["trial"] for row in found).items() if count > 1]
        if found != expected or twice:
            figures.different.append(folder.name)
        print(
            f"{folder.name}: {figures.blows.total()} blows, {'equal' if found == expected else 'DIFFERENT'}", flush=True
        )
    report(figures, whole)


def report(figures: Figures, whole: float) -> None:
    """As Markdown."""
    steps, seconds = figures.lost_steps, figures.seconds_to_go_on
    print(f"\n{figures.blows.total()} hits in {figures.runs} searches; undisturbed, one takes {whole:.0f} s.")
    print(f"Leaderboards that differ from the undisturbed one: {len(figures.different)}.\n")
    print("| hit | times |\n|---|---:|")
    for name, count in sorted(figures.blows.items()):
        print(f"| {name} | {count} |")
    print("\n| while | times |\n|---|---:|")
    for name, count in figures.places.most_common():
        print(f"| {name} | {count} |")
    if steps:
        print(f"\nSteps lost by a SIGKILL in training: median {statistics.median(steps):g}, worst {max(steps)}.")
    if seconds:
        print(
            f"From giving the command again to continuing the work: median {statistics.median(seconds):.1f} s, "
            f"worst {max(seconds):.1f} s."
        )


if __name__ == "__main__":
    main()
