"""Measure the surface dice against surface-distance and MONAI, at real size, and at all thresholds at once.

    pip install monai
    python results/benchmarks/surface_dice.py [--rles FILE.csv] [--repeats 7]

FILE.csv holds the mask of a whole kidney, run-length encoded (default: hipct_k3_dense_pseudomask/rles.csv in the folder
named by NAS_REAL_DATA). Everything is measured in one run, with functions compiled beforehand. Prints a report in
Markdown.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from trainers.data.rle import decode, read_rles
from trainers.machine import available_cores
from trainers.metrics.surface_curve import surface_curve
from trainers.metrics.surface_dice import surface_dice

SHAPE = (192, 384, 384)
REFERENCE_REPEATS = 5  # of functions that take seconds
MIB = 2**20


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAS_REAL_DATA", "")) / "hipct_k3_dense_pseudomask" / "rles.csv"
    arguments.add_argument("--rles", type=Path, default=default)
    arguments.add_argument("--repeats", type=int, default=7)
    options = arguments.parse_args()
    target = tubes(seed=0)
    describe(compile_seconds(target))
    real_size(options.rles, options.repeats)
    all_thresholds(target, options.repeats)
    other_packages(target, options.repeats)


def describe(seconds: tuple[float, float]) -> None:
    command = ["git", "log", "-1", "--format=%h", "--", "trainers/metrics"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False)
    names = ("numpy", "scipy", "numba", "surface-distance", "monai", "torch")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"`trainers/metrics` of commit {commit.stdout.strip()}, Python {platform.python_version()}, {versions}.")
    print(f"{available_cores()} cores ({cpu()}), load {os.getloadavg()[0]:.1f} before the run.")
    print(f"Times are medians (least to most). The first calls are not in them: {seconds[0]:.1f} s for `surface_dice`,")
    print(f"{seconds[1]:.1f} s for `surface_curve`, to compile or to read from numba's cache on disk.\n")


def compile_seconds(mask: NDArray[np.bool_]) -> tuple[float, float]:
    few = mask[:2].copy()
    one, curve = time_once(lambda: surface_dice(few, few)), time_once(lambda: surface_curve(few.view(np.uint8), few))
    surface_dice(few, few, tolerance_um=1.0)
    return one, curve


def real_size(rles: Path, repeats: int) -> None:
    rows = next(iter(read_rles(rles).values()))
    height, width = rows[min(rows)].height or 0, rows[min(rows)].width or 0
    mask = np.stack([decode(rows[number].rle, height, width) for number in sorted(rows)])
    shifted = np.zeros_like(mask)
    shifted[:, :, 1:] = mask[:, :, :-1]
    print(f"## Mask of a whole kidney, {' x '.join(map(str, mask.shape))}, against itself shifted by one voxel\n")
    print(f"{mask.mean():.3%} of the voxels are vessel; the two masks hold {2 * mask.nbytes / 1e9:.2f} GB.\n")
    print("| tolerance, voxels | surface dice | seconds | peak memory beyond the masks |\n|---|---|---|---|")
    for tolerance in (0.0, 1.0, 3.0):
        before = reset_peak_memory()
        score = surface_dice(mask, shifted, tolerance_um=tolerance)
        extra = peak_memory() - before
        times = [time_once(lambda t=tolerance: surface_dice(mask, shifted, tolerance_um=t)) for _ in range(repeats)]
        print(f"| {tolerance:g} | {score:.6f} | {spread(times)} | {extra / MIB:.0f} MiB |")
    probabilities = shifted.view(np.uint8) * np.uint8(200)
    starts = list(range(0, len(mask), 32))
    before = reset_peak_memory()
    surface_curve(probabilities, mask, starts)
    extra = peak_memory() - before
    times = [time_once(lambda: surface_curve(probabilities, mask, starts)) for _ in range(repeats)]
    print(f"| 0, all thresholds in {len(starts)} slabs | | {spread(times)} | {extra / MIB:.0f} MiB |\n")


def all_thresholds(target: NDArray[np.bool_], repeats: int) -> None:
    print(f"## 255 thresholds at once, {' x '.join(map(str, target.shape))} tubes\n")
    print("One threshold is `surface_dice(probabilities >= 128, target)`, the comparison included.\n")
    print("| probabilities | between 0 and 255 | one threshold, s | all, s | ratio | largest difference |")
    print("|---|---|---|---|---|---|")
    for name, probabilities in probability_maps(target).items():
        one, every = interleaved(
            [lambda p=probabilities: surface_dice(p >= 128, target), lambda p=probabilities: surface_curve(p, target)],
            repeats,
        )
        curve = surface_curve(probabilities, target).surface_dice()
        tried = range(1, 256, 16)
        difference = max(abs(curve[t - 1] - surface_dice(probabilities >= t, target)) for t in tried)
        partial = np.mean((probabilities > 0) & (probabilities < 255))
        ratio = statistics.median(every) / statistics.median(one)
        print(f"| {name} | {partial:.1%} | {spread(one)} | {spread(every)} | {ratio:.1f} | {difference:.0e} |")
    print()


def other_packages(target: NDArray[np.bool_], repeats: int) -> None:
    predicted = tubes(seed=0, radius_change=-0.7)
    print(f"## Other packages, {' x '.join(map(str, target.shape))} tubes ({target.mean():.1%} vessel), tolerance 0\n")
    print(f"The prediction has the same tubes, 0.7 voxels thinner. Ours gives {surface_dice(predicted, target):.12f}, ")
    print("and is measured right before and after each of the others.\n")
    print("| | surface dice | seconds | ours, seconds | ours is faster |\n|---|---|---|---|---|")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, function in {
            "surface-distance": lambda: with_surface_distance(predicted, target),
            "MONAI, `use_subvoxels=True` (the same areas)": lambda: with_monai(predicted, target, subvoxels=True),
            "MONAI, as it is by default (counts voxels)": lambda: with_monai(predicted, target, subvoxels=False),
        }.items():
            score = function()
            theirs, ours = [], []
            for _ in range(REFERENCE_REPEATS):
                ours += [time_once(lambda: surface_dice(predicted, target)) for _ in range(repeats)]
                theirs.append(time_once(function))
                ours += [time_once(lambda: surface_dice(predicted, target)) for _ in range(repeats)]
            ratio = statistics.median(theirs) / statistics.median(ours)
            print(f"| {name} | {score:.12f} | {spread(theirs)} | {spread(ours)} | {ratio:.0f} times |")


def with_surface_distance(predicted: NDArray[np.bool_], target: NDArray[np.bool_]) -> float:
    import surface_distance

    distances = surface_distance.compute_surface_distances(target, predicted, (1, 1, 1))
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, 0.0))


def with_monai(predicted: NDArray[np.bool_], target: NDArray[np.bool_], subvoxels: bool) -> float:
    import torch
    from monai.metrics import compute_surface_dice

    one_hot = (torch.from_numpy(np.stack([~mask, mask])[None]) for mask in (predicted, target))
    return float(compute_surface_dice(*one_hot, class_thresholds=[0.0], spacing=(1, 1, 1), use_subvoxels=subvoxels))


def tubes(seed: int, radius_change: float = 0.0, count: int = 70) -> NDArray[np.bool_]:
    """Winding tubes with radii of 1 to 6 voxels, thin ones more often."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    for _ in range(count):
        radius = 1 + 5 * rng.random() ** 3
        direction = rng.standard_normal(3)
        point = rng.random(3) * SHAPE
        ball = ball_of(max(radius + radius_change, 0.5))
        for _ in range(500):
            direction += 0.2 * rng.standard_normal(3)
            direction /= np.linalg.norm(direction)
            point = np.mod(point + direction, SHAPE)
            voxels = np.round(point).astype(int) + ball
            inside = voxels[((voxels >= 0) & (voxels < SHAPE)).all(axis=1)]
            mask[tuple(inside.T)] = True
    return mask


def ball_of(radius: float) -> NDArray[np.int64]:
    reach = int(radius)
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1].reshape(3, -1).T
    return offsets[(offsets**2).sum(axis=1) <= radius**2]


def probability_maps(target: NDArray[np.bool_]) -> dict[str, NDArray[np.uint8]]:
    """What networks output: a trained one, one that is less sure, and the worst case, noise in every voxel."""
    rng = np.random.default_rng(1)
    vessels = target.astype(np.float32)
    return {
        "walls two to three voxels wide": np.round(255 * gaussian_filter(vessels, 0.7, truncate=3)).astype(np.uint8),
        "walls ten voxels wide": np.round(255 * gaussian_filter(vessels, 2.5, truncate=3)).astype(np.uint8),
        "noise of 0..11 in every voxel": rng.integers(0, 12, SHAPE).astype(np.uint8) + target.view(np.uint8) * 200,
    }


def interleaved(functions: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    times = [[time_once(function) for function in functions] for _ in range(repeats)]
    return [list(column) for column in zip(*times, strict=True)]


def time_once(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def spread(times: list[float]) -> str:
    digits = 3 if max(times) < 10 else 1
    return f"{statistics.median(times):.{digits}f} ({min(times):.{digits}f} to {max(times):.{digits}f})"


def reset_peak_memory() -> int:
    """Reset the peak (Linux); returns the bytes held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def peak_memory() -> int:
    return memory("VmHWM")


def memory(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def cpu() -> str:
    info = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return models[0] if models else platform.processor()


if __name__ == "__main__":
    main()
