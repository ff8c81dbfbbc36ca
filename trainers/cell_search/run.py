"""One supernet from start to end: split, measure, search, decode; the result is genotypes to train."""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from pydantic import BaseModel, NonNegativeFloat, PositiveInt, ValidationError
from torch import Tensor, nn

from search_spaces.cells.cell_space import (
    CellSpace,
    Choice,
    decisions,
    genotype_of,
    levels_of,
    random_choice,
)
from search_spaces.cells.genotype import Genotype
from search_spaces.cells.path import plain_path
from search_spaces.crop import refuse_crop
from search_spaces.errors import InputError
from search_spaces.families.cells import check_boxes
from search_spaces.network import build_supernet
from search_spaces.published.encoder_candidate import EncoderCandidate
from trainers.atomic import write_atomically
from trainers.cell_search.alphas import Alphas
from trainers.cell_search.bilevel import bilevel_split
from trainers.cell_search.config import CellSearchConfig
from trainers.cell_search.costs import CostTable, MeasuredCosts, measure
from trainers.cell_search.decode import likeliest, perturbation, random_of_cost, sample
from trainers.cell_search.expected_cost import EncoderCost, ExpectedCost, Stopped
from trainers.cell_search.search import CellSearch, Sides, Stream
from trainers.data.augment import Augmentation
from trainers.data.batches import Batches
from trainers.data.patches import PatchSampler
from trainers.data.volume import Volume
from trainers.losses.losses import build_loss
from trainers.report import SILENT, Report

_CALIBRATED_ON = 3  # number of random networks used for calibration


class CellPlan(BaseModel, frozen=True, extra="forbid"):
    """The supernet to search: there is one for each family and class of crops."""

    family: str  # a family with cells
    crop: PositiveInt

    @property
    def id(self) -> str:
        """The name of its folder."""
        return f"{self.family}-{self.crop}"


class FoundGenotype(BaseModel, frozen=True, extra="forbid"):
    """One genotype found by a search, and the cost of one of its training steps on the machine that searched."""

    genotype: Genotype
    seconds: NonNegativeFloat
    memory_bytes: NonNegativeFloat
    loss: float | None = None  # with the supernet's weights, on samples that only alphas learned from


class CellFindings(BaseModel, frozen=True, extra="forbid"):
    """The results of searching one supernet."""

    plan: CellPlan
    space: CellSpace
    genotypes: dict[str, FoundGenotype]  # by how it was found: likeliest, perturbation-1, sample-1, random-1, ...
    probabilities: dict[str, list[float]]  # final probabilities of every decision's options
    options: dict[str, list[str]]
    search_seconds: float
    device: str


@dataclass(frozen=True)
class CellTalk:
    """Functions that a cell search calls to report progress. on_step returns whether to continue."""

    on_step: Callable[[str, int, int, float | None], bool]  # phase, done, of, loss
    on_history: Callable[[dict[str, Any]], None]
    report: Report = SILENT


def genotype_names(config: CellSearchConfig) -> tuple[str, ...]:
    """The names of a search's genotypes, known before it begins because the study chooses among them.

    The most promising come first: if the budget ends early, the others are not trained.
    """

    def numbered(kind: str, count: int) -> list[str]:
        return [f"{kind}-{number + 1}" for number in range(count)]

    found = (*numbered("perturbation", config.perturbations), "likeliest", *numbered("sample", config.samples))
    return (*found, *numbered("random", config.randoms))


def costs_name(plan: CellPlan, space: CellSpace, config: CellSearchConfig, accelerator: Accelerator) -> str:
    """A file name for the measured costs of a supernet on this machine; it depends on everything that affects them."""
    device = accelerator.device
    facts = (
        plan.model_dump_json(),
        space.model_dump_json(),
        config.supernet_candidate(plan.family).model_dump_json(),
        config.supernets[plan.family].batch_size,
        torch.__version__,
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{_processor()}, {torch.get_num_threads()}",
        version("vessel-nas"),
        accelerator.mixed_precision,
    )
    return f"{plan.id}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.json"


def _processor() -> str:
    """The model of the CPU, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def check_plan(plan: CellPlan, space: CellSpace, config: CellSearchConfig) -> None:
    """Raise InputError, one line, if boxes or crops do not suit the levels of the supernet."""
    candidate = config.supernet_candidate(plan.family)
    if candidate.boxes:
        check_boxes(plan.crop, candidate.slices_in, space)
        return
    stride = 2 ** (levels_of(space, plan.family) - 1)
    refuse_crop(f"a supernet of family {plan.family!r} at crop {plan.crop}", plan.crop, stride, smallest=2 * stride)


def split_for(
    plan: CellPlan, volumes: Sequence[Volume], config: CellSearchConfig, seed: int, report: Report = SILENT
) -> tuple[PatchSampler, PatchSampler]:
    """The samplers for weights and alphas. Raises InputError if the volumes cannot be split."""
    candidate = config.supernet_candidate(plan.family)
    gap = max(candidate.slices_in, plan.crop) if candidate.boxes else plan.crop
    first, second = (
        PatchSampler(
            side,
            slices_in=candidate.slices_in,
            slices_out=candidate.slices_out,
            crop=plan.crop,
            vessel_share=config.vessel_share,
            seed=2 * seed + number,
            boxes=candidate.boxes,
            spacing_um=None if config.voxel_size_um == "scanned" else config.voxel_size_um,
        )
        for number, side in enumerate(bilevel_split(volumes, gap, report))
    )
    return first, second


def run_cells(
    plan: CellPlan,
    volumes: Sequence[Volume],
    space: CellSpace,
    config: CellSearchConfig,
    seed: int,
    accelerator: Accelerator,
    checkpoints: Path,
    talk: CellTalk,
    cost_files: Sequence[Path] = (),
    save_every: float = 60.0,
    on_saved: Callable[[], None] = lambda: None,
) -> CellFindings | None:
    """Search the cells of one supernet; None if asked to stop, with a checkpoint if training has begun.

    Continues from the newest checkpoint. cost_files: files for measured costs; the first one that exists is read, so
    that a search is repeatable although timings are not, and the others are written. The first is the search's own; of
    the others it is only noted that they cannot be written. save_every: seconds between checkpoints; on_saved is called
    after each. Raises InputError for unsuitable settings and volumes, and NonFiniteLoss.
    """
    check_plan(plan, space, config)
    began = time.monotonic()
    torch.manual_seed(seed)
    samplers = split_for(plan, volumes, config, seed, talk.report)
    network = build_supernet(space, config.supernet_candidate(plan.family), plan.crop)
    costs = _Costs(plan, space, config, accelerator)
    network.to(accelerator.device)
    try:
        found = costs.prepare(network, seed, cost_files, lambda done, of: talk.on_step("measure", done, of, None))
    except Stopped:
        return None
    _keep(found, cost_files, talk.report)
    sides = Sides(*(stream_of(sampler, plan, config) for sampler in samplers))
    search = CellSearch(network, decisions(space, plan.family), sides, config, seed, accelerator, costs.of_alphas)
    search.resume(checkpoints)
    saved = time.monotonic()

    def on_step(step: int, loss: float) -> bool:
        nonlocal saved
        if time.monotonic() - saved > save_every:
            search.save(checkpoints)
            on_saved()
            saved = time.monotonic()
        return talk.on_step("search", step, config.steps, loss)

    finished = search.run(config.steps, on_step, talk.on_history)
    search.save(checkpoints)
    if not finished:
        return None
    chosen = _decode(search, costs, sides, talk)
    if chosen is None:
        return None
    return CellFindings(
        plan=plan,
        space=space,
        genotypes=_found(search, sides, costs, chosen),
        probabilities=search.alphas.table(),
        options={key: list(d.options) for key, d in search.alphas.decisions.items()},
        search_seconds=time.monotonic() - began,
        device=torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "CPU",
    )


def stream_of(sampler: PatchSampler, plan: CellPlan, config: CellSearchConfig) -> Stream:
    """The batches of one side of the split, from any number on."""
    size = config.supernets[plan.family].batch_size
    augmentation = Augmentation(config.augmentation)

    def batches(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(Batches(sampler, augmentation, size, number * size, sparse_margin=config.marked_margin))

    return batches


def _decode(search: CellSearch, costs: "_Costs", sides: Sides, talk: CellTalk) -> dict[str, Choice] | None:
    """All genotypes that become trials, by name; None if asked to stop."""
    config, alphas, seed = search.config, search.alphas, search.seed
    chosen: dict[str, Choice] = {"likeliest": likeliest(alphas)}
    for number in range(config.perturbations):
        found = perturbation(
            alphas,
            _judge(search, sides, number),
            config.perturbation_paths,
            seed + 1000 * number,
            lambda done, of, before=number: talk.on_step(  # type: ignore[misc]
                "decode", before * of + done, config.perturbations * of, None
            ),
        )
        if found is None:
            return None
        chosen[f"perturbation-{number + 1}"] = found
    for number in range(config.samples):
        tries = (sample(alphas, seed + 1000 * number + t) for t in range(20))
        chosen[f"sample-{number + 1}"] = next(
            (c for c in tries if costs.genotype(c) not in [costs.genotype(k) for k in chosen.values()]),
            sample(alphas, seed + 1000 * number),
        )

    def seconds(choice: Choice) -> float:
        return costs.expected.of_choice(choice)[0]

    known = list(alphas.decisions.values())
    drawn = random_of_cost(known, seconds, seconds(chosen["likeliest"]), config.randoms, seed)
    for number, choice in enumerate(drawn):
        chosen[f"random-{number + 1}"] = choice
    talk.on_step("decode", 1, 1, None)
    return {name: chosen[name] for name in genotype_names(config)}


def _found(search: CellSearch, sides: Sides, costs: "_Costs", chosen: dict[str, Choice]) -> dict[str, FoundGenotype]:
    """Every genotype with its cost, and its loss on the same samples as all others."""
    judge, paths = _judge(search, sides, search.config.perturbations), search.config.perturbation_paths
    found = {}
    for name, choice in chosen.items():
        loss = sum(judge(choice, number) for number in range(paths)) / paths
        found[name] = costs.found(choice).model_copy(update={"loss": loss})
    return found


def _judge(search: CellSearch, sides: Sides, turn: int) -> Callable[[Choice, int], float]:
    """A function that gives a sub-network's loss, with the supernet's weights, on one of a few batches.

    No weight was trained on these batches, and every turn uses different ones.
    """
    paths, accelerator = search.config.perturbation_paths, search.accelerator
    stream = sides.alphas(turn * paths)
    batches = [search.on_device(next(stream)) for _ in range(paths)]
    loss = build_loss(search.config.loss, search.config.sparse_background).to(accelerator.device)

    @torch.no_grad()
    def value(choice: Choice, number: int) -> float:
        images, labels = batches[number]
        with accelerator.autocast():
            logits = search.network(images, plain_path(choice))
        return float(loss(logits.float(), labels.float()))

    return value


def _keep(found: MeasuredCosts, files: Sequence[Path], report: Report) -> None:
    for file in files:
        if file.is_file():
            continue
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, found.model_dump_json(indent=1) + "\n")
        except OSError as error:  # as of a cache that others own
            if file is files[0]:
                raise
            report.note(f"{file} cannot be written ({error.strerror}): the next search measures these costs again")


@dataclass
class _Costs:
    """Seconds and bytes of any network in one supernet's space."""

    plan: CellPlan
    space: CellSpace
    config: CellSearchConfig
    accelerator: Accelerator

    def prepare(
        self, network: nn.Module, seed: int, files: Sequence[Path], on_part: Callable[[int, int], bool]
    ) -> MeasuredCosts:
        """Measure every part, scaled so that parts add up to whole networks; or read the costs from a file."""
        candidate = self.config.supernet_candidate(self.plan.family)
        batch, plane = self.config.supernets[self.plan.family].batch_size, (self.plan.crop, self.plan.crop)
        shape = (batch, candidate.slices_in, *plane)
        known = next((_read_costs(file) for file in files if file.is_file()), None)
        box = (candidate.slices_in, *plane) if candidate.boxes else plane
        table = CostTable(self.accelerator, batch, box, dict(known.entries) if known else {})
        encoder = None
        if isinstance(candidate, EncoderCandidate):
            whole: Any = network.encoder
            cost = (known and known.encoder) or measure(_Summed(whole), shape, self.accelerator)
            encoder = EncoderCost(cost, tuple(whole.out_channels))
        self.expected = ExpectedCost(self.space, self.plan.family, candidate.width, table, encoder, on_part)
        self.expected.factor = known.factor if known else self._calibrate(network, shape, seed)
        return MeasuredCosts(
            entries=table.entries, factor=self.expected.factor, encoder=encoder.cost if encoder else None
        )

    def _calibrate(self, network: nn.Module, shape: tuple[int, ...], seed: int) -> float:
        """The ratio of a whole network's seconds to the sum of its parts, as the median over a few networks."""
        rng = np.random.default_rng(seed)
        ratios = []
        for _ in range(_CALIBRATED_ON):
            choice = random_choice(decisions(self.space, self.plan.family), rng)
            whole = measure(_SubNet(network, choice), shape, self.accelerator, repeats=3)
            ratios.append(whole.seconds / self.expected.of_choice(choice)[0])
        return sorted(ratios)[_CALIBRATED_ON // 2]

    def of_alphas(self, alphas: Alphas) -> Tensor:
        return self.expected.of_probabilities({key: alphas.probabilities(key) for key in alphas.decisions})[0]

    def genotype(self, choice: Choice) -> Genotype:
        return genotype_of(self.space, self.plan.family, choice)

    def found(self, choice: Choice) -> FoundGenotype:
        seconds, memory = self.expected.of_choice(choice)
        return FoundGenotype(genotype=self.genotype(choice), seconds=seconds, memory_bytes=memory)


def _read_costs(file: Path) -> MeasuredCosts:
    try:
        return MeasuredCosts.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise InputError(f"{file} is damaged, or of another version; delete it to measure again") from error


class _Summed(nn.Module):
    """An encoder whose maps are summed, so that a backward pass goes through all of them."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> Tensor:
        parts = [m.mean() for m in self.encoder(image) if m.numel()]
        return torch.stack(parts).sum()


class _SubNet(nn.Module):
    """A supernet that always takes one path."""

    def __init__(self, supernet: nn.Module, choice: Choice) -> None:
        super().__init__()
        self.supernet, self.choice = supernet, choice

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.supernet(image, plain_path(self.choice))
        return logits
