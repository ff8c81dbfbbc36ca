"""The messages between driver and worker: one JSON object per line, over the worker's standard input and its channel.

Both call a task by its id.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, PositiveInt, TypeAdapter

from nas.jobs.task import Task
from results.record import Outcome

LOADER_DIED = 75  # exit code of a worker one of whose loader processes was killed


class Open(BaseModel, frozen=True, extra="forbid"):
    """Driver: the settings are checked, open the volumes."""

    kind: Literal["open"] = "open"
    run: str  # the run folder
    device: str
    threads: PositiveInt  # of the CPU
    log: str  # file that takes what is printed


class Start(BaseModel, frozen=True, extra="forbid"):
    """Driver: do this."""

    kind: Literal["start"] = "start"
    task: Task


class Leave(BaseModel, frozen=True, extra="forbid"):
    """Driver: write a checkpoint of this task and end it."""

    kind: Literal["leave"] = "leave"
    task: str


class Ready(BaseModel, frozen=True, extra="forbid"):
    """Worker: the volumes are open, send a task."""

    kind: Literal["ready"] = "ready"
    device: str


class Refused(BaseModel, frozen=True, extra="forbid"):
    """Worker: what it was told to open is not what the search began with; it ends."""

    kind: Literal["refused"] = "refused"
    reason: str


class Progress(BaseModel, frozen=True, extra="forbid"):
    """Worker: this much of a phase is done."""

    kind: Literal["progress"] = "progress"
    task: str
    phase: str  # train or score; measure, search or decode
    done: int
    total: int
    loss: float | None


class Scored(BaseModel, frozen=True, extra="forbid"):
    """Worker: the score at a rung."""

    kind: Literal["scored"] = "scored"
    task: str
    step: int
    value: float  # of the metric that ranks


class Ended(BaseModel, frozen=True, extra="forbid"):
    """Worker: the task has ended, with this outcome."""

    kind: Literal["ended"] = "ended"
    task: str
    outcome: Outcome
    last: bool = False  # the process ends now: an error may have left its GPU unusable


class Died(BaseModel, frozen=True, extra="forbid"):
    """Driver to itself: a worker is gone, and with it what it was busy with."""

    kind: Literal["died"] = "died"
    task: str | None
    reason: str
    given_up: str | None = None  # a note for the user if the worker is not started again


Event = Ready | Refused | Progress | Scored | Ended | Died
Order = Open | Start | Leave
from_worker: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])
from_driver: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="kind")])
