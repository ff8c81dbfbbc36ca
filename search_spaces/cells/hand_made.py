"""HAND_MADE: genotypes that people drew, to compare what a search finds with."""

from collections.abc import Sequence

from search_spaces.cells.cell_space import FRAMES, RESAMPLING
from search_spaces.cells.genotype import CellGenotype, CellKind, Edge, Genotype
from search_spaces.errors import unknown_name

Nodes = Sequence[Sequence[tuple[int, str]]]  # of every node its edges: (source, operation)

# Two 3 x 3 x 3 convolutions a level, as in 3D U-Net (Çiçek et al. 2016, arXiv 1606.06650).
_PLAIN: dict[str, Nodes] = {
    "normal": [[(0, "conv3"), (1, "conv3")], [(2, "conv3")]],
    "skip": [[(1, "identity")]],
    "down": [[(1, "down_max")]],
    "up": [[(1, "up_transposed")]],
}
# The same with what came in added to what goes out, and strided convolutions between levels, in the manner of the
# residual encoder U-Net (Isensee et al. 2024, arXiv 2404.09556).
_RESIDUAL: dict[str, Nodes] = {
    "normal": [[(0, "conv3"), (1, "conv3")], [(1, "identity"), (2, "conv3")]],
    "skip": [[(1, "identity")]],
    "down": [[(0, "down_avg"), (1, "down_conv3")]],
    "up": [[(1, "up_transposed")]],
}

HAND_MADE: dict[str, tuple[dict[str, Nodes], int]] = {  # name -> cells, normal cells a level
    "plain": (_PLAIN, 1),
    "residual": (_RESIDUAL, 1),
    "residual-deep": (_RESIDUAL, 2),
}


def hand_made(name: str, family: str, levels: int = 4) -> Genotype:
    """A genotype of HAND_MADE for a family, as in `plain`, or with so many levels, as in `plain/3`.

    `levels` is how many the family cells has where the name does not say; hybrid networks have those of their encoder.
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
