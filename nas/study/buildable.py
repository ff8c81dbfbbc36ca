"""What of a space can be built: found by building all of it once, and remembered in the run folder."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from results.version import program_version
from search_spaces.candidate import CELLS, LIGHT, Family
from search_spaces.space import Pair, SearchSpace, pairs
from trainers.checkpoint import write_atomically
from trainers.report import SILENT, Report


@dataclass(frozen=True)
class Buildable:
    """Which encoders, decoders and crops of a space go together, in all families but cells."""

    pairs: tuple[Pair, ...]

    def encoders(self, family: Family = "unet") -> tuple[str, ...]:
        """Encoders that make a network of a family at some crop."""
        return self._names(lambda pair: pair.encoder, lambda pair: family_of(pair) == family)

    def decoders(self, encoder: str) -> tuple[str, ...]:
        """Published decoders that make a network with an encoder at some crop."""
        return self._names(
            lambda pair: pair.decoder, lambda pair: pair.encoder == encoder and family_of(pair) == "unet"
        )

    def crops(self, encoder: str, decoder: str) -> tuple[int, ...]:
        """Crops at which an encoder and a decoder make a network."""
        return self._names(lambda pair: pair.crop, lambda pair: (pair.encoder, pair.decoder) == (encoder, decoder))

    def _names(self, name: Callable[[Pair], Any], wanted: Callable[[Pair], bool]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(name(pair) for pair in self.pairs if pair.refusal is None and wanted(pair)))


def family_of(pair: Pair) -> Family:
    """The family that a pair makes a network of."""
    families: dict[str, Family] = {CELLS: "hybrid", LIGHT: "sam"}
    return families.get(pair.decoder, "unet")


class _Remembered(BaseModel, frozen=True, extra="forbid"):
    """What was found, and of what: another space, program or library builds other things."""

    of: str
    pairs: tuple[Pair, ...]


_known: dict[SearchSpace, Buildable] = {}


def buildable(space: SearchSpace, report: Report = SILENT, remembered: Path | None = None) -> Buildable:
    """What of a space can be built. The first call of a process builds it, a fraction of a second a pair.

    remembered: the file in which a process before this one left what it found, or this one leaves it. Raises InputError
    where the space names what is in no table.
    """
    if space in _known:
        return _known[space]
    if program_version().endswith("-dirty"):
        remembered = None  # whoever edits the program would be told what its last edit built
    found = None if remembered is None else _recall(remembered, space)
    if found is None:
        found = Buildable(pairs(space, lambda done, of: report.progress("building every choice", done, of)))
        if remembered is not None:
            write_atomically(
                remembered, _Remembered(of=_key(space), pairs=found.pairs).model_dump_json(indent=1) + "\n"
            )
    _known[space] = found
    return found


def _recall(file: Path, space: SearchSpace) -> Buildable | None:
    try:
        known = _Remembered.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return Buildable(known.pairs) if known.of == _key(space) else None


def _key(space: SearchSpace) -> str:
    builders = [program_version(), *(version(name) for name in ("torch", "timm", "segmentation-models-pytorch"))]
    return hashlib.sha256("\n".join([*builders, space.model_dump_json()]).encode()).hexdigest()
