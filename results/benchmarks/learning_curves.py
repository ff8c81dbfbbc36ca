"""Learning curves of 48 designs of all families: what a network scores after 33, 100, 300, 520 and 900 steps.

    python results/benchmarks/learning_curves.py record FOLDER TABLE.json --masks rles.csv    # resumable; one per core
    python results/benchmarks/learning_curves.py collect FOLDER TABLE.json

The designs are the fixed rows of learning_curves.toml and random points of its space; the kidneys are those of
recipe.py, of which the 40 slices in the middle are scored. Every design is trained with three seeds on the schedule of
trunk and branches: at each rung a branch is cooled down, scored, and dropped. Every other design is also trained with
two seeds on the one-cycle schedule of 900 steps, which is scored at the same steps as it is. Any number of processes
share the work; each trains on one thread, and leaves out what TABLE.json has: recorded in parts, in any folder, the
table grows by what `collect` adds to it. rles.csv is `hipct_k3_dense_pseudomask/rles.csv` of the real data.

TABLE.json has `rungs`, `designs` (name, candidate, recipe) and `trainings`: the design's place in the list, seed,
schedule, and one entry per rung that has been reached:

- step: the steps of a training that ends here, its branch included
- surface_dice, voxel_dice: of both held-out volumes, at thresholds that other slabs chose; volumes: of each
- best: surface dice at the one threshold that suits all slabs
- part: surface dice of the 16 slices in the middle
- without_branch: surface dice of the weight average where the branch begins (seed 0 only)
- loss: mean loss over the steps since the rung before, branch included
- trunk_seconds: CPU time of the trunk so far; branch_seconds, score_seconds: of this branch, and of reading once
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from filelock import FileLock, Timeout
from recipe import kidneys

from nas.config.design import Design
from nas.config.read import read_config
from nas.config.search_config import design_of
from nas.study.buildable import find_buildable
from nas.study.suggest import suggest
from results.pictures.curve import append_line, read_lines
from search_spaces.cells.cell_space import decisions, genotype_of, random_choice
from search_spaces.network import build_network
from trainers.atomic import write_atomically
from trainers.data.patches import PatchSampler
from trainers.data.volume import Volume, middle_part
from trainers.fit import Fit, make_accelerator
from trainers.inference.reader import InferenceConfig, make_reader
from trainers.metrics.cross_fit import score
from trainers.metrics.evaluate import predict_all
from trainers.metrics.slabs import Predictions

CONFIG = read_config(Path(__file__).with_suffix(".toml"))
RUNGS = (33, 100, 300, 520, 900)
RANDOM = {"unet": 20, "cells": 10, "hybrid": 10, "sam": 4}  # random designs by family, besides the fixed ones
SEEDS = (0, 1, 2)
TRUNK, ONE_CYCLE = "warmup-stable-decay", "one-cycle"
INFERENCE = InferenceConfig(batch_voxels=1 << 18, axes=(0,))
SCORED_SLICES, PART_SLICES = 40, 16  # of each held-out volume


@cache
def designs() -> tuple[tuple[str, Design], ...]:
    """The names and designs of the table; a design's number is its place. The same on every machine."""
    found = [(fixed.name, design_of(CONFIG, fixed)) for fixed in CONFIG.fixed]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    possible = find_buildable(CONFIG)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    for family, wanted in RANDOM.items():
        for number in range(wanted):
            study.enqueue_trial({"family": family})
            design = suggest(study.ask(), CONFIG, possible)
            if family in ("cells", "hybrid") and number % 2:
                choice = random_choice(decisions(CONFIG.cell_space, family), rng)
                genotype = genotype_of(CONFIG.cell_space, family, choice)
                design = replace(design, candidate=design.candidate.model_copy(update={"genotype": genotype}))
            found.append((f"{design.candidate.title()}, {number}", design))
    return tuple(found)


@dataclass(frozen=True)
class Training:
    """One row of the table: a design, a seed and a schedule."""

    design: int
    seed: int
    schedule: str

    @property
    def key(self) -> str:
        """Its name among the files."""
        return f"{self.design:02d}-{self.seed}-{self.schedule}"


def trainings(seeds: tuple[int, ...]) -> Iterator[Training]:
    """All trainings, in an order that makes the table useful early."""
    numbers = range(len(designs()))
    for seed in seeds:
        yield from (Training(number, seed, TRUNK) for number in numbers)
        if seed < 2:
            yield from (Training(number, seed, ONE_CYCLE) for number in numbers if number % 2 == 0)


def record(folder: Path, training: Training, rungs: tuple[int, ...]) -> None:
    """Train up to the last rung, with a line for each rung; goes on where an earlier process stopped."""
    lines, state = folder / f"{training.key}.jsonl", folder / "state" / training.key
    done = {line["step"] for line in read_lines(lines)}
    if done >= set(rungs):
        return
    name, design = designs()[training.design]
    fit_config = design.fit.model_copy(update={"schedule": training.schedule})
    train, whole = kidneys(folder, None)
    held_out = [middle_part(volume, SCORED_SLICES) for volume in whole]
    torch.manual_seed(training.seed)
    network = build_network(design.candidate, fit_config.crop, pretrained=False)
    sampler = PatchSampler(
        train,
        design.candidate.slices_in,
        design.candidate.slices_out,
        fit_config.crop,
        fit_config.vessel_share,
        training.seed,
        boxes=design.candidate.boxes,
    )
    fit = Fit(network, sampler, fit_config, training.seed, make_accelerator("float32", "cpu"))
    fit.resume(state)
    clock = state / "seconds.json"
    trunk_seconds = float(json.loads(clock.read_text())) if clock.exists() else 0.0
    losses: list[float] = []

    def on_step(_step: int, loss: float) -> bool:
        losses.append(loss)
        return True

    for rung in rungs:
        if rung in done:
            continue
        losses.clear()
        began = time.process_time()
        fit.run(fit.branches_at(rung), on_step)
        trunk_seconds += time.process_time() - began
        fit.save(state)
        write_atomically(clock, json.dumps(trunk_seconds))
        wanted = training.schedule == TRUNK and training.seed == 0  # reading takes long
        before_branch = _scores(fit, design, held_out) if wanted else {}
        began = time.process_time()
        fit.cool_down(rung, on_step)
        branch_seconds = time.process_time() - began
        began = time.process_time()
        after = _scores(fit, design, held_out)
        line = {
            "step": rung,
            **after,
            "without_branch": before_branch.get("surface_dice"),
            "loss": float(np.mean(losses)),
            "trunk_seconds": trunk_seconds,
            "branch_seconds": branch_seconds,
            "score_seconds": time.process_time() - began,
        }
        append_line(lines, line)
        print(training.key, name, {k: round(v, 4) for k, v in line.items() if isinstance(v, float)}, flush=True)
        fit.resume(state)
    shutil.rmtree(state)


def _scores(fit: Fit, design: Design, held_out: list[Volume]) -> dict[str, Any]:
    """Scores of the weight average: of all held-out slices, and of the middle ones, which a search scores at rungs."""
    reader = make_reader(fit.averaged, design.candidate, fit.config)
    predictions = predict_all(reader, held_out, INFERENCE, make_accelerator("float32", "cpu"))
    whole = score(predictions, held_out, CONFIG.score)
    parts = [middle_part(volume, PART_SLICES) for volume in held_out]
    part = score(_middle(predictions, held_out), parts, CONFIG.score)
    return {
        **whole.values,
        "best": whole.best,
        "part": part.value,
        "volumes": {v.volume: v.values["surface_dice"] for v in whole.volumes},
    }


def _middle(predictions: Predictions, volumes: list[Volume]) -> Predictions:
    """The probabilities of the slices that `middle_part` takes."""
    found = {}
    for volume in volumes:
        numbered = replace(volume, image=np.arange(volume.shape[0])[:, None, None] + np.zeros(volume.shape, np.int32))
        first = int(middle_part(numbered, PART_SLICES).image[0, 0, 0])
        found[volume.name] = predictions[volume.name][first : first + PART_SLICES]
    return found


def known(table: Path) -> dict[Training, list[dict[str, Any]]]:
    """The trainings that a table holds, with their rungs; none where there is no table yet."""
    rows = json.loads(table.read_text(encoding="utf-8"))["trainings"] if table.exists() else []
    return {Training(row["design"], row["seed"], row["schedule"]): row["rungs"] for row in rows}


def collect(folder: Path, table: Path) -> dict[str, Any]:
    """The table with what the folder has recorded further: its designs, and every rung of every training."""
    rungs = known(table)
    for training in trainings(tuple(range(10))):
        lines = read_lines(folder / f"{training.key}.jsonl")
        if len(lines) > len(rungs.get(training, [])):
            rungs[training] = lines
    rows = [
        {**asdict(training), "rungs": rungs[training]} for training in trainings(tuple(range(10))) if training in rungs
    ]
    named = [
        {"name": name, "candidate": d.candidate.model_dump(mode="json"), "fit": d.fit.model_dump(mode="json")}
        for name, d in designs()
    ]
    return {"rungs": RUNGS, "designs": named, "trainings": rows}


def main() -> None:
    """Record, or collect what was recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["record", "collect"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--designs", type=int, nargs="*", help="numbers of designs; all by default")
    parser.add_argument("--until", type=int, default=RUNGS[-1], help="the last rung")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if arguments.action == "collect":
        write_atomically(arguments.table, json.dumps(collect(folder, arguments.table), separators=(",", ":")) + "\n")
        return
    torch.set_num_threads(1)
    (folder / "state").mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "state" / "kidneys.lock"):
        kidneys(folder, arguments.masks)
    rungs = tuple(rung for rung in RUNGS if rung <= arguments.until)
    recorded = known(arguments.table)
    for training in trainings(tuple(arguments.seeds)):
        if arguments.designs and training.design not in arguments.designs:
            continue
        if {rung["step"] for rung in recorded.get(training, [])} >= set(rungs):
            continue
        try:
            with FileLock(folder / "state" / f"{training.key}.lock", blocking=False):
                record(folder, training, rungs)
        except Timeout:
            continue  # another process is at it


if __name__ == "__main__":
    main()
