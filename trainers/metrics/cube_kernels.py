"""The compiled inner loops of the surface scores: 2x2x2 cubes, layer by layer along z.

A volume of (D, H, W) voxels, surrounded by background, has (D + 1, H + 1, W + 1) cubes: cube (z, y, x) holds the voxels
z-1..z, y-1..y, x-1..x. `surface_area` defines the codes of cubes. Every kernel takes a block of slices and counts the
cubes of the layers first..last-1 of that block; layer z needs the slices z-1 and z; slices outside the block are
background. Volumes are uint8, (slices, H, W), C-contiguous; in a mask any value but 0 is vessel.

All kernels are in this file because numba's cache on disk detects changes only in a function's own file. They release
the GIL and run in our own threads (`cube_layers`): numba's threads can abort the process if two Python threads use them
at once, or after a fork.
"""

import numpy as np
from numpy.typing import NDArray

from trainers.compiled import compiled

Voxels = NDArray[np.uint8]
Counts = NDArray[np.int32]

OVERLAP, TOTAL = 0, 1  # rows of the counts
FAR = np.uint16(65_535)  # no surface in this row of cubes
_RUN = 64  # cubes processed together


@compiled
def count_codes(predicted: Voxels, target: Voxels, first: int, last: int, counts: NDArray[np.int64]) -> None:
    """Add the surface cubes of both masks to counts, (2, 256), by code: row TOTAL all, row OVERLAP those in both."""
    _, height, width = predicted.shape
    cubes = _whole_runs(width + 1)
    pairs_p, pairs_t = np.zeros((2, cubes + 1), np.uint8), np.zeros((2, cubes + 1), np.uint8)
    codes_p, codes_t = np.zeros(cubes, np.uint8), np.zeros(cubes, np.uint8)
    for layer in range(first, last):
        pairs_p[:] = 0
        pairs_t[:] = 0
        before = np.uint8(0)
        for y in range(height + 1):
            now, old = y & 1, (y + 1) & 1
            any_vessel = _pair_row(predicted, layer, y, pairs_p[now]) | _pair_row(target, layer, y, pairs_t[now])
            if any_vessel | before:
                _code_row(pairs_p[old], pairs_p[now], codes_p)
                _code_row(pairs_t[old], pairs_t[now], codes_t)
                _count_row(codes_p, codes_t, counts)
            before = any_vessel


@compiled
def _whole_runs(cubes: int) -> int:
    """Number of cubes in a row, rounded up to whole runs; those beyond the border are background."""
    return -(-cubes // _RUN) * _RUN


@compiled
def _pair_row(mask: Voxels, layer: int, y: int, pairs: Voxels) -> np.uint8:
    """Write the voxels of row y in both slices of a layer as bits 0 and 4, one place to the right; gives 0 if none."""
    slices, height, width = mask.shape
    if not 0 <= y < height:
        pairs[:] = 0
        return np.uint8(0)
    below_bit = np.uint8(1 if layer > 0 else 0)
    above_bit = np.uint8(16 if layer < slices else 0)
    below, above = mask[max(layer - 1, 0), y], mask[min(layer, slices - 1), y]
    any_vessel = np.uint8(0)
    for x in range(width):
        pair = np.uint8((below_bit if below[x] else np.uint8(0)) | (above_bit if above[x] else np.uint8(0)))
        pairs[x + 1] = pair
        any_vessel = np.uint8(any_vessel | pair)
    return any_vessel


@compiled
def _code_row(pairs_before: Voxels, pairs: Voxels, codes: Voxels) -> None:
    for x in range(len(codes)):
        left = pairs_before[x] | pairs[x] << 2
        right = pairs_before[x + 1] | pairs[x + 1] << 2
        codes[x] = np.uint8(left | right << 1)


@compiled
def _is_surface(code: int) -> bool:
    return 0 < code < 255


@compiled
def _no_surface(codes: Voxels, start: int) -> bool:
    # Codes 0 and 255 become 1 and 0. Without branches, with a fixed length and an unsigned index (a signed one could
    # count from the end), the compiler can vectorise the loop. The same applies to all loops over a run.
    mixed = np.uint8(0)
    for x in range(start, start + np.uint64(_RUN)):
        mixed = np.uint8(mixed | np.uint8(codes[x] + np.uint8(1)))
    return bool(mixed <= 1)


@compiled
def _count_row(codes_p: Voxels, codes_t: Voxels, counts: NDArray[np.int64]) -> None:
    for start in range(np.uint64(0), np.uint64(len(codes_p)), np.uint64(_RUN)):
        if _no_surface(codes_p, start) and _no_surface(codes_t, start):
            continue
        for x in range(start, start + np.uint64(_RUN)):
            p, t = codes_p[x], codes_t[x]
            in_p, in_t = _is_surface(p), _is_surface(t)
            if in_p:
                counts[TOTAL, p] += 1
            if in_t:
                counts[TOTAL, t] += 1
            if in_p and in_t:
                counts[OVERLAP, p] += 1
                counts[OVERLAP, t] += 1


@compiled
def count_codes_within(
    predicted: Voxels,
    target: Voxels,
    layers: tuple[int, int, int, int],
    windows: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Like `count_codes`, but OVERLAP counts the cubes with a surface cube of the other mask inside the windows.

    layers: (lowest, first, last, beyond): first..last-1 are counted, lowest..beyond-1 are searched.
    windows: (n, 3), rows (dz, dy, reach): a cube in row (z + dz, y + dy) is near if at most `reach` away along x.
    """
    lowest, first, last, beyond = layers
    _, height, width = predicted.shape
    reach_z = np.abs(windows[:, 0]).max()
    kept = 2 * reach_z + 1  # layers in memory at a time, as a ring buffer
    gaps_p, gaps_t = np.zeros((2, kept, height + 1, width + 1), np.uint16)
    rows_p, rows_t = np.zeros((2, kept, height + 1), np.bool_)
    cubes = _whole_runs(width + 1)
    pairs, codes_p, codes_t = np.zeros((2, cubes + 1), np.uint8), np.zeros(cubes, np.uint8), np.zeros(cubes, np.uint8)
    for newest in range(max(first - reach_z, lowest), last + reach_z):
        if newest < beyond:
            _fill_gaps(predicted, newest, pairs, codes_p, gaps_p[newest % kept], rows_p[newest % kept])
            _fill_gaps(target, newest, pairs, codes_t, gaps_t[newest % kept], rows_t[newest % kept])
        layer = newest - reach_z
        if layer < first:
            continue
        for y in range(height + 1):
            if not (rows_p[layer % kept, y] or rows_t[layer % kept, y]):
                continue
            _code_row_alone(predicted, layer, y, pairs, codes_p)
            _code_row_alone(target, layer, y, pairs, codes_t)
            for x in range(width + 1):
                p, t = codes_p[x], codes_t[x]
                if _is_surface(p):
                    counts[TOTAL, p] += 1
                    counts[OVERLAP, p] += _is_near(gaps_t, rows_t, windows, (lowest, beyond), layer, y, x)
                if _is_surface(t):
                    counts[TOTAL, t] += 1
                    counts[OVERLAP, t] += _is_near(gaps_p, rows_p, windows, (lowest, beyond), layer, y, x)


@compiled
def _is_near(
    gaps: NDArray[np.uint16],
    rows: NDArray[np.bool_],
    windows: NDArray[np.int64],
    within: tuple[int, int],
    layer: int,
    y: int,
    x: int,
) -> bool:
    kept, height, _ = gaps.shape
    for i in range(len(windows)):
        z_near, y_near = layer + windows[i, 0], y + windows[i, 1]
        if not (within[0] <= z_near < within[1] and 0 <= y_near < height):
            continue
        z_kept = z_near % kept
        if rows[z_kept, y_near] and gaps[z_kept, y_near, x] <= windows[i, 2]:
            return True
    return False


@compiled
def _fill_gaps(
    mask: Voxels, layer: int, pairs: Voxels, codes: Voxels, gaps: NDArray[np.uint16], rows: NDArray[np.bool_]
) -> None:
    """Write each cube's distance along x to the nearest surface, in cubes; only in rows of the layer with vessel."""
    pairs[:] = 0
    before = np.uint8(0)
    for y in range(len(rows)):
        any_vessel = _pair_row(mask, layer, y, pairs[y & 1])
        rows[y] = any_vessel | before
        before = any_vessel
        if not rows[y]:
            continue
        _code_row(pairs[(y + 1) & 1], pairs[y & 1], codes)
        cubes = gaps.shape[1]
        gap = int(FAR)
        for x in range(cubes):
            gap = 0 if _is_surface(codes[x]) else min(gap + 1, int(FAR))
            gaps[y, x] = gap
        for x in range(cubes - 2, -1, -1):
            gaps[y, x] = min(int(gaps[y, x]), int(gaps[y, x + 1]) + 1)


@compiled
def _code_row_alone(mask: Voxels, layer: int, y: int, pairs: Voxels, codes: Voxels) -> None:
    _pair_row(mask, layer, y - 1, pairs[0])
    _pair_row(mask, layer, y, pairs[1])
    _code_row(pairs[0], pairs[1], codes)


@compiled
def count_thresholds(
    probabilities: Voxels,
    target: Voxels,
    first: int,
    last: int,
    area_class: Voxels,
    changes: Counts,
    touched: Counts,
    target_cubes: Counts,
    voxels: Counts,
) -> None:
    """Count the cubes of the masks `probabilities >= t` for all t = 1..255 at once, as changes while t falls.

    area_class: (256,), maps a cube's code to the class of its area.
    changes: (2, 256, classes): cubes that enter a class at t minus those that leave it; [1] only where the target has
    surface.
    touched: (256, classes): the target's surface cubes that gain predicted surface at t minus those that lose it.
    target_cubes: (classes,): the target's surface cubes. voxels: (2, 256): voxels by probability; [1] those of the
    target; background voxels with probability 0 may be left out.
    Row 0 of the thresholds contains changes below t = 1 and has no meaning.
    """
    _, height, width = probabilities.shape
    cubes = _whole_runs(width + 1)
    padded = np.zeros((2, 2, cubes + 1), np.uint8)  # rows y-1 and y (alternating) of the slices below and above
    pairs = np.zeros((2, cubes + 1), np.uint8)
    codes = np.zeros(cubes, np.uint8)
    keys = np.zeros(8 * _RUN, np.uint16)
    for layer in range(first, last):
        padded[:] = 0
        pairs[:] = 0
        before = np.uint8(0)
        for y in range(height + 1):
            now, old = y & 1, (y + 1) & 1
            any_below = _pad_row(probabilities, layer - 1, y, padded[now, 0])
            any_above = _pad_row(probabilities, layer, y, padded[now, 1])
            any_vessel = _pair_row(target, layer, y, pairs[now])
            if any_below | any_above | any_vessel | before:
                _code_row(pairs[old], pairs[now], codes)
                corners = (padded[old, 0], padded[now, 0], padded[old, 1], padded[now, 1])
                _count_changes(corners, codes, keys, area_class, changes, touched, target_cubes, voxels)
            before = any_below | any_above | any_vessel


@compiled
def _pad_row(voxels: Voxels, z: int, y: int, row: Voxels) -> np.uint8:
    """Copy a row one place to the right, or zeros if the block has no such row; gives 0 if all are 0."""
    slices, height, width = voxels.shape
    if not (0 <= z < slices and y < height):
        row[:] = 0
        return np.uint8(0)
    source = voxels[z, y]
    any_voxel = np.uint8(0)
    for x in range(width):
        row[x + 1] = source[x]
        any_voxel = np.uint8(any_voxel | source[x])
    return any_voxel


@compiled
def _count_changes(
    corners: tuple[Voxels, Voxels, Voxels, Voxels],
    codes_t: Voxels,
    keys: NDArray[np.uint16],
    area_class: Voxels,
    changes: Counts,
    touched: Counts,
    target_cubes: Counts,
    voxels: Counts,
) -> None:
    """Count a row of cubes; each also counts its last voxel (bit 7 of its code)."""
    for start in range(np.uint64(0), np.uint64(len(codes_t)), np.uint64(_RUN)):
        value = corners[3][start + np.uint64(1)]
        if _is_constant(corners, codes_t, start):
            voxels[codes_t[start] >> 7, value] += _RUN
            continue
        _write_keys(corners, start, keys)
        _sort_keys(keys)
        _count_cubes(keys, codes_t[start : start + np.uint64(_RUN)], area_class, changes, touched, target_cubes)
        for x in range(start, start + np.uint64(_RUN)):
            in_target, probability = codes_t[x] >> 7, corners[3][x + np.uint64(1)]
            if in_target | probability:  # most are neither, and adding to the same place repeatedly is slow
                voxels[in_target, probability] += 1


@compiled
def _is_constant(corners: tuple[Voxels, Voxels, Voxels, Voxels], codes_t: Voxels, start: int) -> bool:
    """Whether all probabilities of a run of cubes are equal, and all or none of its voxels are in the target."""
    a, b, c, d = corners
    value, code = a[start], codes_t[start]
    end = start + np.uint64(_RUN)
    mixed = np.uint8((a[end] ^ value) | (b[end] ^ value) | (c[end] ^ value) | (d[end] ^ value) | (code + 1 & 254))
    for x in range(start, end):
        mixed = np.uint8(mixed | np.uint8(a[x] ^ value) | np.uint8(b[x] ^ value))
        mixed = np.uint8(mixed | np.uint8(c[x] ^ value) | np.uint8(d[x] ^ value) | np.uint8(codes_t[x] ^ code))
    return bool(mixed == 0)


@compiled
def _write_keys(corners: tuple[Voxels, Voxels, Voxels, Voxels], start: int, keys: NDArray[np.uint16]) -> None:
    """Probability * 8 + bit of the corner, so that sorting by probability keeps track of the corner."""
    a, b, c, d = corners
    for i in range(_RUN):
        x = start + np.uint64(i)
        keys[i] = np.uint16(a[x] << 3)
        keys[2 * _RUN + i] = np.uint16(b[x] << 3 | 2)
        keys[4 * _RUN + i] = np.uint16(c[x] << 3 | 4)
        keys[6 * _RUN + i] = np.uint16(d[x] << 3 | 6)
    for i in range(_RUN):
        x = start + np.uint64(i + 1)
        keys[_RUN + i] = np.uint16(a[x] << 3 | 1)
        keys[3 * _RUN + i] = np.uint16(b[x] << 3 | 3)
        keys[5 * _RUN + i] = np.uint16(c[x] << 3 | 5)
        keys[7 * _RUN + i] = np.uint16(d[x] << 3 | 7)


@compiled
def _sort_keys(keys: NDArray[np.uint16]) -> None:
    """Sort the eight keys of each cube of a run in ascending order.

    A sorting network (Batcher's odd-even merge sort) has no branches, so all cubes of a run are sorted at SIMD speed.
    """
    for x in range(_RUN):
        a, b, c, d = keys[x], keys[_RUN + x], keys[2 * _RUN + x], keys[3 * _RUN + x]
        e, f, g, h = keys[4 * _RUN + x], keys[5 * _RUN + x], keys[6 * _RUN + x], keys[7 * _RUN + x]
        a, b, c, d, e, f, g, h = min(a, b), max(a, b), min(c, d), max(c, d), min(e, f), max(e, f), min(g, h), max(g, h)
        a, c, b, d, e, g, f, h = min(a, c), max(a, c), min(b, d), max(b, d), min(e, g), max(e, g), min(f, h), max(f, h)
        b, c, f, g, a, e, d, h = min(b, c), max(b, c), min(f, g), max(f, g), min(a, e), max(a, e), min(d, h), max(d, h)
        b, f, c, g = min(b, f), max(b, f), min(c, g), max(c, g)
        c, e, d, f = min(c, e), max(c, e), min(d, f), max(d, f)
        b, c, d, e, f, g = min(b, c), max(b, c), min(d, e), max(d, e), min(f, g), max(f, g)
        keys[x], keys[_RUN + x], keys[2 * _RUN + x], keys[3 * _RUN + x] = a, b, c, d
        keys[4 * _RUN + x], keys[5 * _RUN + x], keys[6 * _RUN + x], keys[7 * _RUN + x] = e, f, g, h


@compiled
def _count_cubes(
    keys: NDArray[np.uint16],
    codes_t: Voxels,
    area_class: Voxels,
    changes: Counts,
    touched: Counts,
    target_cubes: Counts,
) -> None:
    for x in range(len(codes_t)):
        in_target = _is_surface(codes_t[x])
        key = keys[7 * _RUN + x]
        if not in_target and keys[x] >> 3 == key >> 3:
            continue
        if in_target:
            kind = area_class[codes_t[x]]
            target_cubes[kind] += 1
            touched[key >> 3, kind] += 1  # from here down at least one corner is predicted
            touched[keys[x] >> 3, kind] -= 1  # and from here all eight
        masked = changes[1 if in_target else 0]
        code = np.uint8(0)
        for i in range(1, 8):  # corners of equal probability enter at once: intermediate changes cancel out
            code |= np.uint8(1) << (key & np.uint16(7))
            kind = area_class[code]
            masked[key >> 3, kind] += 1
            key = keys[(7 - i) * _RUN + x]
            masked[key >> 3, kind] -= 1
