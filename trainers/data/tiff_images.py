"""Which images a TIFF file holds: the pages of each, and the axes along which they lie, by all that names them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import tifffile

from search_spaces.errors import InputError
from trainers.data.tiff_ome import of_this_file, pixels_of

# Descriptions whose axes tifffile knows; all other files are pages without names.
_DESCRIBED = ("shaped", "ome", "imagej", "lsm", "fluoview", "stk", "sis", "scanimage")
_REDUCED_OR_MASK = 0b101  # of the tag NewSubfileType: thumbnails, pyramids, transparency
_UNNAMED = "I"
UNNAMED_LETTERS = "IQ"  # tifffile's letters for pages of which nothing is said
_IMAGEJ_AXES = ("channels", "slices", "frames")


@dataclass(frozen=True)
class Image:
    """One image of a TIFF file.

    letters: tifffile's, one for each axis, those of a page (Y and X in any order) last; lengths: of the axes. pages:
    numbers of its pages in the file. start: where its voxels begin, if they are one run, which may have one page only.
    pixels: what OME-XML says of it. notes: what was assumed.
    """

    letters: str
    lengths: tuple[int, ...]
    pages: tuple[int, ...]
    start: int | None = None
    pixels: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    notes: tuple[str, ...] = ()


def images_of(path: Path, tif: Any, told: bool) -> list[Image]:
    """The images of a file. told: a person says what its axes are, which counts more than a description.

    Raises InputError for a description that does not fit the pages, unless the axes are told.
    """
    pages = len(tif.pages)
    if told and are_slices_as_colours(tif):
        return [_of_planes(path, tif)]
    if not any(getattr(tif, f"is_{kind}") for kind in _DESCRIBED):
        if tif.pages.first.is_micromanager and pages > 1 and not told:
            raise InputError(
                f"{path}: its axes are described in files of Micro-Manager beside it, which are not read; write it as "
                'OME-TIFF, or say axes = "ZYX" in dataset.toml if its pages are slices'
            )
        return [_plain(path, tif)]
    try:
        stated, pixels = _check_described(path, tif, pages)
        found = [_of_series(path, tif, series) for series in _series(path, tif)]
        if pixels and len(found) != len(pixels):
            raise InputError(f"{path}: its OME-XML describes other images than its pages hold")
    except InputError as error:
        if not told:
            way = f', or say axes = "ZYX" in dataset.toml to read its {pages} pages as slices' if pages > 1 else ""
            raise InputError(f"{error}{way}") from None
        return [_plain(path, tif)]
    if pixels:
        found = [replace(image, pixels=said) for image, said in zip(found, pixels, strict=True)]
    if stated is not None and stated < pages:
        note = f"its OME-XML describes {stated} of its {pages} pages; the others are not read"
        found = [replace(image, notes=(note,)) for image in found]
    return _joined(found, told)


def are_slices_as_colours(tif: Any) -> bool:
    """Whether the planes of the only page may be slices: tifffile by itself takes 3 or 4 of them for colours."""
    page = tif.pages.first
    separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
    return bool(len(tif.pages) == 1 and separate and page.is_shaped and "axes" not in page.shaped_description)


def planes_in_one_page(tif: Any) -> int:
    """How many planes follow the header of a file's only page: ImageJ and tifffile write large stacks like that.

    One where the file is too short for them: a slice that was cut out of a stack keeps the description of that.
    """
    planes = _stated_planes(tif)
    return planes if planes > 1 and _follow(tif, planes) else 1


def _check_described(path: Path, tif: Any, pages: int) -> tuple[int | None, list[Mapping[str, str]]]:
    """Hold what a description states against the file; what OME-XML says of planes and images, if there is any."""
    planes = _stated_planes(tif)
    if tif.is_ome and not tif.is_shaped:
        tif._omexml, stated = of_this_file(path, tif.ome_metadata, pages)
        return stated, pixels_of(tif._omexml)
    # Programs that write shaped files state each image of a file by itself, so there may be more pages.
    if (planes > pages and not (pages == 1 and _follow(tif, planes))) or (tif.is_imagej and 1 < planes < pages):
        raise InputError(
            f"{path}: its description states {planes} slices, but the file has {pages} page{'s' if pages > 1 else ''}"
        )
    return None, []


def _stated_planes(tif: Any) -> int:
    """How many pages the descriptions of ImageJ and tifffile state; 1 if there is none."""
    page = tif.pages.first
    if page.is_shaped:
        shape = tifffile.tifffile.shaped_description_metadata(page.shaped_description)["shape"]
        return int(prod(shape) // max(1, page.size))
    if not page.is_imagej:
        return 1
    said = tif.imagej_metadata
    if prod(int(said.get(axis, 1)) for axis in _IMAGEJ_AXES) == 1 and int(said.get("images", 1)) > 1:
        said["slices"] = int(said["images"])  # old versions state nothing else, which tifffile does not believe
    planes = prod(int(said.get(axis, 1)) for axis in _IMAGEJ_AXES)
    # Colours of a page may be counted as channels.
    return planes // page.samplesperpixel if said.get("channels", 1) == page.samplesperpixel else planes


def _follow(tif: Any, planes: int) -> bool:
    """Whether so many planes lie behind each other in the file, from the first page on."""
    page = tif.pages.first
    return bool(page.is_final and page.dataoffsets[0] + planes * page.nbytes <= tif.filehandle.size)


def _series(path: Path, tif: Any) -> Sequence[Any]:
    try:
        series: Sequence[Any] = tif.series
    except RuntimeError as error:
        if "keyframe" not in str(error):
            raise
        raise InputError(f"{path}: its pages are cut into strips or tiles in different ways") from error
    if tif.is_ome and any(one.kind != "ome" for one in series):
        raise InputError(f"{path}: its OME-XML describes other pages than there are")
    return series


def _of_planes(path: Path, tif: Any) -> Image:
    """The planes of colours in the only page, as slices."""
    page = tif.pages.first
    if not page.is_contiguous:
        raise InputError(f'{path}: its slices are compressed as colours; write it again with photometric="minisblack"')
    letters, lengths = _of_page(path, page)
    return Image(_UNNAMED + letters, (page.samplesperpixel, *lengths), (0,), start=page.dataoffsets[0])


def _plain(path: Path, tif: Any) -> Image:
    """All pages, without a name for the axis along which they lie; each is read by its own header."""
    tif.pages.cache = tif.pages.useframes = False  # forgets what was read by the header of another
    tif.pages.cache = True
    kinds = [int(page.subfiletype) & _REDUCED_OR_MASK for page in tif.pages]
    pages = tuple(number for number, kind in enumerate(kinds) if not kind) or tuple(range(len(kinds)))
    left_out = len(kinds) - len(pages)
    notes = (f"{left_out} of its pages are thumbnails or masks by their tags, and are not read",) if left_out else ()
    letters, lengths = _of_page(path, tif.pages[pages[0]])
    return Image(_UNNAMED + letters, (len(pages), *lengths), pages, notes=notes)


def _of_series(path: Path, tif: Any, series: Any) -> Image:
    page = series.keyframe
    _of_page(path, page)
    leading = len(series.shape) - len(page.shape)
    if leading < 0 or tuple(series.shape[leading:]) != tuple(page.shape):
        raise InputError(f"{path}: its pages have the axes {page.axes}; a slice has y and x")
    # Colours are read with every page.
    kept = [*range(leading), *(leading + place for place, letter in enumerate(page.axes) if letter in "YX")]
    listed = [page] if series.is_truncated else list(series)
    if None in listed:
        raise InputError(
            f"{path}: its description names no page for plane {listed.index(None)} of {len(listed)}, counted from 0; "
            "write it again as a whole"
        )
    if any(one.parent is not tif for one in listed):
        raise InputError(f"{path}: some of its pages lie in other files; write the volume into one file")
    return Image(
        "".join(series.axes[place] for place in kept),
        tuple(int(series.shape[place]) for place in kept),
        tuple(one.index for one in listed),
        series.dataoffset if page.samplesperpixel == 1 else None,
        name=series.name,
    )


def _of_page(path: Path, page: Any) -> tuple[str, tuple[int, int]]:
    """The axes of a page without its colours, and their lengths."""
    letters = "".join(letter for letter in page.axes if letter != "S")
    if letters != "YX":
        raise InputError(f"{path}: its pages have the axes {page.axes}; a slice has y and x")
    return letters, (int(page.imagelength), int(page.imagewidth))


def _joined(found: list[Image], told: bool) -> list[Image]:
    """Images of one page each are the slices of one, if only their order tells them apart, or a person says so."""
    first = found[0]
    single = all(prod(one.lengths[:-2]) == 1 for one in found)
    alike = len({(one.letters[-2:], one.lengths[-2:]) for one in found}) == 1
    nameless = not any(one.name or one.pixels or set(one.letters) - set(UNNAMED_LETTERS + "YX") for one in found)
    if len(found) == 1 or not (single and alike and (nameless or told)):
        return found
    note = f"it holds {len(found)} images of one page without names; read as slices"
    pages = tuple(chain.from_iterable(one.pages for one in found))
    joined = Image(_UNNAMED + first.letters[-2:], (len(found), *first.lengths[-2:]), pages, pixels=first.pixels)
    return [replace(joined, notes=(note,) if nameless else ())]
