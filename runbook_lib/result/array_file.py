"""The array file of a part: .npy version 1.0, float32 in C order, and no byte besides header and rows.

numpy's own reader is not used: it accepts ZIP files, pickles, other versions and extra bytes at the end.
"""

from __future__ import annotations

import re

from worker.escape import safe_text

from ..errors import DataError

ITEM_BYTES = 4  # float32
MAGIC = b"\x93NUMPY\x01\x00"
HEAD_LIMIT = 4096  # bytes before the rows: numpy writes 128
_SHAPE = re.compile(rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9]{1,10}), ([0-9]{1,10})\), \} *\n")


def first_row(head: bytes, size: int, rows: int, dim: int) -> int:
    """Return the offset of the first row in a file of `size` bytes that starts with `head`.

    Raises DataError unless the file holds an array of exactly these rows and ends after the last one.
    """
    if not head.startswith(MAGIC):
        raise DataError(f"header: expected an .npy file of version 1.0, found the first bytes {head[:8].hex(' ')}")
    begin = 10 + int.from_bytes(head[8:10], "little")
    if begin > min(HEAD_LIMIT, size, len(head)):
        raise DataError(f"header: expected at most {HEAD_LIMIT} bytes of it, found {begin} in a file of {size}")
    shape = _SHAPE.fullmatch(head, 10, begin)
    if shape is None or tuple(map(int, shape.groups())) != (rows, dim):
        stated = safe_text(head[10:begin].decode("latin-1").strip(), 200)
        raise DataError(f"header: expected float32 ({rows}, {dim}) in C order, found {stated}")
    if size != begin + rows * dim * ITEM_BYTES:
        raise DataError(f"size: expected {begin + rows * dim * ITEM_BYTES} bytes, found {size}")
    return begin
