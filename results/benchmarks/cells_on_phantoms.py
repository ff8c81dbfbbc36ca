"""Searched cells against random ones, networks drawn by hand and 2.5D U-Nets, at equal training cost.

    python results/benchmarks/cells_on_phantoms.py FOLDER --seeds 0 1 2 [--seconds 100] [--steps 300]
    python results/benchmarks/cells_on_phantoms.py FOLDER --report

Cost is the CPU time of the process, so run it with OMP_NUM_THREADS=1, one process per core (give each its own --seeds).
Every training gets the same --seconds; the random arm may spend the cost of the search on more random networks. Each
result is a line of FOLDER/points.jsonl; seeds that are already there are not run again.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from scipy.stats import ttest_1samp

from nas.config.read import read_config
from results.pictures.curve import append_line
from search_spaces.any_candidate import read_candidate
from search_spaces.candidate import Candidate
from search_spaces.cells.hand_made import hand_made
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.cell_search.config import CellSearchConfig
from trainers.cell_search.run import CellFindings, CellPlan, CellTalk, run_cells
from trainers.data.open_volumes import open_volumes
from trainers.data.patches import PatchSampler
from trainers.data.phantom import write_phantoms
from trainers.data.prepare import default_cache
from trainers.data.sources import scan
from trainers.data.volume import Volume
from trainers.fit import Fit, FitConfig, make_accelerator
from trainers.inference.reader import make_reader
from trainers.metrics.cross_fit import score
from trainers.metrics.evaluate import predict_all
from trainers.report import Report

CONFIG = read_config("demo")
SLICES, CROP = 16, 32
RANDOMS = 12  # random genotypes available; as many are trained as the cost of the search allows


def kidneys(folder: Path) -> tuple[tuple[Volume, ...], Volume]:
    """Two phantoms to train on and one held out."""
    root = folder / "phantoms"
    if not root.exists():
        write_phantoms(root, CONFIG.phantom, 0)
    sources = sorted(scan(root), key=lambda source: source.name)
    volumes = tuple(open_volumes(sources, default_cache()))
    return volumes[:2], volumes[2]


def train(candidate: Candidate, crop: int, batch: int, seconds: float, seed: int, folder: Path) -> dict[str, float]:
    """Train for this much CPU time and score the held-out kidney."""
    volumes, held_out = kidneys(folder)
    accelerator = make_accelerator("float32", "cpu")

    def fit_of(steps: int) -> Fit:
        torch.manual_seed(seed)
        config = CONFIG.fit.model_copy(
            update={"steps": steps, "crop": crop, "batch_size": batch, "loss": "dice + bce", "average_decay": 0.98}
        )
        sampler = PatchSampler(volumes, candidate.slices_in, candidate.slices_out, crop, 0.75, seed, candidate.boxes)
        return Fit(build_network(candidate, crop), sampler, FitConfig.model_validate(config), seed, accelerator)

    trial = fit_of(20)
    stamps: list[float] = []
    trial.run(12, lambda _step, _loss: bool(stamps.append(time.process_time())) or True)
    step = statistics.median(b - a for a, b in pairwise(stamps[2:]))
    steps = max(20, round(seconds / step))
    training = fit_of(steps)
    began = time.process_time()
    training.run(steps, lambda _step, _loss: True)
    spent = time.process_time() - began
    reader = make_reader(training.averaged, candidate, training.config)
    result = score(predict_all(reader, [held_out], CONFIG.inference, accelerator), [held_out], CONFIG.score)
    return {
        **result.values,
        "steps": steps,
        "cpu_seconds": spent,
        "parameters": sum(p.numel() for p in training.network.parameters()),
    }


def search(steps: int, seed: int, folder: Path) -> tuple[CellFindings, float]:
    """The findings of one search, and its CPU time."""
    file, clock = folder / f"findings-{seed}.json", folder / f"search-{seed}.seconds"
    if not file.exists():
        config = CellSearchConfig.model_validate(
            {
                **CONFIG.cell_search.model_dump(),
                "steps": steps,
                "perturbations": 3,
                "perturbation_paths": 4,
                "samples": 0,
                "randoms": RANDOMS,
                "shrink_every": 30,
            }
        )
        began = time.process_time()
        history = folder / f"history-{seed}.jsonl"
        talk = CellTalk(lambda *_: True, partial(append_line, history), Report(print))
        findings = run_cells(
            CellPlan(family="cells", crop=CROP),
            kidneys(folder)[0],
            CONFIG.cell_space,
            config,
            seed,
            make_accelerator("float32", "cpu"),
            folder / f"checkpoint-{seed}",
            talk,
        )
        assert findings is not None
        clock.write_text(str(time.process_time() - began))
        file.write_text(findings.model_dump_json(indent=1))
    return CellFindings.model_validate_json(file.read_bytes()), float(clock.read_text())


def arms(findings: CellFindings, extra: int) -> Iterator[tuple[str, str, Candidate, int, int]]:
    """Arm, name, candidate, crop and batch size of every training of one seed."""
    names = list(findings.genotypes)
    searched = [name for name in names if not name.startswith("random")]
    randoms = [name for name in names if name.startswith("random")]
    width = CONFIG.cell_search.supernet_candidate("cells").width
    cells = {"family": "cells", "width": width, "slices_in": SLICES}
    for name in (*searched, *islice(randoms, len(searched) + extra)):
        candidate = read_candidate({**cells, "genotype": findings.genotypes[name].genotype})
        yield ("random" if name in randoms else "searched"), name, candidate, CROP, 2
    for name in ("plain", "residual"):
        genotype = hand_made(name, "cells", CONFIG.cell_space.levels)
        yield f"3D, {name}", name, read_candidate({**cells, "genotype": genotype}), CROP, 2
    for encoder in ("tu-resnet10t", "resnet18"):
        yield "2.5D U-Net", encoder, UnetCandidate(encoder=encoder, slices_in=5), 64, 8


def run(folder: Path, seed: int, steps: int, seconds: float) -> None:
    """Everything of one seed that is not in points.jsonl yet."""
    points = folder / "points.jsonl"
    findings, cost = search(steps, seed, folder)
    lines = [json.loads(line) for line in points.read_text().splitlines()] if points.exists() else []
    known = {(line["seed"], line["arm"], line["name"]) for line in lines}
    for arm, name, candidate, crop, batch in arms(findings, extra=round(cost / seconds)):
        if (seed, arm, name) not in known:
            values = train(candidate, crop, batch, seconds, seed, folder)
            append_line(points, {"seed": seed, "arm": arm, "name": name, "search_seconds": cost, **values})
            print(seed, arm, name, f"{values['surface_dice']:.4f}", values["steps"], flush=True)


def report(folder: Path) -> None:
    """All points and their spread, as Markdown tables."""
    lines = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    print("| arm | trainings | mean | standard deviation | best of each seed |\n|---|---:|---:|---:|---|")
    for arm in dict.fromkeys(line["arm"] for line in lines):
        own = [line for line in lines if line["arm"] == arm]
        values = [line["surface_dice"] for line in own]
        seeds = sorted({line["seed"] for line in own})
        best = [max(line["surface_dice"] for line in own if line["seed"] == seed) for seed in seeds]
        deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(
            f"| {arm} | {len(values)} | {statistics.mean(values):.3f} | {deviation:.3f} "
            f"| {', '.join(f'{value:.3f}' for value in best)} |"
        )
    for what, wanted in (("searched", "searched"), ("of these by the perturbation decode", "perturbation")):
        print(f"\n{what} minus random, mean of each seed: {_paired(lines, wanted)}")
    print("\n| seed | arm | network | surface dice | voxel dice | steps | parameters |")
    print("|---:|---|---|---:|---:|---:|---:|")
    for line in sorted(lines, key=lambda line: (line["seed"], line["arm"], line["name"])):
        print(
            f"| {line['seed']} | {line['arm']} | {line['name']} | {line['surface_dice']:.4f} "
            f"| {line['voxel_dice']:.4f} | {line['steps']} | {line['parameters']:,} |"
        )


def _paired(lines: list[dict[str, Any]], wanted: str) -> str:
    """Differences seed by seed, because trainings with one seed see the same patches; with a t-test of their mean."""

    def mean(seed: int, name: str) -> float:
        own = [line for line in lines if line["seed"] == seed and name in (line["arm"], line["name"].split("-")[0])]
        return statistics.mean(line["surface_dice"] for line in own)

    differences = [mean(seed, wanted) - mean(seed, "random") for seed in sorted({line["seed"] for line in lines})]
    test = ttest_1samp(differences, 0.0)
    each = ", ".join(f"{difference:+.3f}" for difference in differences)
    return (
        f"{each}; mean {statistics.mean(differences):+.4f}, t = {test.statistic:.2f}, p = {test.pvalue:.3f} (two-sided)"
    )


def main() -> None:
    """Run seeds, or report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        report(arguments.folder)
        return
    for seed in arguments.seeds:
        run(arguments.folder, seed, arguments.steps, arguments.seconds)


if __name__ == "__main__":
    main()
