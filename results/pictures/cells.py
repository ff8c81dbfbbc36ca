"""Pictures of networks of cells: their cells and the whole network as graphs, and the alphas over time."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import hypot
from pathlib import Path
from typing import Any

import numpy as np

from results.pictures.curve import read_lines
from results.pictures.figure import new_figure, save_figure
from search_spaces.cells.genotype import CellGenotype, Genotype
from search_spaces.cells.operations import OPERATIONS
from trainers.cell_search.run import CellFindings

_INK, _FAINT = "#222222", "#999999"
_COLOURS = {"same": "#1f77b4", "down": "#d62728", "up": "#2ca02c", "free": "#888888"}  # free: without weights
_WORDS = {
    "encoder_normal": "encoder",
    "reduction": "reduction (half the resolution)",
    "decoder_normal": "decoder",
    "expansion": "expansion (twice the resolution)",
    "skip": "skip",
}
_DPI = 110


def operation_shares(genotype: Genotype) -> dict[str, int]:
    """How many edges of the cells carry each operation, the most frequent first."""
    counts = Counter(edge.operation for cell in genotype.cells for edges in cell.nodes for edge in edges)
    return dict(counts.most_common())


def draw_genotype(path: Path, genotype: Genotype, title: str, findings: CellFindings | None = None) -> None:
    """Draw every cell of a genotype, and the network they stand in, as .png or .svg according to the file's name.

    findings: those of the search it came from; probabilities are then written beside the operations.
    """
    columns = 2
    rows = -(-len(genotype.cells) // columns)
    figure = new_figure(11, 1.0 + 2.7 * rows + 3.2)
    grid = figure.add_gridspec(rows + 1, columns, height_ratios=[1] * rows + [1.15])
    probabilities = _probabilities(findings) if findings else {}
    for number, cell in enumerate(sorted(genotype.cells, key=lambda cell: list(_WORDS).index(cell.kind))):
        axis = figure.add_subplot(grid[number // columns, number % columns])
        _draw_cell(axis, cell, probabilities)
    _draw_network(figure.add_subplot(grid[rows, :]), genotype)
    figure.suptitle(f"{title}   ({genotype.hash})", fontsize=11, parse_math=False)
    save_figure(figure, path, _DPI)


def _probabilities(findings: CellFindings) -> dict[str, float]:
    """decision/option -> probability."""
    return {
        f"{key}={option}": p
        for key, row in findings.probabilities.items()
        for option, p in zip(findings.options[key], row, strict=True)
    }


def _draw_cell(axis: Any, cell: CellGenotype, probabilities: Mapping[str, float]) -> None:
    count = len(cell.nodes)
    places = {0: (0.0, 1.0), 1: (0.0, -1.0)}
    for node in range(count):
        places[2 + node] = (1.6 + 1.6 * node, 0.75 * (-1) ** node if count > 1 else 0.0)
    end = (1.6 + 1.6 * count, 0.0)
    for node, edges in enumerate(cell.nodes):
        for edge in edges:
            operation = OPERATIONS.get(edge.operation)
            colour = _COLOURS[operation.resampling if operation and operation.learns else "free"]
            p = probabilities.get(f"{cell.key}/{node}/{edge.source}={edge.operation}")
            label = edge.operation if p is None else f"{edge.operation} {p:.2f}"
            _arrow(axis, places[edge.source], places[2 + node], colour, label)
        _arrow(axis, places[2 + node], end, _FAINT, "")
    if cell.shortcut != "none":
        p = probabilities.get(f"{cell.key}/shortcut={cell.shortcut}")
        _arrow(axis, places[1], end, _COLOURS["free"], "shortcut" if p is None else f"shortcut {p:.2f}", bend=0.35)
    for source, (x, y) in places.items():
        _dot(axis, x, y, f"in {source}" if source < 2 else str(source - 1))
    _dot(axis, *end, "out")
    axis.set_title(_WORDS[cell.kind] + (f", {cell.group} levels" if cell.group else ""), fontsize=9, loc="left")
    axis.set_xlim(-0.4, end[0] + 0.4)
    axis.set_ylim(-1.6, 1.6)
    axis.set_axis_off()


def _arrow(
    axis: Any,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str,
    label: str,
    bend: float | None = None,
) -> None:
    from matplotlib.patches import FancyArrowPatch

    if bend is None:
        bend = 0.12 if start[1] <= end[1] else -0.12
    patch = FancyArrowPatch(
        start,
        end,
        connectionstyle=f"arc3,rad={bend}",
        arrowstyle="-|>",
        mutation_scale=9,
        color=colour,
        linewidth=1.4,
        shrinkA=11,
        shrinkB=11,
    )
    axis.add_patch(patch)
    if label:
        # Nearer to the start: at its end, the labels of edges into one node would overlap.
        x, y = (0.56 * a + 0.44 * b for a, b in zip(start, end, strict=True))
        axis.text(
            x,
            y - bend * hypot(end[0] - start[0], end[1] - start[1]) / 2,  # on the arc
            label,
            fontsize=7,
            color=colour,
            ha="center",
            va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )


def _dot(axis: Any, x: float, y: float, text: str) -> None:
    axis.plot([x], [y], "o", markersize=20, color="white", markeredgecolor=_INK, zorder=3)
    axis.text(x, y, text, fontsize=7, ha="center", va="center", zorder=4, color=_INK)


def _draw_network(axis: Any, genotype: Genotype) -> None:
    """The U: one row per level, the encoder down the left, the decoder up the right."""
    levels = genotype.levels
    hybrid = not any(cell.kind == "encoder_normal" for cell in genotype.cells)
    for level in range(levels):
        y, bottom = -level, level == levels - 1
        stride = 2**level * genotype.stem_stride
        share = "" if genotype.widths[level] == 1 else f", width {genotype.widths[level]:g}"
        left = "published encoder" if hybrid else f"{genotype.depths[level]} x encoder"
        _box(axis, 0.6 * level, y, f"{left}\nstride {stride}{share}")
        if not bottom:
            _box(axis, 9.0 - 0.6 * level, y, f"{genotype.depths[level]} x decoder\nstride {stride}{share}")
            _line(axis, (0.6 * level + 0.7, y - 0.25), (0.6 * (level + 1) + 0.7, y - 0.75), _COLOURS["down"])
            start = 9.0 - 0.6 * (level + 1) + 0.7 if level + 2 < levels else 0.6 * (levels - 1) + 1.4
            _line(axis, (start, -(level + 1) + 0.25), (9.0 - 0.6 * level + 0.7, y - 0.25), _COLOURS["up"])
    skips = [(s.source, s.target, s.gate) for s in genotype.skips] if genotype.skips is not None else None
    for source, target, gate in skips if skips is not None else [(i, i, "identity") for i in range(levels - 1)]:
        style = ":" if gate == "attention" else "-"
        _line(axis, (0.6 * source + 1.4, -source), (9.0 - 0.6 * target, -target), _FAINT, style)
    gated = " · dotted: through an attention gate" if skips and any(gate == "attention" for *_, gate in skips) else ""
    axis.set_title(f"network: red halves the resolution, green doubles it, grey skips{gated}", fontsize=9, loc="left")
    axis.set_xlim(-0.2, 10.6)
    axis.set_ylim(-levels + 0.4, 0.5)
    axis.set_axis_off()


def _box(axis: Any, x: float, y: float, text: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    axis.add_patch(
        FancyBboxPatch((x, y - 0.25), 1.4, 0.5, boxstyle="round,pad=0.02", facecolor="white", edgecolor=_INK)
    )
    axis.text(x + 0.7, y, text, fontsize=7, ha="center", va="center", color=_INK)


def _line(axis: Any, start: tuple[float, float], end: tuple[float, float], colour: str, style: str = "-") -> None:
    from matplotlib.patches import FancyArrowPatch

    axis.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=8, color=colour, linewidth=1.1, linestyle=style)
    )


def draw_alphas(path: Path, history: Path, title: str) -> None:
    """Draw losses, entropy and expected cost over steps, and how sure every decision has become."""
    lines = read_lines(history)
    figure = new_figure(11, 7)
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1.6])
    steps = [line["step"] for line in lines]
    for name, colour, words in (("loss", _FAINT, "loss of weights"), ("alpha_loss", "#ff9500", "loss of alphas")):
        top.plot(steps, [_value(line[name]) for line in lines], color=colour, label=words)
    right = top.twinx()
    right.plot(steps, [line["entropy"] for line in lines], color="#1f77b4", label="entropy, share of the largest")
    if lines and lines[0]["budget"]:
        right.plot(
            steps,
            [_value(line["seconds"]) / line["budget"] for line in lines],
            color="#2ca02c",
            label="expected cost / budget",
        )
    right.set_ylim(0, None)
    top.legend(loc="upper left", fontsize=7)
    right.legend(loc="upper right", fontsize=7)
    top.set_xlabel("step")
    _draw_certainty(bottom, lines)
    figure.suptitle(f"{title}: the alphas over time", fontsize=11, parse_math=False)
    save_figure(figure, path, _DPI)


def _draw_certainty(axis: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    """A row for each decision, a column for each report: how far the likeliest option is ahead of an even choice."""
    keys = list(lines[0]["probabilities"]) if lines else []
    if not keys:
        return
    image = np.array([[_certainty(line["probabilities"][key]) for line in lines] for key in keys])
    shown = axis.imshow(
        image, aspect="auto", vmin=0, vmax=1, cmap="viridis", extent=(lines[0]["step"], lines[-1]["step"], len(keys), 0)
    )
    marks = range(0, len(keys), max(1, len(keys) // 40))
    axis.set_yticks([mark + 0.5 for mark in marks], [keys[mark] for mark in marks], fontsize=5)
    axis.set_xlabel("step")
    axis.set_title("how sure each decision is: 0 all options equal, 1 decided", fontsize=9)
    axis.figure.colorbar(shown, ax=axis, fraction=0.02)


def _certainty(probabilities: Sequence[float]) -> float:
    even = 1 / len(probabilities)
    return (max(probabilities) - even) / (1 - even)


def _value(value: float | None) -> float:
    return float("nan") if value is None else value
