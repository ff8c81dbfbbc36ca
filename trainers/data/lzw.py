"""LZW: checks whether a compressed strip is valid before imagecodecs decodes it.

imagecodecs (2026.3.6) does not check the first code after a clear code: if it refers to an entry of the table that was
just cleared, uninitialised memory is read, and the process may crash without a message.
"""

import numpy as np
from numpy.typing import NDArray

from trainers.compiled import compiled

_CLEAR, _END, _FIRST = 256, 257, 258  # codes; table entries begin with the last
_LONGEST = 12  # most bits of a code


def is_lzw(strip: bytes) -> bool:
    """Whether an encoder can have written the codes of a strip (TIFF 6.0, section 13). An empty strip is valid."""
    return bool(_sound(np.frombuffer(strip, np.uint8)))


@compiled
def _sound(strip: NDArray[np.uint8]) -> bool:
    """Follows the widths of the codes, which grow with the table, and checks the code after each clear code."""
    if len(strip) == 0:
        return True
    if len(strip) < 2:
        return False
    # The first code is a clear code; its bits reveal the bit order (low first: writers before TIFF 6.0).
    low_first = strip[0] == 0 and strip[1] & 1 == 1
    if not low_first and (strip[0] != 128 or strip[1] & 128 != 0):
        return False
    early = 0 if low_first else 1  # codes grow one entry early, except in the old bit order
    bits, held, at, width, entries = np.uint64(0), 0, 0, 9, _FIRST
    after_clear = False
    while True:
        while held < width:
            if at == len(strip):
                return True
            byte = np.uint64(strip[at])
            bits = bits | (byte << np.uint64(held)) if low_first else (bits << np.uint64(8)) | byte
            held, at = held + 8, at + 1
        mask = np.uint64((1 << width) - 1)
        if low_first:
            code = bits & mask
            bits >>= np.uint64(width)
        else:
            code = (bits >> np.uint64(held - width)) & mask
        held -= width
        if code == _END:
            return True
        if code == _CLEAR:
            width, entries, after_clear = 9, _FIRST, True
        elif after_clear:
            if code > _CLEAR:
                return False
            after_clear = False
        else:
            if code > entries:
                return False
            if entries < 1 << _LONGEST:  # a full table does not grow
                entries += 1
            if width < _LONGEST and entries + early >= 1 << width:
                width += 1
