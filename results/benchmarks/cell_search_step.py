"""One step of a cell search: one path, two paths, the DARTS mixture, and MONAI's DiNTS, on one patch and machine.

    pip install monai
    python results/benchmarks/cell_search_step.py [--level L1] [--width 16] [--edge 48] [--repeats 7]

A step is forward and backward on a random patch of edge^3 voxels, batch 1. Weight steps give gradients to all weights,
alpha steps to the alphas only. Memory is what autograd keeps for the backward pass, counted exactly; on a GPU the
largest allocation is reported too. All variants are timed in turn, several times over. Then the predicted seconds of 20
random networks are compared with measured ones. Prints a report in Markdown. Takes minutes on a GPU; on two CPU cores,
use a small patch.
"""

import argparse
import importlib.metadata
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.cells.cell_space import CELL_SPACES, CellSpace, decisions, random_choice
from search_spaces.cells.path import Path, plain_path
from search_spaces.families.cells import CellsCandidate
from trainers.cell_search.alphas import Alphas, draw
from trainers.cell_search.costs import CostTable, measure
from trainers.cell_search.expected_cost import ExpectedCost
from trainers.fit import make_accelerator
from trainers.losses.losses import build_loss

Step = Callable[[int], Tensor]  # number -> loss, with the gradient done
LEVELS = 4
PATHS = 5  # of the sampled steps, whose costs differ


def supernet_of(space: CellSpace, width: int) -> nn.Module:
    """The supernet of family cells; the genotype and the slices of its candidate do not matter."""
    candidate = CellsCandidate.model_validate({"genotype": "plain", "width": width})
    return candidate.build_supernet(space, candidate.slices_in)


def steps_of(space: CellSpace, width: int, image: Tensor, label: Tensor) -> dict[str, Step]:
    """The steps of our supernet by name."""
    torch.manual_seed(0)
    network = supernet_of(space, width).to(image.device)
    alphas = Alphas(decisions(space, "cells"), 0)
    loss = build_loss("dice + bce")

    def path(estimator: str, number: int) -> Path:
        return draw(alphas, estimator, torch.Generator().manual_seed(number), 1.0, 0.0, 0.0)

    def weights(estimator: str) -> Step:
        def step(number: int) -> Tensor:
            network.zero_grad(set_to_none=True)
            value = loss(network(image, path(estimator, number)), label)
            value.backward()
            return value.detach()

        return step

    def searched(estimator: str) -> Step:
        def step(number: int) -> Tensor:
            value = loss(network(image, path(estimator, number)), label)
            torch.autograd.grad(value, list(alphas.parameters()), allow_unused=True)
            return value.detach()

        return step

    return {
        "one path, weights": weights("sampled"),
        "two paths, alphas": searched("two-path"),
        "one path (Gumbel), alphas": searched("one-path"),
        "DARTS mixture, weights": weights("mixture"),
        "DARTS mixture, alphas": searched("mixture"),
    }


def dints(width: int, blocks: int, image: Tensor, label: Tensor) -> Step:
    """A search step of MONAI's DiNTS at full resolution, with as many channels at each of as many levels."""
    from monai.networks.nets import DiNTS, TopologySearch

    torch.manual_seed(0)
    space = TopologySearch(
        channel_mul=width / 32, num_blocks=blocks, num_depths=LEVELS, use_downsample=False, device=str(image.device)
    )
    network: nn.Module = DiNTS(space, 1, 1, use_downsample=False).to(image.device)
    loss = build_loss("dice + bce")

    def step(_: int) -> Tensor:
        network.zero_grad(set_to_none=True)
        value = loss(network(image[:, None])[:, 0], label)
        value.backward()
        return value.detach()

    return step


def kept_bytes(step: Step, paths: int) -> float:
    """What autograd keeps in one step, the mean over a few paths; weights are not counted."""
    totals = []
    for number in range(paths):
        saved: dict[int, int] = {}
        alive: list[Tensor] = []  # a freed storage's address would be used again

        def keep(tensor: Tensor, saved: dict[int, int] = saved, alive: list[Tensor] = alive) -> Tensor:
            if not isinstance(tensor, nn.Parameter):
                storage = tensor.untyped_storage()
                saved[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            step(number)
        totals.append(sum(saved.values()))
    return statistics.mean(totals)


def timed(step: Step, paths: int, device: torch.device) -> float:
    """Mean seconds over a few paths."""
    began = time.perf_counter()
    for number in range(paths):
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / paths


def compare(arguments: argparse.Namespace, accelerator: Any) -> None:
    """The table of steps."""
    device = accelerator.device
    edge = arguments.edge
    image = torch.rand(1, edge, edge, edge, device=device)
    label = (torch.rand(1, edge, edge, edge, device=device) > 0.95).float()
    space = CELL_SPACES[arguments.level].model_copy(update={"levels": LEVELS})
    steps = steps_of(space, arguments.width, image, label)
    for blocks in (6, 12):
        steps[f"MONAI DiNTS, weights and alphas, {blocks} blocks"] = dints(arguments.width, blocks, image, label)
    memory, peaks = {}, {}
    # Where every operation takes part, one step is like the next.
    paths = {name: PATHS if "path" in name else 1 for name in steps}
    for name, step in steps.items():
        memory[name] = kept_bytes(step, paths[name])
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            step(0)
            peaks[name] = torch.cuda.max_memory_allocated()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            seconds[name].append(timed(step, paths[name], device))
    base = "DARTS mixture, weights"
    print("| step | ms (median) | ms (range) | of the mixture | kept for backward | of the mixture | GPU peak |")
    print("|---|---:|---|---:|---:|---:|---:|")
    for name in steps:
        median = statistics.median(seconds[name])
        share = statistics.median(a / b for a, b in zip(seconds[name], seconds[base], strict=True))
        low, high = min(seconds[name]), max(seconds[name])
        peak = f"{peaks[name] / 2**20:.0f} MiB" if name in peaks else "–"
        print(
            f"| {name} | {1000 * median:.0f} | {1000 * low:.0f} – {1000 * high:.0f} | {share:.3f} "
            f"| {memory[name] / 2**20:.0f} MiB | {memory[name] / memory[base]:.3f} | {peak} |"
        )


class _SubNet(nn.Module):
    def __init__(self, supernet: nn.Module, path: Path) -> None:
        super().__init__()
        self.supernet, self.path = supernet, path

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.supernet(image, self.path)
        return logits


def predict_costs(arguments: argparse.Namespace, accelerator: Any) -> None:
    """Predicted against measured cost of 20 random networks; the scale comes from three others."""
    edge, width = arguments.edge, arguments.width
    space = CELL_SPACES[arguments.level].model_copy(update={"levels": LEVELS})
    network = supernet_of(space, width).to(accelerator.device)
    costs = ExpectedCost(space, "cells", width, CostTable(accelerator, 1, (edge, edge, edge)))
    rng = np.random.default_rng(0)
    ratios, errors, memory_errors = [], [], []
    for number in range(23):
        choice = random_choice(decisions(space, "cells"), rng)
        found = measure(_SubNet(network, plain_path(choice)), (1, edge, edge, edge), accelerator)
        seconds, memory = costs.of_choice(choice)
        if number < 3:
            ratios.append(found.seconds / seconds)
            costs.factor = statistics.median(ratios) if number == 2 else 1.0
        else:
            errors.append(abs(seconds / found.seconds - 1))
            memory_errors.append(abs(memory / found.memory_bytes - 1))
    print(
        f"\nPredicted cost of 20 random networks: seconds off by {100 * statistics.median(errors):.1f} % (median; "
        f"largest {100 * max(errors):.1f} %), memory by {100 * statistics.median(memory_errors):.1f} % (largest "
        f"{100 * max(memory_errors):.1f} %); whole networks take {costs.factor:.2f} times the sum of their parts."
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--level", default="L1")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--edge", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    accelerator = make_accelerator("float32", "cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "monai"))
    print(
        f"{where}; {versions}. Space {arguments.level}, {LEVELS} levels, width {arguments.width}, patch "
        f"{arguments.edge}^3, batch 1, {arguments.repeats} repeats of {PATHS} steps.\n"
    )
    compare(arguments, accelerator)
    predict_costs(arguments, accelerator)


if __name__ == "__main__":
    main()
