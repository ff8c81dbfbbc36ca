"""Figures for files only. matplotlib is imported with the first one, because the driver of a search draws none."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

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
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+")  # a name in letters that the font lacks shows boxes
        aside.unlink(missing_ok=True)
        with aside.open("xb") as file:  # never through a link that somebody else put there
            figure.savefig(file, dpi=dpi, format=path.suffix.removeprefix("."))
    aside.replace(path)
