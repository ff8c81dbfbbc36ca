"""Step time, waiting for data and peak memory of the preset sennet on a GPU, on a volume of real size.

    python results/benchmarks/training_step.py FOLDER [--steps 60]

FOLDER gets a synthetic kidney of 1024 x 1303 x 912 voxels (3.7 GB), which later runs use again. Without a GPU the
script says so and measures nothing: the preset is not meant for a CPU.
"""

import argparse
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from nas.config.read import read_config
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.data.augment import Augmentation
from trainers.data.batches import Batches
from trainers.data.patches import PatchSampler
from trainers.data.volume import Volume
from trainers.fit import Fit, FitConfig, make_accelerator
from trainers.inference.reader import make_reader
from trainers.metrics.cross_fit import score
from trainers.metrics.evaluate import predict_all
from trainers.metrics.score import ScoreConfig

SHAPE = (1024, 1303, 912)
ENCODERS = ("resnet50", "se_resnext50_32x4d", "efficientnet-b5", "tu-convnext_tiny")


def kidney(folder: Path) -> Volume:
    """A volume of noise with tubes along all axes, memory-mapped."""
    folder.mkdir(parents=True, exist_ok=True)
    image_path, label_path = folder / "image.npy", folder / "label.npy"
    if not label_path.exists():
        rng = np.random.default_rng(0)
        image = np.lib.format.open_memmap(image_path, mode="w+", dtype=np.uint16, shape=SHAPE)
        label = np.lib.format.open_memmap(folder / "part.npy", mode="w+", dtype=np.uint8, shape=SHAPE)
        rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]]
        for z in range(SHAPE[0]):
            inside = (rows - z) % 97 + (columns + z // 2) % 89 < 8
            image[z] = np.where(inside, 21_000, 25_000) + rng.normal(0, 600, SHAPE[1:])
            label[z] = inside
        del image, label
        (folder / "part.npy").rename(label_path)
    image, label = np.load(image_path, mmap_mode="r"), np.load(label_path, mmap_mode="r")
    vessels = np.random.default_rng(1).choice(np.flatnonzero(label[:200]), 1_000_000)
    return Volume("real-size", "real-size", image, label, vessels, (50.0,) * 3, 1.0, 20_500.0, 26_000.0, "synthetic")


def measure(volume: Volume, candidate: UnetCandidate, fit: FitConfig, steps: int) -> str:
    """One row: milliseconds per step, the share spent waiting for data, peak memory, loss at the end."""
    accelerator = make_accelerator(fit.precision)
    torch.manual_seed(0)
    torch.cuda.reset_peak_memory_stats()
    sampler = PatchSampler([volume], candidate.slices_in, candidate.slices_out, fit.crop, fit.vessel_share, seed=0)
    training = Fit(build_network(candidate, fit.crop, pretrained=False), sampler, fit, 0, accelerator)
    stamps: list[float] = []
    training.run(steps, lambda _step, _loss: bool(stamps.append(time.perf_counter())) or True)
    step = statistics.median(b - a for a, b in pairwise(stamps[10:]))

    stream = iter(Batches(sampler, Augmentation(fit.augmentation), fit.batch_size, 0, fit.loader_workers))
    next(stream)
    waits = []
    for _ in range(30):
        time.sleep(step)  # the GPU computes while the loader works
        began = time.perf_counter()
        next(stream)
        waits.append(time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated() / 2**30
    waiting = statistics.median(waits) / (step + statistics.median(waits))
    return (
        f"| {candidate.encoder} | {fit.crop} | {fit.batch_size} | {1000 * step:.0f} | {100 * waiting:.1f} % "
        f"| {memory:.1f} | {fit.batch_size / step:.0f} |"
    )


def measure_scoring(volume: Volume, fit: FitConfig) -> str:
    """Seconds to predict and to score 64 slices of the volume along three axes."""
    config = read_config("sennet")
    candidate = UnetCandidate(encoder="resnet50", slices_in=3)
    accelerator = make_accelerator(fit.precision)
    network = build_network(candidate, fit.crop, pretrained=False).to(accelerator.device)
    part = Volume(**{**vars(volume), "image": volume.image[:64], "label": volume.label[:64]})  # type: ignore[index]
    inference = config.inference.model_copy(update={"axes": (0,)})
    began = time.perf_counter()
    predictions = predict_all(make_reader(network, candidate, fit), [part], inference, accelerator)
    predicted = time.perf_counter() - began
    score(predictions, [part], ScoreConfig(slabs=4))
    scored = time.perf_counter() - began - predicted
    return (
        f"64 slices of {SHAPE[1]} x {SHAPE[2]} along one axis: predicted in {predicted:.1f} s, scored in {scored:.1f} s"
    )


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: nothing measured")
        sys.exit(0)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, volume of {SHAPE} voxels\n")
    volume = kidney(arguments.folder)
    config = read_config("sennet")
    print("| encoder (Unet) | crop | batch | ms per step | waiting for data | peak GiB | samples/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for encoder in ENCODERS:
        print(measure(volume, UnetCandidate(encoder=encoder, slices_in=3), config.fit, arguments.steps), flush=True)
    print(f"\n{measure_scoring(volume, config.fit)}")


if __name__ == "__main__":
    main()
