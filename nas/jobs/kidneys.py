"""From the configuration to the kidneys of a search: found or made, converted, split, and checked for leaks."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from nas.config.search_config import SearchConfig
from results.run_folder import RunFolder
from results.version import program_version
from search_spaces.errors import InputError
from trainers.atomic import write_atomically
from trainers.data.folds import Fold, choose, kidneys_in_turn, with_held_out
from trainers.data.leaks import guard
from trainers.data.open_volumes import open_volumes
from trainers.data.phantom import are_phantoms, write_phantoms
from trainers.data.place import VolumeSource
from trainers.data.prepare import default_cache
from trainers.data.sources import scan
from trainers.data.volume import Volume
from trainers.report import SILENT, Report


class OtherData(InputError):
    """The kidneys are not those that the run began with: no task of it can go on."""


class _Identity(BaseModel, frozen=True):
    """What a run remembers of its data."""

    data: dict[str, dict[str, str]]  # side of a split -> volume -> fingerprint


def open_fold(config: SearchConfig, folder: RunFolder, report: Report = SILENT, hold_out: str | None = None) -> Fold:
    """The training and held-out volumes of a search, memory-mapped.

    Without data.root, phantom kidneys are made in the run folder. The first call converts the volumes, later calls
    only open them. hold_out: what is held out instead of what the configuration says. Raises InputError if anything is
    wrong with the data.
    """
    sources = scan(data_root(config, folder, report), report)
    if hold_out is None:
        hold_out = kidneys_in_turn(sources, config.data, config.study.folds)[0]
    return _open(sources, config, hold_out, report)


def open_folds(config: SearchConfig, folder: RunFolder, report: Report = SILENT) -> tuple[Fold, ...]:
    """The fold that a search ranks on, then the others on which its finalists are confirmed. Raises as `open_fold`."""
    sources = scan(data_root(config, folder, report), report)
    wanted = kidneys_in_turn(sources, config.data, config.study.folds)
    return tuple(_open(sources, config, hold_out, report) for hold_out in wanted)


def _open(sources: Sequence[VolumeSource], config: SearchConfig, hold_out: str, report: Report) -> Fold:
    cache = config.data.cache or default_cache()
    data = config.data if hold_out == config.data.hold_out else with_held_out(sources, config.data, hold_out)
    train, held_out = choose(sources, data, report)
    volumes = tuple(open_volumes((*train, *held_out), cache, report))
    if config.score.second_um is not None and (unknown := [s.name for s in held_out if s.spacing_um is None]):
        report.note(
            f"no second score at {config.score.second_um:g} µm: the voxel spacing of {unknown[0]} is not stated"
        )
    fold = Fold(volumes[: len(train)], volumes[len(train) :])
    guard(fold, report)
    return fold


def data_root(config: SearchConfig, folder: RunFolder, report: Report = SILENT) -> Path:
    """Where the scans are; phantoms are made if they do not exist yet."""
    if config.data.root is not None:
        if not config.data.root.exists():
            moved = f"; if the scans were moved: nas search {folder.named} --data THEIR_NEW_PLACE"
            raise InputError(
                f"{config.data.root}: there is no such file or folder{moved if folder.config.is_file() else ''}"
            )
        return config.data.root
    if folder.phantoms.is_dir() and not folder.config.is_file():
        if not are_phantoms(folder.phantoms):
            raise InputError(
                f"{folder.phantoms}: is there already, and phantoms would be made there; choose another --run"
            )
        shutil.rmtree(folder.phantoms)  # of a search that never began, perhaps with other settings
    if not folder.phantoms.is_dir():
        write_phantoms(folder.phantoms, config.phantom, config.study.seed, report)
    return folder.phantoms


def check_same_data(folder: RunFolder, folds: Sequence[Fold]) -> None:
    """Remember the data of a run; OtherData if voxels, labels or spacings are not the same as before.

    folds: that which the search ranks on, and those on which its finalists are confirmed.
    """
    now = _sides(folds[0], ranks=True)
    for fold in folds[1:]:
        now |= _sides(fold, ranks=False)
    _compare(folder, now)
    if not folder.identity.is_file():
        write_atomically(folder.identity, json.dumps({"data": now, "version": program_version()}, indent=2))


def check_fold(folder: RunFolder, fold: Fold, ranks: bool) -> None:
    """OtherData if a fold is not as the run remembers it. ranks: whether it is that on which the search ranks."""
    _compare(folder, _sides(fold, ranks))


def _sides(fold: Fold, ranks: bool) -> dict[str, dict[str, str]]:
    """The fingerprints of a fold, under the names by which a run remembers them."""
    found = fingerprint(fold)
    return found if ranks else {f"{fold.kidney} held out: {side.replace('_', '-')}": found[side] for side in found}


def _compare(folder: RunFolder, now: dict[str, dict[str, str]]) -> None:
    if not folder.identity.is_file():
        return
    try:
        before = _Identity.model_validate_json(folder.identity.read_bytes()).data
    except ValueError as error:
        what = f"{folder.identity} is damaged; without it the data are taken to be those that the run began with"
        raise InputError(what) from error
    for side, volumes in now.items():
        known = before.get(side, {})
        for name in sorted({*known, *volumes}):
            if known.get(name) == volumes.get(name):
                continue
            what = "has changed" if name in known and name in volumes else "is new or gone"
            where = "held-out" if side == "held_out" else side
            raise OtherData(
                f"{folder.path} holds a search on other data: {where} volume {name} {what}; choose another --run"
            )


def fingerprint(fold: Fold) -> dict[str, dict[str, str]]:
    """One hash per volume over all that training and scores depend on, by side of the split and name."""
    return {"train": _fingerprints(fold.train), "held_out": _fingerprints(fold.held_out)}


def _fingerprints(volumes: Sequence[Volume]) -> dict[str, str]:
    found = {}
    for volume in volumes:
        facts: tuple[object, ...] = (
            volume.content_hash, volume.spacing_um, volume.annotated, volume.grey_low, volume.grey_high
        )  # fmt: skip
        if volume.soft is not None:
            facts += (volume.soft.content_hash,)  # levels may change without moving a vessel
        digest = hashlib.blake2b(repr(facts).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(volume.vessel_voxels).tobytes())  # the labels, or a million of their voxels
        found[volume.name] = digest.hexdigest()
    return found
