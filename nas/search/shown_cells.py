"""What `nas show` draws and prints: a genotype from anywhere, or what a cell search found."""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from nas.config.runs import read_run
from nas.jobs.cell_search import findings_with, plans, read_findings
from results.bundles.bundle import read_architecture
from results.pictures.cells import draw_genotype, operation_shares
from results.record import Job, read_job
from results.run_folder import RunFolder
from results.text import seconds
from search_spaces.candidate import Candidate
from search_spaces.cells.genotype import Genotype
from search_spaces.cells.hand_made import HAND_MADE, hand_made
from search_spaces.errors import InputError
from trainers.cell_search.run import CellFindings


class Shown(BaseModel, frozen=True, extra="forbid"):
    """A genotype, its pictures, and how often its cells use each operation."""

    title: str
    genotype: Genotype
    operations: dict[str, int]
    pictures: tuple[Path, ...]

    def text(self) -> str:
        """The same as text for people."""
        total = sum(self.operations.values())
        lines = [f"{self.title}: genotype {self.genotype.hash}", "", f"{'operation':18} edges  share"]
        lines += [f"{name:18} {count:5d}  {count / total:5.0%}" for name, count in self.operations.items()]
        for cell in self.genotype.cells:
            lines += ["", cell.key]
            for number, edges in enumerate(cell.nodes):
                into = ", ".join(f"{edge.operation} from {_source(edge.source)}" for edge in edges)
                lines.append(f"  node {number + 1}: {into}")
            if cell.shortcut != "none":
                lines.append(f"  output: input 1 is added ({cell.shortcut} shortcut)")
        return "\n".join([*lines, "", *(f"picture: {path}" for path in self.pictures)])


class SearchShown(BaseModel, frozen=True, extra="forbid"):
    """What a cell search found."""

    cells: str
    findings: CellFindings
    alphas_picture: Path

    def text(self) -> str:
        """The same as text for people."""
        found = self.findings
        lines = [
            f"cell search {self.cells}: {len(found.genotypes)} genotypes in {seconds(found.search_seconds)} "
            f"on {found.device}",
            "",
            f"{'genotype':14} {'hash':14} {'step (ms)':>10} {'memory (MiB)':>13}",
        ]
        for name, one in found.genotypes.items():
            step, memory = 1000 * one.seconds, one.memory_bytes / 2**20
            lines.append(f"{name:14} {one.genotype.hash:14} {step:10.1f} {memory:13.1f}")
        shares = {name: operation_shares(one.genotype) for name, one in found.genotypes.items()}
        operations = sorted({operation for counts in shares.values() for operation in counts})
        lines += ["", f"{'operation':18} " + " ".join(f"{name:>12}" for name in shares)]
        for operation in operations:
            row = " ".join(f"{counts.get(operation, 0):12d}" for counts in shares.values())
            lines.append(f"{operation:18} {row}")
        return "\n".join([*lines, "", f"picture: {self.alphas_picture}"])


def describe_target(run: Path | None, target: str, out: Path | None) -> Shown | SearchShown:
    """Draw what `target` names; see `nas show --help`. Raises InputError if it names nothing with cells."""
    if target.isdecimal():
        config, folder = read_run(run)
        job = _job(folder, int(target))
        genotype = _cells_of(job.candidate, f"trial {target}")
        return _draw(f"trial {target}", genotype, out, findings_with(folder, config, job))
    if Path(target).is_dir():
        candidate = read_architecture(Path(target)).candidate
        return _draw(target, _cells_of(candidate, target), out)
    if Path(target).is_file():
        return _draw(target, read_genotype(Path(target)), out)
    if target in HAND_MADE:
        return _draw(target, hand_made(target, "cells"), out)
    return _of_search(run, target, out)


def _job(folder: RunFolder, number: int) -> Job:
    file = folder.trial(number).job
    if not file.is_file():
        known = ", ".join(str(n) for n, _ in folder.trial_folders()) or "none"
        raise InputError(f"{folder.path} has no trial {number}; its trials are: {known}")
    return read_job(file)


def _cells_of(candidate: Candidate, what: str) -> Genotype:
    if candidate.decided_cells is None:
        raise InputError(f"{what} is a network of family {candidate.family}, which has no cells to show")
    return candidate.decided_cells


def read_genotype(file: Path) -> Genotype:
    """The genotype in a JSON file. Raises InputError if it holds none."""
    try:
        return Genotype.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{file} holds no genotype: {where}: {first['msg']}") from error


def _of_search(run: Path | None, target: str, out: Path | None) -> Shown | SearchShown:
    config, folder = read_run(run)
    identity, _, name = target.partition("/")
    known = {plan.id: read_findings(folder.cells(plan.id)) for plan in plans(config)}
    findings = known.get(identity)
    if findings is None:
        ended = ", ".join(identity for identity, found in known.items() if found) or "none"
        raise InputError(
            f"{target!r} is not a trial, file, bundle or hand-made genotype ({', '.join(HAND_MADE)}), nor a cell "
            f"search of {folder.path} that has ended ({ended})"
        )
    if not name:
        return SearchShown(cells=identity, findings=findings, alphas_picture=folder.cells(identity).alphas_picture)
    if name not in findings.genotypes:
        raise InputError(f"cell search {identity} found no {name!r}; it found: {', '.join(findings.genotypes)}")
    return _draw(target, findings.genotypes[name].genotype, out, findings)


def _draw(title: str, genotype: Genotype, out: Path | None, findings: CellFindings | None = None) -> Shown:
    stem = out if out is not None else Path(f"genotype-{genotype.hash}")
    stem.parent.mkdir(parents=True, exist_ok=True)
    pictures = tuple(stem.with_name(f"{stem.name}{suffix}") for suffix in (".svg", ".png"))
    for picture in pictures:
        draw_genotype(picture, genotype, title, findings)
    return Shown(title=title, genotype=genotype, operations=operation_shares(genotype), pictures=pictures)


def _source(source: int) -> str:
    return f"input {source}" if source < 2 else f"node {source - 1}"
