"""Equal time: a search and the full training of its best, against the default or a plain loop for as long.

    python results/benchmarks/equal_time.py FOLDER --tree rles.csv --real SCANS [--minutes 15] [--seeds 0 1 2]
    python results/benchmarks/equal_time.py FOLDER --report

Per seed and data set, on the whole machine and one after the other:

- search: `nas search --preset cpu --minutes M`, then `nas retrain best --minutes M`
- default: the default design of the preset cpu, trained for 2 M minutes
- loop: a plain training of a ResNet-18 U-Net for 2 M minutes, as one writes it in an hour: crops anywhere, flips, dice
  and cross-entropy, a constant rate, slices read one by one

All are scored by the preset's score on the held-out kidney, each at thresholds chosen on other slabs. The tree is the
kidneys of recipe.py, with vessels of a real tree (rles.csv: `hipct_k3_dense_pseudomask/rles.csv` of the real data).
SCANS is a folder of labelled patches whose kidney_3 is held out. Beside the search stands what random search would have
come to: the expected best first score of k of the candidates that were drawn before its sampler learned, against the
best first score of as many of all. Each result is a line of FOLDER/points.jsonl, and what
is there is not measured again. The time of an arm is what its commands took, data already converted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import segmentation_models_pytorch as smp
import tifffile
import torch
from recipe import kidneys
from scipy.stats import t as student
from torch import Tensor, nn

from nas.config.read import read_config
from nas.config.search_config import SearchConfig, design_of
from nas.jobs.kidneys import open_fold
from nas.jobs.trial import Talk, run_job
from results.pictures.curve import append_line
from results.record import Job, read_record
from results.run_folder import create
from trainers.data.folds import Fold
from trainers.data.volume import Volume
from trainers.metrics.cross_fit import score

HELD_OUT = {"tree": "held_out", "real": "kidney_3"}
ARMS = ("search", "default", "loop")
OF = (1, 2, 4, 8)  # random candidates
CROP, BATCH, RATE = 64, 8, 1e-3  # of the loop


def write_tree(folder: Path, masks: Path) -> Path:
    """The kidneys of recipe.py as a folder of scans, written once."""
    root = folder / "tree"
    if not (root / "dataset.toml").is_file():
        training, held_out = kidneys(folder / "recipe", masks)
        tables = [
            _write_volume(root, volume, kidney)
            for kidney, volumes in (("training", training), ("held_out", held_out))
            for volume in volumes
        ]
        (root / "dataset.toml").write_text("\n".join(tables))
    return root


def _write_volume(root: Path, volume: Volume, kidney: str) -> str:
    assert volume.label is not None
    for part, voxels in (("images", volume.image), ("labels", (255 * (volume.label > 0)).astype(np.uint8))):
        place = root / "train" / volume.name / part
        place.mkdir(parents=True, exist_ok=True)
        for number, plane in enumerate(voxels):
            tifffile.imwrite(place / f"{number:04d}.tif", plane)
    name = kidney if kidney == "held_out" else volume.name  # two training kidneys, so that cells can be searched
    return f'[volumes."{volume.name}"]\nkidney = "{name}"\nvoxel_spacing_um = {list(volume.spacing_um)}\n'


def search(data: Path, held_out: str, run: Path, seed: int, minutes: float) -> dict[str, object]:
    """Both commands; what the second one printed."""
    given = ("--preset", "cpu", "--data", data, "--hold-out", held_out, "--set", f"study.seed={seed}")
    began = time.monotonic()
    _nas("search", *given, "--minutes", minutes, "--run", run)
    found = json.loads(_nas("retrain", "best", "--minutes", minutes, "--run", run, "--json"))["record"]
    board = json.loads((run / "leaderboard.json").read_text())
    return {
        "score": found["outcome"]["score"]["values"],
        "network": found["job"]["name"],
        "steps": found["job"]["fit"]["steps"],
        "default": found["job"]["default"],
        "rows": len(board["rows"]),
        **first_scores(run),
        "seconds": time.monotonic() - began,
    }


def first_scores(run: Path) -> dict[str, list[float]]:
    """The first score of every searched candidate, in the order in which they began, and which of them were random."""
    random_trials = read_config(run / "config.toml").study.random_trials
    records = (read_record(place.record) for _, place in create(run).trial_folders())
    searched = [r for r in records if r and not r.job.baseline and r.job.repeats is None and r.outcome.scored]
    scores = [r.outcome.scored[min(r.outcome.scored)] for r in searched]
    return {
        "first": scores,
        "random": [s for r, s in zip(searched, scores, strict=True) if r.job.trial < random_trials],
    }


def expected_best(values: list[float], count: int) -> float:
    """The expected best of so many of the values, drawn without replacement."""
    places = range(count - 1, len(values))
    return sum(sorted(values)[place] * comb(place, count - 1) for place in places) / comb(len(values), count)


def _nas(*arguments: object) -> str:
    command = [sys.executable, "-m", "nas", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def default(config: SearchConfig, fold: Fold, place: Path, seed: int, minutes: float) -> dict[str, object]:
    """The default design of a preset, for as long."""
    fixed = next(fixed for fixed in config.fixed if fixed.default)
    design = design_of(config, fixed)
    job = Job(
        trial=0, name=fixed.name, candidate=design.candidate, fit=design.fit, inference=design.inference, seed=seed
    )
    folder = create(place).trial(0)
    folder.path.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    talk = Talk(lambda *_: "go", lambda *_: None)
    outcome = run_job(job, fold, config, folder, "cpu", talk, seconds=60 * minutes)
    assert outcome.score is not None, outcome.reason
    return {
        "score": outcome.score.values,
        "network": fixed.name,
        "steps": outcome.step,
        "seconds": time.monotonic() - began,
    }


def loop(config: SearchConfig, fold: Fold, seed: int, minutes: float) -> dict[str, object]:
    """What one writes without this program."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = smp.Unet("resnet18", encoder_weights=None, in_channels=1, classes=1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    began, steps = time.monotonic(), 0
    reading = 0.0
    while time.monotonic() - began < 60 * minutes - reading:
        images, labels = (torch.stack(part) for part in zip(*(_crop(fold, rng) for _ in range(BATCH)), strict=True))
        logits = network(images)
        chances = logits.sigmoid()
        dice = 1 - (2 * (chances * labels).sum() + 1) / (chances.sum() + labels.sum() + 1)
        loss = dice + nn.functional.binary_cross_entropy_with_logits(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        steps += 1
        if steps == 20:
            asked = time.monotonic()
            _read(network, fold.held_out[0])
            reading = (
                (time.monotonic() - asked) * sum(v.image.size for v in fold.held_out) / fold.held_out[0].image.size
            )
    predictions = {volume.name: _read(network, volume) for volume in fold.held_out}
    found = score(predictions, fold.held_out, config.score)
    return {
        "score": found.values,
        "network": "ResNet-18 U-Net",
        "steps": steps,
        "seconds": time.monotonic() - began,
    }


def _crop(fold: Fold, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    volume = fold.train[rng.choice(len(fold.train), p=_shares(fold))]
    assert volume.label is not None
    z = rng.integers(volume.shape[0])
    y, x = (rng.integers(max(1, edge - CROP + 1)) for edge in volume.shape[1:])
    place = (slice(z, z + 1), slice(y, y + CROP), slice(x, x + CROP))
    image, label = volume.normalise(np.ascontiguousarray(volume.image[place])), volume.label[place] > 0
    if label.shape[1:] != (CROP, CROP):
        missing = [(0, 0), *((0, CROP - edge) for edge in label.shape[1:])]
        image, label = np.pad(image, missing, mode="symmetric"), np.pad(label, missing, mode="symmetric")
    turned = [axis for axis in (1, 2) if rng.random() < 0.5]
    image, label = np.flip(image, turned), np.flip(label, turned)
    return torch.from_numpy(image.copy()), torch.from_numpy(label.copy()).float()


def _shares(fold: Fold) -> list[float]:
    """The share of all slices that each volume has."""
    slices = [volume.shape[0] for volume in fold.train]
    return [count / sum(slices) for count in slices]


@torch.inference_mode()
def _read(network: nn.Module, volume: Volume) -> np.ndarray:
    """Every slice at once, padded to a multiple of 32; in steps of 1/255."""
    network.eval()
    height, width = volume.shape[1:]
    missing = ((0, 0), (0, -height % 32), (0, -width % 32))
    levels = []
    for plane in volume.image:
        image = np.pad(volume.normalise(np.ascontiguousarray(plane[None])), missing, mode="symmetric")
        chances = network(torch.from_numpy(image)[None])[0, 0, :height, :width].sigmoid()
        levels.append(np.rint(255 * chances.numpy()).astype(np.uint8))
    network.train()
    return np.stack(levels)


def measure(arguments: argparse.Namespace) -> None:
    """Every arm that has no line yet, seed by seed."""
    folder: Path = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data = {}
    if arguments.tree is not None:
        data["tree"] = write_tree(folder, arguments.tree)
    if arguments.real is not None:
        data["real"] = arguments.real.absolute()
    points, minutes = folder / "points.jsonl", arguments.minutes
    known = {(line["data"], line["arm"], line["seed"]) for line in _lines(points)}
    for seed in arguments.seeds:
        for name, root in data.items():
            overrides = [f'data.root="{root}"', f'data.hold_out="{HELD_OUT[name]}"']
            config = read_config("cpu", overrides)
            fold = open_fold(config, create(folder / "runs" / name))
            for arm in arguments.only:
                if (name, arm, seed) in known:
                    continue
                place = folder / "runs" / f"{name}-{arm}-{seed}"
                match arm:
                    case "search":
                        found = search(root, HELD_OUT[name], place, seed, minutes)
                    case "default":
                        found = default(config, fold, place, seed, 2 * minutes)
                    case _:
                        found = loop(config, fold, seed, 2 * minutes)
                append_line(points, {"data": name, "arm": arm, "seed": seed, **found})
                print(name, arm, seed, found["score"], flush=True)


def _lines(points: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in points.read_text().splitlines()] if points.is_file() else []


def report(folder: Path) -> Iterator[str]:
    """The table: the mean of each arm, and paired differences with their 95 % intervals over seeds."""
    lines = _lines(folder / "points.jsonl")
    yield "| data | arm | seeds | surface dice | each |\n|---|---|---:|---:|---|"
    values = {(line["data"], line["arm"], line["seed"]): line["score"]["surface_dice"] for line in lines}
    for name in HELD_OUT:
        for arm in ARMS:
            found = [value for (data, one, _), value in sorted(values.items()) if (data, one) == (name, arm)]
            if found:
                each = ", ".join(f"{value:.3f}" for value in found)
                yield f"| {name} | {arm} | {len(found)} | {statistics.mean(found):.3f} | {each} |"
    yield (
        "\n| data | seed | candidates | " + " | ".join(f"random, best of {count}" for count in OF) + " | best of all |"
    )
    yield "|---|---:|---:|" + "---:|" * (len(OF) + 1)
    for line in (line for line in lines if line.get("first")):
        drawn = line["random"]
        cells = [f"{expected_best(drawn, count):.3f}" if count <= len(drawn) else "–" for count in OF]
        both = f"{line['data']} | {line['seed']} | {len(line['first'])}"
        yield f"| {both} | {' | '.join(cells)} | {max(line['first']):.3f} |"
    yield "\n| data | difference | seeds | mean | 95 % interval |\n|---|---|---:|---:|---|"
    for name in HELD_OUT:
        for first, second in combinations(ARMS, 2):
            seeds = [
                seed for data, arm, seed in values if (data, arm) == (name, first) if (name, second, seed) in values
            ]
            if len(seeds) > 1:
                gaps = [values[name, first, seed] - values[name, second, seed] for seed in seeds]
                half = student.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5
                mean = statistics.mean(gaps)
                bounds = f"{mean - half:.3f} to {mean + half:.3f}"
                yield f"| {name} | {first} - {second} | {len(gaps)} | {mean:+.3f} | {bounds} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tree", type=Path, help="rles.csv of a whole kidney's tree")
    parser.add_argument("--real", type=Path, help="folder of labelled patches")
    parser.add_argument("--minutes", type=float, default=15.0, help="of the search, and of its full training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if not arguments.report:
        measure(arguments)
    print("\n".join(report(arguments.folder)))


if __name__ == "__main__":
    main()
