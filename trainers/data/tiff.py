"""TIFF: a folder of numbered slices, or one file of many pages."""

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.axes import LETTERS, UNNAMED, Axes, Pick, find_axes
from trainers.data.geometry import spacing_text
from trainers.data.slices import ReadBlock, Slices, decoding, native
from trainers.data.tiff_images import UNNAMED_LETTERS, Image, are_slices_as_colours, images_of, planes_in_one_page
from trainers.data.tiff_ome import check_order, first_pixels_of
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
    white_value,
)
from trainers.data.tiff_place import differ, geometry_of, orientation, spacing_of

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8")  # the last three of BigTIFF


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
            spacing = None if self.geometry.stated_um else spacing_of(tif, page, _pixels(tif)).spacing_um
            if spacing and (self.spacing_um is None or differ(spacing, self.spacing_um)):
                known = f"has voxels of {spacing_text(self.spacing_um)} µm" if self.spacing_um else "states no spacing"
                raise InputError(
                    f"{path}: its voxels are {spacing_text(spacing)} µm, but {first} {known}; all slices of a volume "
                    "must be alike, or voxel_spacing_um in dataset.toml says what counts"
                )
            decode(tif, page, page, path, into)

    @property
    def choice(self) -> str:
        """See Slices. Slices that were read because a person stated their spacing are others without the statement."""
        return f"{super().choice}{' of one spacing' if self.spacing_um and self.geometry.stated_um is None else ''}"

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
    """One TIFF file whose pages are the slices. image: which of the file, by its number there; axes: of that image."""

    axes: Axes = field(kw_only=True)
    image: Image = field(kw_only=True)
    number: int = 0

    @property
    def choice(self) -> str:
        """See Slices."""
        return f"{self.number} {self.axes} {super().choice}"

    @contextmanager
    def _opened(self) -> Iterator[ReadBlock]:
        with opened(self.path) as tif:

            def read(start: int, stop: int) -> NDArray[Any]:
                with decoding(self.path, KIND):
                    return self._read(tif, self.axes.index(start, stop), stop - start)

            yield read

    def _read(self, tif: Any, index: tuple[int | slice, ...], slices: int) -> NDArray[Any]:
        first = tif.pages[self.image.pages[0]].aspage()
        if self.image.start is not None:
            # ImageJ writes large stacks as one page followed by one run of voxels.
            dtype = np.dtype(first.dtype).newbyteorder(tif.byteorder)
            run = np.memmap(self.path, dtype, "r", self.image.start, self.image.lengths)
            block = self.axes.arranged(np.array(run[index]))
            return inverted(first, block) if white_is_zero(first) else block
        sample_axis = (self.samples,) if self.samples > 1 else ()
        block = np.empty((slices, *self.image.lengths[-2:], *sample_axis), self.dtype)
        pages = np.array(self.image.pages).reshape(self.image.lengths[:-2])[index[:-2]]
        for into, number in zip(block, np.atleast_1d(pages), strict=True):
            decode(tif, tif.pages[int(number)].aspage(), first, self.path, into)
        return block if self.axes.height < self.axes.width else block.swapaxes(1, 2)


def open_folder(folder: Path, pick: Pick) -> TiffFolder:
    """The slices in a folder, ordered by number. Raises InputError for gaps, duplicates and an empty folder."""
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in TIFF_SUFFIXES or path.name.startswith("."):
            continue
        number = re.search(r"(\d+)$", re.sub(r"\.ome$", "", path.stem, flags=re.IGNORECASE))
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
        if tif.is_ome:
            check_order(tif.ome_metadata, files)
        geometry, notes = geometry_of(tif, page, (len(files), *_height_width(page)), _pixels(tif), numbers)
        dtype, samples = native(page.dtype), int(page.samplesperpixel)
        notes += _notes(page)
        turned, white = orientation(page), white_value(page)
    return TiffFolder(folder, geometry, dtype, files, samples, _sample(folder, samples, pick), notes, white, turned)


def open_pages(path: Path, pick: Pick) -> TiffPages:
    """A multi-page file as a stack; raises InputError if its pages differ, or are more than one volume."""
    with opened(path) as tif, decoding(path, KIND):
        tif.pages.cache = True  # each is looked at twice
        images = images_of(path, tif, told=pick.names is not None and not pick.where_it_fits)
        number = _which(path, images, pick)
        image = images[number]
        page = tif.pages[image.pages[0]].aspage()
        check_header(page, path, tif.filehandle.size)
        unlike = check_alike(tif, image.pages, path)
        names = [UNNAMED if letter in UNNAMED_LETTERS else LETTERS.get(letter, letter) for letter in image.letters]
        # Colours are read with every page, and images of their own are positions.
        handled = [name for name in ("sample", "position") if name not in names]
        axes = find_axes(path, names, image.lengths, pick.without(*handled))
        leading = len(image.lengths) - 2
        if image.start is None and {axes.height, axes.width} != {leading, leading + 1}:
            raise InputError(
                f"{path}: z lies within each of its pages, as the file or dataset.toml names the axes; write it again "
                "with pages of y and x"
            )
        if image.start is not None and image.start + prod(image.lengths) * page.dtype.itemsize > tif.filehandle.size:
            raise InputError(f"{path}: truncated: its header states {axes.shape[0]} slices, but the file ends earlier")
        geometry, notes = geometry_of(tif, page, axes.shape, image.pixels)
        if (axes.height, axes.width) != (leading, leading + 1):
            # What is stated of rows and columns is not stated of y and x.
            geometry = replace(geometry, directions=None)
            if not image.pixels and len(set(geometry.spacing_um or ())) > 1:
                geometry = replace(geometry, spacing_um=None)
                notes = (*notes, "its spacing is that of pages of other axes than y and x, and not taken")
        # Planes that follow each other are not colours.
        dtype, samples = native(page.dtype), int(page.samplesperpixel) if image.start is None else 1
        if samples > 1 and are_slices_as_colours(tif) and pick.entry("sample", samples) is None:
            raise InputError(
                f"{path}: its {samples} planes are colours by its tag, as tifffile writes for {samples} slices without "
                'photometric="minisblack": say axes = "ZYX" in dataset.toml if they are slices, or else sample = 0'
            )
        notes, white = (*notes, *unlike, *image.notes, *_notes(page)), white_value(page)
    sample = _sample(path, samples, pick) if "sample" in handled else None
    return TiffPages(
        path, geometry, dtype, (path,), samples, sample, notes, white, axes=axes, image=image, number=number
    )


def is_slice(path: Path) -> bool:
    """Whether a file holds one page, with one plane. Raises InputError for a file that cannot be judged."""
    with opened(path) as tif, decoding(path, KIND):
        return len(tif.pages) == 1 and planes_in_one_page(tif) == 1


def _which(path: Path, images: list[Image], pick: Pick) -> int:
    """Which image of a file is read: the only one, or of several (positions) the one that was picked."""
    if len(images) == 1 and "P" in images[0].letters:
        return 0
    if len(images) == 1:
        replace(pick, entries={"position": pick.entries.get("position", 0)}).check_used(path, ())
        return 0
    wanted = pick.entry("position", len(images))
    if wanted is None:
        shapes = ", ".join(" x ".join(map(str, image.lengths)) for image in images[:3])
        more = ", ..." if len(images) > 3 else ""
        slices = ', or axes = "ZYX" if they are slices' if all(len(image.pages) == 1 for image in images) else ""
        raise InputError(
            f"{path}: holds {len(images)} images ({shapes}{more}), and a volume has one position: say position = 0 of "
            f"it in dataset.toml to read the first{slices}"
        )
    if wanted >= len(images):
        raise InputError(
            f"{path}: position = {wanted} of dataset.toml is not there; it has {len(images)}, counted from 0"
        )
    return wanted


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


def _pixels(tif: Any) -> Mapping[str, str]:
    """What OME-XML says of the only page of a file; its first image, if it tells of several files."""
    return first_pixels_of(tif.ome_metadata) if tif.is_ome else {}


def _height_width(page: Any) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)
