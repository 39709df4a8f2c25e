"""One part: its vectors by the device, the rows that the device cannot do by the processor, and a record of both."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from .any_encoder import AnyEncoder
from .blame import DEATHS_BEFORE_SUSPICION, FEW_ROWS, Suspects, judged, raising, try_alone, words
from .chunks import counts
from .processor import Answer
from .rows import fingerprint
from .say import say
from .second import DeviceFault, Second
from .wire import RowsRecord

TRIES = 3  # of a batch that raised, and did not raise again when it was tried alone

Noting = Callable[[list[int]], None]


def encode_part(
    encoder: AnyEncoder,
    texts: list[str],
    start: int,
    suspects: Suspects,
    noting: Noting,
    second: Second | None = None,
    condemned: Mapping[int, str] | None = None,
    tokenized: Any = None,
) -> tuple[Any, RowsRecord]:
    """The vectors of a part, float32 (rows, dim), and what is to be recorded of them.

    A row that the device cannot do is done by the processor (`second`); the rows of `condemned` are not even tried on
    the device. Raises DeviceFault where the device cannot do known texts, GivenUp for rows that no device can do.
    Without a second opinion it raises RowError for the first row that the device cannot do. `tokenized`: what
    `encoder.lengths` gave for these texts, where it was asked before.
    """
    began = time.monotonic()
    out_of_memory = encoder.out_of_memory
    failed = {row - start: why for row, why in (condemned or {}).items() if start <= row < start + len(texts)}
    if suspects.deaths >= DEATHS_BEFORE_SUSPICION and not failed:
        failed = try_alone(encoder, texts, start, suspects, _checking(encoder, second))
    by_device, lengths, vectors = _compute(encoder, texts, start, suspects, noting, second, failed, tokenized)
    redone: list[int] = []
    if by_device:
        bad = encoder.bad_rows(vectors)
        redone = [by_device[i] for i in sorted(bad)]
        if bad:
            rows, some = [start + i for i in by_device], [texts[i] for i in by_device]
            still = redo(encoder, some, rows, bad, vectors, suspects, second)
            failed.update({by_device[i]: f"{why}, also in float32" for i, why in still.items()})
    answers: dict[int, Answer] = {}
    if failed:
        if second is None:
            from .encoder import RowError

            row, why = next(iter(failed.items()))
            raise RowError(start + row, why)
        answers = judged(second, texts, start, failed)
    tokens, whole = _together(len(texts), by_device, lengths, vectors, answers)
    import numpy as np

    padding = encoder.padding(tokens, texts)
    return whole, RowsRecord(
        fingerprints=tuple(fingerprint(text) for text in texts),
        tokens=tuple(tokens),
        norms=tuple(round(float(n), 7) for n in np.linalg.norm(whole.astype(np.float64), axis=1)),
        truncated=tuple(start + i for i, cut in enumerate(encoder.cut(tokens, texts)) if cut < tokens[i]),
        redone_float32=tuple(start + i for i in sorted({*redone, *answers})),
        done_by_processor={str(start + i): failed[i] for i in sorted(answers)},
        by_processor=sum("out of memory" not in failed[i] for i in answers),
        real_tokens=padding["real_tokens"],
        padded_tokens=padding["padded_tokens"],
        out_of_memory=encoder.out_of_memory - out_of_memory,
        seconds=round(time.monotonic() - began, 4),
        chunks=_chunks(len(texts), by_device, lengths, answers),
    )


def _checking(encoder: AnyEncoder, second: Second | None) -> Callable[[str], None]:
    """What holds the device against the known texts after something went wrong; `said` is what did."""

    def check(what: str) -> None:
        if second:
            try:
                second.check(encoder)
            except DeviceFault as error:
                raise DeviceFault(f"{error}; after {what}") from None

    return check


def _compute(
    encoder: AnyEncoder,
    texts: list[str],
    start: int,
    suspects: Suspects,
    noting: Noting,
    second: Second | None,
    failed: dict[int, str],
    tokenized: Any,
) -> tuple[list[int], list[int], Any]:
    """(positions that the device did, their tokens, their vectors); `failed` gets the others, with the reason.

    A batch that raises is halved until each text that raises alone is found.
    """
    unwritten: list[OSError] = []

    def note(rows: list[int]) -> None:
        try:
            noting(rows)
        except OSError as error:  # a full disk: no text's fault
            unwritten.append(error)
            raise

    def run(positions: Sequence[int]) -> tuple[list[int], Any]:
        rows, some = [start + i for i in positions], [texts[i] for i in positions]
        suspects.note(rows)  # a text may end its worker in the tokenizer already
        whole = tokenized is not None and len(some) == len(texts)
        lengths = tokenized if whole else encoder.lengths(some)
        return lengths, encoder.encode(some, lengths, rows, note)

    tries = 0
    while positions := [i for i in range(len(texts)) if i not in failed]:
        try:
            return positions, *run(positions)
        except Exception as error:
            if second is None or unwritten:
                raise
            reason, row = words(error), getattr(error, "row", None)
            _checking(encoder, second)(reason)
            if isinstance(row, int):
                failed[row - start] = str(getattr(error, "reason", reason))
                continue
        at_hand = [row - start for row in suspects.at_hand]
        raising_alone = raising(run, at_hand)
        failed.update(raising_alone)
        if not raising_alone:
            tries += 1
            encoder.row_limit = max(1, min(encoder.row_limit or len(at_hand), len(at_hand)) // 2)
            say(f"batches of at most {encoder.row_limit} rows: {len(at_hand)} raise together and none alone: {reason}")
        if tries > TRIES + len(texts).bit_length():
            raise DeviceFault(f"a known text comes out right, but batches raise and none of their texts does: {reason}")
    return [], [], None


def redo(
    encoder: AnyEncoder,
    texts: list[str],
    rows: list[int],
    bad: dict[int, str],
    vectors: Any,
    suspects: Suspects,
    second: Second | None,
) -> dict[int, str]:
    """Compute bad vectors again in float32; gives the positions that stay bad, and why."""
    reasons = ", ".join(f"row {rows[i]} ({reason})" for i, reason in list(bad.items())[:10])
    check = _checking(encoder, second)
    check(reasons)
    say(f"redone in float32: {reasons}")
    still: dict[int, str] = {}
    for i in bad:
        suspects.note([rows[i]])
        try:
            still.update(encoder.redo(texts, [i], vectors))
        except Exception as error:
            if second is None:
                raise
            check(words(error))
            still[i] = f"{bad[i]}, and {words(error)}"
        if len(still) > len(texts) // 2 and len(texts) >= FEW_ROWS:
            raise RuntimeError(
                f"most vectors of rows {rows[0]}-{rows[-1] + 1} are bad, also in float32 (row {rows[i]}: "
                f"{still[i]}): not the texts are at fault but the model or the device"
            )
    return still


def _chunks(
    count: int, by_device: list[int], lengths: list[int], answers: Mapping[int, Answer]
) -> tuple[int, ...] | None:
    """In how many chunks each text was read, by whoever did it; None where long texts are cut."""
    found = dict(zip(by_device, counts(lengths) or ()))
    found.update({i: answer.chunks for i, answer in answers.items() if answer.chunks})
    return tuple(found[i] for i in range(count)) if len(found) == count else None


def _together(
    count: int, by_device: list[int], lengths: list[int], vectors: Any, answers: Mapping[int, Answer]
) -> tuple[list[int], Any]:
    """(tokens, vectors) of all positions, done by the device or by the processor."""
    if not answers:
        return lengths, vectors
    import numpy as np

    dim = vectors.shape[1] if by_device else len(next(iter(answers.values())).vector)
    whole, tokens = np.empty((count, dim), np.float32), [0] * count
    for k, i in enumerate(by_device):
        whole[i], tokens[i] = vectors[k], lengths[k]
    for i, answer in answers.items():
        whole[i], tokens[i] = answer.vector, answer.tokens
    return tokens, whole
