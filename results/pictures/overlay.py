"""Pictures of a prediction: the slice with the most vessels, with labels and prediction as outlines."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.pictures.figure import new_figure, save_figure
from trainers.data.volume import Volume
from trainers.metrics.score import Score, said

LABEL_COLOUR, PREDICTION_COLOUR = "#00d4ff", "#ff9500"
_SHOWN = 3  # volumes shown at most


def draw_overlay(
    path: Path, volumes: Sequence[Volume], predictions: Mapping[str, NDArray[np.uint8]], score: Score, title: str
) -> None:
    """Draw, for up to three held-out volumes, grey values with both outlines, and beside them where these differ.

    predictions: probabilities in steps of 1/255, (D, H, W), by volume name; they are cut at the score's threshold.
    """
    labelled = [volume for volume in volumes if volume.label is not None]
    shown = sorted(labelled, key=lambda volume: -len(volume.vessel_voxels))[:_SHOWN]
    figure = new_figure(8.4, 0.7 + 4.4 * len(shown))
    axes = figure.subplots(len(shown), 2, squeeze=False)
    for row, volume in enumerate(shown):
        assert volume.label is not None
        depth, height, width = volume.shape
        z = int(np.bincount(volume.vessel_voxels // (height * width), minlength=depth).argmax())
        label = np.asarray(volume.label[z]) > 0
        predicted = predictions[volume.name][z] >= round(score.threshold * 255)
        own = next(v for v in score.volumes if v.volume == volume.name)
        grey = volume.normalise(volume.image[z])
        left, right = axes[row]
        left.imshow(grey, cmap="gray", vmin=-0.5, vmax=1.5, interpolation="nearest")
        _outline(left, label, LABEL_COLOUR)
        _outline(left, predicted, PREDICTION_COLOUR)
        left.set_title(f"{volume.name}, slice {z}\n{said(own.values, digits=3)}", fontsize=9, parse_math=False)
        right.imshow(_differences(label, predicted), interpolation="nearest")
        right.set_title("white: both · blue: missed · orange: false positive", fontsize=8)
        for axis in (left, right):
            axis.set_axis_off()
    figure.suptitle(f"{title}\nblue: label · orange: prediction", fontsize=10, parse_math=False)
    save_figure(figure, path, dpi=110)


def _outline(axis: object, mask: NDArray[np.bool_], colour: str) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask.astype(float), levels=[0.5], colors=[colour], linewidths=0.8)  # type: ignore[attr-defined]


def _differences(label: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Colours (H, W, 3) of agreement and of both kinds of error."""
    picture = np.full((*label.shape, 3), 0.08)
    picture[label & predicted] = (0.95, 0.95, 0.95)
    picture[label & ~predicted] = (0.0, 0.65, 1.0)
    picture[~label & predicted] = (1.0, 0.55, 0.0)
    return picture
