"""Soft labels: a label set whose slices hold levels 0 to 255, which a network made, and what is known of that network.

Where a set comes from stands beside its slices, in SOURCE.json. Whoever made labels has put into them what it knows: a
set whose maker has seen a kidney must never train a network that is ranked on that kidney.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from search_spaces.errors import InputError

SOURCE_NAME = "SOURCE.json"
DEFAULT_SET = "labels"
HIGHEST = 255  # the level that is surely vessel
VESSEL_LEVEL = 128  # from here on a voxel is vessel rather than not


class LabelSource(BaseModel, frozen=True, extra="forbid"):
    """SOURCE.json: where soft labels come from. Only `kidneys` must be said of labels that come from elsewhere."""

    kidneys: tuple[str, ...]  # that the maker knows: it was trained on them, or on labels whose maker knows them
    volumes: dict[str, str] = Field(default_factory=dict)  # that it was trained on: name -> content hash
    held_out: dict[str, str] = Field(default_factory=dict)  # that it was ranked on: name -> content hash
    bundle: str | None = None  # the maker's name
    weights_hash: str | None = None
    labels: str | None = None  # the label set whose labelled voxels are vessel here too
    annotated: float | None = None  # share of the vessels that those hold
    threshold: float | None = None  # the maker's probability that became one half
    matched_share: float | None = None  # labelled voxels among all that are vessel here
    version: str | None = None


# Of a patch: uint8 of 0 and 1, or float32 in 0..1 where labels are soft.
Label = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class SoftLabels:
    """What is known of the soft labels of one volume."""

    name: str  # of the label set
    place: Path  # of its SOURCE.json
    source: LabelSource | None  # None: there is no such file
    content_hash: str | None = None  # of all levels; None until they are converted

    def hashed(self, content_hash: str | None) -> "SoftLabels":
        """The same with the hash of its levels."""
        return replace(self, content_hash=content_hash)


def read_source(labels: Path) -> SoftLabels:
    """What stands beside the labels at a path, a folder or a file. Raises InputError for a broken SOURCE.json."""
    place = labels / SOURCE_NAME if labels.is_dir() else labels.with_name(f"{labels.name}.{SOURCE_NAME}")
    name = labels.name if labels.is_dir() else labels.name.partition(".")[0]
    try:
        return SoftLabels(name, place, LabelSource.model_validate_json(place.read_bytes()))
    except FileNotFoundError:
        return SoftLabels(name, place, None)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{place}: does not say where soft labels come from: {where}: {first['msg'].lower()}"
        ) from None


def soften(label: Label, soft: SoftLabels | None) -> Label:
    """A block of labels for training: of soft levels the share of vessel, float32; others as they are."""
    return label if soft is None else label.astype(np.float32) / np.float32(HIGHEST)


def is_vessel(label: NDArray[np.uint8], soft: SoftLabels | None) -> NDArray[np.bool_]:
    """Which voxels of a block of labels are vessel; contiguous labels of 0 and 1 are not copied."""
    return label.view(np.bool_) if soft is None else np.greater_equal(label, VESSEL_LEVEL)


def origin_leak(name: str, soft: SoftLabels | None, kidney: str, tissue: dict[str, str]) -> str | None:
    """Why a volume with these labels must not train when `kidney` is held out, in one line; None if it may.

    tissue: name -> content hash of the held-out volumes, as far as they are known.
    """
    if soft is None:
        return None
    if soft.source is None:
        return (
            f"{name}'s soft labels {soft.name!r} have no {SOURCE_NAME}, so they may come from a network that has seen "
            f'the held-out {kidney}; write {{"kidneys": [...]}} into {soft.place} with all kidneys that it has seen'
        )
    known = set(soft.source.volumes) & set(tissue) or {
        seen for seen, content in soft.source.volumes.items() if content in tissue.values()
    }
    seen = kidney if kidney in soft.source.kidneys else next(iter(sorted(known)), None)
    if seen is None:
        return None
    return (
        f"{name}'s soft labels {soft.name!r} were made by a network that has seen {seen}, which is held out; hold out "
        f"another kidney, exclude {name}, or label it with a bundle that was not trained on {seen}"
    )


def refuse_as_target(name: str, soft: SoftLabels | None) -> None:
    """Raise InputError if a score would take a network's opinion for the truth."""
    if soft is not None:
        raise InputError(
            f"{name} has soft labels ({soft.name!r}), which a network made, and cannot be scored on; take `labels` and "
            "`soft` of it out of dataset.toml to score on its own labels"
        )
