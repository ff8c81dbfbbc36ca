"""A picture of a volume: three slices with outlined labels, and a projection of the labels along one axis."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from trainers.atomic import whole_file
from trainers.data.soft_labels import is_vessel
from trainers.data.volume import Volume

_OUTLINE, _NOT_LABELLED = "#ff9d00", "#8a8a8a"
# A panel has a few more pixels than this; larger slices are reduced to this size, so that no voxel is lost.
_PANEL_PIXELS = 500
_DOTS_PER_INCH = 150
_PANEL_INCHES, _NARROWEST, _WIDEST = 4.2, 2.4, 6.0
# Near is bright, far is dark, and nothing is too dark to be seen on black.
_NEAR_TO_FAR = LinearSegmentedColormap.from_list("near_to_far", ["#fff7bc", "#fec44f", "#f4685f", "#b4439c", "#6a51c8"])
_SLAB_DEPTH = 64


def draw_volume(volume: Volume, path: Path) -> Path:
    """Write the picture as PNG and return its path; reads three slices, and the labels once."""
    first, count, slices = _labels_seen(volume)
    depth, height, width = volume.shape
    proportion = width * volume.edges[2] / (height * volume.edges[1])
    panel_width = min(max(_PANEL_INCHES * proportion, _NARROWEST), _WIDEST)
    size = (panel_width * (len(slices) + 1) + 1.5, min(_PANEL_INCHES, panel_width / proportion) + 1.3)
    figure = Figure(figsize=size, dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    *panels, last = figure.subplots(1, len(slices) + 1)
    for axes, z in zip(panels, slices, strict=True):
        _draw_slice(axes, volume, z)
    _draw_projection(figure, last, volume, first, count)
    spacing = (
        "unknown size" if volume.spacing_um is None else " × ".join(f"{edge:g}" for edge in volume.spacing_um) + " µm"
    )
    share = "no labels" if volume.label is None else f"labels contain {volume.annotated:.0%} of the vessels"
    figure.suptitle(
        f"{volume.name} ({volume.kidney})\n{depth} × {height} × {width} voxels of {spacing} (z, y, x), {share}",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        figure.savefig(file, format="png")
    return path


def _labels_seen(volume: Volume) -> tuple[NDArray[np.float32], NDArray[np.int64], list[int]]:
    """Along z: depth of the first labelled voxel (NaN: none) and number of labelled voxels; and the slices to show."""
    depth, height, width = volume.shape
    first = np.full((height, width), np.nan, np.float32)
    count = np.zeros((height, width), np.int64)
    per_slice = np.zeros(depth, np.int64)
    if volume.label is not None:
        for z in np.flatnonzero(_slices_with_vessels(volume)):
            inside = is_vessel(volume.label[z], volume.soft)
            first[inside & np.isnan(first)] = z
            count += inside
            per_slice[z] = np.count_nonzero(inside)
    return first, count, _shown(per_slice)


def _slices_with_vessels(volume: Volume) -> NDArray[np.bool_]:
    label = volume.label
    assert label is not None, "only called where there are labels"
    starts = range(0, volume.shape[0], _SLAB_DEPTH)
    slabs = (is_vessel(label[start : start + _SLAB_DEPTH], volume.soft) for start in starts)
    return np.concatenate([slab.any(axis=(1, 2)) for slab in slabs])


def _shown(per_slice: NDArray[np.int64]) -> list[int]:
    """Up to three slices: from each third of the depth, the slice with the most labels, or the middle one."""
    thirds = [third for third in np.array_split(np.arange(len(per_slice)), 3) if third.size]
    return [
        int(third[np.argmax(per_slice[third])] if per_slice[third].any() else third[len(third) // 2])
        for third in thirds
    ]


def _step(volume: Volume) -> int:
    return -(-max(volume.shape[1:]) // _PANEL_PIXELS)


def _draw_slice(axes: Axes, volume: Volume, z: int) -> None:
    step = _step(volume)
    grey = volume.normalise(np.asarray(volume.image[z, ::step, ::step]))
    _show(axes, volume, grey, cmap="gray", vmin=-0.25, vmax=1.25, interpolation="nearest")
    title = f"slice z = {z}"
    if volume.label is not None:
        vessel = is_vessel(volume.label[z], volume.soft)
        mask = _thinned(vessel, step)
        if mask.any():
            _outline(axes, volume, mask)
        title += f", {np.count_nonzero(vessel)} labelled voxels"
    axes.set_title(title, fontsize=10)


def _draw_projection(
    figure: Figure, axes: Axes, volume: Volume, first: NDArray[np.float32], count: NDArray[np.int64]
) -> None:
    """The labels seen from z = 0; the colour is the depth of the first labelled voxel."""
    axes.set_facecolor("black")
    if volume.label is None or not count.any():
        _show(axes, volume, np.zeros(volume.shape[1:], np.float32), cmap="gray", vmin=0, vmax=1)
        text = "no labels" if volume.label is None else "labels contain no vessel"
        axes.text(0.5, 0.5, text, color=_NOT_LABELLED, ha="center", va="center", transform=axes.transAxes, fontsize=12)
        axes.set_title("labels along z", fontsize=10)
        return
    step = _step(volume)
    # Reduced to the nearest voxel of each tile, so that vessels of one voxel stay visible.
    tiles = _tiles(np.where(np.isnan(first), np.inf, first), step, np.inf).min(axis=(1, 3))
    seen = np.ma.masked_invalid(tiles)
    picture = _show(
        axes, volume, seen, cmap=_NEAR_TO_FAR, vmin=0, vmax=max(1, volume.shape[0] - 1), interpolation="nearest"
    )
    if volume.shape[0] > 1:
        figure.colorbar(picture, ax=axes, shrink=0.9, label="z of the nearest labelled voxel")
    axes.set_title(f"labels along z, over {np.count_nonzero(count) / count.size:.1%} of the area", fontsize=10)


def _show(axes: Axes, volume: Volume, picture: NDArray[Any], **style: Any) -> Any:
    """Draw an (H, W) picture in voxel coordinates and in true proportions."""
    _, height, width = volume.shape
    _, y, x = volume.edges
    shown = axes.imshow(picture, extent=(-0.5, width - 0.5, height - 0.5, -0.5), aspect=y / x, **style)
    axes.tick_params(labelsize=8)
    return shown


def _outline(axes: Axes, volume: Volume, mask: NDArray[np.bool_]) -> None:
    """The border between labelled and other pixels, along pixel edges."""
    rows, columns = mask.shape
    _, height, width = volume.shape
    padded = np.zeros((rows + 2, columns + 2), np.bool_)
    padded[1:-1, 1:-1] = mask
    above = np.argwhere(padded[1:] != padded[:-1])  # edges above row r, at padded column c
    beside = np.argwhere(padded[:, 1:] != padded[:, :-1])
    horizontal = [((c - 1, r), (c, r)) for r, c in above.tolist()]
    vertical = [((c, r - 1), (c, r)) for r, c in beside.tolist()]
    segments = np.array(horizontal + vertical, np.float64) * (width / columns, height / rows) - 0.5
    axes.add_collection(
        LineCollection(list(segments), colors=_OUTLINE, linewidths=0.9 if max(mask.shape) < 400 else 0.6), autolim=False
    )


def _thinned(mask: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    thinned: NDArray[np.bool_] = np.any(_tiles(np.asarray(mask), step, False), axis=(1, 3))
    return thinned


def _tiles(picture: NDArray[Any], step: int, fill: float) -> NDArray[Any]:
    """(H, W) as (rows, step, columns, step), padded at the far sides."""
    height, width = picture.shape
    padded = np.pad(picture, ((0, -height % step), (0, -width % step)), constant_values=fill)
    return padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
