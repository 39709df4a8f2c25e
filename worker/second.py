"""A second opinion: the same model in float32 on this machine's processor (`processor.py`).

It says what known texts give, so that a device which computes wrong is found before its vectors are believed; and it is
asked for every text that a device could not do, before that text is blamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from . import locks
from .any_encoder import AnyEncoder
from .device import budget
from .escape import safe_text
from .fields import read_record
from .files import never_make, write_json
from .layout import HostFolder
from .process import ended_by
from .processor import ANSWER_S, Answer, CannotEither, Processor, Unusable, answer, load_padded
from .wire import Assignment, Known, SlotSpec, read_assignment

KNOWN_S = 180.0  # so long a worker waits for the known vectors; without them it begins, and looks again at each commit
BUSY = 3
WORD = "word"
SENTENCE = "The quick brown fox jumps over the lazy dog near the old river bank in 1984."
LONG = " ".join([SENTENCE] * 32)  # some 600 tokens
KNOWN = (WORD, SENTENCE, LONG)

# How far a device's vector may be from the processor's float32 one, as a share of its length: rounding, with much room.
DISTANCE = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.2}

# A device whose rows the processor had to do is at fault when it is more than so many, and more than this share.
FAULTS, FAULTY_SHARE = 3, 0.1


class DeviceFault(Exception):
    """The device cannot do what it must be able to do: no text is blamed by it."""


def learn(root: Path, host: str, threads: int) -> int:
    """Compute the known texts for all workers of this host: on file, and on standard output for the worker that asked.

    A process of its own does it, so a worker that hangs holds up no other. BUSY where another one is at it.
    """
    never_make(root)
    folder = HostFolder(root)
    assignment = read_assignment(folder.assignment(host))
    try:
        lock = locks.take(folder.known_lock)
    except OSError:  # a file system without locks: everybody does
        lock = -1
    if lock is None:
        return BUSY
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.alarm(int(4 * ANSWER_S))
    if assignment is None or read_known(folder.known, known_key(assignment)):
        return BUSY
    encoder = load_padded(assignment, threads)
    answers = [answer(encoder, text) for text in KNOWN]
    errors = [each.error for each in answers if each.error is not None]
    if errors:
        print(json.dumps(Known(errors[0]).to_json()), file=out, flush=True)
        return 1
    vectors = tuple(each.vector or () for each in answers)
    with contextlib.suppress(OSError):  # a full disk: the worker that asked has them all the same
        on_file = Known(vectors=vectors, key=known_key(assignment), sha256=_digest(vectors))
        write_json(folder.known, on_file.to_json())
    print(json.dumps(Known(vectors=vectors).to_json()), file=out, flush=True)
    return 0


def known_key(assignment: Assignment) -> str:
    """What known vectors are good for: this model, read so."""
    read_so = [assignment.model.digest, assignment.max_tokens, assignment.prompt, KNOWN, assignment.chunk_tokens]
    return hashlib.sha256(json.dumps(read_so).encode()).hexdigest()


def read_known(path: Path, key: str) -> Sequence[Sequence[float]]:
    """The known vectors on file; none where there are none, or others, or damaged ones."""
    known = read_record(Known, path)
    return known.vectors if known.key == key and known.sha256 == _digest(known.vectors) else ()


class Second:
    """What a worker asks before it believes its device, or blames a text."""

    def __init__(self, folder: HostFolder, assignment: Assignment, spec: SlotSpec, alive: Callable[[str], None]):
        self.processor = Processor(folder, assignment, spec.threads, alive)
        self._path, self._lock = folder.known, folder.known_lock
        self._dtype, self._alive = assignment.dtype, alive
        self._rows, self._budget = spec.part_rows, budget(spec.device)
        self._key = known_key(assignment)
        self._learner: subprocess.Popen[bytes] | None = None
        self._why = ""  # why the processor has no opinion
        self._known: dict[str, Sequence[float]] = {}
        self._by_device = self._by_processor = 0

    def begin(self) -> None:
        """Have the known texts computed while the model is loaded on the device."""
        if self._learner is None and not self._read():
            try:
                self._learner = self.processor.learn()
            except Unusable as why:
                self._why = str(why)

    def close(self) -> None:
        """End what was started."""
        self.processor.close()
        if self._learner:
            self._learner.kill()
            self._learner.communicate()

    # ------------------------------------------------------------------------------------------------- known texts

    def _read(self) -> bool:
        """Take the known vectors from file, where a worker of this host had them computed."""
        self._known = dict(zip(KNOWN, read_known(self._path, self._key)))
        return bool(self._known)

    def _learn(self, within_s: float) -> None:
        """Have the known vectors: from file, or from the process that computes them; after so long without."""
        deadline = time.monotonic() + within_s
        while not self._known and not self._why and not self._read() and time.monotonic() < deadline:
            if self._learner or not self._held():
                self.begin()
            else:  # a neighbour's process, or the warm one's, computes them
                time.sleep(0.05)
            if self._learner and self._learner.stdout and select.select([self._learner.stdout], [], [], 0.2)[0]:
                self._take(self._learner)
            self._alive(f"known vectors: {deadline - time.monotonic():.0f} s at most")

    def _held(self) -> bool:
        try:
            return locks.held(self._lock)
        except OSError:  # a file system without locks
            return False

    def _take(self, learner: subprocess.Popen[bytes]) -> None:
        """What the process that computes them says at its end; nothing where a neighbour's is at it."""
        printed, _ = learner.communicate()
        self._learner = None
        try:
            known = Known.from_json(json.loads(printed))
        except ValueError:
            if learner.returncode != BUSY:
                self._why = ended_by(learner.returncode)
            return
        self._why = safe_text(known.error or "")
        self._known = dict(zip(KNOWN, known.vectors))

    def blind(self) -> str:
        """Why the device is held against nothing at this moment; empty where known vectors are there."""
        return "" if self._known else self._why or "they are not computed yet"

    def no_opinion(self) -> str:
        """Why the processor cannot be asked; empty where it can."""
        self._learn(4 * ANSWER_S)
        return self._why if self._known or self._why else "it did not come to an end with the known texts"

    # ---------------------------------------------------------------------------------------------------- the device

    def check(self, encoder: AnyEncoder, whole: bool = True) -> None:
        """Raise DeviceFault unless the device does the known texts as the processor does.

        Alone and in batches as large as they come, unless not `whole`: then one sentence.
        """
        self._learn(KNOWN_S if whole else 0.0)
        texts = [SENTENCE]
        try:
            if whole:
                alone = encoder.cut(encoder.lengths([WORD, LONG]), [WORD, LONG])
                words, longs = (max(1, min(self._rows, self._budget // max(1, n))) for n in alone)
                texts = [*[WORD] * words, SENTENCE, *[LONG] * longs]
            vectors = self._vectors(encoder, texts)
        except Exception as error:
            raise DeviceFault(f"a known text cannot be computed: {type(error).__name__}: {error}") from error
        self._compare(encoder, texts, vectors)

    def _vectors(self, encoder: AnyEncoder, texts: list[str]) -> Any:
        def alive(rows: list[int]) -> None:
            self._alive(f"known texts: {time.monotonic():.3f}")

        return encoder.encode(texts, encoder.lengths(texts), [-1] * len(texts), alive)

    def _compare(self, encoder: AnyEncoder, texts: list[str], vectors: Any) -> None:
        bad = encoder.bad_rows(vectors)
        if bad and self._dtype != "float32":  # a model may overflow in half precision: then its rows are redone
            bad = encoder.redo(texts, sorted({texts[i]: i for i in bad}.values()), vectors) or {}
            usable = sorted(set(range(len(texts))) - set(encoder.bad_rows(vectors)))
        else:
            usable = list(range(len(texts)))
        for i, why in bad.items():
            raise DeviceFault(f"a known text comes out wrong: {_name(texts[i])}: {why}")
        for i in usable if self._known else []:
            away = _distance(vectors[i], self._known[texts[i]])
            if not away <= DISTANCE[self._dtype] and not self._mistaken(texts[i], vectors[i]):
                norm = sum(float(x) ** 2 for x in vectors[i]) ** 0.5
                what = f"norm {norm:.4g}" if norm else "a vector of zeros"
                raise DeviceFault(
                    f"a known text comes out wrong: {_name(texts[i])}: {what}, and {away:.3g} of its length away from "
                    f"what the processor gives (at most {DISTANCE[self._dtype]:g})"
                )

    def _mistaken(self, text: str, vector: Any) -> bool:
        """Whether the known vector is not what the processor gives now, and the device is right."""
        try:
            now = self.processor.ask(text).vector
        except (CannotEither, Unusable):
            return False
        right = bool(_distance(vector, now) <= DISTANCE[self._dtype])
        if right:
            self._path.unlink(missing_ok=True)
            self._known = {}
        return right

    # --------------------------------------------------------------------------------------------------- the document

    def vector(self, text: str) -> Answer:
        """What the processor makes of a text that the device could not do. Raises CannotEither.

        One that cannot do a word either has no opinion on the text: Unusable.
        """
        if why := self.no_opinion():
            raise Unusable(f"no second opinion: the processor cannot do a word ({why})")
        try:
            return self.processor.ask(text)
        except Unusable as why:
            raise Unusable(f"no second opinion: {why}") from None
        except CannotEither:
            self._believe()
            raise

    def _believe(self) -> None:
        """Raise Unusable when the processor, which just failed at a text, cannot do a word as before."""
        try:
            right = _distance(self.processor.ask(WORD).vector, self._known[WORD]) <= DISTANCE["float32"]
        except CannotEither as why:
            raise Unusable(f"no second opinion: the processor cannot do a word any more ({why})") from None
        if not right:
            raise Unusable("no second opinion: the processor does a word wrong")

    def tell(self, by_device: int, by_processor: int) -> None:
        """Take note of who did how many rows. Raises DeviceFault for a device that leaves too many to the processor."""
        self._by_device += by_device
        self._by_processor += by_processor
        rows = self._by_device + self._by_processor
        if self._by_processor > FAULTS and self._by_processor > FAULTY_SHARE * rows:
            raise DeviceFault(
                f"a known text comes out right, but {self._by_processor} of {rows} rows came out wrong here and right "
                "on the processor"
            )


def _digest(vectors: Any) -> str:
    return hashlib.sha256(json.dumps(vectors).encode()).hexdigest()


def _distance(vector: Sequence[float], known: Sequence[float]) -> float:
    """How far a vector is from a known one, as a share of that one's length; infinite where they cannot be compared."""
    if len(vector) != len(known):
        return float("inf")
    length = sum(float(b) ** 2 for b in known) ** 0.5
    return float(sum((float(a) - float(b)) ** 2 for a, b in zip(vector, known)) ** 0.5) / (length or 1.0)


def _name(text: str) -> str:
    return repr(text if len(text) < 80 else text[:30] + "…")
