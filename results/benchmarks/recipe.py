"""The strong recipe, the recipe of the 2.5D baselines, and the strong one without one part at a time, on a kidney of
another scale and contrast.

    python results/benchmarks/recipe.py FOLDER --masks rles.csv --seeds 0 1 2 [--only full source ...] [--steps 1500]
    python results/benchmarks/recipe.py FOLDER --report

Training uses two phantoms of the project and a block of a real vascular tree; another block of it, far from the first,
and a phantom are held out, both 0.7 times as large in voxels, with flatter contrast, more blur and more noise. rles.csv
is `hipct_k3_dense_pseudomask/rles.csv` of the real data: a whole kidney's tree, to which this script adds tissue, walls
and noise. Each training is a line of FOLDER/points.jsonl; trainings that are already there are not run again. Run one
process per core, each with its own --seeds, with OMP_NUM_THREADS=1.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.stats import t as student

from results.pictures.curve import append_line
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.data import phantom as phantoms
from trainers.data.oblique import LABEL_CUT
from trainers.data.patches import PatchSampler
from trainers.data.phantom_organ import Organ
from trainers.data.resample import resampled
from trainers.data.rle import decode, read_rles
from trainers.data.volume import HIGH_PERCENTILE, LOW_PERCENTILE, Volume
from trainers.fit import Fit, FitConfig, make_accelerator
from trainers.inference.reader import InferenceConfig, make_reader
from trainers.metrics.evaluate import evaluate
from trainers.metrics.score import ScoreConfig

SPACING = (50.0, 50.0, 50.0)
SECOND_UM = 63.08
SHAPE = (64, 144, 144)
THINNEST = 0.7  # radius in voxels
SMALLER = 0.7  # how large the held-out kidney's vessels are in voxels
# First slices of the two blocks of the tree of kidney_3_dense; 210 slices lie between them.
BLOCKS = {"train": 40, "held-out": 330}

STRONG_NETWORK: dict[str, Any] = {"slices_in": 3, "masks": "all", "resolution": "stem", "decoder_norm": "group"}
STRONG_FIT: dict[str, Any] = {"loss": "dice + focal + surface_cubes", "augmentation": "strong"}
# The recipe of the 2.5D baselines (docs/recipe.md): 5 slices, dice, the middle mask, flips only. Encoder, steps and
# rate are the same for all.
SOURCE_NETWORK: dict[str, Any] = {"slices_in": 5, "masks": "middle"}
SOURCE_FIT: dict[str, Any] = {"loss": "dice", "augmentation": "flips"}

ARMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": (STRONG_NETWORK, STRONG_FIT),
    "source": (SOURCE_NETWORK, SOURCE_FIT),
    "source, as long": (SOURCE_NETWORK, SOURCE_FIT),
    "source, a quarter longer": (SOURCE_NETWORK, SOURCE_FIT),
    "without 3D rotation": (STRONG_NETWORK, {**STRONG_FIT, "augmentation": "strong - tilt"}),
    "without scale": (STRONG_NETWORK, {**STRONG_FIT, "augmentation": "strong - scale"}),
    "without elastic": (STRONG_NETWORK, {**STRONG_FIT, "augmentation": "strong - elastic"}),
    "without grey changes": (STRONG_NETWORK, {**STRONG_FIT, "augmentation": "strong - light - gamma - noise"}),
    "without cutmix": (STRONG_NETWORK, {**STRONG_FIT, "augmentation": "strong - cutmix"}),
    "without surface loss": (STRONG_NETWORK, {**STRONG_FIT, "loss": "dice + focal"}),
    "without stem": ({**STRONG_NETWORK, "resolution": "plain"}, STRONG_FIT),
    "without group norm": ({**STRONG_NETWORK, "decoder_norm": "batch"}, STRONG_FIT),
    "without three outputs": (
        {**STRONG_NETWORK, "masks": "middle"},
        {**STRONG_FIT, "loss": "dice + focal"},  # the surface loss needs neighbouring masks
    ),
}

# A step of the full recipe takes a tenth more CPU time than one of the baselines', so equal time means more steps.
MORE_STEPS = {"source, as long": 1.1, "source, a quarter longer": 1.25}


def kidneys(folder: Path, masks: Path | None) -> tuple[list[Volume], list[Volume]]:
    """Training volumes and held-out volumes, made once."""
    made = {}
    for name in ("phantom_1", "phantom_2", "tree_1", "phantom_3", "tree_2"):
        image, label = folder / f"{name}-image.npy", folder / f"{name}-label.npy"
        if not image.exists():
            assert masks is not None, "--masks is needed once"
            pixels, mask = _make(name, masks)
            np.save(image, pixels)
            np.save(label, mask)
        made[name] = _volume(name, np.load(image, "r"), np.load(label, "r"))
    return [made["phantom_1"], made["phantom_2"], made["tree_1"]], [made["tree_2"], made["phantom_3"]]


def _make(name: str, masks: Path) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    rng = np.random.default_rng(sum(map(ord, name)))
    held_out = name in ("phantom_3", "tree_2")
    shape = tuple(round(edge / SMALLER) for edge in SHAPE) if held_out else SHAPE
    # The thinnest vessels are as thin in voxels as in training: nobody could see thinner ones.
    smallest = THINNEST / SMALLER if held_out else THINNEST
    config = phantoms.PhantomConfig(shape=shape, noise=0.15, smallest_radius=smallest)
    if name.startswith("phantom"):
        made = phantoms.make_phantom(config, int(rng.integers(2**31)))
        image, label = made.image, made.label
    else:
        label = _block(masks, BLOCKS["held-out" if held_out else "train"], shape)
        image = _painted(config, label, rng)
    return _as_held_out(image, label, rng) if held_out else (image, label)


def _block(masks: Path, first: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The block of this shape with the most surface, among those that begin at the given slice of the tree."""
    rows = read_rles(masks)["kidney_3_dense"]
    first += min(rows)
    planes = [decode(rows[z].rle, 1706, 1510, str(z)) for z in range(first, first + shape[0])]
    stack = np.stack(planes).view(np.uint8)
    surface = np.abs(np.diff(stack.view(np.int8), axis=2))
    _, height, width = shape
    places = [(y, x) for y in range(0, 1706 - height, 48) for x in range(0, 1510 - width, 48)]
    top, left = max(places, key=lambda p: int(surface[:, p[0] : p[0] + height, p[1] : p[1] + width].sum()))
    return np.ascontiguousarray(stack[:, top : top + height, left : left + width])


def _painted(config: phantoms.PhantomConfig, label: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint16]:
    """Tissue, walls, decoys and noise around a mask, as the project's phantoms have them."""
    # Half a voxel: the surface lies between the last voxel inside and the first outside.
    inside, outside = distance_transform_edt(label), distance_transform_edt(label == 0)
    lumen = np.where(label > 0, 0.5 - inside, outside - 0.5).astype(np.float32)
    wall = np.full(label.shape, 1.2, np.float32)
    edges = np.array(config.shape, float)
    # An organ large enough to contain the whole block.
    organ = Organ(config.shape, (edges - 1) / 2, 4 * edges, 0.0, 0.05, float(edges.min()))
    decoys = phantoms._draw_decoys(config, organ, (lumen, wall), rng)
    return phantoms._paint(config, organ, (lumen, wall, *decoys), rng)


def _as_held_out(
    image: NDArray[np.uint16], label: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """The volume made smaller in voxels, blurred, flatter in contrast and noisier."""
    steps = (1 / SMALLER,) * 3
    small = np.stack(list(resampled(image, SHAPE, steps)))
    mask = np.stack(list(resampled(label, SHAPE, steps))) >= LABEL_CUT
    low, high = np.percentile(small, [1, 99])
    grey = np.clip((small - low) / (high - low), 0, 1.3) ** 0.85  # darker grey is closer to tissue
    grey = gaussian_filter(grey, 0.4) + 0.12 * rng.standard_normal(grey.shape)
    return np.clip(20_000 + 3_000 * grey, 0, 65_535).astype(np.uint16), mask.astype(np.uint8)


def _volume(name: str, image: NDArray[np.uint16], label: NDArray[np.uint8]) -> Volume:
    low, high = np.percentile(image, [LOW_PERCENTILE, HIGH_PERCENTILE])
    return Volume(name, name, image, label, np.flatnonzero(label), SPACING, 1.0, float(low), float(high), name)


def train(folder: Path, arm: str, seed: int, steps: int, crop: int) -> dict[str, float]:
    """One training, scored on the held-out kidney as it is and at 63 µm."""
    training, held_out = kidneys(folder, None)
    network_part, fit_part = ARMS[arm]
    steps = round(steps * MORE_STEPS.get(arm, 1.0))
    candidate = UnetCandidate(encoder="tu-resnet10t", **network_part)
    fit = FitConfig(
        steps=steps,
        crop=crop,
        batch_size=4,
        learning_rate=2e-3,
        schedule="one-cycle",
        warm_up=0.2,
        gradient_clip=1.0,
        average_decay=0.98,
        vessel_share=0.75,
        **fit_part,
    )
    accelerator = make_accelerator("float32", "cpu")
    torch.manual_seed(seed)
    sampler = PatchSampler(training, candidate.slices_in, candidate.slices_out, crop, fit.vessel_share, seed)
    run = Fit(build_network(candidate, crop), sampler, fit, seed, accelerator)
    began = time.process_time()
    run.run(steps, lambda _step, _loss: True)
    seconds = time.process_time() - began
    _, result = evaluate(
        make_reader(run.averaged, candidate, fit),
        held_out,
        InferenceConfig(batch_voxels=1 << 18),
        ScoreConfig(second_um=SECOND_UM),
        accelerator,
    )
    assert result.second is not None
    volumes = {f"surface_dice {v.volume}": v.values["surface_dice"] for v in result.volumes}
    return {
        **result.values,
        "second": result.second.values["surface_dice"],
        "best": result.best,
        "threshold": result.threshold,
        "cpu_seconds": seconds,
        **volumes,
    }


def report(folder: Path) -> None:
    """Means, and differences from the full recipe paired by seed, with 95 % intervals of Student's t."""
    lines = [json.loads(line) for line in (folder / "points.jsonl").read_text().splitlines()]
    print("| recipe | surface dice | minus full (95 % interval) | at 63 µm | minus full (95 % interval) | CPU s |")
    print("|---|---|---|---|---|---:|")
    full = {line["seed"]: line for line in lines if line["arm"] == "full"}
    for arm in dict.fromkeys(line["arm"] for line in lines):
        own = sorted((line for line in lines if line["arm"] == arm), key=lambda line: line["seed"])
        cells = [arm]
        for key in ("surface_dice", "second"):
            values = [line[key] for line in own]
            cells.append(f"{statistics.mean(values):.3f} ({', '.join(f'{v:.3f}' for v in values)})")
            pairs = [line[key] - full[line["seed"]][key] for line in own if line["seed"] in full]
            cells.append("" if arm == "full" else _interval(pairs))
        cells.append(f"{statistics.mean(line['cpu_seconds'] for line in own):.0f}")
        print("| " + " | ".join(cells) + " |")


def _interval(differences: list[float]) -> str:
    if len(differences) < 2:
        return f"{statistics.mean(differences):+.3f}" if differences else ""
    mean, error = statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    reach = student.ppf(0.975, len(differences) - 1) * error
    return f"{mean:+.3f} ({mean - reach:+.3f} to {mean + reach:+.3f})"


def main() -> None:
    """Run arms and seeds, or report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=list(ARMS))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        report(folder)
        return
    kidneys(folder, arguments.masks)
    points = folder / "points.jsonl"
    for seed in arguments.seeds:
        for arm in arguments.only:
            lines = [json.loads(line) for line in points.read_text().splitlines()] if points.exists() else []
            if (arm, seed, arguments.steps) in {(line["arm"], line["seed"], line["steps"]) for line in lines}:
                continue
            values = train(folder, arm, seed, arguments.steps, arguments.crop)
            append_line(points, {"arm": arm, "seed": seed, "steps": arguments.steps, "crop": arguments.crop, **values})
            print(seed, arm, {key: round(value, 4) for key, value in values.items()}, flush=True)


if __name__ == "__main__":
    main()
