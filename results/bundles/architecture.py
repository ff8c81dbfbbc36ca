"""Architecture: everything needed to rebuild a bundle's network and its prediction, except the weights."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, NonNegativeInt, PositiveInt

from results.bundles.reading import KeptReading, Reading
from results.record import Record
from search_spaces.any_candidate import AnyCandidate
from trainers.data.folds import Fold
from trainers.data.geometry import Micrometres
from trainers.data.soft_labels import LabelSource
from trainers.data.volume import CLIP_HIGH, CLIP_LOW, HIGH_PERCENTILE, LOW_PERCENTILE
from trainers.fit import FitConfig


class Normalisation(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How grey values were stretched before the network saw them: by percentiles of all volumes of a kidney."""

    low_percentile: float = LOW_PERCENTILE  # falls on 0
    high_percentile: float = HIGH_PERCENTILE  # falls on 1
    clip_low: float = CLIP_LOW
    clip_high: float = CLIP_HIGH


def _rising(scale: tuple[float, float]) -> tuple[float, float]:
    low, high = scale
    if low > high:
        raise ValueError(f"a grey scale cannot run from {low:g} to {high:g}")
    return scale


GreyScale = Annotated[tuple[float, float], AfterValidator(_rising)]  # the grey_low and grey_high of a volume


class Provenance(BaseModel, frozen=True, extra="forbid"):
    """Where the weights come from."""

    study: str
    trial: NonNegativeInt
    seed: NonNegativeInt
    version: str
    train_volumes: dict[str, str]  # name -> content hash
    held_out_volumes: dict[str, str]
    kidneys: dict[str, str] = {}  # name -> kidney of all these volumes; older bundles do not say
    teachers: tuple[LabelSource, ...] = ()  # makers of the soft labels it was trained on
    libraries: dict[str, str]

    @property
    def known_volumes(self) -> dict[str, str]:
        """Name -> content hash of the volumes that the weights know: trained on, or through a teacher's labels."""
        taught = {name: content for teacher in self.teachers for name, content in teacher.volumes.items()}
        return {**taught, **self.train_volumes}


class Architecture(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Everything needed to rebuild the network and its prediction, except the weights."""

    format: Literal[2] = 2
    name: str
    candidate: AnyCandidate
    fit: FitConfig
    normalisation: Normalisation = Normalisation()
    voxel_spacing_um: tuple[tuple[Micrometres, Micrometres, Micrometres], ...]  # of training volumes that state theirs
    grey_scales: dict[str, GreyScale]  # by the content hash of a volume, as it was then
    reading: KeptReading
    parameters: PositiveInt
    weights_hash: str | None = None  # of the file of weights; older bundles do not say
    provenance: Provenance


def architecture_of(record: Record, fold: Fold, provenance: Provenance, reading: Reading) -> Architecture:
    """The description of a trial's network. Raises ValueError if the trial has no parameters on record."""
    job = record.job
    if record.outcome.parameters is None:
        raise ValueError(f"trial {job.trial} was not trained")
    return Architecture(
        name=job.name,
        candidate=job.candidate,
        fit=job.fit,
        voxel_spacing_um=tuple(sorted({volume.spacing_um for volume in fold.train if volume.spacing_um is not None})),
        grey_scales={v.content_hash: (v.grey_low, v.grey_high) for v in (*fold.train, *fold.held_out)},
        reading=reading,
        parameters=record.outcome.parameters,
        provenance=provenance,
    )


def library_versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "segmentation-models-pytorch", "timm", "numpy", "numba")}
