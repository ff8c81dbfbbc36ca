"""Samples per second and core for each change, next to albumentations' plain 2D pipeline; and whether training waits.

    OMP_NUM_THREADS=1 python results/benchmarks/augmentation.py            # samples per second, one core
    OMP_NUM_THREADS=1 python results/benchmarks/augmentation.py --training # share of a step that waits, two loaders

Samples are counted in CPU time of the one thread, so that other work on the machine does not count. The volume is a
memory-mapped phantom of 192 x 620 x 620 voxels, warm in the page cache. Each figure is the median of several runs,
taken in turn. The 2D pipeline is the one that this project had before, with albumentations 2.0.8, which is no longer a
dependency (pip install albumentations==2.0.8); it is left out if that is missing.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it looks for a newer release on the network when imported

import numpy as np
import torch

from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.data.augment import Augmentation
from trainers.data.batches import Batches
from trainers.data.patches import PatchSampler
from trainers.data.phantom import PhantomConfig, make_phantom
from trainers.data.volume import Volume
from trainers.losses.losses import build_loss

TEXTS = ("none", "flips", "standard", "strong", "strong - tilt", "strong - elastic", "strong - cutmix")
ROUNDS = 5


def volume_in(folder: Path, shape: tuple[int, int, int]) -> Volume:
    """A phantom, memory-mapped as a converted kidney is."""
    phantom = make_phantom(PhantomConfig(shape=shape), 0)
    np.save(folder / "image.npy", phantom.image)
    np.save(folder / "label.npy", phantom.label)
    image, label = np.load(folder / "image.npy", "r"), np.load(folder / "label.npy", "r")
    low, high = np.percentile(phantom.image, [2, 98])
    return Volume("p", "p", image, label, np.flatnonzero(label), (50.0,) * 3, 1.0, float(low), float(high), "p")


def plain_2d() -> Callable[[PatchSampler, int], Any] | None:
    """The former pipeline: symmetries, affine, brightness, gamma and noise of albumentations on a straight patch."""
    try:
        import albumentations as a
    except ImportError:
        return None
    pipeline = a.Compose(
        [
            a.D4(p=1.0),
            a.Affine(scale=(0.75, 1.25), translate_percent=(-0.06, 0.06), rotate=(-30, 30), border_mode=4, p=0.4),
            a.RandomBrightnessContrast(brightness_limit=0.06, contrast_limit=0.12, p=0.5),
            a.RandomGamma(gamma_limit=(80, 125), p=0.3),
            a.GaussNoise(std_range=(0.005, 0.02), p=0.2),
        ]
    )

    def sample(sampler: PatchSampler, number: int) -> Any:
        image, label = sampler.sample(number)
        scaled = np.ascontiguousarray(np.moveaxis((image + 1) / 3, 0, -1))
        return pipeline(image=scaled, mask=np.ascontiguousarray(np.moveaxis(label, 0, -1)))

    return sample


def _augmented(augmentation: Augmentation, sampler: PatchSampler, number: int) -> Any:
    return sampler.sample(number, augmentation)


def samples_a_second(crop: int, slices: int) -> None:
    """One table row for each change."""
    with tempfile.TemporaryDirectory() as folder:
        volume = volume_in(Path(folder), (192, 620, 620))
        sampler = PatchSampler([volume], slices, slices, crop, 0.75, seed=0)
        kinds: dict[str, Callable[[PatchSampler, int], Any]] = {
            text: partial(_augmented, Augmentation(text)) for text in TEXTS
        }
        former = plain_2d()
        if former is not None:
            kinds["albumentations, 2D"] = former
        count = max(10, 4_000_000 // (crop * crop * slices))
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(ROUNDS + 1):
            for name, sample in kinds.items():
                began = time.thread_time()
                for number in range(count):
                    sample(sampler, turn * count + number)
                if turn:  # the first run compiles and warms the page cache
                    rates[name].append(count / (time.thread_time() - began))
        for name, values in rates.items():
            rate = statistics.median(values)
            print(f"| {slices} x {crop} x {crop} | {name} | {rate:.0f} | {1000 / rate:.2f} |", flush=True)


def waiting(crop: int, batch: int, steps: int) -> None:
    """Share of the time that training steps of a ResNet-18 U-Net wait for their batch, with two loader processes."""
    with tempfile.TemporaryDirectory() as folder:
        volume = volume_in(Path(folder), (192, 620, 620))
        for text in ("none", "standard", "strong"):
            candidate = UnetCandidate(encoder="resnet18", slices_in=3, masks="all", resolution="stem")
            network, loss = build_network(candidate, crop).train(), build_loss("dice + focal + surface_cubes")
            optimiser = torch.optim.AdamW(network.parameters(), fused=True)
            sampler = PatchSampler([volume], 3, 3, crop, 0.75, seed=0)
            stream = iter(Batches(sampler, Augmentation(text), batch, workers=2))
            waited, began = 0.0, 0.0
            for step in range(steps + 5):
                if step == 5:
                    waited, began = 0.0, time.perf_counter()
                before = time.perf_counter()
                image, label = next(stream)
                waited += time.perf_counter() - before
                optimiser.zero_grad()
                loss(network(image), label).backward()
                optimiser.step()
            spent = time.perf_counter() - began
            print(f"| {text} | {1000 * spent / steps:.0f} | {100 * waited / spent:.1f} % |", flush=True)


def main() -> None:
    """Print one of the two tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    if arguments.training:
        print("| changes | ms per step | waiting |\n|---|---:|---:|")
        waiting(arguments.crop, arguments.batch, arguments.steps)
        return
    print("| patch | changes | samples per second | ms per sample |\n|---|---|---:|---:|")
    for crop, slices in ((96, 3), (256, 5), (512, 3)):
        samples_a_second(crop, slices)


if __name__ == "__main__":
    main()
