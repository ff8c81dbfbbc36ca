"""Small searches for tests: configurations, runs on phantoms, and outcomes that no worker had to train for."""

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

from kidneys import tube
from tiny import TINY

from nas.config.read import parse_config
from nas.config.search_config import SearchConfig
from nas.config.write import write_config
from nas.jobs.kidneys import open_fold
from nas.jobs.task import TrialTask
from results.record import Job, Outcome
from results.run_folder import RunFolder, create
from search_spaces.cells.cell_space import CELL_SPACES
from search_spaces.cells.hand_made import hand_made
from search_spaces.families.unet import UnetCandidate
from trainers.cell_search.run import CellFindings, CellPlan, FoundGenotype, genotype_names
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.cross_fit import score
from trainers.metrics.score import Score, ScoreConfig

CELLS: dict[str, dict[str, Any]] = {
    "space": {
        "families": ["cells"],
        "cells": {"width": [4], "slices_in": [8], "fit": {"crop": [16], "batch_size": [2]}},
    },
    "cell_space": {"level": "L1", "same": ["identity", "conv3"], "nodes": 1, "levels": 2},
    "cell_search": {
        "steps": 5,
        "supernets": {"cells": {"crops": [16], "batch_size": 2, "candidate": {"slices_in": 8, "width": 4}}},
        "perturbations": 0,
        "randoms": 1,
    },
}
FIT = FitConfig(steps=6, crop=32, batch_size=2, loss="dice", augmentation="flips", precision="float32")


def tiny_config(*changes: dict[str, Any]) -> SearchConfig:
    """The settings of tiny.py, with some keys of some sections changed; `fixed` is replaced, or taken away if empty."""
    values = tomllib.loads(TINY)
    for change in changes:
        for section, keys in change.items():
            part = isinstance(keys, dict) and keys and section in values
            values[section] = {**values[section], **keys} if part else keys or []
    return parse_config(values, "test")


@lru_cache
def scored(quality: int) -> Score:
    """Of a mask in a kidney of one vessel, which it follows through so many quarters (0 to 4) of the slices."""
    volume = tube("k", (16, 24, 24))
    assert volume.label is not None
    probabilities = 255 * volume.label
    probabilities[4 * quality :] = 0
    return score({"k": probabilities}, [volume], ScoreConfig(slabs=2, resamples=10))


def complete(quality: int) -> Outcome:
    """A training that came to its end."""
    return Outcome(state="complete", score=scored(quality), step=9, parameters=5, train_seconds=1.0, seconds=2.0)


def write_findings(folder: RunFolder, plan: CellPlan, config: SearchConfig) -> None:
    """What a worker leaves that has searched the cells of a supernet."""
    genotype = hand_made("plain", plan.family, config.cell_space.levels)
    found = FoundGenotype(genotype=genotype, seconds=0.25, memory_bytes=2**20)
    findings = CellFindings(
        plan=plan,
        space=CELL_SPACES["L1"],
        genotypes=dict.fromkeys(genotype_names(config.cell_search), found),
        probabilities={},
        options={},
        search_seconds=1.0,
        device="CPU",
    )
    place = folder.cells(plan.id)
    place.path.mkdir(parents=True, exist_ok=True)
    place.findings.write_text(findings.model_dump_json())


def phantom_run(path: Path) -> RunFolder:
    """A run folder with settings and phantoms of a few voxels, as the driver leaves them for its workers."""
    config = parse_config(
        {
            "study": {"rungs": 1, "reduction": 3},
            "data": {"hold_out": "phantom_3", "cache": str(path / "cache")},
            "phantom": {"kidneys": 3, "shape": [16, 32, 32]},
            "inference": {"axes": [0]},
            "score": {"slabs": 2, "resamples": 10},
            **CELLS,
        },
        "test",
    )
    folder = create(path / "run")
    folder.config.write_text(write_config(config))
    open_fold(config, folder)
    return folder


def trial_task(trial: int, **fit: object) -> TrialTask:
    """A small network to train for 6 steps, if not told otherwise."""
    job = Job(
        trial=trial,
        name=f"job {trial}",
        candidate=UnetCandidate(encoder="tu-resnet10t", slices_in=3),
        fit=FIT.model_copy(update=fit),
        inference=InferenceConfig(),
        seed=1,
    )
    return TrialTask(job=job)
