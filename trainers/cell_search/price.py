"""What a cell search will take on this machine, from a few of its steps."""

import time
from collections.abc import Sequence

import torch
from accelerate import Accelerator

from search_spaces.cells.cell_space import CellSpace, decisions
from search_spaces.network import build_supernet
from trainers.cell_search.config import CellSearchConfig
from trainers.cell_search.run import CellPlan, check_plan, split_for, stream_of
from trainers.cell_search.search import CellSearch, Sides
from trainers.data.volume import Volume

_TIMED_STEPS = 2  # after one that warms up


def seconds_to_search(
    plan: CellPlan,
    volumes: Sequence[Volume],
    space: CellSpace,
    config: CellSearchConfig,
    seed: int,
    accelerator: Accelerator,
) -> float:
    """What `run_cells` will take on this machine, from a few of its steps; without measuring the parts of networks.

    Raises InputError as `run_cells` does.
    """
    check_plan(plan, space, config)
    torch.manual_seed(seed)
    sides = Sides(*(stream_of(sampler, plan, config) for sampler in split_for(plan, volumes, config, seed)))
    network = build_supernet(space, config.supernet_candidate(plan.family), plan.crop)
    search = CellSearch(network, decisions(space, plan.family), sides, config, seed, accelerator)
    search.run(1, lambda *_: True, lambda _: None)  # warms up
    began = time.monotonic()
    search.run(1 + _TIMED_STEPS, lambda *_: True, lambda _: None)
    weights = (time.monotonic() - began) / _TIMED_STEPS
    search.step = search.warm_steps  # where a step of the alphas comes after that of the weights
    began = time.monotonic()
    search.run(search.step + 1, lambda *_: True, lambda _: None)
    alphas = max(0.0, time.monotonic() - began - weights)
    with_alphas = (config.steps - search.warm_steps) / config.alpha_every
    options = sum(len(decision.options) for decision in search.alphas.decisions.values())
    judged = config.perturbations * config.perturbation_paths * options
    return weights * (config.steps + judged / 3) + alphas * with_alphas  # a judgement is a step without its gradient
