"""One bundle or several as one predictor: how their probabilities become one, and what they must share."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from results.bundles.bundle import ARCHITECTURE, CARD, WEIGHTS, Bundle, read_bundle
from results.bundles.ensemble import ENSEMBLE, content_hash, read_ensemble, read_members
from search_spaces.errors import InputError
from trainers.data.volume import Scanned, Volume, spacing_text
from trainers.fit import make_accelerator
from trainers.inference.mean_levels import mean_levels
from trainers.inference.predict import LEVELS, predict, usable_axes
from trainers.metrics.score import ScoreConfig

FAR_SPACING = 0.2  # share by which a volume's voxel spacing may differ from the training's without a word


@dataclass(frozen=True)
class Predictor:
    """The networks whose probabilities are averaged, and how the mean becomes a mask."""

    name: str  # for messages
    members: tuple[Bundle, ...]
    threshold: float | None  # None: the members have thresholds of their own, and none was found for their mean
    smallest_component: int | None

    def predict(
        self,
        volume: Volume,
        device: str,
        scratch: Path | None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.uint8]:
        """Mean probability of every voxel in steps of 1/255, (D, H, W); each member reads with its own settings.

        scratch: as in `trainers.inference.predict.predict`.
        """
        shares = len(self.members)

        def levels() -> Iterator[NDArray[np.uint8]]:
            for index, bundle in enumerate(self.members):

                def report(done: int, total: int, index: int = index) -> None:
                    if on_progress:
                        on_progress(index * 1000 + done * 1000 // total, shares * 1000)

                architecture, place = bundle.architecture, scratch / f"member-{index}" if scratch else None
                accelerator = make_accelerator(architecture.fit.precision, device)
                bundle.network.to(accelerator.device)
                yield predict(
                    bundle.reader,
                    _with_known_greys(bundle, volume),
                    architecture.inference,
                    accelerator,
                    scratch=place,
                    on_progress=report,
                )
                bundle.network.to("cpu")  # the next one may need the whole GPU
                if shares > 1 and place:
                    shutil.rmtree(place, ignore_errors=True)

        return mean_levels(levels(), shares, volume.shape, scratch)

    @property
    def identity(self) -> str:
        """What the members are, by their content and in their order."""
        return " ".join(content_hash(bundle.path) for bundle in self.members)

    @property
    def score_config(self) -> ScoreConfig:
        """How the members are scored. Raises InputError where they are not scored alike."""
        first = self.members[0].architecture.score_config
        for other in self.members[1:]:
            if other.architecture.score_config != first:
                raise InputError(
                    f"{self.members[0].path} and {other.path} are scored in different ways (their score "
                    "configurations differ), so their mean has no score: leave out --score"
                )
        return first

    @property
    def held_out_volumes(self) -> dict[str, str]:
        """Name and content hash of what no member was trained on. Raises InputError where members do not agree."""
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
        """Raise InputError where a volume is too small for a member, or has none of the spacing that it needs."""
        for bundle in self.members:
            reader, axes = bundle.reader, bundle.architecture.inference.axes
            usable_axes(volume, axes, reader.crop, reader.depth, reader.voxel_size_um)

    def doubts(self, volume: Volume, is_scored: bool) -> Iterator[str]:
        """What a reader of a volume's mask, or of its score, should know."""
        as_scanned = [bundle.architecture for bundle in self.members if bundle.architecture.fit.voxel_size_um is None]
        spacings = {
            (a.fit.target_um,) * 3 if a.fit.target_um is not None else spacing
            for a in as_scanned
            for spacing in a.voxel_spacing_um
        }
        ratio = np.array(volume.spacing_um) / np.array(sorted(spacings)).reshape(-1, 3)
        if as_scanned and volume.spacing_known and (np.abs(ratio - 1) > FAR_SPACING).any(axis=1).all():
            yield (
                f"{volume.name} has a voxel spacing of {spacing_text(volume.spacing_um)} µm, but the network was "
                f"trained at {', '.join(sorted(map(spacing_text, spacings)))} µm: expect errors in width"
            )
        for bundle in self.members if is_scored else ():
            if volume.content_hash in bundle.architecture.provenance.known_volumes.values():
                yield f"{bundle.path} was trained on {volume.name}: the score says nothing about new kidneys"
            if volume.content_hash in bundle.architecture.tuned_on.values():
                yield (
                    f"symmetries and smallest component of {bundle.path} were chosen on {volume.name}: this score "
                    "knows the choice; the one that does not is in its MODEL_CARD.md"
                )


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle's or an ensemble's folder, and not a volume's; a damaged one is one too."""
    return any((path / name).is_file() for name in (ARCHITECTURE, WEIGHTS, CARD, ENSEMBLE))


def is_ensemble(path: Path) -> bool:
    """Whether a path is an ensemble's folder."""
    return (path / ENSEMBLE).is_file()


def split_paths(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The bundles and the volumes among paths. Raises InputError where one of the two is missing."""
    bundles, volumes = [p for p in paths if is_bundle(p)], [p for p in paths if not is_bundle(p)]
    if not bundles:
        raise InputError(f"{paths[0]} is not a bundle: a folder with {ARCHITECTURE} or {ENSEMBLE} comes first")
    if not volumes:
        raise InputError(f"no volume after {bundles[-1]}: name volumes, or a folder of volumes")
    return bundles, volumes


def open_predictor(paths: Sequence[Path]) -> Predictor:
    """The predictor of one bundle, one ensemble, or several bundles.

    Several bundles have a threshold only where all agree on it to a step of 1/255, and must remove equally small
    components. Raises InputError where they do not fit together.
    """
    if len(paths) == 1 and is_ensemble(paths[0]):
        ensemble = read_ensemble(paths[0])
        members = read_members(paths[0], ensemble)
        return Predictor(str(paths[0]), members, ensemble.threshold, ensemble.smallest_component)
    for path in paths:
        if is_ensemble(path):
            raise InputError(f"{path} is an ensemble already; give it alone, or its members one by one")
        if paths.count(path) > 1:
            raise InputError(f"{path} is given twice; each bundle counts once")
    members = tuple(read_bundle(path) for path in paths)
    smallest = {bundle.architecture.inference.smallest_component for bundle in members}
    if len(smallest) > 1:
        raise InputError(
            f"{' and '.join(map(str, paths))} remove components of different sizes (inference.smallest_component), and "
            "their mean is one mask"
        )
    thresholds = [bundle.architecture.threshold for bundle in members]
    agreed = thresholds[0] if len({threshold_level(t) for t in thresholds}) == 1 else None
    return Predictor(" and ".join(map(str, paths)), members, agreed, smallest.pop())


def known_threshold(predictor: Predictor, asked: float | None) -> float:
    """The threshold that was asked for, else the predictor's. Raises InputError where there is none."""
    if asked is not None:
        return asked
    if predictor.threshold is None:
        own = ", ".join(f"{bundle.architecture.threshold:.3f}" for bundle in predictor.members)
        raise InputError(
            f"the bundles have thresholds of their own ({own}), and none is known for the mean of their probabilities: "
            "give --threshold, or let `nas retrain topN` make an ensemble, which finds it on the held-out kidney"
        )
    return predictor.threshold


def threshold_level(threshold: float) -> int:
    """A threshold in steps of 1/255, as scoring has them; never 0, which would make every voxel vessel."""
    return max(1, round(threshold * LEVELS))


def _with_known_greys(bundle: Bundle, volume: Volume) -> Volume:
    """A volume that the exporting run had gets the grey scale that it had there, whatever lies beside it now."""
    scale = bundle.architecture.grey_scales.get(volume.content_hash)
    return replace(volume, grey_low=scale[0], grey_high=scale[1]) if scale else volume
