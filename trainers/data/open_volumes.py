"""The only way to open volumes: converted, memory-mapped, and with one grey scale for all volumes of a kidney."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from trainers.data.contrast import share_contrast
from trainers.data.place import VolumeSource
from trainers.data.prepare import prepare
from trainers.data.sources import find
from trainers.data.volume import Volume
from trainers.report import SILENT, Report


def open_volumes(sources: Sequence[VolumeSource], cache: Path, report: Report = SILENT) -> Iterator[Volume]:
    """The volumes in order, each converted when needed; those of one kidney together, for their grey scale.

    Raises InputError if `prepare` does.
    """
    ready: dict[str, Volume] = {}
    for source in sources:
        if source.name not in ready:
            together = [s for s in sources if (s.kidney, s.spacing_um) == (source.kidney, source.spacing_um)]
            opened = share_contrast([prepare(one, cache, report) for one in together])
            ready.update({volume.name: volume for volume in opened})
        yield ready.pop(source.name)


def open_piece(source: VolumeSource, root: Path, cache: Path, report: Report = SILENT) -> Volume:
    """A single volume, with the grey scale that it shares with the other volumes of its kidney in the data set `root`.

    Raises InputError if `find` or `prepare` does, also for those other volumes.
    """
    others = [place.open(report) for place in find(root) if place.kidney == source.kidney and place.name != source.name]
    pieces = [source, *(other for other in others if other.spacing_um == source.spacing_um)]
    pieces.sort(key=lambda piece: piece.name)  # the order used by a search and by `nas predict`
    return next(volume for volume in open_volumes(pieces, cache, report) if volume.name == source.name)
