"""Many workers, many short trials: nothing twice, nothing lost, little time spent in the driver, constant memory.

    python results/benchmarks/eight_workers.py FOLDER [--workers 8] [--trials 200]

Runs `nas search` with more workers than cores, and watches the CPU time and memory of driver and workers from
outside. Prints a report in Markdown.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

CONFIG = """
[study]
name = "eight"
random_trials = 20
rungs = 1
leaders = 0
promotion = "halving"

[data]
hold_out = "phantom_3"

[phantom]
kidneys = 3
shape = [32, 64, 64]

[space.unet]
encoder = ["tu-resnet10t", "tu-mobilenetv3_small_100"]
decoder = ["Unet", "FPN"]
slices_in = [1, 3, 5]

[space.fit]
loss = ["dice", "dice + bce", "dice + focal"]
batch_size = [4, 8]
learning_rate = { low = 1e-4, high = 1e-2, log = true }
vessel_share = { low = 0.3, high = 1.0 }

[fit]
steps = 30
crop = 32
batch_size = 4
augmentation = "flips"
"""
EVERY = 2.0  # seconds between looks
MIB = 2**20


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Run, watch, report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=200)
    arguments = parser.parse_args()
    root, run = arguments.folder, arguments.folder / "run"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    (root / "eight.toml").write_text(CONFIG)
    command = [sys.executable, "-m", "nas", "search", str(root / "eight.toml"), "--run", str(run)]
    command += ["--workers", str(arguments.workers), "--trials", str(arguments.trials)]
    began = time.monotonic()
    with (root / "log.txt").open("w") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "NAS_CACHE": str(root / "cache")})
    watched = psutil.Process(driver.pid)
    spent: dict[int, float] = {}  # CPU seconds by process
    start: float | None = None  # of the driver, when the first trial began
    memory: dict[int, list[tuple[int, float]]] = {}  # process -> (trials ended, MiB)
    while driver.poll() is None:
        ended = len(list(run.glob("trials/*/record.json")))
        try:
            workers = watched.children()
            if start is None and any(run.glob("trials/*")):
                start, began = cpu_seconds(watched), time.monotonic()
            for process in (watched, *workers):
                spent[process.pid] = cpu_seconds(process)
                memory.setdefault(process.pid, []).append((ended, process.memory_info().rss / MIB))
        except psutil.NoSuchProcess:
            pass
        time.sleep(EVERY)
    wall = time.monotonic() - began
    assert driver.returncode == 0, (root / "log.txt").read_text()[-2000:]
    report(run, arguments.workers, wall, driver.pid, start or 0.0, spent, memory)


def report(
    run: Path,
    workers: int,
    wall: float,
    driver: int,
    start: float,
    spent: dict[int, float],
    memory: dict[int, list[tuple[int, float]]],
) -> None:
    """As Markdown."""
    records = [json.loads(path.read_text()) for path in sorted(run.glob("trials/*/record.json"))]
    jobs = [{**record["job"], "trial": None, "name": None} for record in records]
    doubled = len(jobs) - len({json.dumps(job, sort_keys=True) for job in jobs})
    numbers = [record["job"]["trial"] for record in records]
    missing = set(range(len(numbers))) - set(numbers)
    states = Counter(record["outcome"]["state"] for record in records)
    own, whole = spent[driver] - start, sum(spent.values()) - start
    print(f"{len(records)} trials with {workers} workers in {wall:.0f} s: {dict(states)}.")
    print(f"Suggestions that were made twice: {doubled}. Trials without a record: {len(missing)}.")
    print(
        f"CPU from the first trial on: driver {own:.1f} s ({own / len(records):.3f} s a trial), all processes "
        f"{whole:.0f} s: the driver's share is {100 * own / whole:.2f} % ({100 * own / wall:.2f} % of one core).\n"
    )
    print("| process | MiB at a quarter of the trials | at half | at the end |\n|---|---:|---:|---:|")
    kept = [pid for pid in memory if pid != driver and len(memory[pid]) > 20]
    for name, pids in [("driver", [driver]), (f"workers, median of {len(kept)}", kept)]:
        at = [
            statistics.median(
                statistics.median(mib for ended, mib in memory[pid] if abs(ended - share * len(records)) <= 10)
                for pid in pids
            )
            for share in (0.25, 0.5, 1.0)
        ]
        print(f"| {name} | {at[0]:.0f} | {at[1]:.0f} | {at[2]:.0f} |")


if __name__ == "__main__":
    main()
