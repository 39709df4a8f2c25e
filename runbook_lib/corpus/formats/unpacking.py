"""Files packed with gzip, bzip2 or zstd: unpacked into a nameless file before any reader gets them."""

from __future__ import annotations

import bz2
import gzip
import tempfile
import zlib
from pathlib import Path
from typing import IO, Any

from .source import FETCH_AGAIN, refusal, shown
from .whole_file import LOOK, check_room

PACKERS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}  # first bytes -> the packer
_CHUNK = 2**20
_RATIO = 100  # text packs about 4-fold, deflate can reach 1,032-fold: more than this is an attack
_SMALL = 64 * 2**20  # bytes that may come of any file


def packer(head: bytes) -> str:
    """Return what a file is packed with, by its first bytes; empty where it is not."""
    return next((name for magic, name in PACKERS.items() if head.startswith(magic)), "")


def unpacked(file: IO[bytes], by: str, path: Path, scratch: Path | None) -> IO[bytes]:
    """Return the content in a nameless file of the folder `scratch`; a cut or damaged one is refused here."""
    size = path.stat().st_size
    limit = max(_SMALL, _RATIO * size)
    out: IO[bytes] = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 (given to the caller)
    try:
        with _reader(file, by) as packed:
            while chunk := packed.read(_CHUNK):
                out.write(chunk)
                if scratch is not None and out.tell() % LOOK < _CHUNK:
                    check_room(scratch)
                if out.tell() > limit:
                    raise refusal(path, f"{by} that unpacks to over {_RATIO} times its size", "unpack it first")
    except EOFError:
        out.close()
        raise refusal(path, f"{by} cut short (size {size} bytes)", FETCH_AGAIN) from None
    except (zlib.error, OSError, ValueError) as error:
        out.close()
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, gzip.BadGzipFile):
            raise  # of our own disk
        raise refusal(path, f"{by} not readable ({shown(error, 200)})", FETCH_AGAIN) from None
    except BaseException:
        out.close()
        raise
    out.seek(0)
    return out


def _reader(file: IO[bytes], by: str) -> Any:
    if by == "gzip":
        return gzip.GzipFile(fileobj=file)
    if by == "bzip2":
        return bz2.BZ2File(file)
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
