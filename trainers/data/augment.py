"""AUGMENTATIONS: random changes of a patch, by albumentations; the same for all slices of a sample."""

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import unknown_name
from trainers.data.soft_labels import Label
from trainers.data.volume import CLIP_HIGH, CLIP_LOW


class Augmentation:
    """One entry of AUGMENTATIONS, ready to change patches; the pipeline is built at the first call.

    Importing albumentations takes seconds, which commands that train nothing should not pay. Loader processes get the
    name alone. Raises InputError for an unknown name.
    """

    def __init__(self, name: str) -> None:
        if name not in AUGMENTATIONS:
            raise unknown_name("augmentation", name, AUGMENTATIONS)
        self.name = name
        self._pipeline: Any = None

    def __call__(
        self, image: NDArray[np.float32], label: Label, seed: Sequence[int]
    ) -> tuple[NDArray[np.float32], Label]:
        """Image (slices_in, crop, crop) float32 and label (slices_out, crop, crop), changed alike.

        Shapes stay, labels keep their values, grey values stay within the range that normalising leaves. Equal seeds
        give equal changes, in any process.
        """
        if self.name == "none":
            return image, label
        if self._pipeline is None:
            self._pipeline = _compose(AUGMENTATIONS[self.name])
        # Compose.set_random_seed gives every transform the same seed, so that all of them draw the same numbers
        # (2.0.8); shared generators make the draws independent.
        numbers = np.random.default_rng(seed)
        self._pipeline.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))
        # Its transforms of grey values cut floats to 0..1, so they see the whole range as 0..1.
        span = np.float32(CLIP_HIGH - CLIP_LOW)
        scaled = (np.moveaxis(image, 0, -1) - np.float32(CLIP_LOW)) / span
        mask = np.ascontiguousarray(np.moveaxis(label, 0, -1))
        changed = self._pipeline(image=np.ascontiguousarray(scaled), mask=mask)
        grey = np.moveaxis(changed["image"].reshape(scaled.shape), -1, 0) * span + np.float32(CLIP_LOW)
        changed_label = np.moveaxis(changed["mask"].reshape(mask.shape), -1, 0)
        return np.ascontiguousarray(grey, np.float32), np.ascontiguousarray(changed_label)

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "_pipeline": None}


def _none(_: Any) -> list[Any]:
    """Nothing."""
    return []


def _flips(transforms: Any) -> list[Any]:
    """The eight symmetries of the square: exact, no interpolation."""
    return [transforms.D4(p=1.0)]


def _standard(transforms: Any) -> list[Any]:
    """Symmetries, and mild scale, shift, rotation, brightness, contrast, gamma and noise.

    Scale reaches from 0.75 because kidneys are scanned at 50 and 63 µm per voxel.
    """
    return [
        transforms.D4(p=1.0),
        transforms.Affine(
            scale=(0.75, 1.25),
            translate_percent=(-0.06, 0.06),
            rotate=(-30, 30),
            border_mode=_REFLECT,
            interpolation=_LINEAR,
            mask_interpolation=_NEAREST,
            p=0.4,
        ),
        # In units of the whole range, three times the contrast between the two percentiles.
        transforms.RandomBrightnessContrast(brightness_limit=0.06, contrast_limit=0.12, p=0.5),
        transforms.RandomGamma(gamma_limit=(80, 125), p=0.3),
        transforms.GaussNoise(std_range=(0.005, 0.02), p=0.2),
    ]


# Values of OpenCV's constants, so that the table needs no import of cv2.
_NEAREST, _LINEAR, _REFLECT = 0, 1, 4

AUGMENTATIONS: dict[str, Callable[[Any], list[Any]]] = {
    "none": _none,
    "flips": _flips,
    "standard": _standard,
}


def _compose(transforms_of: Callable[[Any], list[Any]]) -> Any:
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for a newer release when imported
    import albumentations

    return albumentations.Compose(transforms_of(albumentations))
