"""Cell searches of a run: which ones it needs, one of them from start to end, and what they found."""

import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from nas.config.search_config import SearchConfig
from nas.jobs.trial import Talk
from results.pictures.cells import draw_alphas, draw_genotype
from results.pictures.curve import append_line
from results.record import Job, Outcome
from results.run_folder import CellsFolder, RunFolder, read_seconds
from search_spaces.cells.cell_candidate import CellCandidate
from search_spaces.cells.genotype import Genotype
from search_spaces.errors import InputError
from search_spaces.families import FAMILIES
from trainers.atomic import write_atomically
from trainers.cell_search.config import CellSearchConfig
from trainers.cell_search.run import CellFindings, CellPlan, CellTalk, costs_name, run_cells
from trainers.data.folds import Fold
from trainers.data.prepare import default_cache
from trainers.fit import make_accelerator
from trainers.report import Report


def plans(config: SearchConfig) -> tuple[CellPlan, ...]:
    """The supernets that a search needs: one for each family with cells and each class of crops."""
    return _possible(config) if config.study.candidates else ()


def search_settings(config: SearchConfig) -> CellSearchConfig:
    """How cells are searched: at the voxel size of the recipe, unless the section `cell_search` says otherwise."""
    search = config.cell_search
    if search.voxel_size_um is None and config.fit.sampled_um is not None:
        return search.model_copy(update={"voxel_size_um": config.fit.sampled_um})
    return search


def _possible(config: SearchConfig) -> tuple[CellPlan, ...]:
    return tuple(
        CellPlan(family=family, crop=crop)
        for family, supernets in config.cell_search.supernets.items()
        if family in config.space.families and needs_cells(config, family)
        for crop in supernets.crops
    )


def needs_cells(config: SearchConfig, family: str) -> bool:
    """Whether networks of a family get their cells from a search, because the space names none for them."""
    return issubclass(FAMILIES[family], CellCandidate) and "genotype" not in config.space.family(family).candidate


def plan_for(config: SearchConfig, family: str, crop: int) -> CellPlan:
    """The supernet whose crops are nearest in size to a trial's."""
    fitting = config.cell_search.supernets[family].crops
    return CellPlan(family=family, crop=min(fitting, key=lambda own: (abs(own - crop), own)))


def read_findings(place: CellsFolder) -> CellFindings | None:
    """What a cell search found, or None if it has not ended. Raises InputError if the file is damaged."""
    if not place.findings.is_file():
        return None
    try:
        return CellFindings.model_validate_json(place.findings.read_bytes())
    except ValidationError as error:
        raise InputError(f"{place.findings} is damaged, or of another version; delete it to search again") from error


def genotypes_of(folder: RunFolder, plan: CellPlan) -> Mapping[str, Genotype]:
    """The genotypes of a cell search that has ended, by how they were found."""
    findings = read_findings(folder.cells(plan.id))
    if findings is None:
        raise InputError(f"the cell search {plan.id} has not ended yet")
    return {name: found.genotype for name, found in findings.genotypes.items()}


def findings_with(folder: RunFolder, config: SearchConfig, job: Job) -> CellFindings | None:
    """The findings of the cell search that a job's genotype comes from; None if it comes from none."""
    family, genotype = job.candidate.family, job.candidate.decided_cells
    if genotype is None or family not in config.space.families or not needs_cells(config, family):
        return None
    findings = read_findings(folder.cells(plan_for(config, family, job.fit.crop).id))
    if findings is None or genotype not in [found.genotype for found in findings.genotypes.values()]:
        return None
    return findings


def with_supernet(folder: RunFolder, config: SearchConfig, job: Job) -> Job:
    """The job with what the supernet made of its cells, if a search found them."""
    findings = findings_with(folder, config, job)
    if findings is None:
        return job
    found = findings.genotypes.values()
    loss = next((one.loss for one in found if one.genotype == job.candidate.decided_cells), None)
    return job.model_copy(update={"supernet": findings.plan.id, "supernet_loss": loss})


def draw_cells_of(job: Job, folder: RunFolder, config: SearchConfig, picture: Path) -> None:
    """Draw the network of a job, if it is made of cells, with the probabilities of the search that found it."""
    if job.candidate.decided_cells is not None:
        draw_genotype(picture, job.candidate.decided_cells, job.name, findings_with(folder, config, job))


def search_cells(
    plan: CellPlan, fold: Fold, config: SearchConfig, place: CellsFolder, device: str, talk: Talk
) -> Outcome:
    """Search the cells of one supernet, as a worker does; continues from the folder's checkpoint.

    The outcome is complete, or interrupted if the search was told to leave. Anything that goes wrong is raised.
    """
    place.path.mkdir(parents=True, exist_ok=True)
    before = read_seconds(place.seconds)
    began = time.monotonic()

    def mark() -> None:
        """Note the time this search has taken so far, in case it is killed."""
        write_atomically(place.seconds, f"{before + time.monotonic() - began:.3f}\n")

    to_driver = CellTalk(
        on_step=lambda phase, done, of, loss: talk.progress(phase, done, of, loss) == "go",
        on_history=lambda values: append_line(place.history, values),
        report=Report(print),
    )
    accelerator = make_accelerator(config.fit.precision, device)
    space, search = config.cell_space, search_settings(config)
    # Measured once per machine: timings differ from run to run, and the same search must find the same cells again.
    remembered = (config.data.cache or default_cache()) / "costs" / costs_name(plan, space, search, accelerator)
    findings = run_cells(
        plan,
        fold.train,
        space,
        search,
        config.study.seed,
        accelerator,
        place.checkpoints,
        to_driver,
        cost_files=(place.costs, remembered),
        save_every=config.study.checkpoint_seconds,
        on_saved=mark,
    )
    mark()
    if findings is None:
        return Outcome(state="interrupted", reason="left before the end")
    draw_alphas(place.alphas_picture, place.history, plan.id)
    for name, found in findings.genotypes.items():
        file = place.genotype(name)
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, found.genotype.model_dump_json(indent=2) + "\n")
        draw_genotype(file.with_suffix(".svg"), found.genotype, f"{plan.id}: {name}", findings)
    whole = findings.model_copy(update={"search_seconds": read_seconds(place.seconds)})
    write_atomically(place.findings, whole.model_dump_json(indent=1) + "\n")
    return Outcome(state="complete")
