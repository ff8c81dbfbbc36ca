"""Cell: the same wiring for searched and decided networks; the operations of its edges are passed in."""

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional

from search_spaces.cells.cell_space import RESAMPLING, CellSpace, edge_options
from search_spaces.cells.genotype import CellKind, Genotype, Group, Shortcut, cell_key
from search_spaces.cells.operations import OPERATIONS, Resampling, convolution, entangle, interpolate, norm
from search_spaces.cells.path import Path, blend

# (kind, group, node, source, dims, channels) -> what the edge carries, or None if there is no edge.
EdgeMaker = Callable[[CellKind, Group | None, int, int, int, int], "MixedOp | None"]


class MixedOp(nn.Module):
    """The operations that an edge may carry, from which a path picks some: (B, C, ...) -> (B, C, ...).

    With one operation, as in a decided network, it needs no path.
    """

    def __init__(self, decision: str, operations: Mapping[str, nn.Module], resampling: Resampling) -> None:
        super().__init__()
        self.decision, self.same = decision, resampling == "same"
        self.operations = nn.ModuleDict(operations)
        entangle(list(operations.values()))
        self._by_place = tuple(self.operations)

    def forward(self, image: Tensor, path: Path | None) -> Tensor:
        picks = None if path is None else path.get(self.decision)
        if picks is None:
            out: Tensor = self.operations[self._by_place[0]](image)
        else:
            out = blend(picks, lambda option: self.operations[self._by_place[option]](image))
        if path is not None and path.aux_skip and self.same:
            out = out + path.aux_skip * image
        return out


def mixed_op(space: CellSpace) -> EdgeMaker:
    """Edges that carry every operation of a search space."""

    def make(kind: CellKind, group: Group | None, node: int, source: int, dims: int, channels: int) -> MixedOp:
        names = edge_options(space, kind, source)
        return _edge(kind, group, node, source, {name: OPERATIONS[name].build(dims, channels) for name in names})

    return make


def decided_op(genotype: Genotype) -> EdgeMaker:
    """The edges of a genotype, each with its one operation."""

    def make(kind: CellKind, group: Group | None, node: int, source: int, dims: int, channels: int) -> MixedOp | None:
        nodes = genotype.nodes(cell_key(kind, group))
        assert nodes is not None  # check_genotype guarantees it
        for edge in nodes[node] if node < len(nodes) else ():
            if edge.source == source:
                name = edge.operation
                return _edge(kind, group, node, source, {name: OPERATIONS[name].build(dims, channels)})
        return None

    return make


def _edge(kind: CellKind, group: Group | None, node: int, source: int, operations: Mapping[str, nn.Module]) -> MixedOp:
    resampling = RESAMPLING[kind] if source < 2 else "same"
    return MixedOp(f"{cell_key(kind, group)}/{node}/{source}", operations, resampling)


class Adapter(nn.Module):
    """(B, before, ...) -> (B, after, ...), at 2**-steps times the resolution (steps < 0 enlarges)."""

    def __init__(self, dims: int, before: int, after: int, steps: int = 0) -> None:
        super().__init__()
        self.steps = steps
        self.mix = convolution(dims)(before, after, 1, bias=False)
        self.norm = norm(dims, after, affine=True)

    def forward(self, image: Tensor) -> Tensor:
        image = functional.relu(image)
        if self.steps > 0:
            pool = functional.avg_pool2d if image.ndim == 4 else functional.avg_pool3d
            image = pool(image, 2**self.steps)
        image = self.mix(image)
        if self.steps < 0:
            image = interpolate(image, 2**-self.steps)
        out: Tensor = self.norm(image)
        return out


class Merge(nn.Module):
    """Merges the nodes of a cell into its output: a pointwise convolution over all of them, and a norm."""

    def __init__(self, dims: int, nodes: int, channels: int) -> None:
        super().__init__()
        self.dims = dims
        # One block per node, so that the leading channels of every node are leading rows and columns.
        self.weight = nn.Parameter(torch.empty(channels, nodes, channels, *[1] * dims))
        nn.init.kaiming_uniform_(self.weight.view(channels, -1), a=5**0.5)
        self.norm = norm(dims, channels, affine=True)

    def forward(self, nodes: list[Tensor]) -> Tensor:
        apply = functional.conv2d if self.dims == 2 else functional.conv3d
        out: Tensor = self.norm(apply(functional.relu(torch.cat(nodes, dim=1)), self.weight.flatten(1, 2)))
        return out


class Cell(nn.Module):
    """Two inputs, nodes that each sum some edges, one output of `channels` channels, and possibly a shortcut.

    The inputs are first brought to `channels` channels and to one resolution: `inputs` gives the channels of each and
    how many times it is halved. A mask of 0 and 1 over the channels makes it a narrower cell.
    """

    def __init__(
        self,
        kind: CellKind,
        group: Group | None,
        dims: int,
        inputs: tuple[tuple[int, int], tuple[int, int]],
        channels: int,
        nodes: Mapping[str, int],
        shortcuts: Mapping[str, tuple[Shortcut, ...]],
        make_edge: EdgeMaker,
    ) -> None:
        super().__init__()
        self.key = cell_key(kind, group)
        self.shortcuts = shortcuts[self.key]
        self.adapters = nn.ModuleList(Adapter(dims, before, channels, steps) for before, steps in inputs)
        self.edges = nn.ModuleDict()
        self.nodes = nodes[self.key]
        for node in range(self.nodes):
            for source in range(node + 2):
                edge = make_edge(kind, group, node, source, dims, channels)
                if edge is not None:
                    self.edges[f"{node}-{source}"] = edge
        self.merge = Merge(dims, self.nodes, channels)

    def forward(self, first: Tensor, second: Tensor, path: Path | None, mask: Tensor | None) -> Tensor:
        states = [masked(adapter(image), mask) for adapter, image in zip(self.adapters, (first, second), strict=True)]
        for node in range(self.nodes):
            states.append(masked(self._node(node, states, path), mask))
        return masked(self._around(self.merge(states[2:]), states[1], path), mask)

    def _around(self, out: Tensor, second: Tensor, path: Path | None) -> Tensor:
        """The output, plus the second input if the path or the genotype says so (He et al. 2016, arXiv 1512.03385)."""
        picks = None if path is None else path.get(f"{self.key}/shortcut")
        if picks is None:
            return out + second if self.shortcuts[0] == "identity" else out
        return blend(picks, lambda option: out + second if self.shortcuts[option] == "identity" else out)

    def _node(self, node: int, states: list[Tensor], path: Path | None) -> Tensor:
        picks = None if path is None else path.get(f"{self.key}/{node}/edges")
        if picks is not None:
            return blend(picks, lambda source: self.edges[f"{node}-{source}"](states[source], path))
        values = [
            self.edges[f"{node}-{source}"](state, path)
            for source, state in enumerate(states)
            if f"{node}-{source}" in self.edges
        ]
        total: Tensor = reduce(torch.add, values)
        return total


def masked(image: Tensor, mask: Tensor | None) -> Tensor:
    """The image with only the channels that a mask of 0 and 1 lets through; all of them for None."""
    return image if mask is None else image * mask
