"""Paths and the gradients they carry, against what can be enumerated."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from search_spaces.cells.cell_space import Decision, random_choice
from search_spaces.cells.path import blend
from trainers.cell_search.alphas import ESTIMATORS, Alphas, Decks, draw, set_probability

TOY = (Decision("a", ("0", "1", "2")), Decision("b", ("0", "1", "2", "3")))
VALUES = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(4))  # decision, option -> a vector
TARGET = torch.randn(6, generator=torch.Generator().manual_seed(5))
DRAWS, GRADIENTS = 6_000, 2_000


def _alphas(seed: int = 0, spread: float = 0.7) -> Alphas:
    alphas = Alphas(TOY, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in alphas.parameters():
        parameter.data = spread * torch.randn(parameter.shape, generator=generator)
    return alphas


def _loss(total: Tensor) -> Tensor:
    """Not linear in what the options give, as a network's is not."""
    return (total - TARGET).square().sum() + total.tanh().sum()


def _exact(alphas: Alphas) -> Tensor:
    """Gradient of the expected loss over all paths."""
    expected = torch.zeros(())
    p, q = alphas.probabilities("a"), alphas.probabilities("b")
    for i, j in product(range(3), range(4)):
        expected = expected + p[i] * q[j] * _loss(VALUES[0, i] + VALUES[1, j])
    gradients = torch.autograd.grad(expected, list(alphas.parameters()))
    return torch.cat(gradients)


def _estimates(alphas: Alphas, estimator: str, tau: float, draws: int = GRADIENTS) -> Tensor:
    """One gradient a row."""
    rows = []
    for number in range(draws):
        path = draw(alphas, estimator, torch.Generator().manual_seed(number), tau, floor=0.0, aux_skip=0.0)
        total = blend(path["a"], lambda k: VALUES[0, k]) + blend(path["b"], lambda k: VALUES[1, k])
        gradients = torch.autograd.grad(_loss(total), list(alphas.parameters()), allow_unused=True)
        rows.append(
            torch.cat(
                [torch.zeros_like(p) if g is None else g for p, g in zip(alphas.parameters(), gradients, strict=True)]
            )
        )
    return torch.stack(rows)


@pytest.mark.slow
@pytest.mark.parametrize(("estimator", "least"), [("two-path", 0.98), ("one-path", 0.5)])
def test_the_mean_of_a_sampled_gradient_points_along_the_exact_one(estimator: str, least: float) -> None:
    alphas = _alphas()
    exact, found = _exact(alphas), _estimates(alphas, estimator, tau=1.0)
    cosine = float(torch.cosine_similarity(found.mean(dim=0), exact, dim=0))
    bias = float((found.mean(dim=0) - exact).norm() / exact.norm())
    noise = float(found.std(dim=0).norm() / exact.norm())
    print(f"{estimator}: cosine {cosine:.3f}, bias {bias:.3f} and noise {noise:.2f} of the exact gradient's length")
    assert cosine > least


@pytest.mark.slow
def test_two_paths_have_less_bias_than_one() -> None:
    alphas = _alphas(seed=2)
    exact = _exact(alphas)
    errors = {e: (_estimates(alphas, e, tau=1.0).mean(dim=0) - exact).norm() for e in ("two-path", "one-path")}
    assert errors["two-path"] < errors["one-path"]


def test_the_mixture_has_the_exact_gradient_of_the_relaxed_network() -> None:
    alphas = _alphas()

    def relaxed() -> Tensor:
        return _loss(alphas.probabilities("a") @ VALUES[0, :3] + alphas.probabilities("b") @ VALUES[1])

    expected = torch.cat(torch.autograd.grad(relaxed(), list(alphas.parameters())))
    torch.testing.assert_close(_estimates(alphas, "mixture", 1.0, draws=1)[0], expected)
    parameter, step = alphas.logits["a"], 1e-3
    with torch.no_grad():
        parameter[0] += step
        above = relaxed()
        parameter[0] -= 2 * step
        difference = (above - relaxed()) / (2 * step)
    assert float(difference) == pytest.approx(float(expected[0]), abs=2e-3)


@pytest.mark.parametrize("estimator", ["one-path", "two-path", "sampled"])
def test_the_value_of_a_sampled_path_is_that_of_one_network(estimator: str) -> None:
    alphas = _alphas()
    networks = {tuple((VALUES[0, i] + VALUES[1, j]).tolist()) for i, j in product(range(3), range(4))}
    for number in range(50):
        path = draw(alphas, estimator, torch.Generator().manual_seed(number), 1.0, 0.0, 0.0)
        total = blend(path["a"], lambda k: VALUES[0, k]) + blend(path["b"], lambda k: VALUES[1, k])
        assert any(np.allclose(total.detach().numpy(), network, atol=1e-6) for network in networks)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["one-path", "sampled"])
def test_options_are_drawn_by_their_probabilities(estimator: str) -> None:
    alphas = _alphas()
    paths = [draw(alphas, estimator, torch.Generator().manual_seed(n), 1.0, 0.0, 0.0) for n in range(DRAWS)]
    counts = Counter(path["b"][0].option for path in paths)
    found = torch.tensor([counts[option] / DRAWS for option in range(4)])
    torch.testing.assert_close(found, alphas.probabilities("b").detach(), atol=0.025, rtol=0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_dropped_option_is_never_on_a_path_again(estimator: str) -> None:
    alphas = _alphas()
    alphas.drop("b", 1)
    assert float(alphas.probabilities("b", floor=0.1)[1].detach()) == 0.0
    for number in range(200):
        path = draw(alphas, estimator, torch.Generator().manual_seed(number), 1.0, 0.05, 0.0)
        assert 1 not in [pick.option for pick in path["b"]]
        parts = [pick.weight for pick in path["b"] if pick.weight is not None]
        if parts:
            total = torch.stack(parts).sum() * 0.3 + parts[0].square() + alphas.entropy()
            (slope,) = torch.autograd.grad(total, [alphas.logits["b"]])
            assert torch.isfinite(slope).all()


def test_every_option_that_is_left_has_at_least_the_floor() -> None:
    alphas = _alphas(spread=8.0)
    p = alphas.probabilities("b", floor=0.05)
    assert float(p.detach().min()) >= 0.05 - 1e-6
    assert float(p.detach().sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("estimator", ["one-path", "two-path", "sampled"])
def test_two_different_edges_are_picked_where_two_are_wanted(estimator: str) -> None:
    alphas = Alphas([Decision("n/1/edges", ("0", "1", "2"), 2)], seed=0)
    for number in range(100):
        picks = draw(alphas, estimator, torch.Generator().manual_seed(number), 1.0, 0.0, 0.0)["n/1/edges"]
        counted = [p.option for p in picks if p.weight is None or float(p.weight.detach()) > 0.5]
        assert len(set(counted)) == 2


def test_the_probability_of_a_set_is_that_of_drawing_it_in_any_order() -> None:
    # By hand: 0.5 * 0.3/0.5 + 0.3 * 0.5/0.7.
    assert set_probability([0.5, 0.3, 0.2], (0, 1)) == pytest.approx(0.5 * 0.3 / 0.5 + 0.3 * 0.5 / 0.7)
    total = sum(set_probability([0.5, 0.3, 0.2], pair) for pair in ((0, 1), (0, 2), (1, 2)))
    assert total == pytest.approx(1.0)


def test_decks_use_all_operations_of_an_edge_equally_often() -> None:
    known = {
        d.key: d
        for d in (
            Decision("c/1/edges", ("0", "1", "2"), 2),
            *(Decision(f"c/1/{source}", ("x", "y", "z", "w", "v")) for source in range(3)),
        )
    }
    decks = Decks(known, seed=3)
    used: dict[str, Counter[int]] = {key: Counter() for key in known}
    for _ in range(97):
        path = decks.path(0.0)
        edges = {pick.option for pick in path["c/1/edges"]}
        used["c/1/edges"].update(edges)
        for source in edges:
            used[f"c/1/{source}"][path[f"c/1/{source}"][0].option] += 1
    for source in range(3):
        counts = [used[f"c/1/{source}"][option] for option in range(5)]
        assert max(counts) - min(counts) <= 1
    assert min(used["c/1/edges"].values()) > 55  # 64.7 each on average


def test_decks_go_on_from_what_was_dealt() -> None:
    known = {d.key: d for d in TOY}
    whole, first, second = Decks(known, 1), Decks(known, 1), Decks(known, 1)
    expected = [whole.path(0.0).picks for _ in range(20)]
    found = [first.path(0.0).picks for _ in range(7)]
    second.dealt = dict(first.dealt)
    assert found + [second.path(0.0).picks for _ in range(13)] == expected


def test_a_random_choice_takes_each_option_about_as_often() -> None:
    rng = np.random.default_rng(0)
    counts = Counter(random_choice(TOY, rng)["b"][0] for _ in range(4_000))
    assert all(abs(counts[option] / 4_000 - 0.25) < 0.03 for option in range(4))


def test_entropy_is_1_for_even_alphas_and_0_for_decided_ones() -> None:
    even, decided = _alphas(spread=0.0), _alphas(spread=0.0)
    for parameter in decided.parameters():
        parameter.data[0] = 60.0
    assert float(even.entropy().detach()) == pytest.approx(1.0)
    assert float(decided.entropy().detach()) == pytest.approx(0.0, abs=1e-6)
