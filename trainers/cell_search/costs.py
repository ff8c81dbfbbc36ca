"""A table of the measured costs of parts of networks on this machine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from pydantic import BaseModel
from torch import Tensor, nn

from search_spaces.cells.cell import Adapter, Merge
from search_spaces.cells.operations import OPERATIONS
from trainers.fit import to_device

REPEATS = 5  # timings per part; their median counts


class Cost(BaseModel, frozen=True, extra="forbid"):
    """Cost of one part or of a whole network: one forward and backward pass of a batch."""

    seconds: float
    memory_bytes: float  # kept for the backward pass


class MeasuredCosts(BaseModel, frozen=True, extra="forbid"):
    """A cost table as stored on disk."""

    entries: dict[str, Cost]
    factor: float
    encoder: Cost | None = None


@dataclass
class CostTable:
    """Measures each part once, on the device it will run on.

    box: (batch, edges of the input along (D, H, W) or (H, W)).
    """

    accelerator: Accelerator
    batch: int
    box: tuple[int, ...]
    entries: dict[str, Cost] = field(default_factory=dict)

    @property
    def dims(self) -> int:
        """Number of spatial dimensions, 2 or 3."""
        return len(self.box)

    def operation(self, name: str, channels: int, halvings: int) -> Cost:
        """An operation on maps whose edges are those of the box, halved `halvings` times."""
        return self._get(f"{name}/{channels}/{halvings}", channels, halvings, lambda: _operation(name, self, channels))

    def adapter(self, before: int, after: int, steps: int, halvings: int) -> Cost:
        """An adapter; `halvings` refers to its input."""
        key = f"adapter/{before}/{after}/{steps}/{halvings}"
        return self._get(key, before, halvings, lambda: Adapter(self.dims, before, after, steps))

    def merge(self, nodes: int, channels: int, halvings: int) -> Cost:
        """The merge of a cell."""
        key = f"merge/{nodes}/{channels}/{halvings}"
        return self._get(key, channels, halvings, lambda: _MergeOf(Merge(self.dims, nodes, channels), nodes))

    def part(self, name: str, channels: int, halvings: int, build: Callable[[], nn.Module]) -> Cost:
        """Any other part, identified by its name."""
        return self._get(f"{name}/{channels}/{halvings}", channels, halvings, build)

    def _get(self, key: str, channels: int, halvings: int, build: Callable[[], nn.Module]) -> Cost:
        if key not in self.entries:
            edges = [max(1, edge >> halvings) for edge in self.box]
            self.entries[key] = measure(build(), (self.batch, channels, *edges), self.accelerator)
        return self.entries[key]


class _MergeOf(nn.Module):
    """A merge that takes the same map for all its nodes."""

    def __init__(self, merge: Merge, nodes: int) -> None:
        super().__init__()
        self.merge, self.nodes = merge, nodes

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.merge([image] * self.nodes)
        return out


def _operation(name: str, table: CostTable, channels: int) -> nn.Module:
    return OPERATIONS[name].build(table.dims, channels)


def measure(module: nn.Module, shape: tuple[int, ...], accelerator: Accelerator, repeats: int = REPEATS) -> Cost:
    """Median seconds of a forward and backward pass on an input of this shape, and the bytes that autograd keeps."""
    device = accelerator.device
    module, layout = to_device(module, device)
    if device.type == "cuda" and len(shape) == 5:
        layout = torch.channels_last_3d  # inside a network, boxes have channels
    module.train()
    image = torch.randn(shape, device=device).to(memory_format=layout).requires_grad_()
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
        else:  # the first pass is a warm-up: its bytes are counted instead of its time
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
