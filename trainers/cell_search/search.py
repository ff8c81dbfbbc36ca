"""Trainer 2: trains weights and alphas of a supernet alternately, resumable at any step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from search_spaces.cells.cell_space import Decision
from search_spaces.cells.operations import OPERATIONS
from search_spaces.cells.path import Path, Pick
from trainers.cell_search.alphas import Alphas, Decks, draw
from trainers.cell_search.config import CellSearchConfig
from trainers.checkpoint import (
    load_checkpoint,
    load_weights,
    optimiser_tensors,
    restore_optimiser,
    restore_surroundings,
    save_checkpoint,
    surroundings,
)
from trainers.fit import to_device
from trainers.losses.losses import build_loss
from trainers.step import NonFiniteLoss, optimiser_step, weight_groups

Stream = Callable[[int], Iterator[tuple[Tensor, Tensor]]]  # number of the first batch -> endless batches
REPORTS = 100  # lines of history, for any number of steps
SETTLED_WINDOWS = 2  # consecutive windows with little change after which options are dropped


@dataclass(frozen=True)
class Sides:
    """Batches for training the weights, and batches for training the alphas."""

    weights: Stream
    alphas: Stream


class CellSearch:
    """A cell search, step by step.

    The same network, sides, config and seed give the same alphas on one machine's CPU, whether or not the search was
    interrupted. network: gives logits when called with images (B, k, H, W) and a path. cost: seconds of the mean
    network that the alphas describe, or None if cost does not count.
    """

    def __init__(
        self,
        network: nn.Module,
        decisions: Sequence[Decision],
        sides: Sides,
        config: CellSearchConfig,
        seed: int,
        accelerator: Accelerator,
        cost: Callable[[Alphas], Tensor] | None = None,
    ) -> None:
        self.config, self.step, self.seed = config, 0, seed
        self.network, self._layout = to_device(network, accelerator.device)
        self.alphas = Alphas(decisions, seed)
        self._decks = Decks(self.alphas.decisions, seed)
        self.accelerator, self._cost = accelerator, cost
        self._loss = build_loss(config.loss, config.sparse_background).to(accelerator.device)
        self._sides = sides
        self._streams: dict[str, Iterator[tuple[Tensor, Tensor]]] = {}
        self._optimiser = accelerator.prepare(_optimiser(self.network, config))
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimiser, config.steps + 1)
        self._alpha_optimiser = torch.optim.Adam(
            self.alphas.parameters(),
            lr=config.alpha_learning_rate,
            betas=(0.5, 0.999),
            weight_decay=config.alpha_weight_decay,
        )
        self._before: dict[str, list[float]] = {}  # probabilities at the last check for unlikely options
        self._settled: dict[str, int] = {}
        self._budget: float | None = None
        if cost is not None:
            with torch.no_grad():
                self._budget = config.cost_budget * float(cost(self.alphas))  # alphas have no preference yet
        torch.manual_seed(seed)

    @property
    def warm_steps(self) -> int:
        """Number of steps before the alphas change."""
        return int(self.config.warm_up * self.config.steps)

    def run(
        self, until: int, on_step: Callable[[int, float], bool], on_history: Callable[[dict[str, Any]], None]
    ) -> bool:
        """Train up to step `until`; False if `on_step(step, loss)` asked to stop earlier. Raises NonFiniteLoss."""
        self.network.train()
        every = max(1, self.config.steps // REPORTS)
        while self.step < until:
            loss = self._weight_step()
            alpha_loss = None
            searching = self.step - self.warm_steps
            if searching >= 0 and searching % self.config.alpha_every == 0:
                alpha_loss = self._alpha_step()
                self._look(searching // self.config.alpha_every + 1)
            self.step += 1
            if self.step % every == 0 or self.step == self.config.steps:
                on_history(self._history(loss, alpha_loss))
            if not on_step(self.step, loss) and self.step < until:
                return False
        return True

    def _progress(self) -> float:
        """0 when the alphas begin to change, 1 at the end."""
        left = self.config.steps - 1 - self.warm_steps
        return max(0.0, (self.step - self.warm_steps) / left) if left > 0 else 1.0

    def path(self, estimator: str, purpose: int) -> Path:
        """The path that this step draws; `purpose` distinguishes several draws in one step."""
        progress = self._progress()
        first, last = self.config.tau
        rng = torch.Generator().manual_seed(hash((self.seed, self.step, purpose)) % 2**63)
        floor = self.config.floor * (1 - progress)
        return draw(self.alphas, estimator, rng, first + (last - first) * progress, floor, self._aux_skip())

    def _aux_skip(self) -> float:
        return self.config.aux_skip * (1 - self._progress())

    def _batch(self, side: str) -> tuple[Tensor, Tensor]:
        if side not in self._streams:
            number = self.step if side == "weights" else self._alpha_steps_done()
            self._streams[side] = getattr(self._sides, side)(number)
        return self.on_device(next(self._streams[side]))

    def on_device(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Images and labels on the network's device, in its memory layout."""
        images, labels = batch
        device = self.accelerator.device
        return images.to(device, non_blocking=True, memory_format=self._layout), labels.to(device, non_blocking=True)

    def _alpha_steps_done(self) -> int:
        return max(0, -((self.warm_steps - self.step) // self.config.alpha_every))

    def _weight_step(self) -> float:
        if self.step < self.warm_steps:
            path = self._decks.path(self._aux_skip())
        else:
            path = _without_gradient(self.path(self.config.weight_paths, purpose=0))
        images, labels = self._batch("weights")
        clip = self.config.gradient_clip
        loss = optimiser_step(self.network, self._loss, images, labels, self._optimiser, self.accelerator, clip, path)
        self._schedule.step()
        return loss

    def _alpha_step(self) -> float:
        """One step of the alphas; the weights stay unchanged (first-order approximation)."""
        images, labels = self._batch("alphas")
        with self.accelerator.autocast():
            logits = self.network(images, self.path(self.config.estimator, purpose=1))
        loss = self._loss(logits.float(), labels.float())
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            raise NonFiniteLoss(f"the loss of the alphas became {value}")
        total = loss.cpu() + self._progress() * self.config.entropy_weight * self.alphas.entropy()
        if self._cost is not None and self._budget and self.config.cost_weight:
            over = torch.log(self._cost(self.alphas) / self._budget).clamp(min=0)
            total = total + self.config.cost_weight * over
        parameters = list(self.alphas.parameters())
        # Scaled, because float16 would lose small gradients on their way through the network.
        scale = 1.0 if self.accelerator.scaler is None else float(self.accelerator.scaler.get_scale())
        gradients = torch.autograd.grad(scale * total, parameters, allow_unused=True)
        if not all(gradient is None or bool(torch.isfinite(gradient).all()) for gradient in gradients):
            if self.accelerator.scaler is not None:
                return value  # the loss scale is too large; the weight step reduces it
            raise NonFiniteLoss("a gradient of the alphas is not finite")
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient / scale
        if self.config.alpha_clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.config.alpha_clip)
        self._alpha_optimiser.step()
        return value

    def _look(self, alpha_step: int) -> None:
        """Check at regular intervals, and drop options that are unlikely once the alphas have settled."""
        if self.config.shrink_every is None or alpha_step % self.config.shrink_every:
            return
        now = self.alphas.table()
        for key, after in now.items():
            before = self._before.get(key)
            calm = before is not None and jensen_shannon(before, after) < self.config.shrink_divergence
            self._settled[key] = self._settled.get(key, 0) + 1 if calm else 0
            if self._settled[key] >= SETTLED_WINDOWS:
                self._shrink(key, after)
        self._before = self.alphas.table()

    def _shrink(self, key: str, probabilities: list[float]) -> None:
        """Drop options far less likely than the likeliest; always keep at least two, and at least one with weights."""
        decision = self.alphas.decisions[key]
        floor = self.config.shrink_below * max(probabilities)
        for option in sorted(range(len(probabilities)), key=lambda o: probabilities[o]):
            active = self.alphas.is_active(key)
            left = [o for o in range(len(probabilities)) if active[o] and o != option]
            learns = [o for o in left if _learns(decision.options[o])]
            if (
                active[option]
                and probabilities[option] < floor
                and len(left) >= max(2, decision.picks)
                and (learns or not _learns(decision.options[option]))
            ):
                self.alphas.drop(key, option)

    def _history(self, loss: float, alpha_loss: float | None) -> dict[str, Any]:
        with torch.no_grad():
            seconds = None if self._cost is None else float(self._cost(self.alphas))
            entropy = float(self.alphas.entropy())
        return {
            "step": self.step,
            "loss": loss,
            "alpha_loss": alpha_loss,
            "entropy": entropy,
            "seconds": seconds,
            "budget": self._budget,
            "probabilities": {key: [round(p, 5) for p in row] for key, row in self.alphas.table().items()},
        }

    def save(self, folder: FilePath) -> None:
        """Write a checkpoint from which `resume` continues exactly."""
        around, state = surroundings(self._schedule, self.accelerator)
        tensors = {
            **{f"network.{k}": v for k, v in self.network.state_dict().items()},
            **{f"alphas.{k}": v for k, v in self.alphas.state_dict().items()},
            **around,
        }
        groups = {}
        for name, optimiser in (("weights", self._optimiser), ("alphas", self._alpha_optimiser)):
            values, groups[name] = optimiser_tensors(optimiser)
            tensors |= {f"{name}-{key}": value for key, value in values.items()}
        state |= {
            "groups": groups,
            "dealt": self._decks.dealt,
            "before": self._before,
            "settled": self._settled,
            "budget": self._budget,
        }
        save_checkpoint(folder, self.step, tensors, state)

    def resume(self, folder: FilePath) -> bool:
        """Continue from the newest checkpoint below `folder`; False if there is none."""
        loaded = load_checkpoint(folder)
        if loaded is None:
            return False
        tensors, state = loaded
        load_weights(self.network, tensors, "network.")
        load_weights(self.alphas, tensors, "alphas.")
        for name, optimiser in (("weights", self._optimiser), ("alphas", self._alpha_optimiser)):
            own = {k.removeprefix(f"{name}-"): v for k, v in tensors.items() if k.startswith(f"{name}-")}
            restore_optimiser(optimiser, own, state["groups"][name])
        restore_surroundings(self._schedule, self.accelerator, tensors, state)
        self._decks.dealt = state["dealt"]
        self._before, self._settled, self._budget = state["before"], state["settled"], state["budget"]
        self.step = int(state["step"])
        self._streams = {}
        return True


def _optimiser(network: nn.Module, config: CellSearchConfig) -> torch.optim.Optimizer:
    groups = weight_groups(network.named_parameters(), config.weight_decay)
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _without_gradient(path: Path) -> Path:
    picks = {
        key: tuple(Pick(p.option, None if p.weight is None else p.weight.detach()) for p in chosen)
        for key, chosen in path.picks.items()
    }
    return Path(picks, path.aux_skip)


def _learns(option: str) -> bool:
    return option not in OPERATIONS or OPERATIONS[option].learns


def jensen_shannon(first: Sequence[float], second: Sequence[float]) -> float:
    """Divergence of two distributions in bits: 0 for equal ones, 1 for disjoint ones."""
    p, q = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    middle = (p + q) / 2
    bits = torch.special.entr(middle).sum() - (torch.special.entr(p).sum() + torch.special.entr(q).sum()) / 2
    return max(0.0, float(bits) / float(torch.log(torch.tensor(2.0))))
