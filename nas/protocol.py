"""What driver and worker say to each other: one JSON object a line, over the worker's standard input and output."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from results.record import Job, Outcome


class Start(BaseModel, frozen=True, extra="forbid"):
    """Driver: train this candidate."""

    kind: Literal["start"] = "start"
    job: Job


class Answer(BaseModel, frozen=True, extra="forbid"):
    """Driver: go on, stop, or write a checkpoint and leave.

    `go` and `stop` answer a score; `leave` may come at any time.
    """

    kind: Literal["answer"] = "answer"
    trial: int
    answer: Literal["go", "stop", "leave"]


class Ready(BaseModel, frozen=True, extra="forbid"):
    """Worker: the volumes are open, give me a job."""

    kind: Literal["ready"] = "ready"
    device: str


class Progress(BaseModel, frozen=True, extra="forbid"):
    """Worker: so far have I come."""

    kind: Literal["progress"] = "progress"
    trial: int
    phase: str  # train or score
    done: int
    total: int
    loss: float | None


class Scored(BaseModel, frozen=True, extra="forbid"):
    """Worker: the score at a rung; waits for an answer."""

    kind: Literal["scored"] = "scored"
    trial: int
    step: int
    surface_dice: float


class Finished(BaseModel, frozen=True, extra="forbid"):
    """Worker: the training has ended, this way."""

    kind: Literal["finished"] = "finished"
    trial: int
    outcome: Outcome


class Died(BaseModel, frozen=True, extra="forbid"):
    """Driver to itself: the worker of this trial is gone."""

    kind: Literal["died"] = "died"
    trial: int | None
    reason: str


FromWorker = Annotated[Ready | Progress | Scored | Finished | Died, Field(discriminator="kind")]
FromDriver = Annotated[Start | Answer, Field(discriminator="kind")]
from_worker: TypeAdapter[Ready | Progress | Scored | Finished | Died] = TypeAdapter(FromWorker)
from_driver: TypeAdapter[Start | Answer] = TypeAdapter(FromDriver)
