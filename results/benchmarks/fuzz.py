"""Damaged files of every kind that is read: each is refused in one clear line, or read, and never more.

    python results/benchmarks/fuzz.py [--inputs 100000] [--seconds 600] [--only NAME ...] [--seed 0]

For each reader a whole file is made, then damaged again and again (bytes flipped and overwritten, spans cut, doubled,
moved and swapped with others, the end torn off) and read. InputError is the only exception allowed. Whatever else is
raised is printed on stderr with its traceback, once for each place it came from; so is what takes longer than five
seconds, and what kills the process. Memory is limited to 4 GiB more than at the start.
"""

import argparse
import contextlib
import logging
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import Pipe, Process, Value
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import tifffile
import torch
import zarr

from nas.config import read_config, write_config
from nas.mend import mend
from nas.show import read_genotype
from results.export import ARCHITECTURE, WEIGHTS, Bundle, read_bundle
from results.leaderboard import read_leaderboard
from results.record import read_record
from results.run_folder import RunFolder
from search_spaces.errors import InputError
from trainers.checkpoint import load_checkpoint, save_checkpoint
from trainers.data.manifest import read_manifest
from trainers.data.masks import write_mask
from trainers.data.readers import open_slices
from trainers.data.rle import decode, encode, read_rles

SLOW_SECONDS = 5.0
MORE_MEMORY = 4 * 2**30
SHAPE = (4, 24, 20)
Target = tuple[Path, Callable[[], object]]  # the file to damage, and what reads it


def volume() -> np.ndarray:
    """Grey values with some structure."""
    z, y, x = np.indices(SHAPE)
    return (1000 * z + 37 * y + x * x).astype(np.uint16)


def read_all(path: Path) -> object:
    """Every voxel of a stack."""
    slices = open_slices(path)
    with slices.reading() as read:
        return [read(z, z + 1).sum() for z in range(min(slices.shape[0], 8))]


def tiff_folder(root: Path) -> Target:
    """Slices, the first of them damaged."""
    for z, image in enumerate(volume()):
        tifffile.imwrite(root / f"{z:04d}.tif", image, compression="zlib" if z else None)
    return root / "0000.tif", lambda: read_all(root)


def _compressed(root: Path, **how: Any) -> Target:
    tifffile.imwrite(root / "0000.tif", volume()[0], **how)
    return root / "0000.tif", lambda: read_all(root)


def tiff_lzw(root: Path) -> Target:
    """A slice by LZW."""
    return _compressed(root, compression="lzw", rowsperstrip=4)


def tiff_lzw_predictor(root: Path) -> Target:
    """The same on differences, in tiles."""
    return _compressed(root, compression="lzw", predictor=True, tile=(16, 16))


def tiff_deflate(root: Path) -> Target:
    """A slice by Deflate, in tiles."""
    return _compressed(root, compression="zlib", predictor=True, tile=(16, 16))


def tiff_packbits(root: Path) -> Target:
    """A slice by PackBits."""
    return _compressed(root, compression="packbits", rowsperstrip=4)


def tiff_zstd(root: Path) -> Target:
    """A slice by Zstandard."""
    return _compressed(root, compression="zstd", rowsperstrip=8)


def tiff_jpeg2000(root: Path) -> Target:
    """A slice by JPEG 2000."""
    return _compressed(root, compression="jpeg2000")


def tiff_pages(root: Path) -> Target:
    """One file of many pages."""
    tifffile.imwrite(root / "v.tif", volume(), photometric="minisblack")
    return root / "v.tif", lambda: read_all(root / "v.tif")


def npy(root: Path) -> Target:
    """NumPy's own format."""
    np.save(root / "v.npy", volume())
    return root / "v.npy", lambda: read_all(root / "v.npy")


def zarr_metadata(root: Path) -> Target:
    """The JSON of a Zarr array."""
    array = zarr.create_array(root / "v.zarr", shape=SHAPE, dtype="uint16", chunks=(2, 12, 20))
    array[:] = volume()
    return root / "v.zarr" / "zarr.json", lambda: read_all(root / "v.zarr")


def zarr_chunk(root: Path) -> Target:
    """The voxels of a Zarr array."""
    zarr_metadata(root)
    chunk = next(path for path in sorted((root / "v.zarr").rglob("*")) if path.is_file() and path.suffix != ".json")
    return chunk, lambda: read_all(root / "v.zarr")


def nifti(root: Path) -> Target:
    """NIfTI."""
    import nibabel

    nibabel.save(nibabel.Nifti1Image(volume(), np.eye(4)), root / "v.nii")
    return root / "v.nii", lambda: read_all(root / "v.nii")


def manifest(root: Path) -> Target:
    """dataset.toml."""
    text = (
        '[volumes.a]\nkidney = "k"\nvoxel_spacing_um = [50.0, 50, 50.5]\nannotated = 0.9\n[volumes.b]\nkidney = "j"\n'
    )
    (root / "dataset.toml").write_text(text)
    return root / "dataset.toml", lambda: read_manifest(root)


def rles(root: Path) -> Target:
    """The competition's CSV of labels."""
    masks = volume() % 3 == 0
    lines = [f"kidney_1_{z:04d},{encode(mask)},{SHAPE[1]},{SHAPE[2]}" for z, mask in enumerate(masks)]
    (root / "train_rles.csv").write_text("\n".join(["id,rle,height,width", *lines, "kidney_1_0009,1 0,24,20"]) + "\n")

    def read() -> object:
        for rows in read_rles(root / "train_rles.csv").values():
            for row in rows.values():
                decode(row.rle, SHAPE[1], SHAPE[2])
        return None

    return root / "train_rles.csv", read


def config(root: Path) -> Target:
    """A run's configuration."""
    (root / "config.toml").write_text(write_config(read_config("demo")))
    return root / "config.toml", lambda: read_config(root / "config.toml")


def _bundle(root: Path) -> Bundle:
    from results.export import Architecture, write_bundle
    from search_spaces.candidate import Candidate
    from search_spaces.network import build_network
    from trainers.evaluate import ScoreConfig
    from trainers.fit import FitConfig
    from trainers.reader import InferenceConfig

    candidate = Candidate.model_validate({"family": "cells", "genotype": "plain/2", "width": 4, "slices_in": 8})
    network = build_network(candidate, 16)
    provenance = {"study": "s", "trial": 0, "seed": 0, "version": "0", "train_volumes": {"a": "b"}}
    architecture = Architecture(
        name="n",
        candidate=candidate,
        fit=FitConfig(crop=16),
        voxel_spacing_um=((50.0, 50.0, 50.0),),
        grey_scales={"b": (0.0, 1.0)},
        threshold=0.5,
        inference=InferenceConfig(),
        score_config=ScoreConfig(),
        score=None,
        parameters=1,
        provenance={**provenance, "held_out_volumes": {}, "libraries": {}},  # type: ignore[arg-type]
    )
    write_bundle(root / "bundle", architecture, network.state_dict())
    return read_bundle(root / "bundle")


def bundle(root: Path) -> Target:
    """The description of a network."""
    _bundle(root)
    return root / "bundle" / ARCHITECTURE, lambda: read_bundle(root / "bundle")


def weights(root: Path) -> Target:
    """Its weights."""
    _bundle(root)
    return root / "bundle" / WEIGHTS, lambda: read_bundle(root / "bundle")


def genotype(root: Path) -> Target:
    """A genotype's file."""
    from search_spaces.hand_made import hand_made

    (root / "g.json").write_text(hand_made("residual", "cells", 3).model_dump_json(indent=1))
    return root / "g.json", lambda: read_genotype(root / "g.json")


def record(root: Path) -> Target:
    """What came of a trial."""
    from results.record import Job, Outcome, Record
    from search_spaces.candidate import Candidate
    from trainers.fit import FitConfig

    job = Job(trial=0, name="n", candidate=Candidate(encoder="resnet18"), fit=FitConfig(), seed=0)
    (root / "r.json").write_text(
        Record(job=job, outcome=Outcome(state="failed", reason="r"), version="0").model_dump_json()
    )
    return root / "r.json", lambda: read_record(root / "r.json")


def leaderboard(root: Path) -> Target:
    """leaderboard.json."""
    from results.ranking import rank

    folder = RunFolder(root)
    folder.leaderboard_json.write_text(rank([], "s", "k").model_dump_json(indent=1))
    return folder.leaderboard_json, lambda: read_leaderboard(folder.leaderboard_json)


def journal(root: Path) -> Target:
    """The study: what cannot be mended is named."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder = RunFolder(root)
    study = optuna.create_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(folder.journal))))
    for number in range(3):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, float(number))
    return folder.journal, lambda: mend(folder)


def checkpoint(root: Path) -> Target:
    """A training's checkpoint: a damaged one is passed over."""
    path = save_checkpoint(root / "c", 3, {"a": torch.arange(6.0)}, {"groups": [1, 2]})
    return path / "tensors.safetensors", lambda: load_checkpoint(root / "c")


def mask(root: Path) -> Target:
    """A mask that `nas score` reads."""
    from trainers.data.masks import read_mask

    write_mask(root / "m.tif", volume() % 3 == 0, (50.0, 50.0, 50.0))
    return root / "m.tif", lambda: read_mask(root / "m.tif")


TARGETS = [
    tiff_folder,
    tiff_lzw,
    tiff_lzw_predictor,
    tiff_deflate,
    tiff_packbits,
    tiff_zstd,
    tiff_jpeg2000,
    tiff_pages,
    npy,
    zarr_metadata,
    zarr_chunk,
    nifti,
    manifest,
    rles,
    config,
]
TARGETS += [bundle, weights, genotype, record, leaderboard, journal, checkpoint, mask]
_LIKELY = [b"\0", b"\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x40", b"\xc3\x28"]
_LIKELY += [b"-1", b"1e999", b"NaN", b"null", b"true", b'"', b"{", b"}", b"[", b"]", b"\n", b",", b"../", b"9" * 20]


def damage(whole: bytes, rng: random.Random) -> bytes:
    """A file with one to four damages."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        at = rng.randrange(len(data)) if rng.random() < 0.6 else rng.randrange(min(len(data), 256))
        kind = rng.randrange(7)
        length = min(len(data) - at, rng.choice((1, 2, 4, 8, 32)))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            likely = rng.choice(_LIKELY)
            data[at : at + len(likely)] = likely
        elif kind == 2:
            data[at:at] = rng.choice(_LIKELY)
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            other = rng.randrange(len(data))
            data[at : at + length], data[other : other + length] = data[other : other + length], data[at : at + length]
        else:
            del data[at:]
    return bytes(data)


@dataclass
class Found:
    """What came of the inputs to one reader; a defect is named by the place it came from."""

    tried: int = 0
    refused: int = 0
    defects: dict[str, str] = field(default_factory=dict)


def fuzz(make: Callable[[Path], Target], inputs: int, seconds: float, seed: int) -> Found:
    """Damage and read in a process of its own, and in another when that one dies."""
    found, until, tried = Found(), time.monotonic() + seconds, Value("q", 0, lock=False)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        file, read = make(root)
        whole = file.read_bytes()
        while found.tried < inputs and time.monotonic() < until:
            ears, mouth = Pipe(duplex=False)
            tried.value = 0
            # With the number of inputs so far as part of the seed, a process goes on with others than the last one.
            rng = random.Random(f"{make.__name__}/{seed}/{found.tried}")
            child = Process(target=_read_many, args=(file, read, whole, rng, inputs - found.tried, until, tried, mouth))
            child.start()
            mouth.close()
            with contextlib.suppress(EOFError):
                part: Found = ears.recv()
                found.refused += part.refused
                found.defects |= part.defects
            child.join()
            found.tried += tried.value
            if child.exitcode:
                key = f"the process died: exit code {child.exitcode}"
                found.defects.setdefault(key, f"{file.read_bytes()[:300]!r}")
    return found


def _read_many(
    file: Path,
    read: Callable[[], object],
    whole: bytes,
    rng: random.Random,
    inputs: int,
    until: float,
    tried: Any,
    mouth: Connection,
) -> None:
    with Path(os.devnull).open("w") as nowhere:  # readers say what they pass over
        os.dup2(nowhere.fileno(), 1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_MEMORY, used + MORE_MEMORY))
    found = Found()
    while tried.value < inputs and time.monotonic() < until:
        data = damage(whole, rng)
        file.write_bytes(data)
        tried.value += 1
        started = time.monotonic()
        try:
            read()
        except InputError as error:
            found.refused += 1
            if "\n" in str(error):
                found.defects.setdefault("a message of several lines", f"{error}\n{data[:200]!r}")
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "site-packages" not in frame.filename][-1]
            key = f"{type(error).__name__} at {own.filename}:{own.lineno} ({frames[-1].name})"
            found.defects.setdefault(key, f"{traceback.format_exc(limit=-4)}{data[:300]!r}")
        if time.monotonic() - started > SLOW_SECONDS:
            found.defects.setdefault("slow", f"{time.monotonic() - started:.1f} s for {data[:300]!r}")
    mouth.send(found)


def main() -> None:
    """All targets, a table, and what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    defects = 0
    print("| reader | inputs | refused | read all the same | defects |\n|---|---:|---:|---:|---:|")
    for make in TARGETS:
        if arguments.only and make.__name__ not in arguments.only:
            continue
        found = fuzz(make, arguments.inputs, arguments.seconds, arguments.seed)
        tried, refused, bad = found.tried, found.refused, len(found.defects)
        print(f"| {make.__name__} | {tried:,} | {refused:,} | {tried - refused:,} | {bad} |", flush=True)
        for key, text in found.defects.items():
            print(f"\n{make.__name__}: {key}\n{text}", file=sys.stderr, flush=True)
        defects += bad
    print(f"\nDefects: {defects}.")


if __name__ == "__main__":
    main()
