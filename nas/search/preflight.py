"""What is checked before the first trial, so that no trial fails because of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from nas.config.design import Design
from nas.config.search_config import SearchConfig, design_of
from nas.jobs.cell_search import plans, search_settings
from nas.search.needed_weights import needed
from nas.study.buildable import Buildable, check_options, find_buildable, offered_fit
from nas.study.promotion import check_promotion
from nas.study.samplers import make_sampler
from search_spaces.candidate import Candidate
from search_spaces.cells.cell_space import check_cell_space
from search_spaces.cells.skeleton import check_width
from search_spaces.errors import InputError, unknown_name
from search_spaces.families import FAMILIES
from search_spaces.network import check_buildable, check_weights
from search_spaces.published.weights import is_file_name
from search_spaces.space import options
from trainers.cell_search.alphas import ESTIMATORS
from trainers.cell_search.run import check_plan, split_for
from trainers.data.augment import Augmentation
from trainers.data.folds import Fold
from trainers.data.patches import PatchSampler
from trainers.data.resample import volume_steps
from trainers.data.volume import Volume, middle_part
from trainers.fit import check_device
from trainers.inference.predict import usable_axes
from trainers.losses.losses import build_loss, check_slices_out
from trainers.metrics.slabs import check_slabs, slab_starts
from trainers.report import SILENT, Report

FEWEST_VESSEL_VOXELS = 100  # of the held-out kidney, for a ranking to mean anything


def preflight(
    config: SearchConfig,
    fold: Fold,
    report: Report = SILENT,
    remembered: Path | None = None,
    others: Sequence[Fold] = (),
) -> Buildable:
    """Raise InputError with one line for anything in the configuration that would otherwise fail inside a trial.

    Looks up every name, builds every network of the space without memory for it, finds every file of weights, and
    checks that every crop can be cut, without cutting one. remembered: the file that keeps what of the space can be
    built. others: further folds, on which any design may be confirmed. Returns what of the space can be built.
    """
    make_sampler(config.study, 0)
    check_promotion(config.study.promotion)
    check_device(config.device)
    _check_something_is_searched(config)
    check_options(config)
    _check_losses(config)
    possible = find_buildable(config, report, remembered)
    for family in config.space.families:
        if not possible.of(family):
            refused = possible.tried[family][0].refusal
            raise InputError(f"no network of family {family} in this space can be built: {refused}")
    needs = [_Needs.of(design) for design in _fixed_designs(config)]
    if config.study.candidates:
        needs += [need for family in config.space.families for need in _needs_of_family(config, family, possible)]
    if others and config.study.leaders == 0:
        raise InputError(
            f"study.leaders is 0, so nothing is confirmed with {others[0].kidney} held out; set it to 2 or more, or "
            "study.folds to 1"
        )
    for each in (fold, *others):
        _check_shown(each, config.score.slabs, report)
        if each.held_out:
            check_slabs(each.held_out, config.score.slabs)
        for volume in each.held_out:
            if volume.spacing_um is not None:  # if it is not, there is no second score, and a note says so
                volume_steps(volume, config.score.second_um)
    _check_cells(config, fold)
    _check_weights(needed(config, possible))
    for need, each in product(dict.fromkeys(needs), (fold, *others)):
        need.check(config, each)
    return possible


@dataclass(frozen=True)
class _Needs:
    """What a design requires of the volumes."""

    crop: int
    depth: int | None  # slices of its boxes; None for planes
    vessel_share: float
    sampled_um: float | None
    voxel_size_um: float | None
    axes: tuple[int, ...]

    @classmethod
    def of(cls, design: Design) -> "_Needs":
        fit, depth = design.fit, design.candidate.slices_in if design.candidate.boxes else None
        return cls(fit.crop, depth, fit.vessel_share, fit.sampled_um, fit.voxel_size_um, design.inference.axes)

    def check(self, config: SearchConfig, fold: Fold) -> None:
        """Raise InputError if patches cannot be cut from every volume, or if one cannot be read."""
        slices, boxes = self.depth or 1, self.depth is not None
        share, spacing = self.vessel_share, self.sampled_um
        PatchSampler(fold.train, slices, slices, self.crop, share, seed=0, boxes=boxes, spacing_um=spacing)
        for volume in fold.held_out:
            usable_axes(volume, self.axes, self.crop, slices, self.voxel_size_um)
            part = middle_part(volume, config.score.rung_slices)
            usable_axes(part, config.score.rung_axes, self.crop, slices, self.voxel_size_um)


def _fixed_designs(config: SearchConfig) -> Iterator[Design]:
    """The fixed trials, each checked by itself."""
    for fixed in config.fixed:
        design = design_of(config, fixed)
        check_buildable(design.candidate, design.fit.crop, design.fit.batch_size)
        check_slices_out(design.fit.loss, design.candidate.slices_out, f"fixed trial {fixed.name!r}")
        yield design


def _needs_of_family(config: SearchConfig, family: str, possible: Buildable) -> Iterator[_Needs]:
    """What the designs of a family may require, at every crop, depth, voxel size and set of axes of the space."""
    kind = FAMILIES[family]
    offered = options(config.space, family, config.fit.crop)
    depths: Sequence[int | None] = offered["slices_in"] if kind.boxes else (None,)
    crops = dict.fromkeys(combination.crop for combination in possible.of(family))
    reading = config.space.choices(family, "inference").get("axes")
    axes = (config.inference.axes,) if reading is None or not isinstance(reading[1], tuple) else reading[1]
    sizes, targets = (offered_fit(config, family, field) for field in ("voxel_size_um", "target_um"))
    share = max(offered_fit(config, family, "vessel_share"))
    for crop, depth, size, target, along in product(crops, depths, sizes, targets, axes):
        yield _Needs(crop, depth, share, size or target, size, tuple(along))


def _check_shown(fold: Fold, slabs: int, report: Report) -> None:
    """Raise InputError for scans without a difference and held-out labels without a vessel; report doubtful ones."""
    for volume in (*fold.train, *fold.held_out):
        if volume.grey_high <= volume.grey_low:
            raise InputError(
                f"{volume.name} shows nothing: nearly all its voxels have the grey value {volume.grey_low:g}; exclude "
                "it"
            )
    if fold.held_out and not any(len(volume.vessel_voxels) for volume in fold.held_out):
        names = ", ".join(volume.name for volume in fold.held_out)
        raise InputError(f"{names} cannot be scored: the labels hold no vessel, so every network would be as good")
    found = sum(_slabs_with_vessels(volume, slabs) for volume in fold.held_out)
    voxels = sum(len(volume.vessel_voxels) for volume in fold.held_out)
    if fold.held_out and (found < 2 or voxels < FEWEST_VESSEL_VOXELS):
        report.note(
            f"{fold.kidney} measures hardly anything: {voxels} vessel voxels in {found} slab(s) are labelled, and a "
            "threshold chosen on one half is scored on the other; label more, or hold out another kidney"
        )


def _slabs_with_vessels(volume: Volume, slabs: int) -> int:
    depth, height, width = volume.shape
    starts = np.array(slab_starts(depth, slabs))
    return len(np.unique(np.searchsorted(starts, np.asarray(volume.vessel_voxels) // (height * width), side="right")))


def _check_something_is_searched(config: SearchConfig) -> None:
    """Raise InputError for a space without a choice, which would train one design again and again."""
    if not config.study.candidates:
        return
    searched = [family for family in config.space.families if config.space.searches(family)]
    if not searched and not plans(config):
        raise InputError(
            "nothing is searched: name fields and their values in [space.unet], [space.fit] or [space.inference], as "
            'in space.unet.encoder=["resnet18", "resnet34"], or start from a preset'
        )


def _check_losses(config: SearchConfig) -> None:
    """Raise InputError for losses that some network has too few output slices for; takes no time."""
    for family in config.space.families:
        kind, offered = FAMILIES[family], options(config.space, family, config.fit.crop)
        shapes = [dict(zip(("slices_in", "masks"), both, strict=False)) for both in _products(offered)]
        fewest = min(
            kind.model_validate({**kind.lightest(offered, config.cell_space), **shape}).slices_out for shape in shapes
        )
        for loss in offered_fit(config, family, "loss"):
            check_slices_out(loss, fewest, f"a network of family {family}")


def _products(offered: Any) -> list[tuple[Any, ...]]:
    return list(product(*(offered[name] for name in ("slices_in", "masks") if name in offered)))


def _check_cells(config: SearchConfig, fold: Fold) -> None:
    """Check the cell searches of a run."""
    searches = plans(config)
    if not searches:
        return
    check_cell_space(config.cell_space)
    search = search_settings(config)
    if search.weight_paths not in ESTIMATORS:
        raise unknown_name("weight_paths", search.weight_paths, ESTIMATORS)
    with_gradient = [name for name in ESTIMATORS if name != "sampled"]
    if search.estimator not in with_gradient:
        raise unknown_name("estimator", search.estimator, with_gradient)
    build_loss(search.loss)
    Augmentation(search.augmentation)
    for plan in searches:
        candidate = search.supernet_candidate(plan.family)
        check_width(candidate.width)
        check_plan(plan, config.cell_space, search)
        split_for(plan, fold.train, search, config.study.seed)
        if not candidate.boxes:
            check_slices_out(search.loss, candidate.slices_out)
            check_buildable(candidate, plan.crop)


def _check_weights(candidates: Sequence[tuple[Candidate, int]]) -> None:
    """Raise InputError that names every missing file of weights, each with the command that fetches it.

    A file of the user's own is also read, because it may belong to another encoder.
    """
    missing: dict[str, None] = {}
    for candidate, crop in candidates:
        try:
            if candidate.start is not None and is_file_name(getattr(candidate, "encoder_weights", "none")):
                check_weights(candidate, crop)
            else:
                candidate.find_weights()
        except InputError as error:
            missing[str(error)] = None
    if missing:
        raise InputError("; ".join(missing))
