"""Architecture: everything that rebuilds a bundle's network and its prediction, weights apart."""

from typing import Literal

from pydantic import BaseModel, PositiveInt

from results.record import Record
from search_spaces.any_candidate import AnyCandidate
from trainers.data.folds import Fold
from trainers.data.soft_labels import LabelSource
from trainers.data.volume import CLIP_HIGH, CLIP_LOW, HIGH_PERCENTILE, LOW_PERCENTILE, Spacing
from trainers.fit import FitConfig
from trainers.inference.reader import InferenceConfig
from trainers.metrics.score import Score, ScoreConfig


class Normalisation(BaseModel, frozen=True, extra="forbid"):
    """How grey values were stretched before the network saw them: by percentiles of all volumes of a kidney."""

    low_percentile: float = LOW_PERCENTILE  # falls on 0
    high_percentile: float = HIGH_PERCENTILE  # falls on 1
    clip_low: float = CLIP_LOW
    clip_high: float = CLIP_HIGH


class Provenance(BaseModel, frozen=True, extra="forbid"):
    """Where the weights come from."""

    study: str
    trial: int
    seed: int
    version: str
    train_volumes: dict[str, str]  # name -> content hash
    held_out_volumes: dict[str, str]
    kidneys: dict[str, str] = {}  # name -> kidney of all these volumes; older bundles do not say
    teachers: tuple[LabelSource, ...] = ()  # makers of the soft labels it was trained on
    libraries: dict[str, str]

    @property
    def known_volumes(self) -> dict[str, str]:
        """Name -> content hash of the volumes that the weights know: trained on, or by way of a teacher's labels."""
        taught = {name: content for teacher in self.teachers for name, content in teacher.volumes.items()}
        return {**taught, **self.train_volumes}


class Architecture(BaseModel, frozen=True, extra="forbid"):
    """Everything that rebuilds the network and its prediction, weights apart."""

    format: Literal[1] = 1
    name: str
    candidate: AnyCandidate
    fit: FitConfig
    normalisation: Normalisation = Normalisation()
    voxel_spacing_um: tuple[Spacing, ...]  # of the training volumes
    grey_scales: dict[str, tuple[float, float]]  # content hash of a volume -> its grey_low and grey_high then
    threshold: float  # probability from which a voxel is vessel
    inference: InferenceConfig
    score_config: ScoreConfig
    score: Score | None  # on the held-out kidney; None if it was trained on
    parameters: PositiveInt
    provenance: Provenance
    tuned_on: dict[str, str] = {}  # volumes that chose symmetries and smallest component; name -> content hash

    def read_as(self, other: "Architecture") -> "Architecture":
        """The same network, read as another one is: a threshold belongs to the reading that it was found with."""
        return self.model_copy(update={"inference": other.inference, "threshold": other.threshold})


def architecture_of(
    record: Record,
    score_config: ScoreConfig,
    fold: Fold,
    provenance: Provenance,
    threshold: float | None = None,
) -> Architecture:
    """The description of a trial's network. `threshold` stands in where it was not scored.

    ValueError if the trial has no parameters on record, or no threshold is known.
    """
    outcome, job = record.outcome, record.job
    if outcome.parameters is None:
        raise ValueError(f"trial {job.trial} was not trained")
    threshold = outcome.score.threshold if outcome.score else threshold
    if threshold is None:
        raise ValueError(f"trial {job.trial} was never scored, so no threshold is known")
    return Architecture(
        name=job.name,
        candidate=job.candidate,
        fit=job.fit,
        voxel_spacing_um=tuple(sorted({volume.spacing_um for volume in fold.train})),
        grey_scales={v.content_hash: (v.grey_low, v.grey_high) for v in (*fold.train, *fold.held_out)},
        threshold=threshold,
        inference=job.inference,
        score_config=score_config,
        score=outcome.score,
        parameters=outcome.parameters,
        provenance=provenance,
    )


def library_versions() -> dict[str, str]:
    """The versions that numbers depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "segmentation-models-pytorch", "timm", "numpy", "numba")}
