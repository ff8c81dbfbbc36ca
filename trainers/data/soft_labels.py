"""Soft labels: a label set of levels 0 to 255 made by a network (its maker), and what is known about that network.

SOURCE.json beside the slices states where a set comes from. Labels carry the knowledge of their maker: a set whose
maker has seen a kidney must never be used to train a network that is ranked on that kidney.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from search_spaces.errors import InputError

SOURCE_NAME = "SOURCE.json"
DEFAULT_SET = "labels"
HIGHEST = 255  # the level for certain vessel
VESSEL_LEVEL = 128  # from this level on a voxel counts as vessel


class LabelSource(BaseModel, frozen=True, extra="forbid"):
    """SOURCE.json: where soft labels come from. For labels from elsewhere only `kidneys` is required."""

    kidneys: tuple[str, ...]  # kidneys the maker knows: it was trained on them, or on labels whose maker knows them
    volumes: dict[str, str] = Field(default_factory=dict)  # volumes it was trained on: name -> content hash
    held_out: dict[str, str] = Field(default_factory=dict)  # volumes it was ranked on: name -> content hash
    bundle: str | None = None  # the maker's name
    weights_hash: str | None = None
    labels: str | None = None  # label set whose labelled voxels are also vessel here
    annotated: float | None = None  # share of the vessels that this label set contains
    threshold: float | None = None  # the maker's probability that was mapped to one half
    matched_share: float | None = None  # share of labelled voxels among all that are vessel here
    version: str | None = None


# Labels of a patch: uint8 of 0 and 1, or float32 in 0..1 if labels are soft.
Label = NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class SoftLabels:
    """What is known about the soft labels of one volume."""

    name: str  # name of the label set
    place: Path  # path of its SOURCE.json
    source: LabelSource | None  # None: there is no SOURCE.json
    content_hash: str | None = None  # hash of all levels; None until they are converted

    def hashed(self, content_hash: str | None) -> "SoftLabels":
        """The same with the hash of its levels."""
        return replace(self, content_hash=content_hash)


def read_source(labels: Path) -> SoftLabels:
    """The facts beside the labels at a path, a folder or a file. Raises InputError for a broken SOURCE.json."""
    place = labels / SOURCE_NAME if labels.is_dir() else labels.with_name(f"{labels.name}.{SOURCE_NAME}")
    name = labels.name if labels.is_dir() else labels.name.partition(".")[0]
    if not place.is_file():
        return SoftLabels(name, place, None)
    try:
        return SoftLabels(name, place, LabelSource.model_validate_json(place.read_bytes()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{place}: does not say where soft labels come from: {where}: {first['msg'].lower()}"
        ) from None


def soften(label: Label, soft: SoftLabels | None) -> Label:
    """A block of labels for training: soft levels become shares of vessel, float32; others are unchanged."""
    return label if soft is None else label.astype(np.float32) / np.float32(HIGHEST)


def is_vessel(label: NDArray[np.uint8], soft: SoftLabels | None) -> NDArray[np.bool_]:
    """Which voxels of a block of labels are vessel; contiguous labels of 0 and 1 are not copied."""
    return label.view(np.bool_) if soft is None else np.greater_equal(label, VESSEL_LEVEL)


def origin_leak(name: str, soft: SoftLabels | None, kidney: str, tissue: dict[str, str]) -> str | None:
    """One line that says why a volume with these labels must not train if `kidney` is held out; None if it may.

    tissue: name -> content hash of the held-out volumes, as far as known.
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
    """Raise InputError if a score would treat a network's predictions as the truth."""
    if soft is not None:
        raise InputError(
            f"{name} has soft labels ({soft.name!r}), which a network made, and cannot be scored on; remove `labels` "
            "and `soft` of it from dataset.toml to score on its own labels"
        )
