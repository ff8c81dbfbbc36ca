"""Measure the conversion of a kidney-sized TIFF stack, and slabs cut from the converted volume.

    python results/benchmarks/conversion.py FOLDER [--depth 421] [--repeats 5]

FOLDER needs 6 GB; what is made in it is deleted again. Everything is measured in one run, page cache warm.
Prints a report in Markdown.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

from trainers.data.prepare import prepare
from trainers.data.sources import scan_one

HEIGHT, WIDTH = 1303, 912  # kidney_1_dense
EDGE, SLICES = 256, 5
PEAK = r"""
import re, sys
from pathlib import Path
from trainers.data.prepare import prepare
from trainers.data.sources import scan_one
source = scan_one(Path(sys.argv[1]))
def peak():  # getrusage would count what the parent had before exec
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000
before = peak()
prepare(source, Path(sys.argv[2]))
print(before, peak())
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--depth", type=int, default=421)  # 500 million voxels
    arguments.add_argument("--repeats", type=int, default=5)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        report(Path(scratch), options.depth, options.repeats)


def report(scratch: Path, depth: int, repeats: int) -> None:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    print(f"Commit {commit.stdout.strip()}, Python {platform.python_version()}, numpy {np.__version__}, ", end="")
    print(f"tifffile {tifffile.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before the run.\n")
    gigabytes = depth * HEIGHT * WIDTH * 3 / 1e9
    print(
        f"{depth} slices of {HEIGHT} x {WIDTH}, uint16 images and uint8 labels, {gigabytes:.2f} GB of voxels, ", end=""
    )
    print(f"{repeats} repeats, all taken in turn; median (least to most).\n")
    print(
        "| TIFF | tifffile, one thread (s) | tifffile, threads (s) | read, write, sync alone (s) | prepare (s) ", end=""
    )
    print("| prepare / one thread | CPU seconds of the four |")
    print("|---|---|---|---|---|---|---|")
    warm_up(scratch / "small")
    for compression in (None, "deflate"):
        volume = write_volume(scratch / (compression or "uncompressed"), depth, compression)
        compare(volume, scratch / "cache", compression or "uncompressed", repeats)
        if compression:
            shutil.rmtree(volume)
    print("\nPeak resident memory of a process that converts, and before it began (MB):\n")
    print("| slices | before | peak |\n|---|---|---|")
    for slices in (depth // 4, depth):
        part = first_slices(scratch / "uncompressed", scratch / f"first_{slices}", slices)
        command = [sys.executable, "-c", PEAK, str(part), str(scratch / "peak")]
        before, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        shutil.rmtree(scratch / "peak")
        print(f"| {slices} | {float(before):.0f} | {float(peak):.0f} |")
    slabs(scratch / "uncompressed", scratch / "cache")


def write_volume(folder: Path, depth: int, compression: str | None) -> Path:
    """A kidney-like stack: a bright ellipsoid with a texture in noise; about 0.3 % of it labelled."""
    random = np.random.default_rng(0)
    y, x = np.ogrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    # A few noises in turn are enough: neither the codec nor the disk remembers the last one.
    noises = [gaussian_filter(random.normal(0, 2200, (HEIGHT, WIDTH)), 0.7) for _ in range(8)]
    dots = random.random((depth, 40, 2)) * (HEIGHT - 12, WIDTH - 12)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for z in range(depth):
        radius = 0.9 * np.sin(np.pi * (z + 1) / (depth + 1)) ** 0.5
        grey = 19_000 + noises[z % 8] + 4_000 * (y**2 + x**2 < radius**2)
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        for row, column in dots[z].astype(int):
            label[row : row + 10, column : column + 9] = 255
        options = {"compression": compression, "photometric": "minisblack", "metadata": None}
        tifffile.imwrite(folder / "images" / f"{z:04d}.tif", grey.astype(np.uint16), **options)
        tifffile.imwrite(folder / "labels" / f"{z:04d}.tif", label, **options)
    return folder


def first_slices(volume: Path, folder: Path, slices: int) -> Path:
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
        for file in sorted((volume / name).iterdir())[:slices]:
            (folder / name / file.name).symlink_to(file)
    return folder


def warm_up(folder: Path) -> None:
    """Compile what is compiled once and then cached, and import what is imported late."""
    prepare(scan_one(write_volume(folder, 2, None)), folder / "cache")


def compare(volume: Path, cache: Path, name: str, repeats: int) -> None:
    files = sorted((volume / "images").iterdir()) + sorted((volume / "labels").iterdir())
    source = scan_one(volume)

    def read_in_turn() -> None:
        for file in files:
            tifffile.imread(file)

    def read_by_threads() -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(tifffile.imread, files):
                pass

    def read_and_write() -> None:
        """The least that a conversion must do: no check, no statistics."""
        cache.mkdir()
        with (cache / "voxels").open("wb", buffering=0) as out:
            for file in files:
                out.write(tifffile.imread(file).data)
            os.fsync(out.fileno())

    def convert() -> None:
        prepare(source, cache)

    read_in_turn()
    times: dict[Callable[[], None], list[float]] = {
        work: [] for work in (read_in_turn, read_by_threads, read_and_write, convert)
    }
    busy: dict[Callable[[], None], list[float]] = {work: [] for work in times}
    for _ in range(repeats):
        for measured, seconds in times.items():
            shutil.rmtree(cache, ignore_errors=True)
            started, working = time.perf_counter(), time.process_time()
            measured()
            seconds.append(time.perf_counter() - started)
            busy[measured].append(time.process_time() - working)
    cells = [
        f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})" for seconds in times.values()
    ]
    ratio = statistics.median(times[convert]) / statistics.median(times[read_in_turn])
    cpu = " / ".join(f"{statistics.median(seconds):.2f}" for seconds in busy.values())
    print(f"| {name} | {' | '.join(cells)} | {ratio:.2f} | {cpu} |", flush=True)


def slabs(volume: Path, cache: Path) -> None:
    source = scan_one(volume)
    prepare(source, cache)
    started = time.perf_counter()
    image = prepare(source, cache).image
    opened = time.perf_counter() - started
    print(f"\nOpening the converted volume again: {opened * 1e3:.1f} ms.\n")
    print(f"Slabs of {SLICES} x {EDGE} x {EDGE} at random places of {image.size / 1e6:.0f} million voxels, copied:\n")
    print("| axis | memory map: median (ms) | 95th percentile (ms) | TIFF slices: median (ms) |\n|---|---|---|---|")
    files = sorted((volume / "images").iterdir())
    everything: list[float] = []
    for axis, name in enumerate("zyx"):
        mapped = cut_times(lambda box, axis=axis: cut(image, box, axis), image.shape, axis, 200)
        from_files = cut_times(lambda box, axis=axis: cut_files(files, box, axis), image.shape, axis, 9)
        everything += mapped
        print(
            f"| {name} | {statistics.median(mapped):.2f} | {np.percentile(mapped, 95):.2f} "
            f"| {statistics.median(from_files):.0f} |"
        )
    print(f"| any | {statistics.median(everything):.2f} | {np.percentile(everything, 95):.2f} | |")


def cut_times(
    cut_box: Callable[[tuple[slice, ...]], np.ndarray], shape: tuple[int, ...], axis: int, count: int
) -> list[float]:
    random = np.random.default_rng(axis)
    times = []
    for _ in range(count):
        edges = [SLICES if dimension == axis else EDGE for dimension in range(3)]
        starts = [int(random.integers(0, whole - edge + 1)) for whole, edge in zip(shape, edges, strict=True)]
        box = tuple(slice(start, start + edge) for start, edge in zip(starts, edges, strict=True))
        started = time.perf_counter()
        assert cut_box(box).shape == (SLICES, EDGE, EDGE)
        times.append((time.perf_counter() - started) * 1e3)
    return times


def cut(image: np.ndarray, box: tuple[slice, ...], axis: int) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(image[box], axis, 0))


def cut_files(files: list[Path], box: tuple[slice, ...], axis: int) -> np.ndarray:
    block = np.stack([tifffile.imread(file)[box[1:]] for file in files[box[0]]])
    return np.ascontiguousarray(np.moveaxis(block, axis, 0))


if __name__ == "__main__":
    main()
