"""Small bundles and scans for tests, on disk: networks of one constant answer, and kidneys as TIFF slices."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import tifffile
import torch
from torch import Tensor

from results.bundles.architecture import Architecture, Provenance
from results.bundles.bundle import write_bundle
from results.bundles.reading import Reading
from search_spaces.families.unet import UnetCandidate
from search_spaces.network import build_network
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import ScoreConfig

CANDIDATE = UnetCandidate(encoder="tu-mobilenetv3_small_100", decoder="PSPNet", slices_in=1)


def bundle(
    path: Path,
    probability: float | None = None,
    threshold: float = 0.5,
    inference: InferenceConfig | None = None,
    seed: int = 0,
    held_out: dict[str, str] | None = None,
) -> Path:
    """A bundle whose network answers one probability everywhere, or with random weights for None."""
    weights = {name: weight.clone() for name, weight in _random_weights(seed).items()}
    if probability is not None:
        head = [name for name in weights if name.startswith("segmentation_head")]
        for name in head:
            weights[name].fill_(0.0)
        bias = next(name for name in head if name.endswith("bias"))
        weights[bias].fill_(float(np.log(probability / (1 - probability))))
    architecture = Architecture(
        name=path.name,
        candidate=CANDIDATE,
        fit=FitConfig(crop=32, precision="float32"),
        voxel_spacing_um=((50.0, 50.0, 50.0),),
        grey_scales={},
        reading=Reading(
            inference=inference or InferenceConfig(axes=(0,)), threshold=threshold, score_config=ScoreConfig(slabs=4)
        ),
        parameters=1,
        provenance=Provenance(
            study="s",
            trial=seed,
            seed=seed,
            version="0",
            train_volumes={},
            held_out_volumes=held_out or {},
            libraries={},
        ),
    )
    return write_bundle(path, architecture, weights)


@lru_cache
def _random_weights(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return build_network(CANDIDATE, 32, pretrained=False).state_dict()


def scan(folder: Path, name: str, shape: tuple[int, int, int] = (8, 32, 40), first: int = 0, seed: int = 0) -> Path:
    """A kidney of noise around a dark bar, as the competition lays it out: NAME/images and NAME/labels."""
    random = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    label[:, 8:16, 8:20] = 255
    image = np.where(label > 0, 20_000, 30_000) + random.normal(0, 500, shape)
    for part, voxels in (("images", image.astype(np.uint16)), ("labels", label)):
        (folder / name / part).mkdir(parents=True)
        for z, one in enumerate(voxels, start=first):
            tifffile.imwrite(folder / name / part / f"{z:04d}.tif", one)
    return folder / name
