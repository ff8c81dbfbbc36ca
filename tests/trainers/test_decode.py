"""From alphas to choices."""

from itertools import combinations, product

import numpy as np
import pytest

from search_spaces.cells.cell_space import CELL_SPACES, CellSpace, Decision, decisions, genotype_of
from trainers.cell_search.alphas import Alphas, set_probability
from trainers.cell_search.decode import likeliest, likeliest_of, perturbation, random_of_cost, sample


def _node(operations: tuple[str, ...], sources: int) -> dict[str, Decision]:
    found = [Decision("n/edges", tuple(map(str, range(sources))), 2)]
    found += [Decision(f"n/{source}", operations) for source in range(sources)]
    return {d.key: d for d in found}


def _brute_force(known: dict[str, Decision], table: dict[str, list[float]]) -> float:
    """The highest probability of any pair of edges with any operations on them, by trying all."""
    operations = known["n/0"].options
    best = 0.0
    for edges in combinations(range(len(known["n/edges"].options)), 2):
        for picked in product(range(len(operations)), repeat=2):
            if "zero" in [operations[o] for o in picked]:
                continue
            p = set_probability(table["n/edges"], edges)
            p *= table[f"n/{edges[0]}"][picked[0]] * table[f"n/{edges[1]}"][picked[1]]
            best = max(best, p)
    return best


@pytest.mark.parametrize("operations", [("conv3", "sep3", "max3"), ("zero", "identity", "conv3", "dil3")])
@pytest.mark.parametrize("sources", [3, 4, 5])
@pytest.mark.parametrize("seed", range(5))
def test_the_likeliest_choice_is_what_trying_all_finds(operations: tuple[str, ...], sources: int, seed: int) -> None:
    known = _node(operations, sources)
    rng = np.random.default_rng(seed)
    table = {key: rng.dirichlet(np.ones(len(d.options)) * 0.7).tolist() for key, d in known.items()}
    chosen = likeliest_of(known, table)
    edges = chosen["n/edges"]
    found = set_probability(table["n/edges"], edges)
    for edge in edges:
        found *= table[f"n/{edge}"][chosen[f"n/{edge}"][0]]
    assert found == pytest.approx(_brute_force(known, table), rel=1e-12)


def _alphas(space: CellSpace, seed: int = 0) -> Alphas:
    return Alphas(decisions(space, "cells"), seed)


def test_samples_follow_the_alphas_and_repeat_with_their_seed() -> None:
    alphas = _alphas(CELL_SPACES["scnas"])
    decided = next(key for key in alphas.decisions if key.endswith("0/1"))
    alphas.logits[decided].data[2] = 50.0
    drawn = [sample(alphas, seed) for seed in range(30)]
    assert {chosen[decided] for chosen in drawn} == {(2,)}
    assert sample(alphas, 7) == sample(alphas, 7)
    assert len({str(chosen) for chosen in drawn}) == 30
    zero = CELL_SPACES["scnas"].same.index("zero")
    operations = [key for key, d in alphas.decisions.items() if "zero" in d.options]
    assert all(chosen[key] != (zero,) for chosen in drawn for key in operations)


def test_perturbation_finds_the_options_that_the_loss_likes() -> None:
    alphas = _alphas(CELL_SPACES["L1"].model_copy(update={"nodes": 2, "levels": 2}))
    rng = np.random.default_rng(0)
    costs = {key: rng.permutation(len(d.options)) for key, d in alphas.decisions.items()}

    def loss(chosen: dict[str, tuple[int, ...]], _number: int) -> float:
        return float(sum(costs[key][option] for key, options in chosen.items() for option in options))

    found = perturbation(alphas, loss, paths=2, seed=0)
    for key, decision in alphas.decisions.items():
        if decision.picks == 1:
            assert costs[key][found[key][0]] == 0, key


def test_perturbation_tries_no_option_that_the_search_dropped() -> None:
    alphas = _alphas(CELL_SPACES["L1"].model_copy(update={"nodes": 1, "levels": 2}))
    key = "encoder_normal/0/1"
    alphas.drop(key, 0)
    found = perturbation(alphas, lambda chosen, _: float(chosen[key][0]), paths=1, seed=0)
    assert found[key] == (1,)


def test_random_choices_cost_what_they_should() -> None:
    space = CELL_SPACES["L1"]
    known = decisions(space, "cells")
    weights = {d.key: np.random.default_rng(i).random(len(d.options)) for i, d in enumerate(known)}

    def cost(chosen: dict[str, tuple[int, ...]]) -> float:
        return float(sum(weights[key][o] for key, options in chosen.items() for o in options))

    middle = float(np.mean([cost(sample(_alphas(space), s)) for s in range(50)]))
    found = random_of_cost(known, cost, middle, count=3, seed=0)
    assert all(abs(cost(chosen) / middle - 1) < 0.02 for chosen in found)
    assert len({genotype_of(space, "cells", chosen).hash for chosen in found}) == 3


def test_the_likeliest_choice_of_even_alphas_is_a_genotype() -> None:
    for level in ("scnas", "L4"):
        for family in ("cells", "hybrid"):
            alphas = Alphas(decisions(CELL_SPACES[level], family), 0)
            assert genotype_of(CELL_SPACES[level], family, likeliest(alphas)).hash
