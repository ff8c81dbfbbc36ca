"""Task: one piece of work for a worker, a trial or a cell search; what it is called and where its files lie."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, NonNegativeFloat

from nas.config.search_config import SearchConfig
from results.record import Job
from results.run_folder import CellsFolder, RunFolder, TrialFolder
from trainers.atomic import write_atomically
from trainers.cell_search.run import CellPlan, genotype_names


class TrialTask(BaseModel, frozen=True, extra="forbid"):
    """Train and score one candidate."""

    kind: Literal["trial"] = "trial"
    job: Job

    @property
    def id(self) -> str:
        """Its name in messages."""
        return f"trial-{self.job.trial}"

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"trial {self.job.trial}"

    @property
    def is_candidate(self) -> bool:
        """Whether who leads depends on it: a leader trained again leads already."""
        return self.job.repeats is None

    def describe(self, config: SearchConfig) -> str:
        """What is done, in a few words."""
        if self.job.repeats is None:
            return self.job.name
        other = f", {self.job.hold_out} held out" if self.job.hold_out else ""
        return f"{self.job.name} (trial {self.job.repeats} again, seed {self.job.seed}{other})"

    def place(self, folder: RunFolder) -> TrialFolder:
        """Where its files lie."""
        return folder.trial(self.job.trial)

    def prepare(self, folder: RunFolder) -> bool:
        """Write the job down; whether it was there before, so that a worker may continue from a checkpoint."""
        place = self.place(folder)
        place.path.mkdir(parents=True, exist_ok=True)
        resumed = place.job.is_file()
        write_atomically(place.job, self.job.model_dump_json(indent=2))
        return resumed


class CellSearchTask(BaseModel, frozen=True, extra="forbid"):
    """Search the cells of one supernet."""

    kind: Literal["cell_search"] = "cell_search"
    plan: CellPlan

    @property
    def id(self) -> str:
        """Its name in messages."""
        return self.plan.id

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"cell search {self.plan.id}"

    @property
    def is_candidate(self) -> bool:
        """Never: its genotypes become candidates, but it is not one itself."""
        return False

    def describe(self, config: SearchConfig) -> str:
        """What is done, in a few words."""
        search = config.cell_search
        return f"{search.steps} steps, then {len(genotype_names(search))} genotypes to train"

    def place(self, folder: RunFolder) -> CellsFolder:
        """Where its files lie."""
        return folder.cells(self.plan.id)

    def prepare(self, folder: RunFolder) -> bool:
        """Make its folder; whether there is a checkpoint to continue from."""
        place = self.place(folder)
        place.path.mkdir(parents=True, exist_ok=True)
        return place.checkpoints.is_dir()


class MeasureTask(BaseModel, frozen=True, extra="forbid"):
    """Time a few steps of every kind of network and of every cell search, so that the search can be planned."""

    kind: Literal["measure"] = "measure"
    jobs: tuple[Job, ...]  # the first is the default
    searches: tuple[CellPlan, ...]
    most_seconds: NonNegativeFloat  # after which the rest is not measured

    @property
    def id(self) -> str:
        """Its name in messages."""
        return "measure"

    @property
    def title(self) -> str:
        """Its name for people."""
        return "measuring"

    @property
    def is_candidate(self) -> bool:
        """Never."""
        return False

    def describe(self, config: SearchConfig) -> str:
        """What is done, in a few words."""
        return f"a few steps of {len(self.jobs) + len(self.searches)} kinds of training"

    def place(self, folder: RunFolder) -> TrialFolder:
        """Where its files lie."""
        return folder.measuring

    def prepare(self, folder: RunFolder) -> bool:
        """Make its folder; it always begins anew."""
        self.place(folder).path.mkdir(parents=True, exist_ok=True)
        return False


Task = Annotated[TrialTask | CellSearchTask | MeasureTask, Field(discriminator="kind")]
