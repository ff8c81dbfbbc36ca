"""Ensemble: several bundles that are read as one network, kept as a folder that names them."""

import hashlib
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from results.bundles.bundle import ARCHITECTURE, WEIGHTS, Bundle, read_bundle, read_description
from results.bundles.reading import KeptReading
from search_spaces.errors import InputError
from trainers.atomic import write_atomically

ENSEMBLE = "ensemble.json"


class Member(BaseModel, frozen=True, extra="forbid"):
    """One bundle of an ensemble."""

    path: str  # from the ensemble's folder
    content_hash: str  # of its description and weights
    trial: int


class Ensemble(BaseModel, frozen=True, extra="forbid"):
    """Which bundles are averaged, and what was found with all of them together."""

    format: Literal[2] = 2
    name: str
    members: tuple[Member, ...] = Field(min_length=2)
    # How the mean of their probabilities is read. Only the smallest component of its inference counts, for removing
    # components from the mean's mask; everything else is each member's own. The score profits from members' tuning.
    reading: KeptReading
    study: str
    version: str
    held_out_volumes: dict[str, str]  # name -> content hash


def content_hash(bundle: Path) -> str:
    """The hash of a bundle's description and weights; changes when either does. InputError if one is missing."""
    digest = hashlib.blake2b(digest_size=16)
    for name in (ARCHITECTURE, WEIGHTS):
        try:
            with (bundle / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        except OSError as error:
            raise InputError(f"{bundle} is not a bundle: {name} cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def member_of(ensemble: Path, bundle: Path, trial: int) -> Member:
    """A bundle as the ensemble in the folder `ensemble` names it."""
    return Member(path=os.path.relpath(bundle, ensemble), content_hash=content_hash(bundle), trial=trial)


def write_ensemble(path: Path, ensemble: Ensemble) -> Path:
    """Write the folder of an ensemble."""
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / ENSEMBLE, ensemble.model_dump_json(indent=2) + "\n")
    return path


def read_ensemble(path: Path) -> Ensemble:
    """The description in an ensemble's folder; InputError if there is none."""
    return read_description(path / ENSEMBLE, Ensemble, "an ensemble")


def check_members(path: Path, ensemble: Ensemble) -> list[Path]:
    """The folders of an ensemble's bundles. Raises InputError for one that is gone, or was changed since then."""
    places = [Path(os.path.normpath(path / member.path)) for member in ensemble.members]
    for place, member in zip(places, ensemble.members, strict=True):
        if content_hash(place) != member.content_hash:
            raise InputError(
                f"{place} has changed since {path} was made, and the threshold may no longer fit: delete {path} and "
                "make it again with the command that made it"
            )
    return places


def read_members(path: Path, ensemble: Ensemble) -> tuple[Bundle, ...]:
    """The bundles of an ensemble. Raises InputError when `check_members` or `read_bundle` does."""
    return tuple(read_bundle(place) for place in check_members(path, ensemble))
