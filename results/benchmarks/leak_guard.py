"""The leak guard: disguised copies it finds, different tissue it takes for the same, and how long it takes.

    python results/benchmarks/leak_guard.py [--real SCANS] [--copies 200] [--pairs 200] [--large EDGE]    # Markdown

Phantoms of 64 x 128 x 128 voxels and, with --real, the patches of SCANS that are at least 16 slices deep are copied:
each copy is drawn at random, by other grey values, mirrors and turns, and a crop down to half of every edge. Pairs are
of different phantoms and patches, cut to what both have, each also with the same round field of view, outside of which
the grey values are 0. --large measures two volumes of EDGE cubed voxels, of which one is a disguised half
of the other, from files; 800 gives 512 million voxels each.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.data.landmarks import MARGIN, landmarks
from trainers.data.phantom import PhantomConfig, make_phantom
from trainers.data.prepare import default_cache, prepare
from trainers.data.shared_tissue import overlap
from trainers.data.sources import scan

Grey = NDArray[np.uint16]
GREYS: dict[str, Callable[[Grey, np.random.Generator], NDArray[Any]]] = {
    "as it is": lambda grey, rng: grey,
    "8 bits": lambda grey, rng: grey >> max(int(grey.max()).bit_length() - 8, 0),
    "8 bits of the contrast": lambda grey, rng: _stretched(grey, 2, 98, 255),
    "float, spread over 16 bits": lambda grey, rng: _stretched(grey, 0, 100, 65_535),
    "brighter": lambda grey, rng: np.minimum(grey.astype(int) + int(rng.integers(1, 5_000)), 65_535),
    "inverted": lambda grey, rng: 65_535 - grey,
    "gamma": lambda grey, rng: (65_535 * (grey / 65_535) ** rng.uniform(0.5, 2.0)).round(),
}


def _stretched(grey: Grey, low: float, high: float, highest: int) -> NDArray[Any]:
    first, last = np.percentile(grey, [low, high])
    return (np.clip((grey - first) / max(last - first, 1.0), 0, 1) * highest).round()


def volumes(real: Path | None) -> dict[str, Grey]:
    """Grey values by name."""
    config = PhantomConfig(shape=(64, 128, 128))
    found = {f"phantom {seed}": make_phantom(config, seed).image for seed in range(12)}
    for source in scan(real) if real is not None else ():
        if source.shape[0] >= 16:
            found[source.name] = np.asarray(prepare(source, default_cache()).image)
    return found


def disguised(grey: Grey, rng: np.random.Generator) -> tuple[str, Grey]:
    """A copy, and by which grey values it is disguised."""
    edges = [int(rng.integers(max(2 * MARGIN + 2, edge // 2), edge + 1)) for edge in grey.shape]
    begins = [int(rng.integers(0, whole - edge + 1)) for whole, edge in zip(grey.shape, edges, strict=True)]
    part = grey[tuple(slice(begin, begin + edge) for begin, edge in zip(begins, edges, strict=True))]
    name = str(rng.choice(list(GREYS)))
    part = np.asarray(GREYS[name](part, rng)).astype(np.uint16)
    part = np.flip(part, [axis for axis in range(3) if rng.random() < 0.5])
    return name, np.ascontiguousarray(np.transpose(part, rng.permutation(3)))


def copies(known: dict[str, Grey], count: int) -> Iterator[str]:
    """How many of so many copies are found."""
    rng = np.random.default_rng(0)
    names, marks = list(known), {name: landmarks(grey) for name, grey in known.items()}
    found, tried, least = Counter[str](), Counter[str](), 1.0
    for _ in range(count):
        name = str(rng.choice(names))
        by, copy = disguised(known[name], rng)
        common = overlap(known[name], copy, marks[name], landmarks(copy))
        tried[by] += 1
        found[by] += common is not None
        if common is None:
            yield f"- not found: {name}, {by}, {' x '.join(map(str, copy.shape))}"
        else:
            least = min(least, common.correlation)
    yield f"\n{sum(found.values())} of {count} disguised copies found; the least correlation was {least:.2f}\n"
    yield "| grey values | copies | found |\n|---|---:|---:|"
    yield from (f"| {by} | {tried[by]} | {found[by]} |" for by in GREYS)


def pairs(known: dict[str, Grey], count: int) -> Iterator[str]:
    """How many pairs of different tissue are taken for the same."""
    every = list(combinations(known, 2))
    chosen = [every[i] for i in np.random.default_rng(0).permutation(len(every))[:count]]
    for view, said in ((whole, "as they are"), (cylinder, "in the same cylinder"), (ball, "in the same ball")):
        alarms = []
        for a, b in chosen:
            common = tuple(slice(min(edges)) for edges in zip(known[a].shape, known[b].shape, strict=True))
            one, other = view(known[a][common]), view(known[b][common])
            if overlap(one, other, landmarks(one), landmarks(other)) is not None:
                alarms.append(f"; {a}, {b}")
        yield f"\n{len(alarms)} false alarms in {len(chosen)} pairs of different tissue, {said}{''.join(alarms)}"


def whole(grey: Grey) -> Grey:
    """Everything."""
    return grey


def cylinder(grey: Grey) -> Grey:
    """What lies in the round field of view of tomography."""
    return np.where(_inside(grey, (1, 2)), grey, 0).astype(grey.dtype)


def ball(grey: Grey) -> Grey:
    """What lies in an ellipsoid that touches all sides."""
    return np.where(_inside(grey, (0, 1, 2)), grey, 0).astype(grey.dtype)


def _inside(grey: Grey, axes: tuple[int, ...]) -> NDArray[np.bool_]:
    """Voxels (D, H, W) nearer to the middle than the sides are, along some axes together."""
    places = np.ogrid[tuple(slice(-1, 1, edge * 1j) for edge in grey.shape)]
    return np.asarray(sum(places[axis] ** 2 for axis in axes) < 1) & np.ones(grey.shape, bool)


def large(edge: int, folder: Path) -> Iterator[str]:
    """The time for two volumes that do not fit into a cache."""
    rng = np.random.default_rng(0)
    whole = np.lib.format.open_memmap(folder / "a.npy", "w+", np.uint16, (edge, edge, edge))
    other = np.lib.format.open_memmap(folder / "b.npy", "w+", np.uint16, (edge, edge, edge))
    for z in range(edge):
        slope = np.linspace(0, 10_000, edge)[None] + 5_000
        whole[z] = slope + rng.normal(0, 800, (edge, edge))
        other[z] = slope + rng.normal(0, 800, (edge, edge))
    half = edge // 2
    other[:half, :, ::-1] = whole[half : 2 * half] >> 6
    whole.flush()
    other.flush()
    yield f"\n| two volumes of {edge} cubed, {edge**3 / 1e6:.0f} million voxels each | seconds |\n|---|---:|"
    marks = []
    for name in ("first", "second"):
        began = time.monotonic()
        marks.append(landmarks(np.load(folder / ("a.npy" if name == "first" else "b.npy"), mmap_mode="r")))
        yield f"| landmarks of the {name}: {len(marks[-1].places):,} | {time.monotonic() - began:.1f} |"
    began = time.monotonic()
    common = overlap(whole, other, *marks)
    said = (
        "none found"
        if common is None
        else f"{common.voxels / 1e6:.0f} million voxels in common, {common.correlation:.2f}"
    )
    yield f"| comparing them: {said} | {time.monotonic() - began:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of labelled patches")
    parser.add_argument("--copies", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--large", type=int, default=0, help="edge of the large volumes; 0: none")
    arguments = parser.parse_args()
    known = volumes(arguments.real)
    print(f"{len(known)} volumes: {', '.join(known)}\n", flush=True)
    for part in (copies(known, arguments.copies), pairs(known, arguments.pairs)):
        for line in part:
            print(line, flush=True)
    if arguments.large:
        with tempfile.TemporaryDirectory() as folder:
            for line in large(arguments.large, Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
