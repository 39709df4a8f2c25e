"""Which text is at fault: suspects by the deaths that they were there at, culprits by exceptions, and who is given up.

A text is given up only when the device that does known texts right fails at it, and the processor fails at it too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from . import process
from .any_encoder import AnyEncoder
from .escape import safe_text
from .fields import read_record
from .files import write_json
from .layout import FORMAT, HostFolder
from .processor import Answer, CannotEither, Unusable
from .progress import write_in_place
from .say import say
from .second import Second
from .wire import RowGivenUp, Suspected

# A batch that ended two workers is looked at row by row; a row that then ends two more, alone, is left to the
# processor. One death alone would not do: the system's own killer, or a person, may strike at the same batch again.
DEATHS_BEFORE_SUSPICION = 2
DEATHS_TO_GIVE_UP = 4

# When most rows of a part fail, also on the processor, it is the model; in a part of fewer rows than this, chance.
FEW_ROWS = 8
REASONS = 20_000  # characters of an exception that are kept


class GivenUp(Exception):
    """Rows that neither the device nor the processor can do, each with its reason."""

    def __init__(self, rows: Mapping[int, str]):
        super().__init__("; ".join(f"row {row}: {why}" for row, why in rows.items()))
        self.rows = dict(rows)


class LeftToOthers(Exception):
    """Rows that this device cannot do, and this host cannot say whether another one can."""

    def __init__(self, rows: Mapping[int, str]):
        super().__init__("; ".join(f"row {row}: {why}" for row, why in rows.items()))
        self.rows = dict(rows)


class Suspects:
    """Remembers which rows are being computed, so that a death names them."""

    def __init__(self, folder: HostFolder, slot: str):
        self._path = folder.suspects(slot)
        self._boot = process.boot_id()
        before = read_record(Suspected, self._path)
        known = before.boot == self._boot  # else the machine went down, for a reason not known
        self.rows = list(before.rows) if known else []
        self.deaths = (before.deaths or 0) + 1 if self.rows else 0
        self.at_hand: list[int] = []
        self._expected: list[int] = []
        self._unsettled = set(self.rows)
        self._lock = threading.Lock()

    @property
    def careful(self) -> bool:
        """Whether rows that were there at a death are still to be done: then nothing is begun before its turn."""
        return bool(self._unsettled)

    def note(self, rows: Sequence[int]) -> None:
        """These rows are being computed."""
        self.at_hand = list(rows)
        self._write()

    def expect(self, rows: Sequence[int]) -> None:
        """These are read besides, for their turn to come."""
        before, self._expected = self._expected, list(rows)
        if before or rows:
            self._write()

    def _write(self) -> None:
        with self._lock:
            rows = [*self.at_hand, *self._expected]
            same = set(rows) <= set(self.rows)
            if rows:
                write_in_place(self._path, Suspected(tuple(rows), self.deaths if same else 0, self._boot))
            else:
                self._path.unlink(missing_ok=True)

    def spare(self) -> None:
        """A death is not theirs from here on, until the next `note`: what was counted stays."""
        if self.rows:
            write_in_place(self._path, Suspected(tuple(self.rows), self.deaths - 1, self._boot))

    def clear(self, done: Sequence[int] = ()) -> None:
        """What was noted is computed, or the worker ends for a reason that is not theirs. `done`: rows that are."""
        self.at_hand = []
        self._unsettled.difference_update(done)
        self._write()

    def condemned(self) -> dict[int, str]:
        """The row that ended so many workers, the last ones alone, with that as its reason."""
        if self.deaths < DEATHS_TO_GIVE_UP or len(self.rows) != 1:
            return {}
        return {self.rows[0]: f"ended {self.deaths} workers, the last ones alone"}


def quarantine(folder: HostFolder, row: int, reason: str, slot: str, sure: bool = False) -> None:
    """Give a row up, by name: the others go on, the run ends as incomplete. `sure`: the processor failed at it too."""
    say(f"row {row} given up: {reason}")
    record = RowGivenUp(row, time.time(), safe_text(reason), slot, sure, FORMAT)
    write_json(folder.quarantined(row), record.to_json())


def words(error: BaseException) -> str:
    """An exception's type and text."""
    return f"{type(error).__name__}: {error}"[:REASONS]


Run = Callable[[Sequence[int]], Any]


def raising(run: Run, positions: Sequence[int]) -> dict[int, str]:
    """The positions at which `run` raises by themselves, with the exception; found by halving what raises."""
    try:
        run(positions)
    except Exception as error:
        if len(positions) == 1:
            return {positions[0]: words(error)}
    else:
        return {}
    half = len(positions) // 2
    return {**raising(run, positions[:half]), **raising(run, positions[half:])}


def try_alone(
    encoder: AnyEncoder, texts: list[str], start: int, suspects: Suspects, check: Callable[[str], None]
) -> dict[int, str]:
    """Compute each suspect by itself, so that a death names it; gives the positions that raise, and how.

    The device has done the known texts before: where those end the worker, the device or the software is broken, and no
    row is blamed. The vectors are thrown away: the batches, and with them the bytes, stay as planned. Only when the
    rows lived alone and ended one more worker together, the system may be killing it for its memory, and batches are
    made smaller. `check` raises when the device cannot do the known texts any more.
    """
    rows = [row for row in suspects.rows if start <= row < start + len(texts)]
    if len(rows) > 1 and suspects.deaths > DEATHS_BEFORE_SUSPICION:
        encoder.row_limit = max(1, len(rows) // 4 ** (suspects.deaths - DEATHS_BEFORE_SUSPICION))
        say(f"batches of at most {encoder.row_limit} rows: one of {len(rows)} ended {suspects.deaths} workers")
        return {}
    failed: dict[int, str] = {}
    for row in rows:
        say(f"row {row} tried alone: its batch ended {suspects.deaths} workers")
        suspects.note([row])
        text = [texts[row - start]]
        try:
            encoder.encode(text, encoder.lengths(text), [row])
        except Exception as error:
            failed[row - start] = words(error)
            check(words(error))
    return failed


def judged(second: Second, texts: list[str], start: int, failed: Mapping[int, str]) -> dict[int, Answer]:
    """What the processor makes of the positions that the device failed at.

    Raises GivenUp for those that it fails at as well, LeftToOthers where it has no opinion.
    """
    answers: dict[int, Answer] = {}
    given_up: dict[int, str] = {}
    left: dict[int, str] = {}
    for i, why in failed.items():
        say(f"row {start + i} is asked of the processor: {why}")
        try:
            answers[i] = second.vector(texts[i])
        except CannotEither as error:
            given_up[start + i] = f"{why}; on the processor: {error}"
        except Unusable as error:
            left[start + i] = f"{why}; {error}"
    if len(given_up) > len(texts) // 2 and len(texts) >= FEW_ROWS:
        row, why = next(iter(given_up.items()))
        raise RuntimeError(
            f"most vectors of rows {start}-{start + len(texts)} are bad (row {row}: {why}): "
            "not the texts are at fault but the model or the device"
        )
    if given_up:
        raise GivenUp(given_up)
    if left:
        raise LeftToOthers(left)
    return answers
