"""How a bundle reads best: symmetries and the smallest component, chosen on its held-out volumes by cross-fitting."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from nas.bundles.predict import find_sources, held_out_sources
from nas.bundles.predictor import is_ensemble, open_predictor, read_volume, refuse_bundles
from nas.bundles.requests import TuneRequest
from results.bundles.bundle import Bundle, rewrite_description
from results.bundles.reading import Reading
from search_spaces.errors import InputError
from trainers.data.open_volumes import open_volumes
from trainers.data.prepare import default_cache
from trainers.data.scratch import scratch_folder
from trainers.data.soft_labels import refuse_as_target
from trainers.data.volume import Volume
from trainers.inference.reader import InferenceConfig
from trainers.inference.symmetry import Symmetries, count
from trainers.metrics.cross_fit import Tried, choose, try_reading
from trainers.metrics.score import Score
from trainers.metrics.slabs import cut_into_slabs
from trainers.metrics.table import title_of
from trainers.report import SILENT, Report

SYMMETRIES: tuple[Symmetries, ...] = ("none", "flips", "d4")  # the cheapest first
SMALLEST_COMPONENTS: tuple[int | None, ...] = (None, 16, 64, 256)  # voxels


class Way(BaseModel, frozen=True, extra="forbid"):
    """One way to read, and its value of the ranking metric with the threshold cross-fitted."""

    symmetries: Symmetries
    smallest_component: int | None
    value: float

    def text(self) -> str:
        """For people."""
        size = (
            "all components"
            if self.smallest_component is None
            else f"components of {self.smallest_component} or more voxels"
        )
        return f"symmetries {self.symmetries}, {size}"


class Tuned(BaseModel, frozen=True, extra="forbid"):
    """What `nas tune` found."""

    bundle: Path
    before: Way  # as the bundle is
    ways: tuple[Way, ...]
    chosen: Way  # on all slabs; its own value profits from the choice
    score: Score  # of choosing: each half of the slabs is read in the way chosen on the other half
    pays: bool  # whether choosing is better than leaving the bundle as it is
    written: bool

    def text(self) -> str:
        """For people: every way, and what choosing among them is worth."""
        lines = [f"{way.text()}: {way.value:.4f}" for way in self.ways]
        gain, metric = self.score.value - self.before.value, title_of(self.score.rank_by)
        where = (
            f"written to {self.bundle}"
            if self.written
            else "not written, --write stores it"
            if self.pays
            else "but choosing does not pay, so the bundle should stay as it is"
        )
        return "\n".join(
            [
                *lines,
                f"as the bundle is ({self.before.text()}): {metric} {self.before.value:.4f}",
                f"choosing on the other half of the slabs: {metric} {self.score.value:.4f} ({gain:+.4f})",
                f"chosen on all slabs together: {self.chosen.text()}, threshold {self.score.threshold:.3f}, which "
                f"reaches {self.score.best:.4f} on them (optimistic); {where}",
            ]
        )


@dataclass(frozen=True)
class _Held:
    """The held-out volumes, and where their probabilities may lie."""

    volumes: list[Volume]
    scratch: Path
    device: str
    report: Report


def tune(request: TuneRequest, report: Report = SILENT) -> Tuned:
    """Read the bundle's held-out volumes, found by name among the request's, in every way, and choose the best way.

    write: store the choice, its threshold and the score of choosing in the bundle, if that score is better than that of
    the bundle as it is. Raises InputError for a bundle without held-out volumes, for other volumes, and
    for an ensemble.
    """
    bundle = request.bundle
    refuse_bundles(request.volumes, "`nas tune BUNDLE VOLUME...`")
    if is_ensemble(bundle):
        raise InputError(f"{bundle} is an ensemble: tune its members, delete it, and make it again")
    predictor = open_predictor([bundle])
    member, reading = predictor.members[0], predictor.reading
    sources = held_out_sources(predictor, find_sources(request.volumes, report))
    volumes = list(open_volumes(sources, default_cache(), report))
    known = predictor.held_out_volumes
    for volume in volumes:
        if volume.label is None:
            raise InputError(f"{volume.name} has no labels, so nothing can be chosen on it")
        refuse_as_target(volume.name, volume.soft)
        if volume.content_hash != known[volume.name]:
            raise InputError(f"{volume.name} is not the volume of that name that {bundle} was scored on")
    own = reading.inference
    settings = [
        own.model_copy(update={"symmetries": symmetries, "smallest_component": smallest})
        for symmetries in SYMMETRIES
        for smallest in sorted({*SMALLEST_COMPONENTS, own.smallest_component}, key=lambda size: size or 0)
    ]
    with scratch_folder(default_cache()) as scratch:
        held = _Held(volumes, scratch, request.device, report)
        tried = list(_try_all(member, settings, held))
    best, result = choose(tried, reading.score_config)
    ways = tuple(
        Way(symmetries=s.symmetries, smallest_component=s.smallest_component, value=t.value)
        for s, t in zip(settings, tried, strict=True)
    )
    before = ways[settings.index(own)]
    pays = result.value > before.value
    if request.write and pays:
        asked = reading.score_config.second_um is not None
        result = result.model_copy(update={"no_second": "nas tune does not measure it"} if asked else {})
        reading = Reading(
            inference=settings[best],
            threshold=result.threshold,
            score_config=reading.score_config,
            score=result,
            tuned_on=known,
        )
        rewrite_description(bundle, member.architecture.model_copy(update={"reading": reading}))
    return Tuned(
        bundle=bundle,
        before=before,
        ways=ways,
        chosen=ways[best],
        score=result,
        pays=pays,
        written=request.write and pays,
    )


def _try_all(member: Bundle, settings: Sequence[InferenceConfig], held: _Held) -> Iterator[Tried]:
    """What each setting reaches; settings that differ only in components follow each other and share a prediction."""
    config = member.architecture.reading.score_config
    work = sum(count(symmetries) for symmetries in SYMMETRIES) * len(held.volumes)
    done, symmetries = 0, None
    for setting in settings:
        if setting.symmetries != symmetries:
            symmetries = setting.symmetries
            predictions, share = {}, count(symmetries)
            for volume in held.volumes:
                report = held.report.part(done, work, share)
                place = held.scratch / volume.name
                shutil.rmtree(place, ignore_errors=True)
                predictions[volume.name] = read_volume(member, setting, volume, held.device, place, report)
                done += share
            slabs = cut_into_slabs(predictions, held.volumes, config.slabs)
        yield try_reading(slabs, config, setting.smallest_component)
