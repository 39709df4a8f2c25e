"""A value for each of very many rows: in memory while they are few, else in a file without a name.

The file goes with its process, however that ends, so nothing has to be cleaned up.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .formats.whole_file import LOOK, check_room

IN_MEMORY = 2**23  # bytes; a larger column goes to the disk
BUFFER = 2**16
PIECE_BYTES = 2**20


class Column:
    """Bytes that are appended and then read from the start, again and again, piece by piece.

    `folder`: where the file is made, on a disk with room; None: where the system keeps temporary files.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.bytes = self._looked = 0
        self._folder, self._buffer = folder, bytearray()
        where = str(folder) if folder else None
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY, dir=where)  # noqa: SIM115  (open as long as we are)

    def append(self, data: bytes) -> None:
        """Add bytes at the end. Raises OSError when the disk is almost full."""
        self._buffer += data
        self.bytes += len(data)
        if len(self._buffer) >= BUFFER:
            self._flush()

    def pieces(self, size: int = PIECE_BYTES) -> Iterator[bytes]:
        """Read all bytes, `size` at a time; the last piece may be shorter."""
        self._flush()
        self._file.seek(0)
        while piece := self._file.read(size):
            yield piece

    def lines(self) -> Iterator[bytes]:
        """Read all lines."""
        self._flush()
        self._file.seek(0)
        yield from self._file

    def npy(self, dtype: type[np.generic], shape: tuple[int, ...]) -> Iterator[bytes]:
        """Return the bytes of a .npy file with these values, piece by piece."""
        head = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_1_0(head, {"descr": descr, "fortran_order": False, "shape": shape})
        yield head.getvalue()
        yield from self.pieces()

    def close(self) -> None:
        """Give the memory and the disk back."""
        self._file.close()

    def _flush(self) -> None:
        if self._folder and self.bytes - self._looked > LOOK:
            check_room(self._folder)
            self._looked = self.bytes
        self._file.seek(0, io.SEEK_END)
        self._file.write(self._buffer)
        self._buffer.clear()
