"""Convert a volume slice by slice into a folder of plain arrays; a killed conversion continues where it stopped."""

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt, ValidationError

from search_spaces.errors import InputError
from trainers.atomic import whole_file, write_atomically
from trainers.data.greys import (
    Scaling,
    ValueRange,
    VesselValue,
    meaning,
    needs_scaling,
    one_channel,
    range_of,
    to_grey,
    to_levels,
    to_mask,
    what_is_changed,
)
from trainers.data.place import VolumeSource
from trainers.data.slices import CHUNK_BLOCK_BYTES, ReadBlock, Slices, depth_within
from trainers.data.soft_labels import is_vessel
from trainers.data.statistics import BlockMeasures, RunningMeasures, levels_between, measure
from trainers.data.volume import HIGH_PERCENTILE, LOW_PERCENTILE
from trainers.machine import available_cores
from trainers.report import SILENT, Report

IMAGE, LABEL, VESSELS, STATISTICS = "image.npy", "label.npy", "vessels.npy", "statistics.json"
_PROGRESS = "progress.json"
# A kill loses at most this much work; everything recorded as done is on disk.
CHECKPOINT_SECONDS = 0.5
# Of values that were spread over 16 bits, between the two percentiles that set the contrast.
FEWEST_LEVELS = 32
_Result = TypeVar("_Result")

_THREADS = min(4, available_cores())


class Progress(BaseModel, frozen=True, extra="forbid"):
    """How much of a conversion is done."""

    slices: NonNegativeInt = 0
    scaling: Scaling | None = None
    vessel: VesselValue | None = None  # in the labels of these slices


def convert(source: VolumeSource, folder: Path, report: Report = SILENT) -> None:
    """Write image.npy, label.npy, vessels.npy and statistics.json of a volume into a folder, all synced to disk.

    The folder then holds nothing else. Before, it may contain the partial results of a killed conversion of the same
    source. Raises InputError for voxels that cannot be read or used, OSError for a folder that cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    depth = source.shape[0]
    progress = read_progress(source, folder)
    scaled = needs_scaling(source.image)
    passes = 2 if scaled else 1

    def advance(done: int) -> None:
        report.progress(f"converting {source.name}", done, passes * depth)

    if scaled and progress.scaling is None:
        progress = Progress(scaling=_scan_range(source, advance))
        _record(folder, progress, [])
    notes = what_is_changed(source.image, progress.scaling)
    for note in notes:
        report.note(f"{source.name}: {note}")
    running = RunningMeasures(source.shape)
    before = (passes - 1) * depth
    with ExitStack() as open_files:
        image_file = open_files.enter_context(_array_file(folder / IMAGE, np.uint16, source.shape, progress.slices))
        label_file = None
        if source.label is not None:
            label_file = open_files.enter_context(_array_file(folder / LABEL, np.uint8, source.shape, progress.slices))
        files = [file for file in (image_file, label_file) if file is not None]
        _measure_again(source, folder, progress.slices, running)
        recorder, recording, recorded = open_files.enter_context(ThreadPoolExecutor(1)), None, time.monotonic()
        for done, measures, found in _blocks(source, progress, image_file, label_file):
            # In the order of the slices, whichever thread was first.
            vessel = found if progress.vessel is None else progress.vessel.agreed(found)
            progress = progress.model_copy(update={"slices": done, "vessel": vessel})
            running.add(measures)
            if time.monotonic() - recorded > CHECKPOINT_SECONDS and (recording is None or recording.done()):
                if recording is not None:
                    recording.result()  # a full disk may raise its error only here
                # In parallel to the conversion, which continues while the disk writes.
                recording = recorder.submit(_record, folder, progress, files)
                recorded = time.monotonic()
            advance(before + done)
        if recording is not None:
            recording.result()
        _record(folder, progress, files)
    with whole_file(folder / VESSELS) as file:
        np.save(file, running.vessel_voxels(), allow_pickle=False)
    statistics = running.statistics(source.label is not None, notes, meaning(source.dtype, progress.scaling))
    levels = _levels(source, progress.scaling, running.histogram)
    if scaled and levels < FEWEST_LEVELS and _has_more_values(source, int(np.count_nonzero(running.histogram))):
        raise InputError(
            f"{source.image.path}: {HIGH_PERCENTILE - LOW_PERCENTILE:g} % of its voxels, without what it is padded "
            f"with, would have {levels} of 65,536 grey levels, and {FEWEST_LEVELS} are needed; remove what lies far "
            "from all other values, or write it as uint16"
        )
    write_atomically(folder / STATISTICS, statistics.model_dump_json(indent=1))
    for other in folder.iterdir():  # the progress, and what killed conversions were writing under temporary names
        if other.name not in (IMAGE, LABEL, VESSELS, STATISTICS):
            other.unlink()


def needed_bytes(source: VolumeSource) -> int:
    """The disk space that a converted volume needs, plus a small margin."""
    voxels = int(np.prod(source.shape, dtype=np.int64))
    return voxels * (2 if source.label is None else 3) + 16 * 2**20


def read_progress(source: VolumeSource, folder: Path) -> Progress:
    """The progress of an earlier conversion; none if its files are shorter than recorded."""
    try:
        progress = Progress.model_validate_json((folder / _PROGRESS).read_bytes())
        if not progress.slices:
            return progress
        lengths = [(IMAGE, np.uint16)] if source.label is None else [(IMAGE, np.uint16), (LABEL, np.uint8)]
        whole = all(
            (folder / name).stat().st_size >= _end(dtype, source.shape, progress.slices) for name, dtype in lengths
        )
    except (OSError, ValidationError):
        return Progress()
    return progress if whole and progress.slices <= source.shape[0] else Progress(scaling=progress.scaling)


def _blocks(
    source: VolumeSource, progress: Progress, image_file: FileIO, label_file: FileIO | None
) -> Iterator[tuple[int, BlockMeasures, VesselValue | None]]:
    """Read, convert, write and measure the rest of the volume.

    Yields the slices done, the measures, and the value of vessel in the labels of the block, in order.

    One thread takes each block through all steps while it is in the processor's cache.
    """
    image, label = source.image, source.label
    with ExitStack() as stacks:
        read_image = stacks.enter_context(image.reading())
        read_label = None if label is None else stacks.enter_context(label.reading())

        def convert_block(start: int, stop: int) -> tuple[int, BlockMeasures, VesselValue | None]:
            grey = to_grey(
                _read(read_image, image, start, stop), progress.scaling, lambda z: image.slice_name(start + z)
            )
            _write(image_file, grey.data, _end(np.uint16, source.shape, start))
            mask, vessel = None, None
            if label is not None and read_label is not None and label_file is not None:
                # A second name, because mypy forgets inside the lambda that the label is not None.
                name_of = label.slice_name
                block = _read(read_label, label, start, stop)
                if source.soft is None:
                    mask, vessel = to_mask(block, lambda z: name_of(start + z), label.white)
                else:
                    mask = to_levels(block, lambda z: name_of(start + z))
                _write(label_file, mask.data, _end(np.uint8, source.shape, start))
            return stop, _measured(source, grey, mask, start), vessel

        parallel = image.parallel and (label is None or label.parallel)
        yield from _in_order(convert_block, _ranges(source, progress.slices), parallel)


def _measured(
    source: VolumeSource, grey: NDArray[np.uint16], label: NDArray[np.uint8] | None, start: int
) -> BlockMeasures:
    vessel = None if label is None else is_vessel(label, source.soft)
    return measure(grey, vessel, start, levels=None if source.soft is None else label)


def _in_order(work: Callable[[int, int], _Result], ranges: list[tuple[int, int]], parallel: bool) -> Iterator[_Result]:
    """The results of `work` on each range, in order; only a few run at once, so memory stays bounded."""
    threads = _THREADS if parallel else 1
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for start, stop in ranges:
                waiting.append(pool.submit(work, start, stop))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _ranges(source: VolumeSource, start: int) -> list[tuple[int, int]]:
    depth = max(source.image.block_depth, source.label.block_depth if source.label else 1)
    depth = min(depth, depth_within(source.shape, source.dtype, CHUNK_BLOCK_BYTES))
    # Whole blocks from the front, so that a resumed run starts at the beginning of a chunk in a chunked file.
    edges = [start, *range((start // depth + 1) * depth, source.shape[0], depth), source.shape[0]]
    return [(a, b) for a, b in pairwise(edges) if a < b]


def _read(read: ReadBlock, stack: Slices, start: int, stop: int) -> NDArray[Any]:
    try:
        block = read(start, stop)
    except MemoryError:
        raise InputError(f"{stack.slice_name(start)}: not enough memory to read {stop - start} slices") from None
    if block.shape[:3] != (stop - start, *stack.shape[1:]):
        raise InputError(
            f"{stack.slice_name(start)}: {block.shape[1:3]} voxels were read, but the header says {stack.shape[1:]}"
        )
    return block


def _scan_range(source: VolumeSource, on_done: Callable[[int], None]) -> Scaling:
    """How all grey values are spread; needs its own pass, because any slice may contain the lowest ones."""
    whole = ValueRange()
    with source.image.reading() as read:
        ranges = _ranges(source, 0)
        parts = _in_order(lambda a, b: range_of(_read(read, source.image, a, b)), ranges, source.image.parallel)
        for (_, stop), part in zip(ranges, parts, strict=True):
            whole.add(part)
            on_done(stop)
    scaling = whole.scaling()
    if scaling is None:
        raise InputError(f"{source.image.path}: none of its voxels is a finite number")
    if not np.isfinite(scaling.high - scaling.low):
        raise InputError(
            f"{source.image.path}: values from {scaling.low:g} to {scaling.high:g} are too far apart to be spread over "
            "16 bits; write it as uint16"
        )
    return scaling


def _levels(source: VolumeSource, scaling: Scaling | None, histogram: NDArray[np.int64]) -> int:
    """How many grey levels the contrast of a volume has, without the most frequent one if it is padded with that."""
    most = int(histogram.argmax())
    others = histogram.copy()
    others[most] = 0
    whole, rest = (levels_between(counts, LOW_PERCENTILE, HIGH_PERCENTILE) for counts in (histogram, others))
    # Read again only where it matters: the most frequent level may also be all of the tissue.
    if rest < FEWEST_LEVELS or whole >= FEWEST_LEVELS or _is_one_value(source, scaling, most):
        return rest
    return whole


def _is_one_value(source: VolumeSource, scaling: Scaling | None, level: int) -> bool:
    """Whether the finite voxels that have a grey level had one value, as those have that a scan is padded with."""
    image = source.image
    found: set[float] = set()
    with image.reading() as read:
        for start, stop in _ranges(source, 0):
            block = one_channel(_read(read, image, start, stop), image.slice_name)  # which was done before
            grey = to_grey(block, scaling, image.slice_name)
            found.update(np.unique(block[(grey == level) & np.isfinite(block)])[:2].tolist())
            if len(found) > 1:
                return False
    return True


def _has_more_values(source: VolumeSource, count: int) -> bool:
    """Whether a scan has more different values than that."""
    found: set[float] = set()
    with source.image.reading() as read:
        for start, stop in _ranges(source, 0):
            block = _read(read, source.image, start, stop)
            values = np.unique(block[np.isfinite(block)])
            found.update(values[: count + 1].tolist())
            if len(found) > count:
                return True
    return False


def _measure_again(source: VolumeSource, folder: Path, slices: int, running: RunningMeasures) -> None:
    """Measure what an earlier conversion wrote; reading it back is cheaper than recording the measures."""
    if not slices:
        return
    _, height, width = source.shape
    step = depth_within(source.shape, np.dtype(np.uint16), CHUNK_BLOCK_BYTES // 4)
    for start in range(0, slices, step):
        count = min(step, slices - start)

        def written(name: str, dtype: type, start: int = start, count: int = count) -> NDArray[Any]:
            flat: NDArray[Any] = np.fromfile(
                folder / name, dtype, count * height * width, offset=_end(dtype, source.shape, start)
            )
            return flat.reshape(count, height, width)

        label = written(LABEL, np.uint8) if source.label is not None else None
        running.add(_measured(source, written(IMAGE, np.uint16), label, start))


@contextmanager
def _array_file(path: Path, dtype: type, shape: tuple[int, int, int], slices: int) -> Iterator[FileIO]:
    """A .npy file opened for writing after its first `slices` slices.

    It is written by plain calls, because the pages of a written memory map would count as this process's memory.
    """
    with path.open("r+b" if slices else "wb", buffering=0) as file:
        if not slices:
            _write(file, _header(dtype, shape), 0)
        file.truncate(_end(dtype, shape, slices))
        yield file


def _header(dtype: type, shape: tuple[int, int, int]) -> bytes:
    """The header of a .npy file of format 1.0, aligned to 64 bytes as numpy writes it."""
    text = json.dumps(np.dtype(dtype).newbyteorder("<").str).replace('"', "'")
    described = f"{{'descr': {text}, 'fortran_order': False, 'shape': {shape!r}, }}"
    padding = -(len(described) + 11) % 64
    return (
        b"\x93NUMPY\x01\x00"
        + (len(described) + padding + 1).to_bytes(2, "little")
        + described.encode()
        + b" " * padding
        + b"\n"
    )


def _end(dtype: type, shape: tuple[int, int, int], slices: int) -> int:
    """The position in the file where the first `slices` slices end."""
    return len(_header(dtype, shape)) + slices * shape[1] * shape[2] * np.dtype(dtype).itemsize


def _write(file: FileIO, data: memoryview | bytes, offset: int) -> None:
    view = memoryview(data).cast("B")
    while view:  # a nearly full disk accepts a part, and reports the error only at the next call
        written = os.pwrite(file.fileno(), view, offset)
        view, offset = view[written:], offset + written


def _record(folder: Path, progress: Progress, files: list[FileIO]) -> None:
    for file in files:
        os.fdatasync(file.fileno())
    write_atomically(folder / _PROGRESS, progress.model_dump_json())
