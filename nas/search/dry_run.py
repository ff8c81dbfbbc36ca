"""What a search would cost: every choice built, its parameters, memory and time estimated, and nothing trained."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nas.config.search_config import SearchConfig, recipe
from nas.jobs.kidneys import open_fold
from nas.search.preflight import preflight
from nas.study.buildable import buildable
from nas.study.samplers import rungs
from results.run_folder import RunFolder
from results.text import millions, seconds
from search_spaces.candidate import CELLS, LIGHT, Candidate
from search_spaces.cells.hand_made import hand_made
from search_spaces.published.resolution import RESOLUTIONS
from search_spaces.space import Pair, tunings_for, weights_for
from trainers.estimate import Estimate, estimate, operations_per_second
from trainers.fit import FitConfig
from trainers.report import Report


def dry_run(config: SearchConfig, folder: RunFolder, console: Console) -> None:
    """Check the data, build every encoder, decoder and crop of the space, and print a table of their costs."""
    fold = open_fold(config, folder, Report(lambda text: console.print(Text(f"note: {text}"))))
    preflight(config, fold)
    for side, volumes in (("train", fold.train), ("held out", fold.held_out)):
        names = ", ".join(f"{v.name} {'x'.join(map(str, v.shape))}" for v in volumes)
        console.print(Text(f"{side}: {names}"), soft_wrap=True)
    rows: list[tuple[str, Candidate, FitConfig]] = [(f.name, f.candidate, recipe(config, f)) for f in config.fixed]
    refused = [pair.refusal for pair in buildable(config.space).pairs if pair.refusal is not None]
    for pair in buildable(config.space).pairs:
        if pair.refusal is None:
            fit = config.fit.model_copy(update={"crop": pair.crop, "batch_size": max(config.space.batch_sizes)})
            rows += [(f"{pair.encoder} · {what} · {pair.crop}", c, fit) for what, c in _candidates(pair, config)]
    if "cells" in config.space.families:
        rows += _boxes(config)
    costs = [(name, fit, estimate(candidate, fit)) for name, candidate, fit in rows]
    # Timed on the middle one: small steps are mostly overhead, and the largest may not fit this machine.
    middle = sorted(range(len(costs)), key=lambda i: costs[i][2].operations)[len(costs) // 2]
    speed = operations_per_second(rows[middle][1], rows[middle][2], config.device)
    console.print(_table(costs, speed))
    for reason in refused:
        console.print(Text(f"left out: {reason}"), soft_wrap=True)
    steps = ", ".join(str(step) for step in rungs(config.study, config.fit.steps))
    console.print(
        f"{config.study.trials} trials of {config.fit.steps} steps, scored at steps {steps}; estimated on this machine"
    )


def _candidates(pair: Pair, config: SearchConfig) -> list[tuple[str, Candidate]]:
    """The dearest candidate of an encoder and a decoder, named by that; of family sam one for each tuning."""
    space = config.space
    slices = max(space.slices_in)
    if pair.decoder == CELLS:
        return [(CELLS, pair.candidate(space, slices, width=max(space.cell_widths)))]
    if pair.decoder != LIGHT:
        dearest = max(space.resolutions, key=list(RESOLUTIONS).index)
        name = pair.decoder if dearest == "plain" else f"{pair.decoder} {dearest}"
        return [(name, pair.candidate(space, slices, resolution=dearest))]
    found: dict[str, Candidate] = {}
    for name in weights_for(space, pair.encoder):
        for tuning in tunings_for(space, name):
            rank = {"lora_rank": max(space.lora_ranks)} if tuning == "lora" else {}
            found[tuning] = pair.candidate(space, slices, encoder_weights=name, tuning=tuning, **rank)
    return list(found.items())


def _boxes(config: SearchConfig) -> list[tuple[str, Candidate, FitConfig]]:
    """Networks of family cells, with cells drawn by hand, at every box."""
    rows = []
    for crop in config.space.box_crops:
        for slices in config.space.box_slices:
            for width in config.space.cell_widths:
                genotype = hand_made("plain", "cells", config.cell_space.levels)
                candidate = Candidate.model_validate(
                    {"family": "cells", "genotype": genotype, "width": width, "slices_in": slices}
                )
                fit = config.fit.model_copy(update={"crop": crop, "batch_size": max(config.space.box_batch_sizes)})
                rows.append((f"cells c{width} · {slices}x{crop}", candidate, fit))
    return rows


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
