"""A search that is disturbed: killed, told to stop, or given trials that cannot work."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from command_line import nas

pytestmark = pytest.mark.slow


def _rows(run: Path) -> list[dict]:  # type: ignore[type-arg]
    return json.loads((run / "leaderboard.json").read_text())["rows"]  # type: ignore[no-any-return]


def _begin(folder: Path, config: Path, cache: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "nas", "search", str(config), "--run", str(folder)]
    command += ["--set", "study.checkpoint_seconds=0", *more]
    environment = {**os.environ, "NAS_CACHE": str(cache)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait(driver: subprocess.Popen[str], there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not there() and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert there(), driver.communicate() if driver.poll() is not None else "too slow"


def _same(run: Path, other: Path) -> None:
    """Everything in the rows except times and memory, bit for bit."""
    spent = {"train_seconds", "peak_memory_gib"}
    mine, theirs = ([{k: v for k, v in row.items() if k not in spent} for row in _rows(r)] for r in (run, other))
    assert mine == theirs


def test_a_search_that_was_killed_ends_as_an_unbroken_one(run: Path, config: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    for place in ("trials/0001/record.json", "trials/0002/checkpoint/step-*"):
        driver = _begin(folder, config, cache)
        _wait(driver, lambda there=place: list(folder.glob(there)))  # type: ignore[misc]
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
    nas("search", config, "--run", folder, cache=cache)
    _same(folder, run)


def test_a_worker_that_was_killed_costs_its_trial_an_attempt_and_no_step(
    run: Path, config: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "struck"
    driver = _begin(folder, config, cache)
    _wait(driver, lambda: list(folder.glob("trials/0000/checkpoint/step-*")))
    (worker,) = psutil.Process(driver.pid).children()
    worker.kill()
    printed, _ = driver.communicate(timeout=400)
    assert driver.returncode == 0
    assert "note: trial 0: the worker was killed (signal 9)" in printed
    assert "attempt 2 of 3 resumes it" in printed
    _same(folder, run)


def test_a_trial_whose_workers_die_again_and_again_is_given_up(config: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "struck"
    long = ("--set", "fit.steps=100000", "--set", "study.rungs=0", "--trials", "0", "--set", "study.attempts=2")
    driver = _begin(folder, config, cache, *long)
    failed, reached = folder / "trials/0000/attempts.jsonl", 0
    for attempt in range(2):
        _wait(driver, lambda n=attempt, r=reached: len(_lines(failed)) == n and _newest_step(folder) > r)  # type: ignore[misc]
        reached = _newest_step(folder)
        (worker,) = psutil.Process(driver.pid).children()
        worker.send_signal(signal.SIGSEGV)
    driver.communicate(timeout=400)
    assert driver.returncode == 1
    (row,) = _rows(folder)
    assert row["state"] == "failed"
    assert row["reason"] == "the worker was killed by signal 11, 2 times"
    assert "trial 0 failed: the worker was killed by signal 11" in nas("status", "--run", folder, cache=cache).stdout


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


def _newest_step(folder: Path) -> int:
    """The newest step of trial 0's checkpoints; 0 if there is none."""
    steps = [int(path.name.removeprefix("step-")) for path in folder.glob("trials/0000/checkpoint/step-*")]
    return max(steps, default=0)


def test_after_a_signal_the_workers_leave_and_the_same_command_continues(
    run: Path, config: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    driver = _begin(folder, config, cache)
    _wait(driver, lambda: list(folder.glob("trials/0001/checkpoint/step-*")))
    (worker,) = psutil.Process(driver.pid).children()
    driver.send_signal(signal.SIGTERM)
    printed, _ = driver.communicate(timeout=100)
    assert driver.returncode == 1
    assert "running trials write a checkpoint and leave; the same command continues them" in printed
    assert not worker.is_running()
    again = nas("search", config, "--run", folder, cache=cache)
    assert "trial 1: " in again.stdout
    _same(folder, run)


def test_trials_that_all_fail_stop_the_search_with_a_diagnosis(config: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hopeless"
    more = ("--set", "space.fit.learning_rate={low=1e14,high=1e15}", "--trials", "8")
    done = nas("search", config, "--run", folder, *more, cache=cache, expect=1)
    assert (
        "of the last 5 trials failed or did not fit into memory (study.failing_share = 0.5); most often" in done.stderr
    )
    assert "the loss became" in done.stderr
    assert "log.txt" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert len(_rows(folder)) == 5


def test_hours_of_workers_limit_a_search_even_inside_a_trial(config: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "short"
    # Lengths that are searched are not planned.
    long = ["--set", "fit.steps=100000", "--set", "space.fit.steps=[100000, 100001]"]
    long += ["--set", "study.rungs=0", "--set", "study.gpu_hours=0.001"]
    done = nas("search", config, "--run", folder, *long, cache=cache, expect=1)
    assert "0.001 GPU hours are used" in done.stdout
    assert [row["state"] for row in _rows(folder)] == ["interrupted"]
    again = nas("search", config, "--run", folder, *long, cache=cache, expect=1)
    assert "trial 0" not in again.stdout


def _answers(process: int, number: int) -> bool:
    """Whether a process has a handler for a signal, as the kernel says."""
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text())
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_a_signal_before_the_search_began_is_answered_in_one_line(config: Path, cache: Path, tmp_path: Path) -> None:
    driver = _begin(tmp_path / "early", config, cache)
    _wait(driver, lambda: _answers(driver.pid, signal.SIGTERM))  # it imports
    driver.send_signal(signal.SIGTERM)
    _, printed = driver.communicate(timeout=240)
    assert (driver.returncode, printed.splitlines()[-1]) == (1, "nas: stopped; run the same command again to continue")
    assert not (tmp_path / "early" / "config.toml").exists()


def test_a_record_that_is_gone_is_named(run: Path, cache: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "copy")
    (folder / "trials/0001/record.json").unlink()
    printed = nas("search", "--run", folder, cache=cache).stdout
    assert "note: trial 1 has ended, but" in printed
    assert "is gone: it is not ranked" in printed


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for a part of a search."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_reported_in_one_line_and_the_search_can_continue(
    run: Path, config: Path, cache: Path, small_disk: Path
) -> None:
    folder = small_disk / "run"
    for mebibytes in (15, 40, 2000):
        (line,) = nas("search", config, "--run", folder, cache=cache, expect=1).stderr.strip().splitlines()
        assert line.startswith("nas: ")
        assert "no space left" in line.lower() or "disk" in line
        subprocess.run(["mount", "-o", f"remount,size={mebibytes}m", small_disk], check=True)
    nas("search", config, "--run", folder, cache=cache)
    _same(folder, run)
