"""What a search would cost: every choice built, its parameters, memory and time estimated, and nothing trained."""

from collections.abc import Iterator
from itertools import product

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.config.search_config import SearchConfig, design_of
from nas.jobs.kidneys import open_folds
from nas.search.confirmation import seeds_note
from nas.search.preflight import preflight
from nas.study.buildable import offered_fit
from nas.study.promotion import rungs
from results.run_folder import RunFolder
from results.text import millions, seconds
from search_spaces.candidate import Candidate
from search_spaces.families import FAMILIES
from search_spaces.space import Combination, options
from trainers.estimate import Estimate, estimate, operations_per_second
from trainers.fit import FitConfig
from trainers.report import Report


def dry_run(config: SearchConfig, folder: RunFolder, console: Console) -> None:
    """Check the data, build every encoder, decoder and crop of the space, and print a table of their costs."""
    fold, *others = open_folds(config, folder, Report(lambda text: console.print(Text(f"note: {text}"))))
    possible = preflight(config, fold, others=others)
    for side, volumes in (("train", fold.train), ("held out", fold.held_out)):
        names = ", ".join(f"{v.name} {'x'.join(map(str, v.shape))}" for v in volumes)
        console.print(Text(f"{side}: {names}"), soft_wrap=True)
    if others:
        kidneys = ", ".join(each.kidney for each in (fold, *others))
        console.print(Text(f"finalists are confirmed with each of these held out: {kidneys}"), soft_wrap=True)
        if (seeds := seeds_note(config, [each.kidney for each in (fold, *others)])) is not None:
            console.print(Text(seeds), soft_wrap=True)
    rows: list[tuple[str, Candidate, FitConfig]] = [
        (fixed.name, design.candidate, design.fit) for fixed in config.fixed for design in [design_of(config, fixed)]
    ]
    for family in config.space.families:
        rows += [row for combination in possible.of(family) for row in dearest(config, combination)]
    costs = [(name, fit, estimate(candidate, fit)) for name, candidate, fit in rows]
    # Timed on the middle one: small steps are mostly overhead, and the largest may not fit this machine.
    middle = sorted(range(len(costs)), key=lambda i: costs[i][2].operations)[len(costs) // 2]
    speed = operations_per_second(rows[middle][1], rows[middle][2], config.device)
    console.print(_table(costs, speed))
    for reason in possible.refusals:
        console.print(Text(f"left out: {reason}"), soft_wrap=True)
    offered = {steps for family in config.space.families for steps in offered_fit(config, family, "steps")}
    longest = max(offered, default=config.fit.steps)
    length = f"{longest}" if offered <= {longest} else f"up to {longest}"
    steps = ", ".join(str(step) for step in rungs(config.study, longest))
    count = f"{len(config.fixed)} fixed trials and {config.study.candidates} candidates"
    console.print(f"{count} of {length} steps, scored at steps {steps}; estimated on this machine")


def dearest(config: SearchConfig, combination: Combination) -> Iterator[tuple[str, Candidate, FitConfig]]:
    """The most expensive candidates of a combination, one for each value of the fields that its family prices apart."""
    family, crop = combination.family, combination.crop
    kind, offered = FAMILIES[family], options(config.space, family, config.fit.crop)
    most = {field: max(offered_fit(config, family, field)) for field in ("batch_size", "steps")}
    fit = config.fit.model_copy(update={"crop": crop, **most})
    for values in product(*(offered[name] for name in kind.priced)):
        priced = dict(zip(kind.priced, values, strict=True))
        try:
            candidate = combination.candidate({**kind.dearest(offered, config.cell_space), **priced})
        except ValidationError:  # such as a frozen encoder without weights
            continue
        yield f"{candidate.title('plain')} · {candidate.slices_in}x{crop}", candidate, fit


def _table(costs: list[tuple[str, FitConfig, Estimate]], speed: float) -> Table:
    table = Table("network", "parameters", "batch", "memory (GiB)", "step", "training", pad_edge=False)
    for name, fit, cost in costs:
        step = cost.operations / speed
        table.add_row(
            Text(name),
            millions(cost.parameters),
            str(fit.batch_size),
            f"{cost.memory_bytes / 2**30:.2f}",
            f"{step:.2f} s",
            seconds(step * fit.steps),
        )
    return table
