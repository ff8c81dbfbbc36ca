"""The cost of a network of cells, and of the mean network of a supernet, as the sum of the costs of its parts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from search_spaces.cells.cell_space import (
    FRAMES,
    RESAMPLING,
    CellSpace,
    Choice,
    decisions,
    edge_options,
    levels_of,
)
from search_spaces.cells.genotype import CellKind, cell_key
from search_spaces.cells.network import Head
from search_spaces.cells.operations import convolution, norm
from search_spaces.cells.skeleton import Skeleton, narrowed, skeleton_of_space
from trainers.cell_search.costs import Cost, CostTable

Option = TypeVar("Option")
Factors = tuple[tuple[str, int], ...]  # decisions, each with an option: a network has the part if it takes all


@dataclass(frozen=True)
class EncoderCost:
    """Cost of a hybrid network's encoder, with the channels of its maps by level (0: no map)."""

    cost: Cost
    channels: Sequence[int]


class ExpectedCost:
    """Seconds and bytes of the networks in one supernet: one forward and backward pass of a batch.

    Measures every part that is not in the table, which may take minutes; `on_part(done, of)` returns whether to
    continue, and Stopped is raised if it returns False. encoder: that of a hybrid network. `factor`: multiplies the sum
    of the parts' seconds.
    """

    def __init__(
        self,
        space: CellSpace,
        family: str,
        width: int,
        table: CostTable,
        encoder: EncoderCost | None = None,
        on_part: Callable[[int, int], bool] = lambda _done, _of: True,
    ) -> None:
        self.factor = 1.0
        self.decisions = {decision.key: decision for decision in decisions(space, family)}
        skeleton = skeleton_of_space(space, family, width)
        maps = skeleton.channels if encoder is None else encoder.channels
        parts = list(_Parts(space, family, skeleton, table, maps, frozenset(self.decisions)).all())
        sums: dict[Factors, list[float]] = {}
        if encoder is not None:
            sums[()] = [encoder.cost.seconds, encoder.cost.memory_bytes]
        for done, (factors, cost_of) in enumerate(parts):
            if not on_part(done, len(parts)):
                raise Stopped
            cost, total = cost_of(), sums.setdefault(factors, [0.0, 0.0])
            total[0] += cost.seconds
            total[1] += cost.memory_bytes
        self._costs = torch.tensor(list(sums.values()), dtype=torch.float64)  # (products, 2)
        self._places = self._index(list(sums))

    def _index(self, products: Sequence[Factors]) -> Tensor:
        """Indices of each product's factors in the concatenated shares; short products are padded with the final 1."""
        begins, count = {}, 0
        for key, decision in self.decisions.items():
            begins[key] = count
            count += len(decision.options)
        longest = max(map(len, products))
        rows = [[begins[key] + option for key, option in factors] for factors in products]
        return torch.tensor([row + [count] * (longest - len(row)) for row in rows], dtype=torch.long)

    def of_probabilities(self, probabilities: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Scalars with a gradient; an edge is present with about its probability times the number of picks."""
        shares = [(probabilities[key] * d.picks).clamp(max=1.0) for key, d in self.decisions.items()]
        return self._of(torch.cat([*shares, torch.ones(1)]))

    def of_choice(self, choice: Choice) -> tuple[float, float]:
        """Seconds and bytes of one network."""
        shares = [float(o in choice[key]) for key, d in self.decisions.items() for o in range(len(d.options))]
        seconds, memory = self._of(torch.tensor([*shares, 1.0]))
        return float(seconds), float(memory)

    def _of(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of every product of shares times the cost of the parts that depend on it."""
        products = torch.ones(len(self._places), dtype=torch.float64)
        for column in self._places.unbind(dim=1):
            products = products * shares.double()[column]
        seconds, memory = products @ self._costs
        return (seconds * self.factor).float(), memory.float()


class Stopped(Exception):
    """The measurement was asked to stop."""


@dataclass(frozen=True)
class _Parts:
    """Enumerates the parts of a supernet, each with the options that it depends on and its cost."""

    space: CellSpace
    family: str
    skeleton: Skeleton
    table: CostTable
    maps: Sequence[int]  # channels of the encoder's maps, by level
    decided: frozenset[str]  # keys of the decisions

    def all(self) -> Iterator[tuple[Factors, Callable[[], Cost]]]:
        """Every part; a part that several options lead to occurs once for each of them."""
        dims, top = self.table.dims, self.skeleton.channels[0]
        for stride, stem in self._each("stem", self.skeleton.stem_strides):
            halved = stride - 1
            if FRAMES[self.family].stem:
                build = partial(_stem, top, stride)
                yield stem, partial(self.table.part, f"stem{stride}/{top}", 1, 0, build)
            yield stem, partial(self.table.part, "head", top, halved, partial(Head, dims, top, 1))
            for factors, cost_of in (*self._cells(halved), *self._skips(halved)):
                yield stem + factors, cost_of

    def _each(self, key: str, options: Sequence[Option]) -> list[tuple[Option, Factors]]:
        """Every option with its factors, which are empty if there is nothing to decide."""
        return [(option, ((key, place),) if key in self.decided else ()) for place, option in enumerate(options)]

    def _channels(self, level: int, width: float) -> int:
        return narrowed(self.skeleton.channels[level], width)

    def _cells(self, halved: int) -> Iterator[tuple[Factors, Callable[[], Cost]]]:
        levels = levels_of(self.space, self.family)
        for kind in FRAMES[self.family].kinds:
            for level in range(levels if kind == "encoder_normal" else levels - 1):
                at = level + 1 if kind == "reduction" else level  # the level whose number of channels it has
                depths: list[tuple[int, Factors]] = [(1, ())]
                if kind in ("encoder_normal", "decoder_normal"):
                    depths = self._each(f"depth/{level}", self.space.depths)
                widths = self._each(f"width/{at}", self.space.widths)
                for depth, deep in depths:
                    for number in range(depth):
                        for width, wide in widths:
                            for factors, cost_of in self._cell(kind, level, self._channels(at, width), number, halved):
                                yield deep + wide + factors, cost_of

    def _cell(
        self, kind: CellKind, level: int, channels: int, number: int, halved: int
    ) -> Iterator[tuple[Factors, Callable[[], Cost]]]:
        """The parts of one cell; the box is halved `inside` times for its inputs, `outside` times for its output."""
        table, widths = self.table, self.skeleton.channels
        key = cell_key(kind, self.skeleton.group(level))
        inside = level + halved + (1 if kind == "expansion" else 0)
        outside = level + halved + (1 if kind == "reduction" else 0)
        before = widths[level]
        if kind == "expansion":
            before = self.maps[-1] if level + 2 == len(widths) else widths[level + 1]
        elif kind == "skip" and self.skeleton.skips is None:
            before = self.maps[level]
        if not before:
            return  # the encoder has no map at this level
        second = partial(table.adapter, before, channels, 0, inside)
        if kind == "encoder_normal" and number == 0 and level:
            yield (), partial(table.adapter, widths[level - 1], channels, 1, inside - 1)
        else:
            yield (), second
        yield (), second
        yield (), partial(table.merge, self.skeleton.nodes[key], channels, outside)
        for node in range(self.space.nodes):
            for source, there in self._each(f"{key}/{node}/edges", range(node + 2)):
                options = edge_options(self.space, kind, source)
                place = inside if RESAMPLING[kind] == "same" or source < 2 else outside
                for name, taken in self._each(f"{key}/{node}/{source}", options):
                    yield there + taken, partial(table.operation, name, channels, place)

    def _skips(self, halved: int) -> Iterator[tuple[Factors, Callable[[], Cost]]]:
        for target, gates in enumerate(self.skeleton.skips or ()):
            width = self.skeleton.channels[target]
            for source, options in gates.items():
                before = self.maps[source]
                for gate, taken in self._each(f"skip/{source}>{target}", options):
                    if gate == "closed" or not before:
                        continue
                    yield taken, partial(self.table.adapter, before, width, target - source, source + halved)
                    if gate == "attention":
                        yield taken, partial(self.table.operation, "gate", width, target + halved)


def _stem(channels: int, stride: int) -> nn.Module:
    return nn.Sequential(
        convolution(3)(1, channels, 3, stride=stride, padding=1, bias=False), norm(3, channels, affine=True)
    )
