"""Facts about a volume besides its voxels: kidney, voxel spacing, annotated share; from dataset.toml or its name.

The facts of the competition's volumes come from the host's description of SenNet + HOA (2023).
"""

import re
import unicodedata
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, NonNegativeInt, ValidationError

from search_spaces.errors import InputError, printable, unknown_name
from search_spaces.toml import read_toml
from trainers.data.axes import LETTERS, Pick
from trainers.data.geometry import LARGEST_UM, SMALLEST_UM, Micrometres, Spacing

MANIFEST_NAME = "dataset.toml"
LONGEST_NAME = 200  # bytes of the 255 that file systems allow: names in the cache and of temporary files are longer
_SPACING_KEY = "voxel_spacing_um"


def composed(name: str) -> str:
    """A name in the composed form (NFC), in which names are compared."""
    return unicodedata.normalize("NFC", name)


def _readable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name must be readable text, without control characters")
    return composed(name)


class VolumeFacts(BaseModel, frozen=True, extra="forbid", strict=True):
    """One table `[volumes.NAME]` of dataset.toml; None means "not stated"."""

    # Volumes of one kidney are never on both sides of a split.
    kidney: Annotated[str, Field(min_length=1), AfterValidator(_readable)] | None = None
    voxel_spacing_um: Micrometres | Annotated[list[Micrometres], Field(min_length=3, max_length=3)] | None = None
    annotated: Annotated[float, Field(ge=0, le=1)] | None = None  # share of the vessels that the labels contain
    labels: Annotated[str, Field(min_length=1)] | None = None  # the label set beside the images; None means "labels"
    soft: bool | None = None  # True: its slices hold levels, 0 to 255, predicted by a network
    # Of files with more axes than z, y and x: the entry of each that is read, counted from 0.
    channel: NonNegativeInt | None = None
    time: NonNegativeInt | None = None
    sample: NonNegativeInt | None = None
    position: NonNegativeInt | None = None
    axes: Annotated[str, Field(pattern=f"^(?i:[{''.join(LETTERS)}])+$")] | None = (
        None  # all axes, where a file names them wrongly
    )

    @property
    def spacing_um(self) -> Spacing | None:
        """(z, y, x) in micrometres; one number stands for all three."""
        if self.voxel_spacing_um is None:
            return None
        if isinstance(self.voxel_spacing_um, float):
            return (self.voxel_spacing_um,) * 3
        z, y, x = self.voxel_spacing_um
        return z, y, x

    @property
    def pick(self) -> Pick:
        """What is read of files with more axes than z, y and x."""
        entries = {"channel": self.channel, "time": self.time, "sample": self.sample, "position": self.position}
        names = None if self.axes is None else tuple(LETTERS[letter] for letter in self.axes.upper())
        said = {name: entry for name, entry in entries.items() if entry is not None}
        return Pick(said, names, spacing_um=self.spacing_um)


class Manifest(BaseModel, frozen=True, extra="forbid"):
    """The whole content of dataset.toml."""

    volumes: dict[str, VolumeFacts]


COMPETITION: dict[str, VolumeFacts] = {
    "kidney_1_dense": VolumeFacts(kidney="kidney_1", voxel_spacing_um=50.0, annotated=1.0),
    "kidney_1_voi": VolumeFacts(kidney="kidney_1", voxel_spacing_um=5.2, annotated=1.0),
    "kidney_2": VolumeFacts(kidney="kidney_2", voxel_spacing_um=50.0, annotated=0.65),
    "kidney_3_dense": VolumeFacts(kidney="kidney_3", voxel_spacing_um=50.16, annotated=1.0),
    "kidney_3_sparse": VolumeFacts(kidney="kidney_3", voxel_spacing_um=50.16, annotated=0.85),
    "kidney_5": VolumeFacts(kidney="kidney_5", voxel_spacing_um=50.28),
    "kidney_6": VolumeFacts(kidney="kidney_6", voxel_spacing_um=63.08),
}

# Volumes that have only labels; their images are the slices with the same numbers in another volume.
IMAGES_OF: dict[str, str] = {"kidney_3_dense": "kidney_3_sparse"}

# Volumes that lie inside another one, as a crop or a zoom. Training on one leaks into the other.
INSIDE: dict[str, str] = {"kidney_3_dense": "kidney_3_sparse", "kidney_1_voi": "kidney_1_dense"}


def check_name(name: str, where: str) -> str:
    """The name, if it is valid as a folder name; a name that would lead out of its folder raises InputError.

    In the composed form (NFC), because file systems and keyboards write the same letters in two ways.
    """
    if not name.strip() or name in {".", ".."} or re.search(r"[/\\\x00-\x1f]|^[A-Za-z]:", name):
        raise InputError(f"{where}: {name!r} cannot be the name of a volume; use one folder name without slashes")
    if len(composed(name).encode(errors="replace")) > LONGEST_NAME:
        raise InputError(
            f"{where}: {printable(name[:40])}... cannot be the name of a volume; {LONGEST_NAME} bytes is the most, so "
            "that files can be named after it"
        )
    if not name.isprintable():
        raise InputError(
            f"{where}: {printable(name)!r} cannot be the name of a volume; it is not readable text (UTF-8)"
        )
    return composed(name)


def manifest_home(folder: Path) -> Path:
    """The folder for the dataset.toml of the volumes in `folder`: that folder, or the one with train/ and test/."""
    inner = folder.name in {"train", "test"} and not (folder / MANIFEST_NAME).is_file()
    return folder.parent if inner else folder


def read_manifest(root: Path) -> Manifest | None:
    """The dataset.toml at the root, or None if there is none. Raises InputError for what it does not understand."""
    path = root / MANIFEST_NAME
    if not path.is_file():
        return None
    try:
        manifest = Manifest.model_validate(read_toml(path))
    except ValidationError as error:
        raise _explain(path, error) from None
    return Manifest(volumes={check_name(name, str(path)): facts for name, facts in manifest.volumes.items()})


def facts_of(name: str, manifest: Manifest | None) -> VolumeFacts:
    """What is known about a volume: from dataset.toml, then from the competition's names; None if neither states it."""
    known = COMPETITION.get(name, VolumeFacts())
    kidney = re.match(r"kidney_\d+(?=_|$)", name)
    if known.kidney is None and kidney:
        known = known.model_copy(update={"kidney": kidney[0]})
    said = manifest.volumes.get(name) if manifest else None
    return known.model_copy(update=said.model_dump(exclude_none=True)) if said else known


def _explain(path: Path, error: ValidationError) -> InputError:
    """Pydantic's first error as one line, in terms of this file."""
    first = error.errors(include_url=False)[0]
    location = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        table, choices = (
            (Manifest, "top level") if len(location) == 1 else (VolumeFacts, f"[{'.'.join(location[:-1])}]")
        )
        return InputError(f"{path}: {unknown_name(f'key at {choices},', location[-1], table.model_fields)}")
    if _SPACING_KEY in location:
        key = ".".join(location[: location.index(_SPACING_KEY) + 1])
        return InputError(
            f"{path}: {key} must be {SMALLEST_UM:g} to {LARGEST_UM:,.0f} micrometres, one number or three, [z, y, x]"
        )
    if location[-1] == "axes":
        letters = ", ".join(f"{letter} ({name})" for letter, name in LETTERS.items())
        return InputError(f"{path}: {'.'.join(location)} names every axis of a file by a letter, out of {letters}")
    value = first["input"]
    shown = "" if isinstance(value, dict) else f" = {value!r}"
    return InputError(f"{path}: {'.'.join(location)}{shown}: {first['msg'].lower()}")
