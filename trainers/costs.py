"""What a network of cells costs, added up from a measured table of its parts."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from pydantic import BaseModel
from torch import Tensor, nn

from search_spaces.cell import Adapter, Merge
from search_spaces.cell_network import Head
from search_spaces.cell_space import (
    KINDS,
    RESAMPLING,
    CellFamily,
    CellSpace,
    Choice,
    decisions,
    edge_options,
    levels_of,
)
from search_spaces.genotype import CellKind, cell_key
from search_spaces.operations import OPERATIONS, convolution, norm
from search_spaces.skeleton import Skeleton, narrowed, skeleton_of_space

REPEATS = 5  # timings of a part, of which the median counts


class Cost(BaseModel, frozen=True, extra="forbid"):
    """Of one part, or of a whole network: one forward and backward pass of a batch."""

    seconds: float
    memory_bytes: float  # kept for the backward pass


class MeasuredCosts(BaseModel, frozen=True, extra="forbid"):
    """A table as it lies on disk."""

    entries: dict[str, Cost]
    factor: float
    encoder: Cost | None = None


@dataclass
class CostTable:
    """Measures parts on the device they will run on, each once.

    box: (batch, edges of the input along (D, H, W) or (H, W)).
    """

    accelerator: Accelerator
    batch: int
    box: tuple[int, ...]
    entries: dict[str, Cost] = field(default_factory=dict)
    factor: float = 1.0  # whole networks over the sum of their parts, from `calibrate`

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.box)

    def operation(self, name: str, channels: int, halvings: int) -> Cost:
        """An operation on maps whose edges are the box's, halved so many times."""
        return self._get(f"{name}/{channels}/{halvings}", channels, halvings, lambda: _operation(name, self, channels))

    def adapter(self, before: int, after: int, steps: int, halvings: int) -> Cost:
        """An adapter; `halvings` are those of its input."""
        key = f"adapter/{before}/{after}/{steps}/{halvings}"
        return self._get(key, before, halvings, lambda: Adapter(self.dims, before, after, steps))

    def merge(self, nodes: int, channels: int, halvings: int) -> Cost:
        """The merge of a cell."""
        key = f"merge/{nodes}/{channels}/{halvings}"
        return self._get(key, channels, halvings, lambda: _MergeOf(Merge(self.dims, nodes, channels), nodes))

    def part(self, name: str, channels: int, halvings: int, build: Callable[[], nn.Module]) -> Cost:
        """Any other part, known by its name."""
        return self._get(f"{name}/{channels}/{halvings}", channels, halvings, build)

    def _get(self, key: str, channels: int, halvings: int, build: Callable[[], nn.Module]) -> Cost:
        if key not in self.entries:
            edges = [max(1, edge >> halvings) for edge in self.box]
            self.entries[key] = measure(build(), (self.batch, channels, *edges), self.accelerator)
        return self.entries[key]


class _MergeOf(nn.Module):
    """A merge that takes one map for all its nodes."""

    def __init__(self, merge: Merge, nodes: int) -> None:
        super().__init__()
        self.merge, self.nodes = merge, nodes

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.merge([image] * self.nodes)
        return out


def _operation(name: str, table: CostTable, channels: int) -> nn.Module:
    return OPERATIONS[name].build(table.dims, channels)


def measure(module: nn.Module, shape: tuple[int, ...], accelerator: Accelerator, repeats: int = REPEATS) -> Cost:
    """Median seconds of a forward and backward pass on an input of this shape, and what autograd keeps for it."""
    device = accelerator.device
    module = module.to(device).train()
    image = torch.randn(shape, device=device, requires_grad=True)
    seconds, saved = [], dict[int, int]()

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    for turn in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        if turn:
            _pass(module, image, accelerator)
        else:  # the first one warms up, and is counted instead of timed
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
                _pass(module, image, accelerator)
        _wait(device)
        seconds.append(time.perf_counter() - began)
    memory = sum(size for key, size in saved.items() if key not in weights)
    return Cost(seconds=statistics.median(seconds[1:]), memory_bytes=memory)


def _pass(module: nn.Module, image: Tensor, accelerator: Accelerator) -> None:
    with accelerator.autocast():
        out = module(image)
    if out.requires_grad:
        out.backward(torch.ones_like(out))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class EncoderCost:
    """Of a hybrid network's encoder, with the channels of its maps by level (0: it has none there)."""

    cost: Cost
    channels: Sequence[int]


Number = Tensor | float
Shares = Callable[[str], Sequence[Number]]  # a decision -> how far each option is taken, 0 to 1


@dataclass(frozen=True)
class _Bill:
    """Everything that `expected_cost` needs to know at once."""

    space: CellSpace
    family: CellFamily
    skeleton: Skeleton
    table: CostTable
    shares: Shares
    maps: Sequence[int]  # channels of the encoder's maps, by level

    def channels(self, level: int, width: float) -> int:
        return narrowed(self.skeleton.channels[level], width)


def shares_of_choice(space: CellSpace, family: CellFamily, choice: Choice) -> Shares:
    """1 for every option of a choice, 0 for the others."""
    known = {decision.key: len(decision.options) for decision in decisions(space, family)}

    def shares(key: str) -> Sequence[Number]:
        if key not in known:
            return []
        return [float(option in choice[key]) for option in range(known[key])]

    return shares


def expected_cost(
    space: CellSpace,
    family: CellFamily,
    width: int,
    table: CostTable,
    shares: Shares,
    encoder: EncoderCost | None = None,
) -> tuple[Tensor, Tensor]:
    """Seconds and bytes of a network drawn from a supernet's probabilities; differentiable in the shares.

    shares: of an `edges` decision the probability that each edge is there, of others that of each option; an empty list
    where nothing is decided. encoder: of a hybrid network.
    """
    skeleton = skeleton_of_space(space, family, width)
    bill = _Bill(space, family, skeleton, table, shares, skeleton.channels if encoder is None else encoder.channels)
    seconds, memory = torch.zeros(()), torch.zeros(())
    if encoder is not None:
        seconds, memory = seconds + encoder.cost.seconds, memory + encoder.cost.memory_bytes
    for weight, cost in _parts(bill):
        seconds = seconds + weight * cost.seconds
        memory = memory + weight * cost.memory_bytes
    return seconds * table.factor, memory


def _parts(bill: _Bill) -> Iterator[tuple[Number, Cost]]:
    """Every part with the share of networks that have it."""
    strides = bill.skeleton.stem_strides
    stem = bill.shares("stem") or [1.0] * len(strides)
    dims, top = bill.table.dims, bill.skeleton.channels[0]
    for stride, share in zip(strides, stem, strict=True):
        halved = stride - 1
        if bill.family == "cells":
            yield share, bill.table.part(f"stem{stride}/{top}", 1, 0, lambda s=stride: _stem(top, s))  # type: ignore[misc]
        yield share, bill.table.part("head", top, halved, lambda: Head(dims, top, 1))
        for weight, cost in _cells(bill, halved):
            yield share * weight, cost
        for weight, cost in _skips(bill, halved):
            yield share * weight, cost


def _stem(channels: int, stride: int) -> nn.Module:
    return nn.Sequential(
        convolution(3)(1, channels, 3, stride=stride, padding=1, bias=False), norm(3, channels, affine=True)
    )


def _cells(bill: _Bill, halved: int) -> Iterator[tuple[Number, Cost]]:
    levels = levels_of(bill.space, bill.family)
    for kind in KINDS[bill.family]:
        for level in range(levels if kind == "encoder_normal" else levels - 1):
            at = level + 1 if kind == "reduction" else level  # the level whose channels it has
            normal = kind in ("encoder_normal", "decoder_normal")
            depths = bill.shares(f"depth/{level}") if normal else []
            for number in range(max(bill.space.depths) if normal else 1):
                there: Number = 1.0
                if depths:
                    there = sum(s for s, depth in zip(depths, bill.space.depths, strict=True) if depth > number)
                widths = bill.shares(f"width/{at}") or [1.0]
                for share, width in zip(widths, bill.space.widths, strict=True):
                    for weight, cost in _cell(bill, kind, level, bill.channels(at, width), number, halved):
                        yield there * share * weight, cost


def _cell(
    bill: _Bill, kind: CellKind, level: int, channels: int, number: int, halved: int
) -> Iterator[tuple[Number, Cost]]:
    """The parts of one cell, whose inputs lie `inside` halvings below the box and its output `outside`."""
    table, widths = bill.table, bill.skeleton.channels
    key = cell_key(kind, bill.skeleton.group(level))
    inside = level + halved + (1 if kind == "expansion" else 0)
    outside = level + halved + (1 if kind == "reduction" else 0)
    before = widths[level]
    if kind == "expansion":
        before = bill.maps[-1] if level + 2 == len(widths) else widths[level + 1]
    elif kind == "skip" and bill.skeleton.skips is None:
        before = bill.maps[level]
    if not before:
        return  # the encoder has no map at this level
    if kind == "encoder_normal" and number == 0 and level:
        yield 1.0, table.adapter(widths[level - 1], channels, 1, inside - 1)
    else:
        yield 1.0, table.adapter(before, channels, 0, inside)
    yield 1.0, table.adapter(before, channels, 0, inside)
    yield 1.0, table.merge(bill.skeleton.nodes[key], channels, outside)
    for node in range(bill.space.nodes):
        edges = bill.shares(f"{key}/{node}/edges") or [1.0] * (node + 2)
        for source, there in enumerate(edges):
            options = edge_options(bill.space, kind, source)
            shares = bill.shares(f"{key}/{node}/{source}") or [1.0]
            place = inside if RESAMPLING[kind] == "same" or source < 2 else outside
            for share, name in zip(shares, options, strict=True):
                yield there * share, table.operation(name, channels, place)


def _skips(bill: _Bill, halved: int) -> Iterator[tuple[Number, Cost]]:
    if bill.skeleton.skips is None:
        return
    for target, gates in enumerate(bill.skeleton.skips):
        width = bill.skeleton.channels[target]
        for source, options in gates.items():
            shares = bill.shares(f"skip/{source}>{target}")
            for share, gate in zip(shares, options, strict=True):
                if gate == "closed":
                    continue
                before = bill.maps[source]
                if not before:
                    continue
                yield share, bill.table.adapter(before, width, target - source, source + halved)
                if gate == "attention":
                    yield share, bill.table.operation("gate", width, target + halved)


def shares_of_probabilities(probabilities: Mapping[str, Tensor], picks: Mapping[str, int]) -> Shares:
    """Shares from the probabilities of a supernet; an edge is there with about its probability times the picks."""

    def shares(key: str) -> Sequence[Number]:
        if key not in probabilities:
            return []
        return list((probabilities[key] * picks[key]).clamp(max=1.0))

    return shares
