"""The cost of a network, added up from its parts."""

import numpy as np
import pytest
import torch

from search_spaces.cells.cell_candidate import CellCandidate
from search_spaces.cells.cell_space import CELL_SPACES, decisions, genotype_of, random_choice
from search_spaces.families.cells import CellsCandidate
from search_spaces.families.hybrid import HybridCandidate
from search_spaces.network import build_network, build_supernet
from trainers.cell_search.alphas import Alphas
from trainers.cell_search.costs import CostTable, measure
from trainers.cell_search.expected_cost import EncoderCost, ExpectedCost, Stopped
from trainers.fit import make_accelerator

CPU = make_accelerator("float32", "cpu")
SPACE = CELL_SPACES["L1"].model_copy(update={"levels": 3, "nodes": 2})
WIDTH = 8


def _candidate(family: str, genotype: object) -> CellCandidate:
    common = {"genotype": genotype, "width": WIDTH}
    if family == "cells":
        return CellsCandidate.model_validate({**common, "slices_in": 8})
    return HybridCandidate.model_validate({**common, "encoder": "tu-resnet10t", "slices_in": 3})


class _Maps(torch.nn.Module):
    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.stack([m.mean() for m in self.encoder(image)]).sum()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["cells", "hybrid"])
@pytest.mark.parametrize("changes", [{}, {"groups": True, "skips": ("identity",), "depths": (1, 2)}], ids=["L1", "L3"])
def test_the_memory_of_networks_is_predicted_within_a_tenth(family: str, changes: dict[str, object]) -> None:
    space = SPACE.model_copy(update=changes)
    shape, box = ((1, 8, 32, 32), (8, 32, 32)) if family == "cells" else ((2, 3, 64, 64), (64, 64))
    table = CostTable(CPU, shape[0], box)
    encoder, costs = None, None
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(8):
        choice = random_choice(decisions(space, family), rng)
        network = build_network(_candidate(family, genotype_of(space, family, choice)), box[-1])
        if family == "hybrid" and encoder is None:
            encoder = EncoderCost(measure(_Maps(network.encoder), shape, CPU, 1), network.encoder.out_channels)
        costs = costs or ExpectedCost(space, family, WIDTH, table, encoder)
        measured = measure(network, shape, CPU, repeats=1).memory_bytes
        errors.append(abs(costs.of_choice(choice)[1] / measured - 1))
    print(f"{family}: median error {np.median(errors):.3f}, largest {max(errors):.3f}")
    assert np.median(errors) < 0.1


@pytest.mark.slow
def test_the_expected_cost_of_alphas_is_the_mean_over_their_networks() -> None:
    space = SPACE.model_copy(update={"nodes": 1})  # both edges are always there, so nothing is approximate
    table = CostTable(CPU, 1, (8, 16, 16))
    alphas = Alphas(decisions(space, "cells"), 0)
    costs = ExpectedCost(space, "cells", WIDTH, table)
    expected, _ = costs.of_probabilities({key: alphas.probabilities(key) for key in alphas.decisions})
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(400):
        choice = {
            key: (int(rng.choice(len(d.options), p=np.array(alphas.table()[key]) / sum(alphas.table()[key]))),)
            for key, d in alphas.decisions.items()
        }
        drawn.append(costs.of_choice(choice)[0])
    assert float(expected.detach()) == pytest.approx(np.mean(drawn), rel=0.05)


def test_the_gradient_of_the_expected_cost_points_to_cheaper_options() -> None:
    table = CostTable(CPU, 1, (8, 16, 16))
    for name, seconds in (("conv3", 5.0), ("identity", 0.0)):
        for level, channels in enumerate((8, 16, 32)):
            entry = table.operation(name, channels, level)
            table.entries[f"{name}/{channels}/{level}"] = entry.model_copy(update={"seconds": seconds})
    alphas = Alphas(decisions(SPACE, "cells"), 0)
    costs = ExpectedCost(SPACE, "cells", WIDTH, table)
    seconds, _ = costs.of_probabilities({key: alphas.probabilities(key) for key in alphas.decisions})
    (slope,) = torch.autograd.grad(seconds, [alphas.logits["encoder_normal/0/1"]])
    assert slope[SPACE.same.index("conv3")] > 0 > slope[SPACE.same.index("identity")]


def test_measuring_stops_when_it_is_told_to() -> None:
    table = CostTable(CPU, 1, (8, 8, 8))
    with pytest.raises(Stopped):
        ExpectedCost(SPACE, "cells", WIDTH, table, on_part=lambda done, of: done < 5 < of)
    assert len(table.entries) <= 5


def test_a_part_is_measured_once() -> None:
    table = CostTable(CPU, 1, (8, 8, 8))
    first = table.operation("conv3", 4, 0)
    assert table.operation("conv3", 4, 0) is first
    assert list(table.entries) == ["conv3/4/0"]
    assert first.memory_bytes > 0


@pytest.mark.slow
def test_a_supernet_has_the_weights_of_its_encoder_from_a_seed() -> None:
    candidate = _candidate("hybrid", "plain")
    torch.manual_seed(3)
    first = build_supernet(SPACE, candidate, 64).state_dict()
    torch.manual_seed(3)
    second = build_supernet(SPACE, candidate, 64).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
