"""The learning curve of one training: loss and scores over steps, kept as lines of JSON and drawn as a picture."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from results.pictures.figure import new_figure, save_figure
from trainers.metrics.table import title_of

POINTS = 100  # of the loss, whatever the number of steps


class LossCurve:
    """Collects the loss of every step and appends its mean over runs of steps to a file."""

    def __init__(self, path: Path, steps: int) -> None:
        self._path, self._steps = path, steps
        self._run = max(1, steps // POINTS)
        self._sum, self._count = 0.0, 0

    def add(self, step: int, loss: float) -> None:
        """Add the loss of one step, 1 .. steps."""
        self._sum += loss
        self._count += 1
        if step % self._run == 0 or step == self._steps:
            append_line(self._path, {"step": step, "loss": self._sum / self._count})
            self._sum, self._count = 0.0, 0


def append_line(path: Path, values: dict[str, Any]) -> None:
    """Add one line of JSON to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_lines(path: Path, value: str | None = None) -> list[dict[str, Any]]:
    """The lines of a curve in the order of their steps; of several lines for one step (after a stop), the last.

    value: the name of the number that each has. A line that a power cut tore is left out, and so is the one that was
    then written right after its half.
    """
    found = {values["step"]: values for values in _tables(path) if value is None or _is_number(values.get(value))}
    return [found[step] for step in sorted(found)]


def _tables(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            values = from_json(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("step"), int):
            yield values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def draw_curve(path: Path, losses: Path, scores: Path, title: str, metric: str) -> None:
    """Draw the loss over steps, and the values of a metric before the end, if there are any."""
    figure = new_figure(7, 3.6)
    axis = figure.subplots()
    points = read_lines(losses, "loss")
    axis.plot([p["step"] for p in points], [p["loss"] for p in points], color="#555555", label="loss")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    axis.set_title(title, fontsize=10, parse_math=False)
    rungs = read_lines(scores, metric)
    if rungs:
        right = axis.twinx()
        right.plot([p["step"] for p in rungs], [p[metric] for p in rungs], "o-", color="#ff9500")
        right.set_ylabel(f"{title_of(metric)} on a part of the held-out kidney", color="#ff9500", fontsize=8)
        right.set_ylim(0, 1)
    save_figure(figure, path, dpi=110)
