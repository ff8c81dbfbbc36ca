"""The best designs trained in full, one after the other, and read as one network."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
from command_line import nas

from nas.retrain_top import retrain_top, top_count
from search_spaces.errors import InputError

pytestmark = pytest.mark.slow


def _stopped_in_the_second(run: Path, cache: Path) -> str:
    """Begin `nas retrain top2`, and stop it by Ctrl-C when its first bundle is whole; what it said last."""
    command = [sys.executable, "-m", "nas.cli", "retrain", "top2", "--run", str(run)]
    environment = {**os.environ, "NAS_CACHE": str(cache)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **quiet) as one:  # type: ignore[call-overload]
        until = time.monotonic() + 300
        while not any(p.suffix == ".work" for p in (run / "retrained").glob("trial-*")) or not _bundles(run):
            assert one.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        one.send_signal(signal.SIGTERM)  # SIGINT is ignored by what a shell started in the background
        _, errors = one.communicate(timeout=300)
    assert one.returncode == 1
    return errors


def _bundles(run: Path) -> list[str]:
    return sorted(p.parent.name for p in (run / "retrained").glob("trial-????/architecture.json"))


def test_top2_goes_on_after_a_stop_and_scores_as_predict_does(run: Path, cache: Path, tmp_path: Path) -> None:
    assert "the same command goes on" in _stopped_in_the_second(run, cache)
    assert len(_bundles(run)) == 1
    done = json.loads(nas("retrain", "top2", "--run", run, "--json", cache=cache).stdout)
    best = [row["trial"] for row in json.loads((run / "leaderboard.json").read_text())["rows"][:2]]
    assert [(member["trial"], member["kept"]) for member in done["members"]] == [(best[0], True), (best[1], False)]
    scan = run / "phantoms" / "train" / "phantom_3"
    ask = ("--score", "--json", "--out")
    found = json.loads(nas("predict", done["ensemble"], scan, *ask, tmp_path / "a.npy", cache=cache).stdout)
    assert found["threshold"] == done["threshold"]
    assert found["score"]["surface_dice"] == pytest.approx(done["score"]["surface_dice"], abs=1e-6)
    assert found["mask_surface_dice"] == pytest.approx(done["score"]["best_surface_dice"], abs=1e-6)
    # The same bundles by name, in one line of the shell.
    loose = [member["bundle"] for member in done["members"]]
    cut = ("--threshold", str(done["threshold"]))
    again = json.loads(nas("predict", *loose, scan, *cut, *ask, tmp_path / "b.npy", cache=cache).stdout)
    assert again["score"] == found["score"]
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    answer = nas("retrain", "top2", "--run", run, cache=cache, expect=1)
    assert "top2 is there already" in answer.stderr


def _refused(run: Path, count: int, on: Literal["train", "all"]) -> str:
    with pytest.raises(InputError) as caught:
        retrain_top(run, count, on=on, steps=None, overrides=[], on_progress=lambda *_: None, on_note=lambda _: None)
    return str(caught.value)


def test_an_ensemble_of_more_designs_than_there_are_is_refused(run: Path) -> None:
    assert "3 ranked designs, fewer than 9" in _refused(run, 9, "train")


def test_one_design_is_no_ensemble() -> None:
    with pytest.raises(InputError, match=r"top1: an ensemble has two members or more"):
        top_count("top1")
    assert (top_count("top12"), top_count("best"), top_count("7")) == (12, None, None)


def test_training_on_all_kidneys_takes_the_threshold_that_was_found_before(run: Path, cache: Path) -> None:
    assert "first run `nas retrain top3`" in _refused(run, 3, "all")
    known = json.loads((run / "retrained" / "top2" / "ensemble.json").read_text())
    done = json.loads(nas("retrain", "top2", "--on", "all", "--run", run, "--json", cache=cache).stdout)
    assert (done["threshold"], done["score"]) == (known["threshold"], None)
    assert Path(done["ensemble"]).name == "top2-all"
