"""What nvidia-smi says of a machine's GPUs, told apart from what it cannot say.

The shapes of odd answers are from public reports: `[N/A]`, `[Not Supported]`, `[GPU requires reset]`, `ERR!`, and
whole messages in place of a table.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass

QUERY = ("index", "uuid", "name", "memory.total", "memory.used", "driver_version")
COMMAND = ("nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits")
BROKEN = ("requires reset", "ERR!", "Unknown Error", "GPU is lost")


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in MiB, None where the driver does not say. `trouble` is why it cannot be used."""

    index: int
    uuid: str
    name: str
    total_mib: int | None
    used_mib: int | None
    driver: str
    trouble: str = ""


def _number(text: str) -> int | None:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None


def _rows(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each line that is not empty, with its fields; without any where it is no table row. A name may hold commas."""
    for line in filter(None, map(str.strip, text.splitlines())):
        fields = [value.strip() for value in next(csv.reader([line], skipinitialspace=True))]
        if len(fields) < len(QUERY) or not re.fullmatch("[0-9]+", fields[0]):
            yield line, []
        else:
            yield line, [*fields[:2], ", ".join(fields[2:-3]), *fields[-3:]]


def parse(text: str) -> list[Gpu]:
    """The GPUs of an answer to `COMMAND`; lines that are not a table row are left out (see `complaint`)."""
    found = []
    for _, values in _rows(text):
        if not values:
            continue
        trouble = next((value for value in values if any(word in value for word in BROKEN)), "")
        found.append(
            Gpu(int(values[0]), values[1], values[2], _number(values[3]), _number(values[4]), values[5], trouble)
        )
    return found


def complaint(text: str) -> str:
    """The first line of an answer that is no table row: the driver's own words about what is wrong."""
    return next((line for line, values in _rows(text) if not values), "")
