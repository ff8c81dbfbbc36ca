"""What is checked before the first trial, so that no trial finds it out."""

from collections.abc import Sequence
from pathlib import Path

from nas.config.search_config import SearchConfig, recipe
from nas.jobs.cell_search import plans, search_settings
from nas.jobs.trial import middle_part
from nas.search.needed_weights import needed
from nas.study.buildable import buildable, family_of
from nas.study.samplers import make_pruner, make_sampler
from search_spaces.candidate import Candidate
from search_spaces.cells.cell_space import check_cell_space
from search_spaces.cells.skeleton import check_width
from search_spaces.errors import InputError, unknown_name
from search_spaces.families.sam import require_peft
from search_spaces.network import check_buildable, check_weights
from search_spaces.published.weights import find_weights, is_file_name
from search_spaces.space import tunings_for, voxel_size_um, weights_for
from trainers.cell_search.alphas import ESTIMATORS
from trainers.cell_search.run import check_boxes, check_plan, split_for, supernet_candidate
from trainers.data.augment import Augmentation
from trainers.data.folds import Fold
from trainers.data.patches import PatchSampler
from trainers.data.resample import volume_steps
from trainers.fit import FitConfig, check_device
from trainers.inference.predict import usable_axes
from trainers.losses.losses import build_loss, check_slices_out
from trainers.metrics.score import slab_owners
from trainers.report import SILENT, Report


def preflight(config: SearchConfig, fold: Fold, report: Report = SILENT, remembered: Path | None = None) -> None:
    """Raise InputError, one line, for anything in the configuration that would only fail inside a trial.

    Looks up every name, builds every network of the space without memory, finds every file of weights, and cuts no
    patch but checks that every crop can be cut. remembered: the file that keeps what of the space can be built.
    """
    make_sampler(config.study, 0)
    make_pruner(config.study, config.fit.steps)
    check_device(config.device)
    _check_recipes(config)
    possible = buildable(config.space, report, remembered)
    for family in config.space.families:
        if family != "cells" and not possible.encoders(family):
            refused = next(p.refusal for p in possible.pairs if family_of(p) == family)
            raise InputError(f"nothing of family {family} in this space can be built: {refused}")
    recipes: list[FitConfig] = []
    for fixed in config.fixed[: config.study.trials]:
        fit, candidate = recipe(config, fixed), fixed.candidate
        check_buildable(candidate, fit.crop, fit.batch_size)
        _check_names(fit)
        check_slices_out(fit.loss, candidate.slices_out, f"fixed trial {fixed.name!r}")
        if candidate.family == "cells":
            _check_boxes(config, fold, fit, candidate.slices_in)
        else:
            recipes.append(fit)
    if config.study.trials > len(config.fixed):
        most = {"vessel_share": config.space.vessel_share[1]}
        crops = {pair.crop for pair in possible.pairs if not pair.refusal}
        wide = [config.fit.model_copy(update={"crop": crop, **most}) for crop in crops]
        recipes += [sized for fit in wide for sized in _at_voxel_sizes(fit, config)]
        starts = {name for encoder in config.space.sam_encoders for name in weights_for(config.space, encoder)}
        if "sam" in config.space.families and any("lora" in tunings_for(config.space, start) for start in starts):
            require_peft()
    if fold.held_out:
        slab_owners(fold.held_out, config.score)
    for volume in fold.held_out:
        if volume.spacing_known:  # where it is not, there is no second score, and a note says so
            volume_steps(volume, config.score.second_um)
    _check_cells(config, fold)
    _check_weights(needed(config, possible))
    distinct = {(fit.crop, fit.sampled_um, fit.voxel_size_um): fit for fit in recipes}
    for fit in distinct.values():
        share = max(other.vessel_share for other in recipes if other.crop == fit.crop)
        PatchSampler(fold.train, 1, 1, fit.crop, share, seed=0, spacing_um=fit.sampled_um)
        for volume in fold.held_out:
            usable_axes(volume, config.inference.axes, fit.crop, voxel_size_um=fit.voxel_size_um)
            part = middle_part(volume, config.score.rung_slices)
            usable_axes(part, config.score.rung_axes, fit.crop, voxel_size_um=fit.voxel_size_um)


def _check_cells(config: SearchConfig, fold: Fold) -> None:
    """The cell searches of a run, and the boxes of the networks that come of them."""
    needed = plans(config)
    if not needed:
        return
    check_cell_space(config.cell_space)
    search = search_settings(config)
    if search.weight_paths not in ESTIMATORS:
        raise unknown_name("weight_paths", search.weight_paths, ESTIMATORS)
    with_gradient = [name for name in ESTIMATORS if name != "sampled"]
    if search.estimator not in with_gradient:
        raise unknown_name("estimator", search.estimator, with_gradient)
    for width in (search.width, *config.space.cell_widths):
        check_width(width)
    build_loss(search.loss)
    Augmentation(search.augmentation)
    for plan in needed:
        check_plan(plan, config.cell_space, search)
        split_for(plan, fold.train, search, config.study.seed)
        if plan.family == "hybrid":
            candidate = supernet_candidate(plan, search)
            check_slices_out(search.loss, candidate.slices_out)
            check_buildable(candidate, plan.crop)
    if "cells" not in config.space.families:
        return
    for crop in config.space.box_crops:
        for slices in config.space.box_slices:
            check_boxes(crop, slices, config.cell_space)
            wide = config.fit.model_copy(update={"crop": crop, "vessel_share": config.space.vessel_share[1]})
            for fit in _at_voxel_sizes(wide, config):
                _check_boxes(config, fold, fit, slices)


def _check_recipes(config: SearchConfig) -> None:
    """The names in recipes, and losses that not every network has the slices for; takes no time."""
    _check_names(config.fit)
    for augmentation in config.space.augmentations or ():
        Augmentation(augmentation)
    for loss in config.space.losses:
        build_loss(loss)
        if {"unet", "hybrid", "sam"} & set(config.space.families):
            fewest = 1 if "middle" in config.space.slices_out else min(config.space.slices_in)
            check_slices_out(loss, fewest, "a network of the space")


def _check_names(fit: FitConfig) -> None:
    Augmentation(fit.augmentation)
    build_loss(fit.loss)


def _check_boxes(config: SearchConfig, fold: Fold, fit: FitConfig, slices: int) -> None:
    """Boxes of the recipe's crop and of so many slices can be cut from every volume."""
    share, size = fit.vessel_share, fit.voxel_size_um
    PatchSampler(fold.train, slices, slices, fit.crop, share, seed=0, boxes=True, spacing_um=fit.sampled_um)
    for volume in fold.held_out:
        usable_axes(volume, config.inference.axes, fit.crop, slices, size)
        part = middle_part(volume, config.score.rung_slices)
        usable_axes(part, config.score.rung_axes, fit.crop, slices, size)


def _at_voxel_sizes(fit: FitConfig, config: SearchConfig) -> list[FitConfig]:
    """The recipe at every voxel size that the space offers."""
    if config.space.voxel_sizes is None:
        return [fit]
    if fit.target_um is not None:
        raise InputError(
            f"space.voxel_sizes and fit.target_um = {fit.target_um:g} exclude each other: a scan that is brought to a "
            "voxel size leaves no target; set one of the two"
        )
    return [fit.model_copy(update={"voxel_size_um": voxel_size_um(size)}) for size in config.space.voxel_sizes]


def _check_weights(candidates: Sequence[tuple[Candidate, int]]) -> None:
    """Raise InputError that names every missing file of weights, each with the command that fetches it.

    A file of the user's own is also read: it may be of another encoder.
    """
    missing: dict[str, None] = {}
    for candidate, crop in candidates:
        try:
            if is_file_name(candidate.encoder_weights):
                check_weights(candidate, crop)
            else:
                find_weights(candidate)
        except InputError as error:
            missing[str(error)] = None
    if missing:
        raise InputError("; ".join(missing))
