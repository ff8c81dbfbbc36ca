"""Measure the memory of `nas predict --submission` on synthetic kidneys as large as real ones.

    python results/benchmarks/submission_memory.py FOLDER [--cases 500x400x400 1500x800x800]

A case is a shape, or several joined by `+` for the kidneys of one call, followed by `@zyx` for the axes (z alone
otherwise). FOLDER needs 13 bytes per voxel; what is made in it is deleted again. The network is one convolution, which
finds the dark tubes of these kidneys by their mean grey. It stands in for a trained one, which takes hours for such
kidneys on a CPU; its own memory is bounded by inference.batch_voxels. Everything else is `nas predict` itself. The CSV
is decoded and compared with the masks. Prints a report in Markdown.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile
import torch
from torch import nn

import results.bundles.bundle
from nas.commands.main import main as nas
from results.bundles.architecture import Architecture, Provenance
from results.bundles.bundle import write_bundle
from results.bundles.reading import Reading
from search_spaces.families.unet import UnetCandidate
from trainers.data.masks import mask_slices
from trainers.data.rle import decode, read_rles
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import ScoreConfig

CASES = (
    "3x400x400+3x400x400",  # the competition's placeholder: 3 slices per kidney
    "500x400x400@zyx",
    "500x400x400+500x400x400+500x400x400@zyx",
    "1500x400x400@zyx",
    "1500x800x800@zyx",
)
CROP = 64
SMALLEST_COMPONENT = 64  # voxels
THRESHOLD = 0.5
POLL_SECONDS = 0.05
PREDICT = "--predict"  # how this script calls itself in the measured process


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--cases", nargs="+", default=CASES)
    if sys.argv[1:2] == [PREDICT]:
        results.bundles.bundle.build_network = lambda *_, **__: tube_finder()
        sys.argv[1:2] = ["predict"]
        nas()
    options = arguments.parse_args()
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    memory = psutil.virtual_memory()
    print(f"Commit {commit.stdout.strip()}, Python {platform.python_version()}, torch {torch.__version__}, ", end="")
    print(f"{os.cpu_count()} cores, {memory.total / 1e9:.0f} GB, {memory.available / 1e9:.0f} GB available, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}.\n")
    print("| kidneys | axes | voxels (M) | rows | CSV (MB) | vessel | peak RSS (MB) | not file-backed (MB) | ", end="")
    print("seconds | decodes to the masks |\n|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for case in options.cases:
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            measure(case, Path(scratch))


def measure(case: str, scratch: Path) -> None:
    kidneys, _, axes = case.partition("@")
    shapes = [tuple(map(int, part.split("x"))) for part in kidneys.split("+")]
    for number, shape in enumerate(shapes, start=5):  # kidney_5 and kidney_6 are the competition's
        write_kidney(scratch / "test" / f"kidney_{number}" / "images", shape, number)
    bundle = make_bundle(scratch / "bundle", tuple("zyx".index(axis) for axis in axes or "z"))
    command = [sys.executable, __file__, PREDICT, str(bundle), str(scratch / "test")]
    command += ["--out", str(scratch / "masks"), "--submission", str(scratch / "submission.csv"), "--device", "cpu"]
    began = time.monotonic()
    rss, own = peak_memory(command, {**os.environ, "NAS_CACHE": str(scratch / "cache")})
    seconds = time.monotonic() - began
    rows, vessel, equal = compare(scratch, shapes)
    voxels = sum(int(np.prod(shape)) for shape in shapes)
    megabytes = (scratch / "submission.csv").stat().st_size / 1e6
    print(
        f"| {kidneys.replace('+', ' + ')} | {axes or 'z'} | {voxels / 1e6:.0f} | {rows} | {megabytes:.1f} "
        f"| {vessel / voxels:.2%} | {rss / 1e6:.0f} | {own / 1e6:.0f} | {seconds:.0f} | {'yes' if equal else 'NO'} |",
        flush=True,
    )


def write_kidney(folder: Path, shape: tuple[int, ...], seed: int) -> None:
    """Uncompressed 16-bit slices, NNNN.tif: a bright ellipsoid with dark tubes in noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    depth, height, width = shape
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    noises = [random.normal(0, 900, (height, width)) for _ in range(8)]
    places, drift = random.uniform(-0.6, 0.6, (40, 2)), random.uniform(-0.3, 0.3, (40, 2))
    for z in range(depth):
        radius = 0.95 * np.sin(np.pi * (z + 1) / (depth + 1)) ** 0.5
        grey = 19_000 + noises[z % 8] + 4_000 * (y**2 + x**2 < radius**2)
        for row, column in places + drift * (z / depth):
            grey -= 6_000 * ((y - row) ** 2 + (x - column) ** 2 < (6 / height) ** 2)
        tifffile.imwrite(folder / f"{z:04d}.tif", grey.clip(0).astype(np.uint16), photometric="minisblack")


def tube_finder() -> nn.Module:
    """Mean of 3 x 3 pixels, dark ones above 0: tubes are at -0.2 on the scale where the kidney is at 0.9."""
    network = nn.Conv2d(1, 1, 3, padding=1, padding_mode="replicate")
    nn.init.constant_(network.weight, -10 / 9)
    nn.init.constant_(network.bias, 0.0)
    return network.eval()


def make_bundle(path: Path, axes: tuple[int, ...]) -> Path:
    network = tube_finder()
    architecture = Architecture(
        name="one convolution",
        candidate=UnetCandidate(encoder="tu-resnet10t", slices_in=1),
        fit=FitConfig(crop=CROP, precision="float32"),
        voxel_spacing_um=((50.0, 50.0, 50.0),),
        grey_scales={},
        reading=Reading(
            inference=InferenceConfig(axes=axes, smallest_component=SMALLEST_COMPONENT),
            threshold=THRESHOLD,
            score_config=ScoreConfig(),
        ),
        parameters=sum(p.numel() for p in network.parameters()),
        provenance=Provenance(
            study="none", trial=0, seed=0, version="0", train_volumes={}, held_out_volumes={}, libraries={}
        ),
    )
    return write_bundle(path, architecture, network.state_dict())


def peak_memory(command: list[str], environment: dict[str, str]) -> tuple[int, int]:
    """Peak bytes that the command had in memory, and peak bytes not backed by a file, which the system cannot drop."""
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process, rss, own = psutil.Process(child.pid), 0, 0
    while child.poll() is None:
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:
            break
        rss, own = max(rss, memory.rss), max(own, memory.rss - memory.shared)
        time.sleep(POLL_SECONDS)
    said, _ = child.communicate()
    if child.returncode:
        sys.exit(said)
    return rss, own


def compare(scratch: Path, shapes: list[tuple[int, ...]]) -> tuple[int, int, bool]:
    """Rows of the CSV, voxels in the masks, and whether each row decodes to its slice of the mask."""
    found = read_rles(scratch / "submission.csv")
    numbers = range(5, 5 + len(shapes))
    masks = {n: scratch / "masks" / f"kidney_{n}" if len(shapes) > 1 else scratch / "masks" for n in numbers}
    rows, vessel, equal = 0, 0, set(found) == {f"kidney_{number}" for number in masks}
    for number, path in masks.items():
        for z, mask in enumerate(mask_slices(path)):
            equal &= bool(np.array_equal(decode(found[f"kidney_{number}"][z].rle, *mask.shape), mask))
            rows, vessel = rows + 1, vessel + int(np.count_nonzero(mask))
    return rows, vessel, equal and rows == sum(shape[0] for shape in shapes)


if __name__ == "__main__":
    main()
