"""TIFF: a folder of numbered slices, or one file of many pages."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.axes import LETTERS, UNNAMED, Axes, Pick, find_axes, find_position
from trainers.data.slices import ReadBlock, Slices, decoding, native
from trainers.data.tiff_page import (
    KIND,
    check_alike,
    check_header,
    decode,
    inverted,
    kind,
    opened,
    says_so_always,
    single_page,
    white_is_zero,
)
from trainers.data.tiff_place import geometry_of, orientation

TIFF_SUFFIXES = (".tif", ".tiff")
_UNNAMED_LETTERS = "IQ"  # tifffile's letters for pages of which nothing is said


@dataclass(frozen=True)
class TiffFolder(Slices):
    """A folder of files NNNN.tif, one per slice, without gaps in the numbers."""

    orientation: int = 1  # the tag of that name, which all slices must have

    parallel = True

    @contextmanager
    def _opened(self) -> Iterator[ReadBlock]:
        # Slices are opened one by one, so any number of threads may read.
        sample_axis = (self.samples,) if self.samples > 1 else ()
        # One block of memory per thread, which is reused: allocating memory costs as much as reading into it.
        own = threading.local()

        def read(start: int, stop: int) -> NDArray[Any]:
            shape = (stop - start, *self.shape[1:], *sample_axis)
            if getattr(own, "block", np.empty(0)).shape != shape:
                own.block = np.empty(shape, self.dtype)
            block: NDArray[Any] = own.block
            for z in range(start, stop):
                self._read(self.files[z], block[z - start])
            return block

        yield read

    def _read(self, path: Path, into: NDArray[Any]) -> None:
        """One slice into an array (H, W) or (H, W, samples); InputError for one that is unlike the first."""
        first = self.files[0].name
        with opened(path) as tif, decoding(path, KIND):
            page = single_page(tif, path)
            height, width = _height_width(page)
            if (height, width) != into.shape[:2]:
                raise InputError(
                    f"{path}: {height} x {width} voxels, but {first} has {into.shape[0]} x {into.shape[1]}; "
                    "all slices of a volume must have the same shape"
                )
            if native(page.dtype) != into.dtype or page.samplesperpixel != self.samples:
                colour = "colour" if self.samples > 1 else "grey"
                raise InputError(
                    f"{path}: {kind(page)}, but {first} is {into.dtype} {colour}; all slices of a volume must be alike"
                )
            if (turned := orientation(page)) != self.orientation:
                raise InputError(
                    f"{path}: its orientation tag is {turned}, but that of {first} is {self.orientation}; all slices "
                    "of a volume must lie alike"
                )
            decode(tif, page, path, into)

    def slice_name(self, z: int) -> str:
        """The file of the slice."""
        return str(self.files[z])

    def select(self, numbers: tuple[int, ...]) -> "TiffFolder":
        """The stack with only these slices; raises InputError if one is missing."""
        by_number = dict(zip(self.numbers, self.files, strict=True))
        missing = [number for number in numbers if number not in by_number]
        if missing:
            raise InputError(f"{self.path}: slice {missing[0]:04d} is missing, but it has a label")
        files = tuple(by_number[number] for number in numbers)
        geometry = replace(self.geometry, numbers=numbers, shape=(len(files), *self.shape[1:]))
        return replace(self, files=files, geometry=geometry)


@dataclass(frozen=True)
class TiffPages(Slices):
    """One TIFF file whose pages are the slices. series: which image of the file; axes: of its pages, (H, W) last."""

    axes: Axes = field(kw_only=True)
    leading: tuple[int, ...] = ()  # lengths of the axes before (H, W)
    series: int = 0

    @property
    def choice(self) -> str:
        """See Slices."""
        return f"{self.series} {self.axes} {super().choice}"

    @contextmanager
    def _opened(self) -> Iterator[ReadBlock]:
        with opened(self.path) as tif:
            with decoding(self.path, KIND):
                series = tif.series[self.series]
                page = series.keyframe

            def read(start: int, stop: int) -> NDArray[Any]:
                index = self.axes.index(start, stop)
                with decoding(self.path, KIND):
                    if series.dataoffset is not None and self.samples == 1:
                        # ImageJ writes large stacks as one page followed by one run of voxels.
                        dtype, shape = (
                            np.dtype(page.dtype).newbyteorder(tif.byteorder),
                            (*self.leading, *self.shape[1:]),
                        )
                        block = np.array(np.memmap(self.path, dtype, "r", series.dataoffset, shape)[index])
                        block = self.axes.arranged(block)
                        return inverted(page, block) if white_is_zero(page) else block
                    sample_axis = (self.samples,) if self.samples > 1 else ()
                    block = np.empty((stop - start, *self.shape[1:], *sample_axis), self.dtype)
                    pages = np.arange(int(np.prod(self.leading))).reshape(self.leading)[index[:-2]]
                    for into, number in zip(block, np.atleast_1d(pages), strict=True):
                        decode(tif, series.pages[int(number)], self.path, into)
                    return block

            yield read


def open_folder(folder: Path, pick: Pick) -> TiffFolder:
    """The slices in a folder, ordered by number. Raises InputError for gaps, duplicates and an empty folder."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TIFF_SUFFIXES or path.name.startswith("."):
            continue
        number = re.search(r"(\d+)$", path.stem)
        if not number:
            raise InputError(f"{path}: a slice needs a number at the end of its name, as in 0000.tif")
        twin = found.setdefault(int(number[1]), path)
        if twin is not path:
            raise InputError(f"{path}: slice {int(number[1])} appears twice; the other file is {twin.name}")
    if not found:
        raise InputError(f"{folder}: no TIFF slices in it; slices are named 0000.tif, 0001.tif and so on")
    pick.without("sample").check_used(folder, ())
    if pick.names not in (None, ("z", "y", "x")) and not pick.where_it_fits:
        raise InputError(f"{folder}: its slices have the axes ZYX; leave out axes in dataset.toml")
    numbers = tuple(sorted(found))
    for before, after in pairwise(numbers):
        if after != before + 1:
            raise InputError(
                f"{folder}: slice {before + 1:04d} is missing between {found[before].name} and {found[after].name}"
            )
    files = tuple(found[number] for number in numbers)
    with opened(files[0]) as tif, decoding(files[0], KIND):
        page = single_page(tif, files[0])
        geometry, notes = geometry_of(tif, (len(files), *_height_width(page)), numbers)
        dtype, samples = native(page.dtype), int(page.samplesperpixel)
        notes += _notes(page)
        turned = orientation(page)
    return TiffFolder(folder, geometry, dtype, files, samples, _sample(folder, samples, pick), notes, turned)


def open_pages(path: Path, pick: Pick) -> TiffPages:
    """A multi-page file as a stack; raises InputError if its pages differ, or are more than one volume."""
    with opened(path) as tif, decoding(path, KIND):
        number = _series(path, tif, pick)
        series = tif.series[number]
        page = series.keyframe
        check_header(page, path, tif.filehandle.size)
        check_alike(tif, series.pages, path)
        leading = series.axes[: len(series.axes) - len(page.axes)]
        if len(leading) + len(page.shape) != len(series.shape) or "Z" in page.axes:
            raise InputError(f"{path}: its pages have the axes {page.axes}; a slice has y and x")
        height, width = _height_width(page)
        lengths = tuple(int(length) for length in series.shape[: len(leading)])
        names = [UNNAMED if letter in _UNNAMED_LETTERS else LETTERS.get(letter, letter) for letter in leading]
        # Colours are read with every page, and images of their own are positions.
        axes = find_axes(path, (*names, "y", "x"), (*lengths, height, width), pick.without("sample", "position"))
        if (axes.height, axes.width) != (len(lengths), len(lengths) + 1):
            raise InputError(f"{path}: axes of dataset.toml must end in YX: the pages of a TIFF file are its slices")
        if series.dataoffset is not None and series.dataoffset + series.nbytes > tif.filehandle.size:
            raise InputError(f"{path}: truncated: its header states {axes.shape[0]} slices, but the file ends earlier")
        geometry, notes = geometry_of(tif, axes.shape)
        dtype, samples = native(page.dtype), int(page.samplesperpixel)
        notes += _notes(page)
    sample = _sample(path, samples, pick)
    return TiffPages(path, geometry, dtype, (path,), samples, sample, notes, axes=axes, leading=lengths, series=number)


def _series(path: Path, tif: Any, pick: Pick) -> int:
    """Which image of a file is read: the only one, or of several equal ones (positions) the one that was picked."""
    if len(tif.series) == 1:
        replace(pick, entries={"position": pick.entries.get("position", 0)}).check_used(path, ())
        return 0
    if len({(series.shape, series.axes) for series in tif.series}) != 1:
        shapes = ", ".join(str(tuple(series.shape)) for series in tif.series[:3])
        raise InputError(f"{path}: its pages have different shapes ({shapes}); a volume needs equal slices")
    return find_position(path, len(tif.series), pick)


def _sample(path: Path, samples: int, pick: Pick) -> int | None:
    """Which of several colour channels is read; None: they are equal, or there is one."""
    wanted = pick.entry("sample", samples)
    if wanted is not None and wanted >= samples:
        raise InputError(f"{path}: sample = {wanted} of dataset.toml is not there; it has {samples}, counted from 0")
    return wanted if samples > 1 else None


def _notes(page: Any) -> tuple[str, ...]:
    if says_so_always(page):
        return ("its tag says WhiteIsZero, as tifffile writes for every array of bool: values are read as stored",)
    return ("its tag says WhiteIsZero: values are read inverted, as viewers show them",) if white_is_zero(page) else ()


def _height_width(page: Any) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)
