"""From alphas to choices: the likeliest, samples, the choice found by perturbation, and random ones of equal cost."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import log

import numpy as np

from search_spaces.cells.cell_space import Decision, random_choice
from trainers.cell_search.alphas import Alphas, set_probability

Chosen = dict[str, tuple[int, ...]]
RANDOM_DRAWS = 400  # random choices from which those nearest in cost are taken


def likeliest(alphas: Alphas) -> Chosen:
    """The choice with the highest probability: for every node, a set of edges together with their operations.

    Edges are drawn one after another without replacement, operations independently, and operations on absent edges do
    not count. Nodes are independent of each other, so the best choices per node form the best choice overall. `zero` is
    never chosen. In a tie the first option is taken.
    """
    return likeliest_of(alphas.decisions, alphas.table())


def likeliest_of(decisions: Mapping[str, Decision], table: Mapping[str, Sequence[float]]) -> Chosen:
    """`likeliest` for probabilities given as plain numbers."""
    chosen: Chosen = {}
    for key, decision in decisions.items():
        if not key.endswith("/edges"):
            chosen[key] = _best(decision, table[key])
    for key, decision in decisions.items():
        if key.endswith("/edges"):
            node = key.removesuffix("/edges")
            sets = list(combinations(range(len(decision.options)), decision.picks))
            values = [
                _log(set_probability(table[key], edges)) + _strength(node, edges, decisions, table) for edges in sets
            ]
            chosen[key] = sets[int(np.argmax(values))]
    return chosen


def _strength(
    node: str, edges: Sequence[int], decisions: Mapping[str, Decision], table: Mapping[str, Sequence[float]]
) -> float:
    """Log probability of the likeliest operations on some edges of a node."""
    total = 0.0
    for edge in edges:
        key = f"{node}/{edge}"
        if key in decisions:
            total += _log(table[key][_best(decisions[key], table[key])[0]])
    return total


def _best(decision: Decision, probabilities: Sequence[float]) -> tuple[int, ...]:
    allowed = [o for o, name in enumerate(decision.options) if name != "zero"] or list(range(len(decision.options)))
    order = sorted(allowed, key=lambda option: -probabilities[option])
    return tuple(sorted(order[: decision.picks]))


def _log(probability: float) -> float:
    return log(max(probability, 1e-300))


def sample(alphas: Alphas, seed: int) -> Chosen:
    """A choice drawn from the probabilities; never `zero` if there is another option."""
    rng = np.random.default_rng(seed)
    chosen: Chosen = {}
    table = alphas.table()
    for key, decision in alphas.decisions.items():
        p = np.array(table[key])
        if len(decision.options) > 1:
            p = np.where([name == "zero" for name in decision.options], 0.0, p)
        chosen[key] = tuple(sorted(int(o) for o in rng.choice(len(p), decision.picks, replace=False, p=p / p.sum())))
    return chosen


def perturbation(
    alphas: Alphas,
    loss_of: Callable[[Chosen, int], float],
    paths: int,
    seed: int,
    on_decision: Callable[[int, int], bool] = lambda _done, _of: True,
) -> Chosen | None:
    """The choice made of the options with which the supernet performs best.

    Decisions are made one by one in random order: each option in turn is put into the same few networks, in which
    everything undecided is drawn from the alphas, and the option with the lowest mean loss is kept. loss_of(network,
    number) may evaluate each of the few networks on its own batch, the same for all options. on_decision(done, of)
    returns whether to continue; the result is None if it returned False. (DARTS-PT, Wang et al. 2021, arXiv 2108.04392,
    removes options from a mixture instead, but a supernet trained path by path has never been a mixture.)
    Operations are decided before edges. Options that the search dropped, and `zero`, are not tried.
    """
    rng = np.random.default_rng(seed)
    contexts = [sample(alphas, int(rng.integers(2**31))) for _ in range(paths)]
    keys = [key for key in alphas.decisions if not key.endswith("/edges")]
    edges = [key for key in alphas.decisions if key.endswith("/edges")]
    order = [*rng.permutation(keys), *rng.permutation(edges)] if keys else list(rng.permutation(edges))
    for done, key in enumerate(map(str, order)):
        if not on_decision(done, len(order)):
            return None
        decision = alphas.decisions[key]
        active = alphas.is_active(key).tolist()
        options = [o for o in range(len(decision.options)) if active[o] and decision.options[o] != "zero"]
        sets = list(combinations(options, decision.picks)) or [tuple(range(decision.picks))]
        if len(sets) > 1:
            users = [_with_edge(context, key) for context in contexts]
            losses = [
                np.mean([loss_of({**context, key: picked}, number) for number, context in enumerate(users)])
                for picked in sets
            ]
            best = sets[int(np.argmin(losses))]
        else:
            best = sets[0]
        for context in contexts:
            context[key] = best
    return contexts[0]


def _with_edge(context: Chosen, key: str) -> Chosen:
    """The context with the operation's edge added; without that edge the operation would not matter."""
    node, _, source = key.rpartition("/")
    edges = context.get(f"{node}/edges")
    if edges is None or not source.isdecimal() or int(source) in edges:
        return context
    return {**context, f"{node}/edges": tuple(sorted((*edges[1:], int(source))))}


def random_of_cost(
    decisions: Sequence[Decision], cost_of: Callable[[Chosen], float], target: float, count: int, seed: int
) -> list[Chosen]:
    """The `count` choices nearest in cost to `target` among some hundred random ones, all different if possible."""
    rng = np.random.default_rng(seed)
    drawn = list(
        {str(choice): choice for choice in (random_choice(decisions, rng) for _ in range(RANDOM_DRAWS))}.values()
    )
    drawn += drawn[:1] * max(0, count - len(drawn))
    order = sorted(range(len(drawn)), key=lambda i: abs(cost_of(drawn[i]) - target))
    return [drawn[i] for i in order[:count]]
