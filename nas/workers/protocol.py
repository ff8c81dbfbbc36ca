"""What driver and worker say to each other: one JSON object a line, over the worker's standard input and output."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveInt, TypeAdapter

from results.record import Job, Outcome
from trainers.cell_search.run import CellPlan

Work = int | str  # what a worker is busy with: the number of a trial, or the id of a cell search


class Open(BaseModel, frozen=True, extra="forbid"):
    """Driver: everything is checked, open the volumes. What a worker imports, it has imported meanwhile."""

    kind: Literal["open"] = "open"
    run: str  # the run folder
    device: str
    threads: PositiveInt  # of the CPU
    log: str  # file that takes what is printed


class Start(BaseModel, frozen=True, extra="forbid"):
    """Driver: train this candidate."""

    kind: Literal["start"] = "start"
    job: Job


class StartCells(BaseModel, frozen=True, extra="forbid"):
    """Driver: search the cells of this supernet."""

    kind: Literal["start_cells"] = "start_cells"
    plan: CellPlan


class Answer(BaseModel, frozen=True, extra="forbid"):
    """Driver: go on, stop, or write a checkpoint and leave.

    `go` and `stop` answer a score; `leave` may come at any time.
    """

    kind: Literal["answer"] = "answer"
    work: Work
    answer: Literal["go", "stop", "leave"]


class Ready(BaseModel, frozen=True, extra="forbid"):
    """Worker: the volumes are open, give me a job."""

    kind: Literal["ready"] = "ready"
    device: str


class Progress(BaseModel, frozen=True, extra="forbid"):
    """Worker: so far have I come."""

    kind: Literal["progress"] = "progress"
    work: Work
    phase: str  # train or score; search or decode
    done: int
    total: int
    loss: float | None


class Scored(BaseModel, frozen=True, extra="forbid"):
    """Worker: the score at a rung; waits for an answer."""

    kind: Literal["scored"] = "scored"
    trial: int
    step: int
    value: float  # of the metric that ranks


class Finished(BaseModel, frozen=True, extra="forbid"):
    """Worker: the training has ended, this way."""

    kind: Literal["finished"] = "finished"
    trial: int
    outcome: Outcome
    last: bool = False  # the process ends now: an error may have left its GPU unusable


class Searched(BaseModel, frozen=True, extra="forbid"):
    """Worker: the cell search has ended, this way."""

    kind: Literal["searched"] = "searched"
    cells: str
    state: Literal["complete", "failed", "interrupted"]
    reason: str | None = None
    last: bool = False  # the process ends now


class Died(BaseModel, frozen=True, extra="forbid"):
    """Driver to itself: a worker is gone, and with it what it was busy with."""

    kind: Literal["died"] = "died"
    work: Work | None
    reason: str
    given_up: str | None = None  # what to tell the user where it is not started again


Event = Ready | Progress | Scored | Finished | Searched | Died
Order = Open | Start | StartCells | Answer
from_worker: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])
from_driver: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="kind")])
