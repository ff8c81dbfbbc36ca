"""Pictures of predictions: one row per volume, at most three, and any label can be drawn."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kidneys import tube

from results.pictures.overlay import _differences, draw_overlay
from trainers.data.volume import Volume
from trainers.metrics.score import Score, Slab, VolumeScore

DOTS = 110  # an inch
WIDTH = int(8.4 * DOTS)


def _score(volumes: list[Volume]) -> Score:
    return Score(
        rank_by="surface_dice",
        values={"surface_dice": 0.5},
        ci_low=0.4,
        ci_high=0.6,
        threshold=0.5,
        best=0.5,
        mean_over_thresholds=0.5,
        volumes=tuple(VolumeScore(volume=v.name, values={"surface_dice": 0.5}) for v in volumes),
        slabs=(Slab(volume="a", threshold=0.5, parts={"surface_dice": (1.0, 2.0)}),),
    )


def _draw(path: Path, volumes: list[Volume], title: str = "resnet18 · Unet", level: int | None = None) -> int:
    """Rows that the picture shows."""
    predictions = {}
    for volume in volumes:
        certain = volume.label if volume.label is not None else np.zeros(volume.shape, np.uint8)
        predictions[volume.name] = (certain * 255 if level is None else np.full(volume.shape, level)).astype(np.uint8)
    draw_overlay(path, volumes, predictions, _score(volumes), title)
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width == WIDTH
    rows = (height / DOTS - 0.7) / 4.4
    assert rows == pytest.approx(round(rows), abs=0.01)
    return round(rows)


def _labelled(value: int) -> Volume:
    volume = tube("a", (8, 24, 32))
    label = np.full(volume.shape, value, np.uint8)
    return replace(volume, label=label, vessel_voxels=np.flatnonzero(label))


def test_every_volume_has_a_row(tmp_path: Path) -> None:
    volumes = [tube("a", (8, 24, 32)), tube("b", (8, 32, 24))]
    assert _draw(tmp_path / "overlay.png", volumes) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["overlay.png"]


def test_at_most_three_volumes_are_shown(tmp_path: Path) -> None:
    assert _draw(tmp_path / "overlay.png", [tube(name, (4, 16, 16)) for name in "abcd"]) == 3


def test_volumes_without_labels_are_not_shown(tmp_path: Path) -> None:
    volumes = [tube("a", (8, 24, 32)), replace(tube("b", (8, 24, 32)), label=None)]
    assert _draw(tmp_path / "overlay.png", volumes) == 1


@pytest.mark.parametrize("level", [0, 255, None], ids=["nothing", "everything", "the label"])
@pytest.mark.parametrize("label", [0, 1], ids=["empty", "all vessel"])
def test_empty_and_full_slices_are_drawn(tmp_path: Path, label: int, level: int | None) -> None:
    assert _draw(tmp_path / "overlay.png", [_labelled(label)], level=level) == 1


def test_a_picture_replaces_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "overlay.png").write_bytes(b"old")
    assert _draw(tmp_path / "overlay.png", [tube("a", (8, 24, 32))]) == 1


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    volume = replace(tube("a", (8, 24, 32)), name=r"$\worse$")
    assert _draw(tmp_path / "overlay.png", [volume], title=r"a $\nonsense$ name") == 1


def test_both_kinds_of_error_have_a_colour_of_their_own() -> None:
    label = np.array([[True, True, False, False]])
    predicted = np.array([[True, False, True, False]])
    both, missed, invented, neither = _differences(label, predicted)[0]
    assert both.min() > 0.9  # white
    assert missed.argmax() == 2  # blue
    assert invented.argmax() == 0  # orange
    assert neither.max() < 0.1  # black
