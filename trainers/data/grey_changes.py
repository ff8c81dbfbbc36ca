"""Random changes of normalised grey values: float32 of any shape, clipped to the range that normalising gives."""

import numpy as np
from numpy.typing import NDArray

from trainers.data.volume import CLIP_HIGH, CLIP_LOW

Grey = NDArray[np.float32]

_SPAN = np.float32(CLIP_HIGH - CLIP_LOW)
_MIDDLE = np.float32(0.5)  # midway between the two percentiles; contrast changes keep it fixed


def change_light(image: Grey, rng: np.random.Generator, shift: float, contrast: float) -> Grey:
    """Changes brightness by up to `shift`, and contrast by a factor of up to 1 + `contrast` or its inverse."""
    factor = np.float32(np.exp(rng.uniform(-1, 1) * np.log1p(contrast)))
    offset = _MIDDLE + np.float32(rng.uniform(-shift, shift)) - factor * _MIDDLE
    return _clipped(image * factor + offset)


def change_gamma(image: Grey, rng: np.random.Generator, largest: float) -> Grey:
    """A power of the grey value over its whole range; the exponent's logarithm is at most `largest` either way."""
    exponent = np.float32(np.exp(rng.uniform(-largest, largest)))
    share = np.maximum((image - np.float32(CLIP_LOW)) / _SPAN, 0, dtype=np.float32)
    return _clipped(np.power(share, exponent) * _SPAN + np.float32(CLIP_LOW))


def change_noise(image: Grey, rng: np.random.Generator, largest: float) -> Grey:
    """Adds independent normal noise with a standard deviation of up to `largest`."""
    deviation = np.float32(rng.uniform(0, largest))
    return _clipped(image + deviation * rng.standard_normal(image.shape, np.float32))


def _clipped(image: Grey) -> Grey:
    return np.clip(image, CLIP_LOW, CLIP_HIGH, out=image, dtype=np.float32)
