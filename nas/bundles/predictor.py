"""One bundle or several as one predictor: how their probabilities become one, and what they must share."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.bundles.bundle import ARCHITECTURE, CARD, WEIGHTS, Bundle, read_bundle
from results.bundles.ensemble import ENSEMBLE, content_hash, read_ensemble, read_members
from results.bundles.reading import Reading
from search_spaces.errors import InputError
from trainers.data.geometry import Spacing, spacing_text
from trainers.data.volume import Scanned, Volume
from trainers.fit import make_accelerator
from trainers.inference.mean_levels import mean_levels
from trainers.inference.predict import LEVELS, predict, usable_axes
from trainers.inference.reader import InferenceConfig
from trainers.report import SILENT, Report

FAR_SPACING = 0.2  # largest relative difference from the training's voxel spacing that gets no note


@dataclass(frozen=True)
class Predictor:
    """The networks whose probabilities are averaged, and how the mean becomes a mask."""

    name: str  # for messages
    members: tuple[Bundle, ...]
    # How the mean is read. With several members, its inference only says which components are removed.
    reading: Reading

    def predict(
        self,
        volume: Volume,
        device: str,
        scratch: Path | None,
        report: Report = SILENT,
    ) -> NDArray[np.uint8]:
        """Mean probability of every voxel in steps of 1/255, (D, H, W); each member reads with its own settings.

        scratch: as in `trainers.inference.predict.predict`.
        """
        shares = len(self.members)

        def levels() -> Iterator[NDArray[np.uint8]]:
            for index, bundle in enumerate(self.members):
                inference, place = bundle.architecture.reading.inference, scratch and scratch / f"member-{index}"
                yield read_volume(bundle, inference, volume, device, place, report.part(index, shares))
                if shares > 1 and place:
                    shutil.rmtree(place, ignore_errors=True)

        return mean_levels(levels(), shares, volume.shape, scratch)

    @property
    def identity(self) -> str:
        """The content hashes of the members, in their order."""
        return " ".join(content_hash(bundle.path) for bundle in self.members)

    def check_scored_alike(self) -> None:
        """Raise InputError if members are scored in different ways: their mean has no score then."""
        first, *others = self.members
        for other in others:
            if other.architecture.reading.score_config != first.architecture.reading.score_config:
                raise InputError(
                    f"{first.path} and {other.path} are scored in different ways (their score configurations differ), "
                    "so their mean has no score: leave out --score"
                )

    @property
    def held_out_volumes(self) -> dict[str, str]:
        """Name and content hash of the volumes that all members hold out. Raises InputError if they do not agree."""
        first = self.members[0].architecture.provenance.held_out_volumes
        for other in self.members[1:]:
            if other.architecture.provenance.held_out_volumes != first:
                raise InputError(
                    f"{self.members[0].path} and {other.path} do not hold out the same volumes; name the volumes "
                    "instead of --held-out"
                )
        if not first:
            raise InputError(f"{self.name} was trained on every kidney: it has no held-out volumes")
        return first

    def check_readable(self, volume: Scanned) -> None:
        """Raise InputError if a volume is too small for a member, or lacks the voxel spacing that a member needs."""
        for bundle in self.members:
            reader, axes = bundle.reader, bundle.architecture.reading.inference.axes
            usable_axes(volume, axes, reader.crop, reader.depth, reader.voxel_size_um)

    def doubts(self, volume: Volume, is_scored: bool) -> Iterator[str]:
        """What a reader of a volume's mask, or of its score, should know."""
        as_scanned = [bundle.architecture for bundle in self.members if bundle.architecture.fit.voxel_size_um is None]
        spacings = {
            (a.fit.target_um,) * 3 if a.fit.target_um is not None else spacing
            for a in as_scanned
            for spacing in a.voxel_spacing_um
        }
        far = (
            spacings and volume.spacing_um is not None and all(_is_far(volume.spacing_um, known) for known in spacings)
        )
        if far and volume.spacing_um is not None:
            yield (
                f"{volume.name} has a voxel spacing of {spacing_text(volume.spacing_um)} µm, but the network was "
                f"trained at {', '.join(sorted(map(spacing_text, spacings)))} µm: expect errors in width"
            )
        for bundle in self.members if is_scored else ():
            if volume.content_hash in bundle.architecture.provenance.known_volumes.values():
                yield f"{bundle.path} was trained on {volume.name}: the score says nothing about new kidneys"
            reading = bundle.architecture.reading
            if reading.score and volume.content_hash in reading.tuned_on.values():
                yield (
                    f"symmetries and smallest component of {bundle.path} were chosen on {volume.name}: this score "
                    "profits from the choice; the one in its MODEL_CARD.md does not"
                )


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle's or an ensemble's folder, and not a volume's; a damaged one counts too."""
    return any((path / name).is_file() for name in (ARCHITECTURE, WEIGHTS, CARD, ENSEMBLE))


def refuse_bundles(volumes: Sequence[Path], usage: str) -> None:
    """Raise InputError for a bundle where a volume is asked for, as with swapped arguments. usage: of the command."""
    for path in volumes:
        if is_bundle(path):
            raise InputError(f"{path} is a bundle, where a volume is expected: the bundle comes first, as in {usage}")


def is_ensemble(path: Path) -> bool:
    """Whether a path is an ensemble's folder."""
    return (path / ENSEMBLE).is_file()


def split_paths(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The bundles and the volumes among paths. Raises InputError if either is missing."""
    bundles, volumes = [p for p in paths if is_bundle(p)], [p for p in paths if not is_bundle(p)]
    if not bundles:
        raise InputError(f"{paths[0]} is not a bundle: a folder with {ARCHITECTURE} or {ENSEMBLE} comes first")
    if not volumes:
        raise InputError(f"no volume after {bundles[-1]}: name volumes, or a folder of volumes")
    return bundles, volumes


def open_predictor(paths: Sequence[Path]) -> Predictor:
    """The predictor of one bundle, one ensemble, or several bundles.

    Several bundles have a threshold only if all agree on it to a step of 1/255, and all must remove components of the
    same size. Raises InputError if they do not fit together.
    """
    if len(paths) == 1 and is_ensemble(paths[0]):
        ensemble = read_ensemble(paths[0])
        return Predictor(str(paths[0]), read_members(paths[0], ensemble), ensemble.reading)
    for path in paths:
        if is_ensemble(path):
            raise InputError(f"{path} is already an ensemble; give it alone, or its members one by one")
        if paths.count(path) > 1:
            raise InputError(f"{path} is given twice; each bundle counts once")
    name, members = " and ".join(map(str, paths)), tuple(read_bundle(path) for path in paths)
    readings = [bundle.architecture.reading for bundle in members]
    if len(members) == 1:
        return Predictor(name, members, readings[0])
    if len({reading.inference.smallest_component for reading in readings}) > 1:
        raise InputError(
            f"{name} remove components of different sizes (inference.smallest_component), but their mean is one mask"
        )
    thresholds = [reading.threshold for reading in readings if reading.threshold is not None]
    agreed = thresholds[0] if len({threshold_level(t) for t in thresholds}) == 1 else None
    return mean_of(name, members, agreed, readings[0].inference.smallest_component)


def mean_of(
    name: str, members: tuple[Bundle, ...], threshold: float | None = None, smallest_component: int | None = None
) -> Predictor:
    """Several bundles as one predictor; its reading holds only what is given, because the mean was never scored."""
    readings = [bundle.architecture.reading for bundle in members]
    reading = Reading(
        inference=InferenceConfig(smallest_component=smallest_component),
        threshold=threshold,
        score_config=readings[0].score_config,
        tuned_on={volume: content for one in readings for volume, content in one.tuned_on.items()},
    )
    return Predictor(name, members, reading)


def known_threshold(predictor: Predictor, asked: float | None) -> float:
    """The threshold that was asked for, else the predictor's. Raises InputError if there is none."""
    if asked is not None:
        return asked
    if predictor.reading.threshold is None:
        own = ", ".join(f"{bundle.architecture.reading.threshold:.3f}" for bundle in predictor.members)
        raise InputError(
            f"the bundles have different thresholds ({own}), and none is known for the mean of their probabilities: "
            "give --threshold, or make an ensemble with `nas retrain topN`, which finds it on the held-out kidney"
        )
    return predictor.reading.threshold


def threshold_level(threshold: float) -> int:
    """A threshold in steps of 1/255, as used in scoring; never 0, which would make every voxel vessel."""
    return max(1, round(threshold * LEVELS))


def read_volume(
    bundle: Bundle,
    inference: InferenceConfig,
    volume: Volume,
    device: str,
    scratch: Path | None,
    report: Report = SILENT,
) -> NDArray[np.uint8]:
    """Probability of every voxel by one network, as `trainers.inference.predict.predict` gives it."""
    accelerator = make_accelerator(bundle.architecture.fit.precision, device)
    bundle.network.to(accelerator.device)
    seen = _with_known_greys(bundle, volume)
    levels = predict(bundle.reader, seen, inference, accelerator, scratch=scratch, report=report)
    bundle.network.to("cpu")  # the next network may need the whole GPU
    return levels


def _with_known_greys(bundle: Bundle, volume: Volume) -> Volume:
    """A volume known to the exporting run keeps the grey scale that it had there, whatever lies beside it now."""
    scale = bundle.architecture.grey_scales.get(volume.content_hash)
    return replace(volume, grey_low=scale[0], grey_high=scale[1]) if scale else volume


def _is_far(own: Spacing, trained: Spacing) -> bool:
    return any(abs(edge / other - 1) > FAR_SPACING for edge, other in zip(own, trained, strict=True))
