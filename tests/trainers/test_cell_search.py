"""Cell search finds the known answer of test problems, and continues after a stop."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path as FilePath

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from search_spaces.cells.cell_space import CELL_SPACES, CellSpace, Decision, decisions
from search_spaces.cells.operations import OPERATIONS, convolution
from search_spaces.cells.path import Path, blend, plain_path
from search_spaces.families.cells import CellsCandidate
from trainers.cell_search.alphas import Decks
from trainers.cell_search.config import ALGORITHMS, CellSearchConfig
from trainers.cell_search.costs import measure
from trainers.cell_search.decode import likeliest
from trainers.cell_search.search import CellSearch, Sides, jensen_shannon
from trainers.fit import make_accelerator
from trainers.step import NonFiniteLoss

CHANNELS, EDGE = 4, 16


class Noise(nn.Module):
    """Says nothing about its input."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.randn_like(image)


class Dead(nn.Module):
    """Zeros."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.zeros_like(image)


class Chain(nn.Module):
    """A stem, some searched layers one behind the other, and a head, in two dimensions."""

    def __init__(self, layers: int, options: Sequence[str], extra: dict[str, Callable[[], nn.Module]]) -> None:
        super().__init__()
        self.stem = convolution(2)(1, CHANNELS, 1)
        self.layers = nn.ModuleList(
            nn.ModuleList(extra[o]() if o in extra else OPERATIONS[o].build(2, CHANNELS) for o in options)
            for _ in range(layers)
        )
        self.head = convolution(2)(CHANNELS, 1, 1)

    def forward(self, image: Tensor, path: Path) -> Tensor:
        value: Tensor = self.stem(image)
        for number, options in enumerate(self.layers):
            before = value
            value = blend(path[f"layer{number}"], lambda k: options[k](before))  # noqa: B023
            value = value + path.aux_skip * before
        logits: Tensor = self.head(value)
        return logits


def _shifted(by: int, seed: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Noise, and whether the voxel so many places to the left is positive."""

    def batches(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            generator = torch.Generator().manual_seed(1_000_003 * seed + number)
            image = torch.randn(4, 1, EDGE, EDGE, generator=generator)
            yield image, (torch.roll(image, by, dims=-1) > 0).float()
            number += 1

    return batches


def _search(
    layers: int, options: tuple[str, ...], by: int, seed: int, steps: int = 160, **changes: object
) -> list[str]:
    """What is decided for each layer where the answer lies `by` voxels away."""
    extra: dict[str, Callable[[], nn.Module]] = {"noise": Noise, "dead": Dead}
    torch.manual_seed(seed)
    network = Chain(layers, options, extra)
    known = [Decision(f"layer{number}", options) for number in range(layers)]
    config = CellSearchConfig.model_validate(
        {
            "steps": steps,
            "loss": "bce",
            "learning_rate": 0.02,
            "alpha_learning_rate": 0.05,
            "shrink_every": 20,
            **changes,
        }
    )
    sides = Sides(_shifted(by, 2 * seed), _shifted(by, 2 * seed + 1))
    search = CellSearch(network, known, sides, config, seed, make_accelerator("float32", "cpu"))
    assert search.run(steps, lambda step, loss: True, lambda values: None)
    chosen = likeliest(search.alphas)
    return [options[chosen[d.key][0]] for d in known]


PLANTED = ("identity", "conv3", "sep3", "avg3", "dil3_wide")  # only the last one sees 3 voxels away


@pytest.mark.slow
def test_the_planted_operation_is_found_in_nine_of_ten_seeds() -> None:
    found = [_search(1, PLANTED, by=3, seed=seed) for seed in range(10)]
    assert sum(names == ["dil3_wide"] for names in found) >= 9, found


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["one-path", "mixture"])
def test_the_planted_operation_is_found_by_the_other_estimators_too(estimator: str) -> None:
    paths = "mixture" if estimator == "mixture" else "sampled"
    found = [_search(1, PLANTED, 3, seed, estimator=estimator, weight_paths=paths) for seed in range(3)]
    assert sum(names == ["dil3_wide"] for names in found) >= 2, found


@pytest.mark.slow
def test_noise_and_dead_operations_are_rejected() -> None:
    for seed in range(3):
        assert _search(1, ("noise", "dead", "conv3"), by=1, seed=seed, steps=120) == ["conv3"]


@pytest.mark.slow
def test_a_space_of_skips_does_not_collapse_to_skips() -> None:
    # Three voxels away: three convolutions one behind the other reach that far, fewer do not.
    found = [_search(4, ("identity", "conv3"), by=3, seed=seed, steps=300) for seed in range(3)]
    assert all(names.count("conv3") >= 3 for names in found), found


def _small(**changes: object) -> CellSpace:
    return CELL_SPACES["L1"].model_copy(
        update={"levels": 2, "nodes": 2, "same": ("identity", "conv3", "dil3"), **changes}
    )


def _boxes(seed: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    def batches(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            generator = torch.Generator().manual_seed(1_000_003 * seed + number)
            image = torch.randn(1, 8, 8, 8, generator=generator)
            yield image, (image > 0.5).float()
            number += 1

    return batches


def _supernet(space: CellSpace) -> nn.Module:
    candidate = CellsCandidate.model_validate({"genotype": "plain", "width": 4, "slices_in": 8})
    return candidate.build_supernet(space, crop=8)


def _cells(space: CellSpace, steps: int = 12, **changes: object) -> CellSearch:
    torch.manual_seed(0)
    config = CellSearchConfig.model_validate({"steps": steps, "loss": "bce", "shrink_every": 3, **changes})
    sides = Sides(_boxes(1), _boxes(2))
    network = _supernet(space)
    return CellSearch(network, decisions(space, "cells"), sides, config, 0, make_accelerator("float32", "cpu"))


def _run(search: CellSearch, until: int) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    search.run(until, lambda step, loss: True, lines.append)
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_that_was_interrupted_ends_as_an_unbroken_one(algorithm: str, tmp_path: FilePath) -> None:
    whole = _cells(_small(), algorithm=algorithm)
    expected = _run(whole, 12)
    for stop in (3, 7):  # in the warm-up, where there is one, and after it
        broken = _cells(_small(), algorithm=algorithm)
        found = _run(broken, stop)
        broken.save(tmp_path / f"{stop}")
        resumed = _cells(_small(), algorithm=algorithm)
        torch.manual_seed(99)  # what another process would have drawn meanwhile
        assert resumed.resume(tmp_path / f"{stop}")
        assert found + _run(resumed, 12) == expected
        assert likeliest(resumed.alphas) == likeliest(whole.alphas)
        for name, value in whole.network.state_dict().items():
            assert torch.equal(resumed.network.state_dict()[name], value), name


def test_alphas_stay_in_the_warm_up_and_move_after_it() -> None:
    search = _cells(_small(), steps=10, warm_up=0.5)
    before = search.alphas.table()
    _run(search, 5)
    assert search.alphas.table() == before
    _run(search, 10)
    assert search.alphas.table() != before


def test_an_alpha_step_leaves_the_weights_alone() -> None:
    search = _cells(_small(), warm_up=0.0)
    before = {name: value.clone() for name, value in search.network.state_dict().items()}
    search._alpha_step()
    for name, value in search.network.state_dict().items():
        assert torch.equal(before[name], value)
    assert all(parameter.grad is None for parameter in search.network.parameters())


def test_both_sides_of_the_search_learn_from_their_own_batches() -> None:
    seen: dict[str, list[int]] = {"weights": [], "alphas": []}

    def stream(side: str) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
        def batches(number: int) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in _boxes(3)(number):
                seen[side].append(number)
                number += 1
                yield batch

        return batches

    search = _cells(_small(), steps=10, warm_up=0.4, alpha_every=2)
    search._sides = Sides(stream("weights"), stream("alphas"))
    _run(search, 10)
    assert seen == {"weights": list(range(10)), "alphas": [0, 1, 2]}  # steps 4, 6 and 8


def test_settled_alphas_drop_what_is_unlikely_and_keep_two_and_one_with_weights() -> None:
    search = _cells(_small(), shrink_divergence=1.0, shrink_below=0.3)
    key = "encoder_normal/0/1"
    search.alphas.logits[key].data = torch.tensor([5.0, 0.0, -5.0])  # identity, conv3, dil3
    for look in range(1, 5):
        search._look(3 * look)
    assert search.alphas.is_active(key).tolist() == [True, True, False]
    search.alphas.logits[key].data = torch.tensor([5.0, -5.0, 0.0])
    for look in range(5, 10):
        search._look(3 * look)
    assert int(search.alphas.is_active(key).sum()) == 2


def test_alphas_that_still_move_drop_nothing() -> None:
    search = _cells(_small(), shrink_divergence=0.01, shrink_below=0.3)
    key = "encoder_normal/0/1"
    for look in range(1, 8):
        search.alphas.logits[key].data = torch.tensor([5.0 * (-1) ** look, 0.0, -5.0])
        search._look(3 * look)
    assert search.alphas.is_active(key).all()


@pytest.mark.slow
def test_cost_above_the_budget_pushes_the_alphas_to_what_is_cheap() -> None:
    space = _small()
    torch.manual_seed(0)
    config = CellSearchConfig(steps=40, loss="bce", warm_up=0.0, cost_weight=5.0, cost_budget=0.5, entropy_weight=0.0)

    def cost(alphas) -> Tensor:  # type: ignore[no-untyped-def]
        return sum(  # type: ignore[return-value]
            alphas.probabilities(key)[d.options.index("conv3")]
            for key, d in alphas.decisions.items()
            if "conv3" in d.options
        )

    sides = Sides(_boxes(1), _boxes(2))
    accelerator = make_accelerator("float32", "cpu")
    search = CellSearch(_supernet(space), decisions(space, "cells"), sides, config, 0, accelerator, cost)
    before = float(cost(search.alphas).detach())
    _run(search, 40)
    assert float(cost(search.alphas).detach()) < 0.8 * before


def test_a_loss_that_is_not_finite_stops_the_search() -> None:
    search = _cells(_small())
    with torch.no_grad():
        next(iter(search.network.parameters())).fill_(float("nan"))
    with pytest.raises(NonFiniteLoss):
        _run(search, 12)


class _On(nn.Module):
    """A supernet on one path."""

    def __init__(self, network: nn.Module, path: Path) -> None:
        super().__init__()
        self.network, self.path = network, path

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.network(image, self.path)
        return logits


@pytest.mark.slow
def test_a_sampled_step_keeps_no_more_memory_than_the_largest_network() -> None:
    space = CELL_SPACES["L1"].model_copy(update={"levels": 3})
    network = _supernet(space)
    accelerator = make_accelerator("float32", "cpu")
    known = {d.key: d for d in decisions(space, "cells")}
    decks = Decks(known, 0)
    shape = (1, 8, 16, 16)

    def kept(path: Path) -> float:
        return measure(_On(network, path), shape, accelerator, repeats=1).memory_bytes

    sampled = [kept(decks.path(0.0)) for _ in range(12)]
    # The heaviest operation on every edge: a network of the space, if not its largest.
    heavy = {key: tuple(range(d.picks)) for key, d in known.items()}
    heavy |= {k: (space.same.index("depth7"),) for k, d in known.items() if d.options == space.same}
    assert max(sampled) <= 1.3 * kept(plain_path(heavy))


def test_jensen_shannon_is_0_for_equal_and_1_bit_for_disjoint_distributions() -> None:
    assert jensen_shannon([0.2, 0.8], [0.2, 0.8]) == pytest.approx(0.0, abs=1e-12)
    assert jensen_shannon([1.0, 0.0], [0.0, 1.0]) == pytest.approx(1.0)
    middle = jensen_shannon([0.9, 0.1], [0.1, 0.9])
    p = np.array([0.9, 0.1])
    expected = 1.0 - float(-(p * np.log2(p)).sum())
    assert middle == pytest.approx(expected)


def test_an_unknown_name_in_the_settings_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown algorithm 'scnas-y'; did you mean 'scnas-x'"):
        CellSearchConfig(algorithm="scnas-y")
    assert CellSearchConfig(algorithm="darts").estimator == "mixture"
    assert CellSearchConfig(algorithm="darts", estimator="two-path").estimator == "two-path"
