"""Retraining in several processes gives what retraining in one gives."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import nas
from safetensors.torch import load_file
from tiny import TINY

pytestmark = pytest.mark.slow

# Cells have no batch norm, whose statistics torch shares among GPUs alone.
CELLS = """
[[fixed]]
name = "cells"
candidate = { family = "cells", genotype = "residual/2", width = 4, slices_in = 8 }
fit = { loss = "dice + bce", crop = 16, batch_size = 4 }
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A search of the one fixed trial."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    config = folder.with_suffix(".toml")
    config.write_text(TINY[: TINY.index("[[fixed]]")] + CELLS)
    nas("search", config, "--run", folder, "--trials", "0", "--set", "study.leaders=0", cache=cache)
    return folder


def _torchrun(processes: int, *arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "NAS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command += [
        "-m",
        "--",
        "nas.commands.main",
        *arguments,
    ]  # "--": torchrun takes our --run for the beginning of its --run-path
    return subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)


def test_two_processes_find_the_weights_of_one(run: Path, cache: Path) -> None:
    few = ("retrain", "0", "--run", str(run), "--steps", "4", "--json")
    one = json.loads(nas(*few, cache=cache).stdout)
    single = Path(one["bundle"]).rename(run / "single")
    done = _torchrun(2, *few, cache=cache)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)  # said once, not by each process
    first, second = (load_file(path / "weights.safetensors") for path in (single, Path(two["bundle"])))
    assert first.keys() == second.keys()
    # As a whole: Adam turns the rounding error of a gradient that should be 0 into a step of full length.
    apart = sum(float((second[name] - weight).square().sum()) for name, weight in first.items())
    whole = sum(float(weight.square().sum()) for weight in first.values())
    assert (apart / whole) ** 0.5 < 1e-4
    scores = [found["record"]["outcome"]["score"]["values"]["surface_dice"] for found in (one, two)]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


def test_a_batch_that_cannot_be_shared_is_refused_in_one_line(run: Path, cache: Path) -> None:
    done = _torchrun(3, "retrain", "0", "--on", "all", "--run", str(run), cache=cache)
    assert done.returncode != 0
    assert "nas: a batch of 4 cannot be split evenly among 3 processes; start a number that divides it" in done.stderr


RESUME = """
import sys
from pathlib import Path
import torch
from kidneys import tube
from trainers.data.patches import PatchSampler
from trainers.fit import Fit, FitConfig, make_accelerator

accelerator = make_accelerator("float32", "cpu")
config = FitConfig(steps=4, crop=16, batch_size=2, loss="bce", augmentation="flips")
sampler = PatchSampler([tube("a")], 3, 1, 16, 0.5, seed=5)
fit = Fit(torch.nn.Conv2d(3, 1, 1), sampler, config, 5, accelerator)
own = Path(sys.argv[1]) / str(accelerator.process_index)
if accelerator.process_index == 0:
    fit.step = 3
    fit.save(own)
fit.resume(own)
"""


def test_processes_that_see_different_checkpoints_stop(tmp_path: Path) -> None:
    script = tmp_path / "resume.py"
    script.write_text(RESUME)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}:{root / 'tests'}"}
    done = subprocess.run(
        [*command, str(script), str(tmp_path)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode != 0
    assert "the processes of this training see different checkpoints" in done.stderr
    assert "(none and that of step 3)" in done.stderr
