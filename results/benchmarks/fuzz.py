"""Damaged files of every kind that is read: each is refused in one clear line or read, and nothing else happens.

    python results/benchmarks/fuzz.py [--inputs 100000] [--seconds 600] [--only NAME ...] [--seed 0]

For each reader an intact file is made, then damaged again and again (bytes flipped and overwritten, spans cut, doubled,
moved and swapped with others, the end torn off) and read. InputError is the only exception allowed. Any other exception
is printed on stderr with its traceback, once for each place it came from; so is an input that takes longer than five
seconds or kills the process. Memory is limited to 4 GiB more than at the start.
"""

import argparse
import contextlib
import io
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

import optuna
from fuzz_targets import TARGETS, Target

from search_spaces.errors import InputError

SLOW_SECONDS = 5.0
MORE_MEMORY = 4 * 2**30
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
    """What happened to the inputs of one reader; a defect is named by the place it came from."""

    tried: int = 0
    refused: int = 0
    defects: dict[str, str] = field(default_factory=dict)


def fuzz(make: Callable[[Path], Target], inputs: int, seconds: float, seed: int) -> Found:
    """Damage and read in a process of its own, and in another when that one dies."""
    found, tried = Found(), Value("q", 0, lock=False)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        file, read = make(root)
        whole = file.read_bytes()
        with contextlib.redirect_stdout(io.StringIO()):
            read()  # the intact file is read, and what has to be compiled for it is
        until = time.monotonic() + seconds
        while found.tried < inputs and time.monotonic() < until:
            ears, mouth = Pipe(duplex=False)
            tried.value = 0
            # The number of inputs so far is part of the seed, so that a new process does not repeat inputs.
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
    with Path(os.devnull).open("w") as nowhere:  # readers report what they skip
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
    print("| reader | inputs | refused | read anyway | defects |\n|---|---:|---:|---:|---:|")
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
