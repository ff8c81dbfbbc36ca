"""Folds: which kidney is held out, and which are trained on. leaks.py guards against the same tissue on both sides.

A search ranks on one fold. Its finalists can be confirmed on others, in each of which another kidney is held out: a
cross-validation that leaves one kidney out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel

from search_spaces.errors import InputError, unknown_name
from trainers.data.geometry import Spacing
from trainers.data.manifest import composed
from trainers.data.place import VolumeSource
from trainers.data.soft_labels import origin_leak, refuse_as_target
from trainers.data.volume import Volume
from trainers.report import SILENT, Report

# Volumes whose voxel sizes differ by more than this factor show vessels at another scale, and are left out unless they
# are named: kidney_1_voi is a zoom at 5.2 µm among kidneys at 50 µm.
WIDEST_SPACING_RATIO = 2.0
EACH = "each"  # instead of a kidney to hold out: every one that can be, in turn


_Name = Annotated[str, AfterValidator(composed)]


class DataConfig(BaseModel, frozen=True, extra="forbid"):
    """Which kidneys a search trains and scores on."""

    root: Path | None = None  # folder of volumes; None: phantoms are made
    # The kidney to hold out; for a volume, its whole kidney is held out, and it alone is scored. "each": the first that
    # has complete labels; the finalists are confirmed with every other one held out, too.
    hold_out: _Name = ""
    train: tuple[_Name, ...] | None = (
        None  # kidneys or volumes to train on; None: all others with similar voxel spacing
    )
    exclude: tuple[_Name, ...] = ()  # kidneys or volumes that are neither trained nor scored on
    cache: Path | None = None  # folder for converted volumes; None: the user's cache folder


@dataclass(frozen=True)
class Fold:
    """One split by kidney: volumes that weights are trained on, and volumes that no training sees."""

    train: tuple[Volume, ...]
    held_out: tuple[Volume, ...]

    @property
    def kidney(self) -> str:
        """The kidney that is held out; there must be one."""
        return self.held_out[0].kidney


def choose(
    sources: Sequence[VolumeSource], config: DataConfig, report: Report = SILENT
) -> tuple[list[VolumeSource], list[VolumeSource]]:
    """Sources to train on and sources to score on, which share no kidney.

    Volumes that are left out, and how to include them, are reported. Raises InputError if the configuration names
    something that does not exist, if a volume in use has no labels, and if one of the two sides would be empty.
    """
    _check_names(sources, config)
    kept = _kept(sources, config)
    kidney = _held_out_kidney(kept, config)
    held_out = _scored(kept, kidney, config, report)
    if config.train is None:
        train = _similar(kept, kidney, held_out[0].spacing_um, report)
    else:
        train = [source for source in kept if _matches(source, config.train)]
        both = [source.name for source in train if source.kidney == kidney]
        if both:
            raise InputError(f"{both[0]} is in train, but its kidney {kidney} is held out; choose one of the two")
    if not train:
        raise InputError(f"nothing is left to train on when {kidney} is held out; name kidneys or volumes in train")
    for source in train:
        _check_labelled(source, "trained on")
        # Checked before hours of conversion; the guard checks what only the voxels reveal.
        if leak := origin_leak(source.name, source.soft, kidney, {}):
            raise InputError(leak)
    return train, held_out


def kidneys_in_turn(sources: Sequence[VolumeSource], config: DataConfig, count: int | None) -> list[str]:
    """What is held out in turn: what the configuration says, then the other kidneys that can be scored, by name.

    count: how many there are to be; None: one, or with `hold_out` "each" as many as there can be. Raises InputError if
    there are fewer kidneys than that.
    """
    _check_names(sources, config)
    kept = _kept(sources, config)
    possible = sorted({source.kidney for source in kept if _complete(source) and _like_others(source, kept)})
    if config.hold_out != EACH:
        kidney = _held_out_kidney(kept, config)
        found = [config.hold_out, *(name for name in possible if name != kidney)]
        count = 1 if count is None else count
    else:
        found = possible
        count = max(2, len(found)) if count is None else count
    if count > len(found):
        listed = ", ".join(possible) or "none"
        raise InputError(
            f"{count} kidneys are to be held out in turn, but those with complete, human-made labels and a voxel "
            f"spacing like that of others are: {listed}; label more, or name one kidney to hold out and set "
            "study.folds=1"
        )
    return found[:count]


def with_held_out(sources: Sequence[VolumeSource], config: DataConfig, hold_out: str) -> DataConfig:
    """The same with something else held out, which is then not trained on."""
    kidneys = {source.kidney for source in sources if _matches(source, [hold_out])}
    changes: dict[str, object] = {"hold_out": hold_out}
    if config.train is not None:
        own = {source.name for source in sources if source.kidney in kidneys}
        named = (source.name for source in sources if _matches(source, config.train))
        changes["train"] = tuple(name for name in named if name not in own)
    return config.model_copy(update=changes)


def _matches(source: VolumeSource, names: Sequence[str]) -> bool:
    return source.name in names or source.kidney in names


def _check_names(sources: Sequence[VolumeSource], config: DataConfig) -> None:
    """Check that every name in the configuration is an existing kidney or volume."""
    known = {source.kidney for source in sources} | {source.name for source in sources}
    named = [("hold_out", config.hold_out)] if config.hold_out not in ("", EACH) else []
    named += [("train", name) for name in config.train or ()] + [("exclude", name) for name in config.exclude]
    for where, name in named:
        if name not in known:
            raise unknown_name(f"kidney or volume in {where},", name, known)


def _held_out_kidney(sources: Sequence[VolumeSource], config: DataConfig) -> str:
    kidneys = sorted({source.kidney for source in sources})
    if len(kidneys) < 2:
        only = f"only one kidney, {kidneys[0]}" if kidneys else "no kidney left"
        raise InputError(f"there is {only}; a search trains on one kidney and scores on another")
    if not config.hold_out:
        labelled = sorted({source.kidney for source in sources if _labelled(source)})
        listed = ", ".join(labelled) or "none has labels"
        raise InputError(
            f"name the kidney to hold out (--hold-out, or hold_out of [data]), or {EACH!r} for all in turn; the "
            f"labelled kidneys are: {listed}"
        )
    matching = {source.kidney for source in sources if _matches(source, [config.hold_out])}
    if not matching:
        raise InputError(f"{config.hold_out} is both held out and excluded; take it out of exclude")
    return matching.pop()


def _scored(sources: Sequence[VolumeSource], kidney: str, config: DataConfig, report: Report) -> list[VolumeSource]:
    """The volumes of the held-out kidney that are scored: the named one, or all with complete labels."""
    of_kidney = [source for source in sources if source.kidney == kidney]
    if config.hold_out != kidney:
        named = [source for source in of_kidney if source.name == config.hold_out]
        _check_labelled(named[0], "scored")
        refuse_as_target(named[0].name, named[0].soft)
        return named
    complete = []
    for source in of_kidney:
        if not _labelled(source):
            report.note(f"{source.name} of the held-out {kidney} has no labels and is not scored")
        elif source.soft is not None:
            report.note(
                f"{source.name} of the held-out {kidney} is not scored: a network made its labels {source.label_set!r}"
            )
        elif source.annotated < 1:
            report.note(
                f"{source.name} of the held-out {kidney} is not scored: only {source.annotated:.0%} of its vessels are "
                f"labelled (hold_out = {source.name!r} would score it)"
            )
        else:
            complete.append(source)
    alike = [source for source in complete if _like_others(source, sources)]
    for source in complete if alike else ():
        if source not in alike and source.spacing_um is not None:
            report.note(
                f"{source.name} of the held-out {kidney} is not scored: its voxel spacing "
                f"{_spacing(source.spacing_um)} is unlike that of other kidneys (hold_out = {source.name!r} would "
                "score it alone)"
            )
    complete = alike or complete
    if not complete:
        names = ", ".join(s.name for s in of_kidney if _labelled(s) and s.soft is None)
        mend = f"name a labelled one in hold_out: {names}" if names else "hold out another kidney"
        raise InputError(f"{kidney} has no volume with complete, human-made labels to score on; {mend}")
    return complete


def _similar(
    sources: Sequence[VolumeSource], kidney: str, spacing_um: Spacing | None, report: Report
) -> list[VolumeSource]:
    """Volumes of all other kidneys whose voxel spacing is near that of the held-out one."""
    train = []
    for source in sources:
        if source.kidney == kidney:
            continue
        if source.spacing_um is not None and spacing_um is not None and not _alike(source.spacing_um, spacing_um):
            report.note(
                f"{source.name} is not trained on: its voxel spacing {_spacing(source.spacing_um)} differs by "
                f"more than {WIDEST_SPACING_RATIO:g} times from the held-out {_spacing(spacing_um)} "
                "(name it in train to use it)"
            )
        elif source.split == "test" and not _labelled(source):
            report.note(f"{source.name} is not trained on: it lies under test/ and has no labels")
        else:
            train.append(source)
    return train


def _kept(sources: Sequence[VolumeSource], config: DataConfig) -> list[VolumeSource]:
    excluded = {source.name for source in sources if _matches(source, config.exclude)}
    return [source for source in sources if source.name not in excluded]


def _labelled(source: VolumeSource) -> bool:
    return source.labels != "none"


def _like_others(source: VolumeSource, sources: Sequence[VolumeSource]) -> bool:
    """Whether a labelled volume of another kidney has a similar voxel spacing, so that it could be trained on.

    Spacings that are not stated are not compared.
    """
    others = [other for other in sources if other.kidney != source.kidney and _labelled(other)]
    return any(_alike(source.spacing_um, other.spacing_um) for other in others)


def _alike(one: Spacing | None, other: Spacing | None) -> bool:
    """Whether the voxel edges of two volumes are similar along all axes; what is not stated is not compared."""
    if one is None or other is None:
        return True
    return all(max(a / b, b / a) <= WIDEST_SPACING_RATIO for a, b in zip(one, other, strict=True))


def _complete(source: VolumeSource) -> bool:
    """Whether it can be scored: a person labelled all of its vessels."""
    return _labelled(source) and source.soft is None and source.annotated >= 1


def _check_labelled(source: VolumeSource, use: str) -> None:
    if not _labelled(source):
        raise InputError(
            f"{source.name} has no labels and cannot be {use}; add labels/ or rows in train_rles.csv, "
            f"or name it in exclude"
        )


def _spacing(spacing_um: Spacing) -> str:
    return " x ".join(f"{edge:g}" for edge in dict.fromkeys(spacing_um)) + " µm"
