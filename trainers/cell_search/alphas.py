"""Alphas: how strongly each option of each decision is preferred, and the paths drawn from them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

from search_spaces.cells.cell_space import Decision
from search_spaces.cells.path import Path, Pick

_START_NOISE = 1e-3  # standard deviation of the alphas at the start, as in DARTS (arXiv 1806.09055)


class Alphas(nn.Module):
    """One logit per option; dropped options have probability 0 permanently.

    Alphas are float32 and stay on the CPU, wherever the network is, so that all devices draw the same paths.
    """

    def __init__(self, decisions: Sequence[Decision], seed: int) -> None:
        super().__init__()
        self.decisions = {decision.key: decision for decision in decisions}
        rng = torch.Generator().manual_seed(seed)
        self.logits = nn.ParameterDict()
        self.active = nn.Module()  # buffers, so that a checkpoint holds them
        for key, decision in self.decisions.items():
            count = len(decision.options)
            self.logits[key] = nn.Parameter(_START_NOISE * torch.randn(count, generator=rng))
            self.active.register_buffer(key, torch.ones(count, dtype=torch.bool))

    def probabilities(self, key: str, floor: float = 0.0) -> Tensor:
        """Probabilities of one decision's options, (options,); at least `floor` for every remaining option."""
        active = self.is_active(key)
        p = torch.softmax(self.logits[key].masked_fill(~active, -torch.inf), dim=0)
        if not floor:
            return p
        share = min(floor, 1.0 / int(active.sum()))
        return (1 - share * active.sum()) * p + share * active

    def is_active(self, key: str) -> Tensor:
        """Which options remain, bool (options,)."""
        active: Tensor = self.active.get_buffer(key)
        return active

    def drop(self, key: str, option: int) -> None:
        """Remove an option from the search."""
        self.is_active(key)[option] = False

    def table(self) -> dict[str, list[float]]:
        """All probabilities as numbers."""
        with torch.no_grad():
            return {key: self.probabilities(key).tolist() for key in self.decisions}

    def entropy(self) -> Tensor:
        """Mean entropy of the decisions, each as a share of its largest possible value, 0 to 1."""
        shares = []
        for key, decision in self.decisions.items():
            p = self.probabilities(key)[self.is_active(key)]  # the entropy's slope at 0 is infinite
            shares.append(torch.special.entr(p).sum() / torch.log(torch.tensor(float(len(decision.options)))))
        return torch.stack(shares).mean()


Estimator = Callable[[Alphas, str, torch.Generator, float, float], tuple[Pick, ...]]


def draw(alphas: Alphas, estimator: str, rng: torch.Generator, tau: float, floor: float, aux_skip: float) -> Path:
    """A path from one of the ESTIMATORS. tau: temperature of the Gumbel relaxation; floor: smallest probability."""
    pick = ESTIMATORS[estimator]
    return Path({key: pick(alphas, key, rng, tau, floor) for key in alphas.decisions}, aux_skip)


def _sampled(alphas: Alphas, key: str, rng: torch.Generator, tau: float, floor: float) -> tuple[Pick, ...]:
    """Drawn from the probabilities, without a gradient, for the steps that train weights."""
    with torch.no_grad():
        p = alphas.probabilities(key, floor).cpu()
        options = torch.multinomial(p, alphas.decisions[key].picks, generator=rng)
    return tuple(Pick(int(option)) for option in sorted(options.tolist()))


def _one_path(alphas: Alphas, key: str, rng: torch.Generator, tau: float, floor: float) -> tuple[Pick, ...]:
    """Straight-through Gumbel softmax that computes only the sampled option.

    Its weight has the value 1 and the gradient of its relaxed probability (GDAS, Dong and Yang 2019, arXiv 1910.04465,
    without terms for options that were not computed, because these would carry no information about them).
    """
    left = torch.nonzero(alphas.is_active(key))[:, 0].tolist()
    noisy = torch.log(alphas.probabilities(key, floor)[left])
    noisy = noisy + _gumbel(noisy, rng)
    soft = torch.softmax(noisy / tau, dim=0)
    chosen = torch.topk(noisy, alphas.decisions[key].picks).indices.tolist()
    return tuple(Pick(left[place], 1.0 - soft[place].detach() + soft[place]) for place in sorted(chosen))


def _two_path(alphas: Alphas, key: str, rng: torch.Generator, tau: float, floor: float) -> tuple[Pick, ...]:
    """The sampled options and one more, so that the gradient compares real outputs; tau is not used.

    The value is that of the sampled options. Replacing an option o by another option k changes the loss L by about
    L'(y) (f_k - f_o); the mean over both ends is exact to second order. If k is drawn from p, and o from the rest,
    (1 - p_k) / 2 times this change is, on average, the gradient of the expected loss with respect to the logit of k,
    and its negative is that for the logit of o. (Two sampled paths as in ProxylessNAS, Cai et al. 2019, arXiv
    1812.00332; second order as in ReinMax, Liu et al. 2023, arXiv 2304.08612; the weights are derived here, and tested
    against enumeration.) If several options are picked, one of them is compared.
    """
    p = alphas.probabilities(key, floor).detach()
    picks = alphas.decisions[key].picks
    order = torch.topk(torch.log(p) + _gumbel(p, rng), min(picks + 1, int((p > 0).sum()))).indices.tolist()
    sampled, rest = order[:picks], order[picks:]
    if not rest:
        return tuple(Pick(option) for option in sorted(sampled))
    compared = sampled[int(torch.randint(len(sampled), (1,), generator=rng))]
    other, logits = rest[0], alphas.logits[key]
    swap = picks * (1 - p[compared]) / 2 * (logits[compared] - logits[other])
    swap = swap - swap.detach()  # 0, with a gradient
    weights = {compared: 1.0 + swap, other: -swap}
    return tuple(Pick(option, weights.get(option)) for option in sorted(order))


def _mixture(alphas: Alphas, key: str, rng: torch.Generator, tau: float, floor: float) -> tuple[Pick, ...]:
    """Every option, weighted by its probability (DARTS, Liu et al. 2019, arXiv 1806.09055); nothing is drawn."""
    p = alphas.probabilities(key, floor) * alphas.decisions[key].picks
    return tuple(Pick(option, p[option]) for option in range(len(p)) if bool(alphas.is_active(key)[option]))


ESTIMATORS: dict[str, Estimator] = {
    "sampled": _sampled,
    "one-path": _one_path,
    "two-path": _two_path,
    "mixture": _mixture,
}


def _gumbel(like: Tensor, rng: torch.Generator) -> Tensor:
    uniform = torch.rand(like.shape, generator=rng).clamp_min(1e-20)
    return -torch.log(-torch.log(uniform)).to(like.device)


def set_probability(p: Sequence[float], chosen: Sequence[int]) -> float:
    """Probability that drawing one after another without replacement gives exactly these options, in any order."""
    total = 0.0
    for order in permutations(chosen):
        left, probability = 1.0, 1.0
        for option in order:
            probability *= p[option] / left if left > 0 else 0.0
            left -= p[option]
        total += probability
    return total


class Decks:
    """Deals options so that the usage counts of one decision's options never differ by more than one (strict fairness).

    Each decision has a shuffled deck, and a new one when it is used up. Edges, of which a node takes several at once,
    are only balanced in the long run, because an edge just dealt from the previous deck is skipped. Only decisions on
    the path take a card, because operations on an absent edge learn nothing. Counts are plain numbers.
    The idea is that of FairNAS (Chu et al. 2021, arXiv 1907.01845), where all operations of a layer take turns.
    """

    def __init__(self, decisions: Mapping[str, Decision], seed: int) -> None:
        self.decisions, self.seed = decisions, seed
        self.dealt = dict.fromkeys(decisions, 0)

    def path(self, aux_skip: float) -> Path:
        """The next path; every pick counts 1."""
        picks: dict[str, tuple[Pick, ...]] = {}
        for key, decision in self.decisions.items():
            cell, _, last = key.rpartition("/")
            edges = picks.get(f"{cell}/edges")
            unused = edges is not None and last.isdecimal() and all(int(last) != pick.option for pick in edges)
            picks[key] = (Pick(0),) if unused else tuple(Pick(o) for o in sorted(self._deal(key, decision.picks)))
        return Path(picks, aux_skip)

    def _deal(self, key: str, count: int) -> list[int]:
        size = len(self.decisions[key].options)
        found: list[int] = []
        while len(found) < count:
            number, place = divmod(self.dealt[key], size)
            option = self._deck(key, number)[place]
            self.dealt[key] += 1
            if option not in found:  # the same card from two consecutive decks would give an edge twice
                found.append(option)
        return found

    def _deck(self, key: str, number: int) -> list[int]:
        names = list(self.decisions)
        rng = torch.Generator().manual_seed(hash((self.seed, names.index(key), number)) % 2**63)
        order: list[int] = torch.randperm(len(self.decisions[key].options), generator=rng).tolist()
        return order
