"""Run-length encoded masks in the competition's format: row-major, counted from 1, `1 0` for an empty slice."""

import codecs
import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_spaces.errors import InputError
from trainers.atomic import whole_file
from trainers.data.geometry import Geometry
from trainers.data.manifest import check_name
from trainers.data.slices import ReadBlock, Slices

EMPTY = "1 0"
MOST_VOXELS = 2**30  # of a slice
_LONGEST_CELL = 2**30
_SPREADSHEET_CELL = 32_767  # characters; Excel and LibreOffice cut what is longer


@dataclass(frozen=True)
class RleRow:
    """One row of a CSV file, and its id; height and width are None if the file does not have these columns."""

    rle: str
    height: int | None = None
    width: int | None = None
    id: str = ""


def encode(mask: NDArray[Any]) -> str:
    """The runs of an (H, W) mask as `start length start length ...`; any value but 0 is inside."""
    flat = (mask if mask.dtype == np.bool_ else mask != 0).ravel()
    if not flat.size:
        return EMPTY
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 2
    edges = np.concatenate([[1] if flat[0] else [], edges, [flat.size + 1] if flat[-1] else []]).astype(np.int64)
    if not edges.size:
        return EMPTY
    edges[1::2] -= edges[::2]
    return " ".join(map(str, edges.tolist()))


def decode(rle: str, height: int, width: int, where: str = "rle") -> NDArray[np.bool_]:
    """The (height, width) mask for a run-length text; `1 0` and an empty text give the empty mask.

    Raises InputError, naming `where`, for text that is not pairs of numbers, and for runs that are outside the slice,
    empty, or on voxels of another run.
    """
    if not re.fullmatch(r"[\d\s]*", rle, re.ASCII):
        words = re.split(r"\s+", rle, flags=re.ASCII)
        wrong = next(word for word in words if not re.fullmatch(r"\d*", word, re.ASCII))
        raise InputError(f"{where}: {wrong[:20]!r} in a run-length code is not a number")
    if max(map(len, rle.split()), default=0) > 18:
        raise InputError(f"{where}: a number in the run-length code is beyond any slice")
    numbers: NDArray[np.int64] = np.fromstring(rle, np.int64, sep=" ") if rle.strip() else np.zeros(0, np.int64)
    if numbers.size % 2:
        raise InputError(f"{where}: {numbers.size} numbers in a run-length code; pairs of start and length are needed")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    ends = starts + lengths
    if numbers.size and (starts.min() < 0 or ends.max() > height * width):
        worst = int(np.argmax(np.where(starts < 0, height * width + 1, ends)))
        raise InputError(
            f"{where}: the run {starts[worst] + 1} {lengths[worst]} goes beyond the slice of {height} x {width} voxels "
            f"(positions 1 to {height * width})"
        )
    if numbers.tolist() != list(map(int, EMPTY.split())):
        _check_apart(starts, lengths, where)
    mask = np.zeros(height * width, np.bool_)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        mask[start:end] = True
    return mask.reshape(height, width)


def _check_apart(starts: NDArray[np.int64], lengths: NDArray[np.int64], where: str) -> None:
    """Raise InputError for a run without voxels, or with voxels of another one: its code is not that of a mask."""
    if (lengths == 0).any():
        run = int(np.argmin(lengths))
        raise InputError(f"{where}: the run {starts[run] + 1} 0 is empty; only {EMPTY!r} alone is, for an empty slice")
    order = np.argsort(starts, kind="stable")
    starts, lengths = starts[order], lengths[order]
    overlapping = np.flatnonzero(starts[1:] < (starts + lengths)[:-1])
    if overlapping.size:
        one = int(overlapping[0])
        runs = " and ".join(f"{starts[run] + 1} {lengths[run]}" for run in (one, one + 1))
        raise InputError(f"{where}: the runs {runs} overlap; a voxel lies in one run at most")


def read_rles(path: Path) -> dict[str, dict[int, RleRow]]:
    """All rows of a CSV file with the columns id, rle and optionally height, width: volume -> slice number -> row.

    Ids are `<volume>_<slice>`. Raises InputError, naming the line, for invalid rows.
    """
    rows: dict[str, dict[int, RleRow]] = {}
    # Bytes that are not UTF-8 become a character that no id or run contains, and are reported with their line.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file, _long_cells():
        lines = _lines(path, file)
        _, header = next(lines, (1, []))
        if header not in (["id", "rle"], ["id", "rle", "height", "width"]):
            raise InputError(f"{path}: the columns must be id,rle or id,rle,height,width, not {','.join(header)[:80]}")
        for line_number, cells in lines:
            if not any(cells):
                continue
            where = f"{path}, line {line_number}"
            if len(cells) != len(header):
                raise InputError(f"{where}: {len(cells)} cells, but the header names {len(header)}")
            volume, _, number = cells[0].rpartition("_")
            if not re.fullmatch(r"\d{1,9}", number, re.ASCII):
                raise InputError(f"{where}: the id {cells[0]!r} is not <volume>_<slice number>")
            slices = rows.setdefault(check_name(volume, where), {})
            if int(number) in slices:
                raise InputError(f"{where}: the id {cells[0]!r} appears twice")
            slices[int(number)] = _row(cells, where)
    return rows


def write_submission(path: Path, rows: Iterable[tuple[str, str]]) -> Path:
    """Write a stream of `id,rle` rows; the file appears under its name only once it is complete.

    Raises InputError if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            writer = csv.writer(codecs.getwriter("utf-8")(file), lineterminator="\n")
            writer.writerow(("id", "rle"))
            writer.writerows(rows)
    except OSError as error:  # from this file, or from the source of the rows
        raise InputError(f"{error.filename or path}: cannot be written ({error.strerror or error})") from error
    return path


@dataclass(frozen=True)
class RleSlices(Slices):
    """The labels of one volume from a CSV file, as a stack with the volume's shape."""

    rows: tuple[RleRow, ...] = ()

    parallel = True

    def slice_name(self, z: int) -> str:
        """The row of the slice, by its id."""
        return f"{self.path} (id {self.rows[z].id})"

    @contextmanager
    def _opened(self) -> Iterator[ReadBlock]:
        _, height, width = self.shape

        def read(start: int, stop: int) -> NDArray[Any]:
            return np.stack(
                [decode(self.rows[z].rle, height, width, self.slice_name(z)) for z in range(start, stop)]
            ).view(np.uint8)

        yield read


def rle_slices(path: Path, rows: dict[int, RleRow], numbers: tuple[int, ...], shape: tuple[int, int, int]) -> RleSlices:
    """The rows of one volume as a stack; each slice number needs a row, and no row may be left over."""
    missing, extra = sorted(set(numbers) - set(rows)), sorted(set(rows) - set(numbers))
    if missing:
        raise InputError(f"{path}: no row for slice {missing[0]:04d}; a slice without vessels has the code '{EMPTY}'")
    if extra:
        raise InputError(f"{path}: a row for slice {extra[0]:04d}, which the volume does not have")
    for number in numbers:
        height, width = rows[number].height, rows[number].width
        if height is not None and (height, width) != shape[1:]:
            raise InputError(
                f"{path}: slice {number:04d} is {height} x {width} there, but {shape[1]} x {shape[2]} in what it is "
                "read for"
            )
    ordered = tuple(rows[number] for number in numbers)
    return RleSlices(path, Geometry(shape, numbers, numbered=True), np.dtype(np.uint8), (path,), rows=ordered)


def _lines(path: Path, file: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file, by number, as cells."""
    reader = csv.reader(file, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None


@contextmanager
def _long_cells() -> Iterator[None]:
    """Slices have run-length codes longer than the 128 KiB that the csv module allows."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _row(cells: list[str], where: str) -> RleRow:
    if len(cells[1]) == _SPREADSHEET_CELL:
        raise InputError(
            f"{where}: its code has exactly {_SPREADSHEET_CELL:,} characters, the most that a spreadsheet keeps of a "
            "cell: it was cut; export the file again without a spreadsheet"
        )
    if len(cells) == 2:
        return RleRow(cells[1], id=cells[0])
    if not all(re.fullmatch(r"[1-9]\d{0,8}", cell, re.ASCII) for cell in cells[2:]):
        raise InputError(f"{where}: height and width must be positive whole numbers, not {cells[2]!r} and {cells[3]!r}")
    height, width = int(cells[2]), int(cells[3])
    if height * width > MOST_VOXELS:
        raise InputError(f"{where}: a slice of {height} x {width} voxels is beyond any scan")
    return RleRow(cells[1], height, width, cells[0])
