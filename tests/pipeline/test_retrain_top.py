"""The best designs trained in full, one after the other, and read as one network."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import pytest
from command_line import nas

from nas.bundles.predict import predict_paths
from nas.bundles.requests import PredictRequest, RetrainRequest, Side
from nas.bundles.retrain_top import TopTrained, retrain_top, top_count
from results.bundles.architecture import Architecture
from results.bundles.bundle import read_architecture, rewrite_description
from results.bundles.ensemble import Ensemble, read_ensemble, write_ensemble
from search_spaces.errors import InputError

pytestmark = pytest.mark.slow

D = TypeVar("D", Architecture, Ensemble)


def _stopped_in_the_second(run: Path, cache: Path) -> str:
    """Begin `nas retrain top2` and stop it by Ctrl-C when its first bundle is complete; returns its last output."""
    command = [sys.executable, "-m", "nas", "retrain", "top2", "--run", str(run)]
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


@pytest.fixture(scope="module")
def top2(run: Path, cache: Path) -> dict[str, Any]:
    """What `nas retrain top2` said when it continued after a stop in the second training."""
    assert "run the same command again to continue" in _stopped_in_the_second(run, cache)
    assert len(_bundles(run)) == 1
    answer: dict[str, Any] = json.loads(nas("retrain", "top2", "--run", run, "--json", cache=cache).stdout)
    return answer


def test_top2_continues_after_a_stop_and_scores_as_predict_does(
    run: Path, cache: Path, top2: dict[str, Any], tmp_path: Path
) -> None:
    done = top2
    best = [row["trial"] for row in json.loads((run / "leaderboard.json").read_text())["rows"][:2]]
    assert [(member["trial"], member["kept"]) for member in done["members"]] == [(best[0], True), (best[1], False)]
    scan = run / "phantoms" / "train" / "phantom_3"
    ask = ("--score", "--json", "--out")
    found = json.loads(nas("predict", done["ensemble"], scan, *ask, tmp_path / "a.npy", cache=cache).stdout)
    reading = done["reading"]
    dice = reading["score"]["values"]["surface_dice"]
    assert found["threshold"] == reading["threshold"]
    assert found["score"]["values"]["surface_dice"] == pytest.approx(dice, abs=1e-6)
    assert found["mask_values"]["surface_dice"] == pytest.approx(reading["score"]["best"], abs=1e-6)
    # The same bundles by name, in one line of the shell.
    loose = [member["bundle"] for member in done["members"]]
    cut = ("--threshold", str(reading["threshold"]))
    again = json.loads(nas("predict", *loose, scan, *cut, *ask, tmp_path / "b.npy", cache=cache).stdout)
    assert again["score"] == found["score"]
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    answer = nas("retrain", "top2", "--run", run, cache=cache, expect=1)
    assert "top2 already exists" in answer.stderr


def _make(run: Path, count: int, on: Side) -> TopTrained:
    return retrain_top(RetrainRequest(f"top{count}", on=on, run=run), count)


def _refused(run: Path, count: int, on: Side) -> str:
    with pytest.raises(InputError) as caught:
        _make(run, count, on)
    return str(caught.value)


def test_an_ensemble_of_more_designs_than_there_are_is_refused(run: Path) -> None:
    assert "3 ranked designs, fewer than 9" in _refused(run, 9, "train")


def test_one_design_is_no_ensemble() -> None:
    with pytest.raises(InputError, match=r"top1: an ensemble needs at least two members"):
        top_count("top1")
    assert (top_count("top12"), top_count("best"), top_count("7")) == (12, None, None)


def _top2(run: Path, on: Side) -> tuple[Ensemble, list[Architecture]]:
    """The ensemble of the two best, made in this process, and its members."""
    done = _make(run, 2, on)
    return read_ensemble(done.ensemble), [read_architecture(member.bundle) for member in done.members]


def read_otherwise(described: D, **changes: object) -> D:
    """Change how a bundle or an ensemble is read."""
    return described.model_copy(update={"reading": described.reading.model_copy(update=changes)})


def _best_dice(run: Path, ensemble: str) -> float:
    """Surface dice of an ensemble's masks on the held-out kidney, at its best threshold."""
    found = predict_paths(
        PredictRequest(
            [run / "retrained" / ensemble, run / "phantoms" / "train" / "phantom_3"],
            out=run / f"{ensemble}.npy",
            score=True,
            device="cpu",
        )
    )
    assert found.score is not None
    return found.score.best


def test_bundles_trained_on_all_kidneys_are_read_like_those_that_held_one_out(
    run: Path, cache: Path, top2: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAS_CACHE", str(cache))
    assert "first run `nas retrain top3 --run " in _refused(run, 3, "all")
    # As `nas tune` leaves a bundle: read otherwise, at another threshold.
    first = Path(top2["members"][0]["bundle"])
    before = read_architecture(first)
    inference = before.reading.inference.model_copy(update={"symmetries": "flips", "smallest_component": 16})
    tuned = {"inference": inference, "threshold": 0.125, "tuned_on": before.provenance.held_out_volumes}
    rewrite_description(first, read_otherwise(before, **tuned))
    assert f"{first} has changed since" in _refused(run, 2, "all")
    shutil.rmtree(top2["ensemble"])
    known, ways = _top2(run, "train")
    removing = {"smallest_component": 16 if known.reading.inference.smallest_component is None else None}
    other = read_otherwise(known, inference=known.reading.inference.model_copy(update=removing))
    write_ensemble(run / "retrained" / "other", other)
    reached = [_best_dice(run, name) for name in ("top2", "other")]
    assert reached[0] == max(reached)
    assert [way.reading.inference.smallest_component for way in ways] == [16, None]
    assert known.reading.tuned_on == before.provenance.held_out_volumes
    whole, members = _top2(run, "all")
    assert whole.reading == known.reading.unscored()
    assert [member.reading for member in members] == [way.reading.unscored() for way in ways]
    assert members[0].reading.threshold == 0.125
    # Tuned again since: what was trained on all kidneys is not trained again, and is read as its twin is now.
    rewrite_description(first, read_otherwise(read_architecture(first), threshold=0.25))
    for ensemble in ("top2", "top2-all"):
        shutil.rmtree(run / "retrained" / ensemble)
    _top2(run, "train")
    _, members = _top2(run, "all")
    assert [member.reading.threshold for member in members] == [0.25, ways[1].reading.threshold]
