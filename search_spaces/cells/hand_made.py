"""HAND_MADE: genotypes designed by hand, as a baseline for what a search finds."""

from collections.abc import Sequence

from search_spaces.cells.cell_space import FRAMES, RESAMPLING
from search_spaces.cells.genotype import CellGenotype, CellKind, Edge, Genotype
from search_spaces.errors import unknown_name

Nodes = Sequence[Sequence[tuple[int, str]]]  # the edges of every node: (source, operation)

# Two 3 x 3 x 3 convolutions per level, as in 3D U-Net (Çiçek et al. 2016, arXiv 1606.06650).
_PLAIN: dict[str, Nodes] = {
    "normal": [[(0, "conv3"), (1, "conv3")], [(2, "conv3")]],
    "skip": [[(1, "identity")]],
    "down": [[(1, "down_max")]],
    "up": [[(1, "up_transposed")]],
}
# The same with the input added to the output, and strided convolutions between levels, similar to the residual
# encoder U-Net (Isensee et al. 2024, arXiv 2404.09556).
_RESIDUAL: dict[str, Nodes] = {
    "normal": [[(0, "conv3"), (1, "conv3")], [(1, "identity"), (2, "conv3")]],
    "skip": [[(1, "identity")]],
    "down": [[(0, "down_avg"), (1, "down_conv3")]],
    "up": [[(1, "up_transposed")]],
}

HAND_MADE: dict[str, tuple[dict[str, Nodes], int]] = {  # name -> cells, normal cells per level
    "plain": (_PLAIN, 1),
    "residual": (_RESIDUAL, 1),
    "residual-deep": (_RESIDUAL, 2),
}


def hand_made(name: str, family: str, levels: int = 4) -> Genotype:
    """A genotype of HAND_MADE for a family, by its name (`plain`) or by name and number of levels (`plain/3`).

    `levels` applies to the family cells if the name gives no number; hybrid networks have the levels of their encoder.
    Raises InputError for an unknown name.
    """
    base, slash, number = name.partition("/")
    if base not in HAND_MADE or (slash and not number.isdecimal()):
        raise unknown_name("genotype", name, HAND_MADE)
    cells, depth = HAND_MADE[base]
    levels = FRAMES[family].levels or (int(number) if slash else levels)
    return Genotype(
        cells=tuple(CellGenotype(kind=kind, nodes=_nodes(cells, kind)) for kind in FRAMES[family].kinds),
        levels=levels,
        depths=(depth,) * levels,
        widths=(1.0,) * levels,
    )


def _nodes(cells: dict[str, Nodes], kind: CellKind) -> tuple[tuple[Edge, ...], ...]:
    part = "skip" if kind == "skip" else {"same": "normal", "down": "down", "up": "up"}[RESAMPLING[kind]]
    return tuple(tuple(Edge(source=s, operation=o) for s, o in edges) for edges in cells[part])
