"""Networks of cells and their search on a GPU: alphas stay on the CPU, maps are in half precision, layouts differ."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kidneys import tube

from nas.config.read import parse_config
from nas.jobs.trial import Talk, run_job
from results.record import Job
from results.run_folder import TrialFolder
from search_spaces.any_candidate import read_candidate
from search_spaces.cells.cell_space import CELL_SPACES
from trainers.cell_search.alphas import ESTIMATORS
from trainers.cell_search.config import CellSearchConfig
from trainers.cell_search.run import CellPlan, CellTalk, run_cells
from trainers.data.folds import Fold
from trainers.fit import FitConfig, make_accelerator
from trainers.inference.reader import InferenceConfig

pytestmark = pytest.mark.gpu
FOLD = Fold((tube("a"), tube("b", seed=1)), (tube("c", seed=2),))
SUPERNETS = {
    "cells": {"crops": [16], "batch_size": 2, "candidate": {"slices_in": 8, "width": 8}},
    "hybrid": {"crops": [64], "batch_size": 2, "candidate": {"encoder": "tu-resnet10t", "slices_in": 3, "width": 8}},
}


@pytest.fixture(autouse=True)
def _leave_the_process_on_the_cpu() -> Iterator[None]:
    """accelerate keeps one device for all of a process; other tests hold an accelerator of the CPU."""
    yield
    make_accelerator("float32", "cpu")


@pytest.mark.parametrize("family", ["cells", "hybrid"])
def test_a_trial_with_cells_completes(tmp_path: Path, family: str) -> None:
    values: dict[str, Any] = {"family": family, "genotype": "residual", "width": 8, "slices_in": 16}
    crop = 32
    if family == "hybrid":
        values |= {"slices_in": 3, "encoder": "tu-resnet10t"}
        crop = 64
    fit = FitConfig(steps=12, crop=crop, batch_size=2, loss="dice + bce", augmentation="flips", learning_rate=3e-3)
    job = Job(trial=0, name="cells", candidate=read_candidate(values), fit=fit, inference=InferenceConfig(), seed=0)
    config = parse_config({"score": {"slabs": 2, "resamples": 50}}, "test")
    (tmp_path / "trial").mkdir()
    talk = Talk(lambda *_: "go", lambda *_: None)
    outcome = run_job(job, FOLD, config, TrialFolder(tmp_path / "trial"), "cuda", talk, rungs=[4])
    assert (outcome.state, outcome.step) == ("complete", 12)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("estimator", [name for name in ESTIMATORS if name != "sampled"])
@pytest.mark.parametrize("family", ["cells", "hybrid"])
def test_cells_are_searched(tmp_path: Path, family: str, estimator: str, precision: Any) -> None:
    changes = {"levels": 3, "nodes": 1, "skips": ("identity", "attention"), "widths": (0.5, 1.0), "depths": (1, 2)}
    space = CELL_SPACES["L1"].model_copy(update=changes)
    config = CellSearchConfig.model_validate(
        {
            "steps": 8,
            "estimator": estimator,
            "supernets": SUPERNETS,
            "shrink_every": 2,
            "perturbations": 1,
            "perturbation_paths": 1,
        }
    )
    lines: list[dict[str, Any]] = []
    plan = CellPlan(family=family, crop=16 if family == "cells" else 64)
    accelerator = make_accelerator(precision, "cuda")
    talk = CellTalk(lambda *_: True, lines.append)
    findings = run_cells(plan, FOLD.train, space, config, 0, accelerator, tmp_path, talk)
    assert findings is not None
    assert findings.device == torch.cuda.get_device_name()
    assert all(0.0 <= p <= 1.0 for row in findings.probabilities.values() for p in row)
    assert all(found.seconds > 0 and found.memory_bytes > 0 for found in findings.genotypes.values())
    assert lines[-1]["probabilities"] != lines[0]["probabilities"]
