"""A training of a network so small that its steps take milliseconds."""

import torch
from kidneys import tube
from torch import nn

from trainers.data.patches import PatchSampler
from trainers.fit import Fit, FitConfig, make_accelerator

CONFIG = FitConfig(
    steps=6, crop=16, batch_size=2, loss="bce", learning_rate=0.01, augmentation="flips", vessel_share=0.5
)


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(4, 1, 1)
    )


def small_fit(config: FitConfig = CONFIG, network: nn.Module | None = None) -> Fit:
    sampler = PatchSampler([tube("a")], 3, 1, config.crop, config.vessel_share, seed=5)
    return Fit(network or small_network(), sampler, config, 5, make_accelerator("float32", "cpu"))


def go_on(step: int, loss: float) -> bool:
    return True
