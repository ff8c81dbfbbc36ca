"""Figures for files only. matplotlib is imported with the first one, because the driver of a search draws none."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.atomic import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """A figure of this size in inches, with automatic layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path, dpi: int) -> None:
    """Write a figure atomically; the format follows from the file's name."""
    with whole_file(path) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # a name in letters that the font lacks shows boxes
        figure.savefig(file, dpi=dpi, format=path.suffix.removeprefix("."))
