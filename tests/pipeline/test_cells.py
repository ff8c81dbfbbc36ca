"""The whole pipeline with searched cells, through the command line: one study, stopped and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from command_line import nas

TINY = """
[study]
name = "cells"
trials = 3
random_trials = 3
rungs = 1
leaders = 0
promotion = "none"

[data]
hold_out = "phantom_3"

[phantom]
kidneys = 3
shape = [24, 48, 48]

[space]
families = ["cells", "hybrid"]

[space.fit]
loss = ["dice + bce"]
crop = [64]
learning_rate = { low = 1e-4, high = 1e-2, log = true }

[space.hybrid]
encoder = ["tu-resnet10t", "tu-mobilenetv3_small_100"]
slices_in = [3]
width = [4]

[space.cells]
slices_in = [8]
width = [4]

[space.cells.fit]
crop = [16]

[cell_space]
level = "L1"
same = ["identity", "conv3", "dil3"]
nodes = 1
levels = 2

[cell_search]
steps = 8
shrink_every = 2
perturbations = 1
perturbation_paths = 1
samples = 1
randoms = 1

[cell_search.supernets.cells]
crops = [16]
batch_size = 2
candidate = { slices_in = 8, width = 4 }

[cell_search.supernets.hybrid]
crops = [64]
batch_size = 2
candidate = { encoder = "tu-mobilenetv3_small_100", slices_in = 3, width = 4 }

[fit]
steps = 6
crop = 64
batch_size = 2
learning_rate = 3e-3
augmentation = "flips"

[retrain]
steps = 6
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "cells.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, config: Path, cache: Path) -> Path:
    """A finished search over both families with cells."""
    folder = tmp_path_factory.mktemp("runs") / "cells"
    nas("search", config, "--run", folder, cache=cache)
    return folder


def _board(run: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((run / "leaderboard.json").read_text())  # type: ignore[no-any-return]


def _genotypes(run: Path) -> dict[str, str]:
    """Every genotype that the cell searches of a run found."""
    return {
        f"{findings.parent.name}/{name}": json.dumps(found["genotype"])
        for findings in sorted(run.glob("cells/*/findings.json"))
        for name, found in json.loads(findings.read_text())["genotypes"].items()
    }


def _first(run: Path, family: str) -> int:
    return next(int(row["trial"]) for row in _board(run)["rows"] if row["family"] == family)


pytestmark = pytest.mark.slow


def test_both_families_are_ranked_in_one_study(run: Path) -> None:
    rows = _board(run)["rows"]
    assert len(rows) == 3
    assert {row["family"] for row in rows} == {"cells", "hybrid"}
    assert all(row["state"] == "complete" for row in rows)
    assert {path.name for path in (run / "cells").iterdir()} == {"cells-16", "hybrid-64"}


def test_status_says_how_far_the_cell_searches_have_got(run: Path, cache: Path) -> None:
    status = json.loads(nas("status", "--run", run, "--json", cache=cache).stdout)
    assert status["cell_searches"] == {"cells-16": "complete", "hybrid-64": "complete"}
    assert "cell search cells-16: complete" in nas("status", "--run", run, cache=cache).stdout


def test_a_cell_search_leaves_its_genotypes_history_and_pictures(run: Path) -> None:
    for place in (run / "cells").iterdir():
        names = {path.name for path in place.iterdir()}
        assert {"findings.json", "history.jsonl", "alphas.png", "costs.json", "log.txt"} <= names
        drawn = {path.name for path in (place / "genotypes").iterdir()}
        assert {"likeliest.json", "likeliest.svg", "perturbation-1.json", "sample-1.json", "random-1.json"} <= drawn


def test_every_trial_has_a_picture_of_its_cells_in_the_dashboard(run: Path) -> None:
    for trial in sorted((run / "trials").iterdir()):
        assert (trial / "genotype.png").is_file()
    assert len(list((run / "artifacts").iterdir())) == 3 * 3  # curve, overlay and genotype of each trial


@pytest.mark.parametrize("family", ["cells", "hybrid"])
def test_a_winner_with_cells_is_retrained_exported_and_predicts_its_own_score(
    run: Path, cache: Path, tmp_path: Path, family: str
) -> None:
    trial = _first(run, family)
    done = json.loads(nas("retrain", str(trial), "--run", run, "--onnx", "--json", cache=cache).stdout)
    bundle = Path(done["bundle"])
    assert (bundle / "model.onnx").is_file()
    (bundle / "model.onnx").unlink()
    again = nas("retrain", str(trial), "--run", run, "--onnx", cache=cache)
    assert "is there already; only its ONNX file is made" in again.stdout + again.stderr
    assert (bundle / "model.onnx").is_file()
    expected = done["record"]["outcome"]["score"]["values"]["surface_dice"]
    scan = run / "phantoms" / "train" / "phantom_3"
    found = json.loads(
        nas("predict", bundle, scan, "--score", "--json", "--out", tmp_path / "m.npy", cache=cache).stdout
    )
    assert found["score"]["values"]["surface_dice"] == pytest.approx(expected, abs=1e-6)
    shown = json.loads(nas("show", bundle, "--json", "--out", tmp_path / "g", cache=cache).stdout)
    assert shown["genotype"] == done["record"]["job"]["candidate"]["genotype"]
    assert (tmp_path / "g.svg").is_file()


def test_more_trials_choose_among_the_same_genotypes(run: Path, cache: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "cells"
    shutil.copytree(run, copy)
    before = _genotypes(copy)
    done = nas("search", "--run", copy, "--trials", "4", cache=cache)
    assert "cell search" not in done.stdout
    assert _genotypes(copy) == before
    assert len(_board(copy)["rows"]) == 4


def test_a_cell_search_that_was_killed_finds_the_genotypes_of_an_unbroken_one(
    run: Path, config: Path, cache: Path, tmp_path: Path
) -> None:
    folder, deadline = tmp_path / "killed", time.monotonic() + 240
    command = [sys.executable, "-m", "nas", "search", str(config), "--run", str(folder)]
    command += ["--set", "study.checkpoint_seconds=0"]
    driver = subprocess.Popen(command, env={**os.environ, "NAS_CACHE": str(cache)}, stdout=subprocess.DEVNULL)

    def wait_for_a_step_after(step: int) -> int:
        while driver.poll() is None and time.monotonic() < deadline:
            steps = [int(path.name.removeprefix("step-")) for path in folder.glob("cells/*/checkpoint/step-*")]
            if max(steps, default=0) > step:
                return max(steps)
            time.sleep(0.02)
        raise AssertionError("it ended too early, or took too long")

    reached = wait_for_a_step_after(0)
    (worker,) = psutil.Process(driver.pid).children()
    worker.kill()  # the driver starts another
    wait_for_a_step_after(reached)
    assert len(list(folder.glob("cells/*/failure.txt"))) == 0
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert "genotypes to train, resumed" in nas("search", "--run", folder, cache=cache).stdout
    assert _genotypes(folder) == _genotypes(run)
    broken, whole = _board(folder)["rows"], _board(run)["rows"]
    assert [(r["trial"], r["surface_dice"]) for r in broken] == [(r["trial"], r["surface_dice"]) for r in whole]


def test_a_cell_search_that_fails_fails_its_trials_with_the_reason(config: Path, cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "failing"
    huge = ["--families", "cells", "--trials", "2", "--set", "cell_search.learning_rate=1e30"]
    done = nas("search", config, "--run", folder, *huge, cache=cache, expect=1)
    assert "cell search cells-16: failed, the loss became" in done.stdout
    assert "cell search cells-16: failed: the loss became" in nas("status", "--run", folder, cache=cache).stdout
    assert "the loss became" in (folder / "cells" / "cells-16" / "failure.txt").read_text()
    assert "no candidate was trained to its end" in done.stderr


def test_a_dry_run_estimates_networks_of_cells(config: Path, cache: Path, tmp_path: Path) -> None:
    done = nas("search", config, "--run", tmp_path / "dry", "--dry-run", cache=cache)
    assert "cells plain c4 · 8x16" in done.stdout
    assert "resnet10t · cells plain c4 · 3x64" in done.stdout
    assert not (tmp_path / "dry" / "cells").exists()


def test_one_worker_trains_the_baselines_before_it_searches_cells(config: Path, cache: Path, tmp_path: Path) -> None:
    """So that there is something to compare and to export whenever the time runs out."""
    candidate = 'candidate = { encoder = "tu-mobilenetv3_small_100", slices_in = 3 }'
    fixed = f'[[fixed]]\nname = "plain"\ndefault = true\n{candidate}\n'
    (tmp_path / "baseline.toml").write_text(config.read_text() + fixed)
    ask = ("--families", "cells", "--trials", "1", "--workers", "1")
    done = nas("search", tmp_path / "baseline.toml", "--run", tmp_path / "run", *ask, cache=cache)
    order = [done.stdout.index(text) for text in ("trial 0: plain", "cell search cells-16: 8 steps", "trial 1: ")]
    assert order == sorted(order)
    families = [row["family"] for row in _board(tmp_path / "run")["rows"]]
    assert sorted(families) == ["cells", "unet"]  # the default, and none of hybrid, which was not asked for
