"""Learning curves: every step counts once, whatever stopped the training; and the file drawn is a picture."""

import json
import struct
from pathlib import Path

import pytest

from results.pictures.curve import POINTS, LossCurve, draw_curve, read_lines


def _png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def _points(path: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in read_lines(path)]


def test_a_short_training_keeps_every_loss(tmp_path: Path) -> None:
    curve = LossCurve(tmp_path / "losses", steps=3)
    for step in (1, 2, 3):
        curve.add(step, step / 2)
    assert _points(tmp_path / "losses") == [(1, 0.5), (2, 1.0), (3, 1.5)]


def test_a_long_training_keeps_means(tmp_path: Path) -> None:
    curve = LossCurve(tmp_path / "losses", steps=301)
    for step in range(1, 302):
        curve.add(step, float(step))
    points = _points(tmp_path / "losses")
    assert points[:2] == [(3, 2.0), (6, 5.0)]  # means of 1, 2, 3 and of 4, 5, 6
    assert points[-1] == (301, 301.0)  # the last step is there though it does not fill a run
    assert len(points) == POINTS + 1


def test_steps_made_again_after_a_stop_appear_once_with_their_last_loss(tmp_path: Path) -> None:
    path = tmp_path / "losses"
    before = LossCurve(path, steps=6)
    for step in (1, 2, 3, 4):
        before.add(step, 9.0)
    after = LossCurve(path, steps=6)  # the checkpoint was that of step 2
    for step in (3, 4, 5, 6):
        after.add(step, 1.0)
    assert _points(path) == [(1, 9.0), (2, 9.0), (3, 1.0), (4, 1.0), (5, 1.0), (6, 1.0)]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "losses"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert _points(path) == [(1, 0.5)]


def test_what_is_written_after_a_torn_line_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "losses"
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    curve = LossCurve(path, steps=4)
    for step in (2, 3, 4):
        curve.add(step, 0.25)
    points = _points(path)
    assert points[0] == (1, 0.5)
    assert points[-2:] == [(3, 0.25), (4, 0.25)]


def test_what_is_no_point_of_the_curve_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "losses"
    lines = ["[" * 5_000, "[]", "7", '{"loss": 1.0}', '{"step": "x", "loss": 1.0}', '{"step": 1, "loss": null}']
    path.write_text("\n".join([*lines, '{"step": 2, "loss": 0.5}']))
    assert read_lines(path, "loss") == [{"step": 2, "loss": 0.5}]


def test_a_curve_without_a_file_is_empty(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "missing") == []


@pytest.mark.parametrize("losses", [[], [(1, 1.0)], [(1, 1.0), (2, 0.5)]])
@pytest.mark.parametrize("scores", [[], [(1, 0.0)], [(1, 0.2), (2, 0.9)]])
def test_a_curve_is_a_picture_of_its_size(
    tmp_path: Path, losses: list[tuple[int, float]], scores: list[tuple[int, float]]
) -> None:
    for name, key, points in (("losses", "loss", losses), ("scores", "surface_dice", scores)):
        lines = [json.dumps({"step": step, key: value}) + "\n" for step, value in points]
        (tmp_path / name).write_text("".join(lines))
    draw_curve(tmp_path / "curve.png", tmp_path / "losses", tmp_path / "scores", "resnet18 · Unet", "surface_dice")
    assert _png_size(tmp_path / "curve.png") == (770, 396)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["curve.png", "losses", "scores"]


def test_a_name_with_dollars_is_no_formula(tmp_path: Path) -> None:
    draw_curve(tmp_path / "curve.png", tmp_path / "none", tmp_path / "none", r"a $\nonsense$ name", "surface_dice")
    assert _png_size(tmp_path / "curve.png") == (770, 396)


def test_a_name_in_letters_that_the_font_lacks_is_drawn_without_a_warning(tmp_path: Path) -> None:
    draw_curve(tmp_path / "curve.png", tmp_path / "none", tmp_path / "none", "肾脏 \x1b[2J", "surface_dice")
    assert (tmp_path / "curve.png").is_file()
