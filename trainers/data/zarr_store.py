"""Zarr 2 and 3, and OME-Zarr (finest level) on disk: read by the names of axes, by codecs that only unpack numbers."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.data.axes import KNOWN, UNNAMED, Axes, Pick, axis_name, find_axes, find_position
from trainers.data.geometry import Geometry, Spacing, Vector
from trainers.data.npy import UNSTATED
from trainers.data.slices import CHUNK_BLOCK_BYTES, ReadBlock, Slices, decoding, depth_within, native
from trainers.data.units import micrometres
from trainers.data.zarr_chunks import chunk_notes, chunks_at_once

_KIND = "Zarr"
_ARRAY_2, _GROUP_2, _ATTRIBUTES_2, _NODE_3 = ".zarray", ".zgroup", ".zattrs", "zarr.json"
_WORLD = "OME-Zarr"
_LARGEST_JSON = 2**26  # bytes; consolidated, thousands of arrays fit
_FIRST_AXES = ("time", "channel", "z", "y", "x")  # of OME-Zarr 0.1 and 0.2, which do not name them

# Codecs by name, because others of the libraries run what a store contains (pickle), or read elsewhere.
_CODECS = {
    "blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd",
    "adler32", "crc32", "crc32c", "fletcher32",
    "bitround", "delta", "fixedscaleoffset", "packbits", "quantize", "shuffle",
    "bytes", "transpose", "sharding_indexed",
}  # fmt: skip
_NUMBERS_2 = re.compile(r"[<>|][buif]\d{1,2}")
_NUMBERS_3 = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")


@dataclass(frozen=True)
class ZarrArray(Slices):
    """A Zarr array; array_path: its path in the store. at_once: how many chunks may be unpacked at a time."""

    axes: Axes = field(kw_only=True)
    array_path: str = ""
    chunk_depth: int = 1
    at_once: int = 1

    @property
    def choice(self) -> str:
        """See Slices."""
        return f"{self.array_path} {self.axes}"

    @property
    def block_depth(self) -> int:
        """As deep as the chunks, because a chunk is decoded whole."""
        most = depth_within(self.shape, self.dtype, CHUNK_BLOCK_BYTES)
        chunks = max(1, super().block_depth // self.chunk_depth)
        return min(most, self.chunk_depth * chunks)

    @contextmanager
    def _opened(self) -> Iterator[ReadBlock]:
        # Zarr decodes the chunks of a block in its own threads.
        with decoding(self.path, _KIND):
            array = _open_array(self.path, self.array_path)
        bound = {"async.concurrency": min(self.at_once, zarr.config.get("async.concurrency"))}

        def read(start: int, stop: int) -> NDArray[Any]:
            with decoding(self.path, f"Zarr in slices {start} to {stop - 1}"), zarr.config.set(bound):
                return self.axes.arranged(np.asarray(array[self.axes.index(start, stop)]))

        yield read


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).is_file() for name in (_NODE_3, _ARRAY_2, _GROUP_2))


def label_images(path: Path, position: int | None = None) -> list[Path]:
    """The label images inside an OME-Zarr image (its group `labels`), by name.

    Of a store by bioformats2raw with several images: those of the image at that position, none if it is not known.
    """
    with decoding(path, _KIND):
        images = [path] if is_zarr(path / "labels") else _images_of(path)
        if len(images) > 1:
            images = [] if position is None else images[position : position + 1]
        found = []
        for group in (image / "labels" for image in images):
            names = _attributes(group).get("labels", []) if is_zarr(group) else []
            named = [group / name for name in sorted(map(str, names))]
            found += [one for one in named if one.parent == group and one.name != ".." and is_zarr(one)]
        return found


def open_zarr(path: Path, pick: Pick) -> ZarrArray:
    """The array in a store, or the finest level of its OME-Zarr image.

    Raises InputError for one that is not a volume of numbers, and for codecs that are not known to only unpack numbers.
    """
    with decoding(path, _KIND):
        image = _image(path, pick)
        files = _files(path, image.inside)
        array = _open_array(path, image.inside)
        names, stated, notes = _axis_names(path, image, array.ndim)
        wanted = pick.without("position") if image.is_one_of_several else pick
        axes = find_axes(path, names, array.shape, wanted, stated)
        spacing, origin, strange = _place(image, axes)
        # A shard contains many chunks and is opened once for all of them, so it sets the depth if there is one.
        chunks = array.shards or array.chunks
        dtype = native(array.dtype)
        notes += chunk_notes(path / image.inside, array, files, mostly_empty=pick.where_it_fits)
        at_once = chunks_at_once(path, array, files, prod(axes.shape) * dtype.itemsize)
    depth = axes.shape[0]
    directions = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)) if origin is not None else None
    geometry = Geometry(axes.shape, tuple(range(depth)), False, spacing, _WORLD, directions, origin)
    chunk_depth = 1 if axes.depth is None else min(int(chunks[axes.depth]), depth)
    return ZarrArray(
        path, geometry, dtype, files, notes=image.notes + notes + strange, axes=axes, array_path=image.inside,
        chunk_depth=chunk_depth, at_once=at_once,
    )  # fmt: skip


def _files(path: Path, inside: str) -> tuple[Path, ...]:
    """All files of an array, which all lie in its store; opening a pipe among them would wait forever."""
    folder, root = path / inside, path.resolve()
    if not folder.resolve().is_relative_to(root):
        raise InputError(f"{path}: its level 0 lies outside, at {inside!r}")
    found = []
    for entry in sorted(folder.rglob("*")):
        if entry.is_symlink() and (entry.is_dir() or not entry.resolve().is_relative_to(root)):
            raise InputError(
                f"{entry}: a link that leads out of its store or to a folder; put the files themselves there"
            )
        if entry.is_file():
            found.append(entry)
        elif not entry.is_dir():
            raise InputError(f"{entry}: is neither a file nor a folder, as all of a Zarr store must be")
    return tuple(found)


def ome_attributes(geometry: Geometry) -> dict[str, Any]:
    """The description of an image of one level, `0`, on these voxels (https://ngff.openmicroscopy.org/0.5/).

    Where the spacing is not known the axes have no unit, and the scale, which a description must have, is 1.
    """
    axes: list[dict[str, Any]] = [{"name": name, "type": "space"} for name in "zyx"]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    if geometry.spacing_um is not None:
        axes = [{**axis, "unit": "micrometer"} for axis in axes]
        steps = [{"type": "scale", "scale": list(geometry.spacing_um)}]
        if geometry.world == _WORLD and geometry.origin_um is not None:
            steps.append({"type": "translation", "translation": list(geometry.origin_um)})
    datasets = [{"path": "0", "coordinateTransformations": steps}]
    return {"version": "0.5", "multiscales": [{"name": "mask", "axes": axes, "datasets": datasets}]}


def _open_array(path: Path, inside: str) -> Any:
    """The array, after its description was read here and holds nothing but numbers and codecs for them."""
    folder = path / inside
    version_3, described = (folder / _NODE_3).is_file(), _described(folder)
    if version_3:
        numbers = isinstance(described["data_type"], str) and _NUMBERS_3.fullmatch(described["data_type"])
        codecs = list(_codecs_3(described["codecs"]))
        if described.get("storage_transformers"):
            raise InputError(f"{path}: has storage transformers, which are not read")
        dtype = described["data_type"]
    else:
        numbers = isinstance(described["dtype"], str) and _NUMBERS_2.fullmatch(described["dtype"])
        codecs = [c["id"] for c in (described["compressor"], *(described["filters"] or ())) if c]
        dtype = described["dtype"]
    if not numbers:
        raise InputError(f"{path}: values of type {str(dtype)[:80]} are not grey values; write them as uint16")
    for codec in codecs:
        if str(codec).removeprefix("numcodecs.") not in _CODECS:
            raise InputError(
                f"{path}: the codec {str(codec)[:80]!r} is not read; known are {', '.join(sorted(_CODECS))}"
            )
    return zarr.open_array(folder, mode="r", zarr_format=3 if version_3 else 2)


def _codecs_3(codecs: list[dict[str, Any]]) -> Iterator[str]:
    """The names of all codecs, those inside a shard included."""
    for codec in codecs:
        yield codec["name"]
        for inner in ("codecs", "index_codecs"):
            yield from _codecs_3((codec.get("configuration") or {}).get(inner, []))


@dataclass(frozen=True)
class _Image:
    """The array to read, by its path inside the store, and what OME-Zarr says about it.

    axes: as described, None if they are not. levels: whose transformations count, one after the other. notes: what is
    to be said of the choice.
    """

    inside: str
    axes: tuple[dict[str, Any], ...] | None = None
    levels: tuple[dict[str, Any], ...] = ()
    is_one_of_several: bool = False
    notes: tuple[str, ...] = ()


def _image(path: Path, pick: Pick) -> _Image:
    """The image in a store: the array itself, the finest level of an OME-Zarr image, or the only volume of a group."""
    if _is_array(path):
        return _Image("")
    attributes = _attributes(path)
    if "bioformats2raw.layout" in attributes:
        images = _images_of(path)
        chosen = images[find_position(path, len(images), pick)]
        found = _image(chosen, pick.without("position"))
        return replace(found, inside=f"{chosen.name}/{found.inside}", is_one_of_several=True)
    if "multiscales" not in attributes:
        arrays = sorted(folder for folder in path.iterdir() if folder.is_dir() and _is_array(folder))
        # Beside its array xarray writes others of one axis each: the places of the voxels along it.
        inner = [one.name for one in arrays if len(_described(one)["shape"]) > 2] or [one.name for one in arrays]
        if len(inner) != 1:
            raise InputError(
                f"{path}: a Zarr group of {len(inner)} arrays without OME metadata; move the one to read out of it"
            )
        return _Image(inner[0])
    images = attributes["multiscales"]
    scales = images[find_position(path, len(images), pick) if len(images) > 1 else 0]
    first, notes = _finest(path, scales["datasets"])
    inside = str(first["path"])
    described, levels = scales.get("axes"), [first, scales]
    if "coordinateSystems" in scales:  # since 0.6, where the steps of all levels lead to other systems
        system = first["coordinateTransformations"][0]["output"]["name"]
        described = next(one["axes"] for one in scales["coordinateSystems"] if one["name"] == system)
        levels = [first]
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in described or ()]
    return _Image(inside, tuple(axes) or None, tuple(levels), len(images) > 1, notes)


def _finest(path: Path, levels: list[dict[str, Any]]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The level of most voxels, which should be the first, and what is to be said if it is not."""

    def voxels(level: dict[str, Any]) -> int:
        folder = path / str(level["path"])
        there = folder.resolve().is_relative_to(path.resolve()) and _is_array(folder)
        return prod(_described(folder)["shape"]) if there else 0

    first, finest = levels[0], max(levels, key=voxels)
    if not voxels(first) or finest is first:  # one that is not there is refused where it is opened
        return first, ()
    return finest, (f"its levels are not listed from fine to coarse: {str(finest['path'])!r} is the finest, and read",)


def _images_of(path: Path) -> list[Path]:
    """The groups of a store by bioformats2raw that have a number for a name, each of them an image, in their order."""
    numbered = {int(one.name): one for one in path.iterdir() if one.name.isdecimal() and is_zarr(one)}
    return [numbered[number] for number in sorted(numbered)]


def _axis_names(path: Path, image: _Image, count: int) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    """The names of an array's axes, whether the store states them, and what was assumed.

    Where none of the names that are given is known, the last three axes are those of an array that gives none.
    """
    own = _dimension_names(path / image.inside)
    given = own
    if image.axes is not None:
        given = tuple(_ome_name(axis) for axis in image.axes)
        if given != own and own and KNOWN.issuperset((*own, *given)):
            raise InputError(
                f"{path}: its OME axes are {', '.join(given)}, but the array names them {', '.join(own)}; write the "
                "right ones into both"
            )
    elif image.levels and not own:
        given = _FIRST_AXES[-count:]
    if KNOWN.intersection(given):
        return given, True, ()
    strange = ", ".join(name or "?" for name in given)
    note = f"the names of its axes ({strange}) are not known here: the last three are taken as z, y, x"
    return (UNNAMED,) * (count - len(UNSTATED)) + UNSTATED, False, (note,) if any(given) else ()


def _ome_name(axis: dict[str, Any]) -> str:
    kind = axis.get("type")
    return kind if kind in ("time", "channel") else axis_name(axis["name"])


def _dimension_names(folder: Path) -> tuple[str, ...]:
    """The names that the array itself gives its axes."""
    described = _json(folder / _NODE_3) if (folder / _NODE_3).is_file() else {}
    given = described.get("dimension_names") or _attributes(folder).get("_ARRAY_DIMENSIONS")  # the latter by xarray
    return tuple(axis_name(name) for name in given or ())


def _place(image: _Image, axes: Axes) -> tuple[Spacing | None, Vector | None, tuple[str, ...]]:
    """Voxel spacing, first voxel, and notes, from the transformations of the level and then of all levels."""
    if image.axes is None or axes.depth is None or len(image.axes) != len(axes.taken):
        return None, None, ()
    scale, moved, stated = [1.0] * len(image.axes), [0.0] * len(image.axes), False
    for step in (step for level in image.levels for step in _steps(level.get("coordinateTransformations") or ())):
        kind = step.get("type")
        if kind == "identity":
            continue
        if kind not in ("scale", "translation") or kind not in step:
            return None, None, (f"its transformation {kind!r} is not read, so the voxel spacing is not known",)
        numbers = [float(number) for number in step[kind]]
        if len(numbers) != len(scale):
            note = f"its {kind} has {len(numbers)} numbers for {len(scale)} axes, so the voxel spacing is not known"
            return None, None, (note,)
        if kind == "translation":
            moved = [own + more for own, more in zip(moved, numbers, strict=True)]
        else:
            scale = [own * factor for own, factor in zip(scale, numbers, strict=True)]
            moved = [own * factor for own, factor in zip(moved, numbers, strict=True)]
            stated = True
    if not stated:
        return None, None, ()
    places = (axes.depth, axes.height, axes.width)
    units = [image.axes[place].get("unit") for place in places]
    known = [micrometres(unit) for unit in units]
    if None in known:
        strange = next((unit for unit, um in zip(units, known, strict=True) if unit and um is None), None)
        return None, None, (f"the unit {strange!r} of its axes is not a known unit of length",) if strange else ()
    z, y, x = ((scale[place] * (um or 1), moved[place] * (um or 1)) for place, um in zip(places, known, strict=True))
    return (z[0], y[0], x[0]), (z[1], y[1], x[1]), ()


def _steps(transformations: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for one in transformations:
        if one.get("type") == "sequence":
            yield from _steps(one["transformations"])
        else:
            yield one


def _described(array: Path) -> dict[str, Any]:
    return _json(array / (_NODE_3 if (array / _NODE_3).is_file() else _ARRAY_2))


def _is_array(folder: Path) -> bool:
    if (folder / _NODE_3).is_file():
        return bool(_json(folder / _NODE_3).get("node_type") == "array")
    return (folder / _ARRAY_2).is_file()


def _attributes(folder: Path) -> dict[str, Any]:
    """The attributes of a group or an array; those of OME-Zarr 0.5 lie one level deeper."""
    if (folder / _NODE_3).is_file():
        attributes = _json(folder / _NODE_3).get("attributes") or {}
    else:
        attributes = _json(folder / _ATTRIBUTES_2) if (folder / _ATTRIBUTES_2).is_file() else {}
    found: dict[str, Any] = attributes.get("ome", attributes)
    return found


def _json(path: Path) -> dict[str, Any]:
    if (size := path.stat().st_size) > _LARGEST_JSON:
        raise InputError(f"{path}: it has {size:,} bytes, and {_LARGEST_JSON:,} are read at most")
    described: dict[str, Any] = json.loads(path.read_bytes())
    return described
