"""A second opinion: the same model in float32 on this machine's processor, in a process of its own.

It says what known texts give, so that a device which computes wrong is found before its vectors are believed; and it is
asked for every text that a device could not do, before that text is blamed. A process of its own: a text may end it,
and what a broken device does to the memory of its worker does not reach it.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from . import locks
from .batches import TOKEN_BUDGET
from .layout import HostFolder, read_assignment, read_json, safe_text, write_json
from .process import ended_by
from .texts import QUERY, Question, kind_of

ANSWER_S = 600.0  # for one text, and three times that to load the model
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


class CannotEither(Exception):
    """The processor fails at a text too; the message says how."""


class Unusable(Exception):
    """The processor cannot run this model at all: it has no opinion."""


@dataclass(frozen=True)
class Answer:
    """What the processor makes of a text: its tokens before the cut, and its vector."""

    tokens: int
    vector: list[float]


def serve(root: Path, host: str, threads: int) -> int:
    """Be that process: a text a line on standard input, an answer a line on standard output, until it ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes to the log
    signal.alarm(int(3 * ANSWER_S))  # should whoever asks be gone, and this hang
    assignment = read_assignment(HostFolder(root).assignment(host))
    if assignment is None:
        return 1
    from .encode import load

    encoder = load(assignment, "cpu", "float32", threads)
    print("{}", file=out, flush=True)
    signal.alarm(0)
    for line in sys.stdin:
        signal.alarm(int(ANSWER_S))
        asked = json.loads(line)
        text = Question(asked["text"]) if asked["kind"] == QUERY else asked["text"]
        print(json.dumps(_answer(encoder, text)), file=out, flush=True)
        signal.alarm(0)
    return 0


def _answer(encoder: Any, text: str) -> dict[str, Any]:
    try:
        lengths = encoder.lengths([text])
        vectors = encoder.encode([text], lengths, [-1])
        bad = encoder.bad_rows(vectors)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:2000]}
    return {"error": bad[0]} if bad else {"tokens": lengths[0], "vector": vectors[0].tolist()}


class Processor:
    """Asks that process, and starts it anew when a text ended it."""

    def __init__(self, folder: HostFolder, assignment: dict[str, Any], threads: int, alive: Callable[[str], None]):
        self._argv = [assignment["python"], "-m", "worker", "second", "--root", str(folder.root)]
        self._argv += ["--host", assignment["host"], "--threads", str(threads)]
        self._root, self._alive = folder.root, alive
        self._answer_s = float(assignment.get("answer_s") or ANSWER_S)
        self._child: subprocess.Popen[bytes] | None = None
        self._loaded = False

    def start(self) -> None:
        """Let it load, without waiting for it."""
        if self._child is None:
            hidden = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"), "")
            pipe = subprocess.PIPE
            environment = {**os.environ, **hidden}
            try:
                self._child = subprocess.Popen(self._argv, cwd=self._root, env=environment, stdin=pipe, stdout=pipe)
            except OSError as error:
                raise Unusable(f"cannot start {self._argv[0]}: {error}") from None

    def ask(self, text: str) -> Answer:
        """The answer to one text. Raises CannotEither, or Unusable when it does not come to load the model."""
        self.start()
        if not self._loaded:
            self._loaded = self._line(3 * self._answer_s, "loading the model") is not None
            if not self._loaded:
                raise Unusable(self._end())
        assert self._child is not None and self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps({"text": text, "kind": kind_of(text)}).encode() + b"\n")
            self._child.stdin.flush()
            found = self._line(self._answer_s, "asking the processor")
        except OSError:
            found = None
        if found is None:
            raise CannotEither(self._end())
        if "error" in found:
            raise CannotEither(safe_text(str(found["error"])))
        return Answer(int(found["tokens"]), found["vector"])

    def _line(self, within_s: float, doing: str) -> dict[str, Any] | None:
        """Its next line; None when it ended, or was ended because none came in time."""
        assert self._child is not None and self._child.stdout is not None
        began = time.monotonic()
        while not select.select([self._child.stdout], [], [], 0.5)[0]:
            waited = time.monotonic() - began
            self._alive(f"{doing}: {waited:.0f} s")
            if waited > within_s:
                return None
        try:
            found: dict[str, Any] = json.loads(self._child.stdout.readline())
        except ValueError:
            return None
        return found

    def _end(self) -> str:
        """End it, and say how it ended by itself, or that it gave no answer."""
        assert self._child is not None
        code = self._child.poll()
        if code is None:
            try:
                code = self._child.wait(1.0)  # it closed its output a moment ago
            except subprocess.TimeoutExpired:
                code = None
        self.close()
        return "no answer in time" if code is None else ended_by(code)

    def close(self) -> None:
        """End it; it may be started again."""
        if self._child:
            self._child.kill()
            self._child.communicate()
        self._child, self._loaded = None, False


class Second:
    """What a worker asks before it believes its device, or blames a text."""

    def __init__(
        self, folder: HostFolder, assignment: dict[str, Any], spec: dict[str, Any], alive: Callable[[str], None]
    ):
        self.processor = Processor(folder, assignment, int(spec["threads"]), alive)
        self._path, self._lock = folder.known, folder.known_lock
        self._dtype, self._alive = assignment["dtype"], alive
        budget = TOKEN_BUDGET["cuda" if spec["device"].startswith("cuda") else "cpu"]
        self._rows, self._budget = int(spec["part_rows"]), budget
        self._key = hashlib.sha256(
            json.dumps([assignment["model"]["digest"], assignment["max_tokens"], assignment["prompt"], KNOWN]).encode()
        ).hexdigest()
        self._held: int | None = None
        self._why = ""  # why the processor has no opinion
        self._known: dict[str, list[float]] = {}
        self._by_device = self._by_processor = 0

    def begin(self) -> None:
        """Have the known texts computed while the model is loaded on the device, unless a neighbour does it."""
        if not self._read() and self._take_lock():
            try:
                self.processor.start()
            except Unusable as why:
                self._why = str(why)

    def close(self) -> None:
        """End what was started."""
        self.processor.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    # ------------------------------------------------------------------------------------------------- known texts

    def _read(self) -> bool:
        """Take the known vectors from file, where somebody of this host computed them."""
        try:
            found = read_json(self._path) or {}
        except (OSError, ValueError):
            return False
        vectors = found.get("vectors")
        if not isinstance(vectors, list) or found.get("key") != self._key or found.get("sha256") != _digest(vectors):
            return False
        self._known = dict(zip(KNOWN, vectors))
        return True

    def _take_lock(self) -> bool:
        if self._held is not None:
            return True
        try:
            self._held = locks.take(self._lock)
        except OSError:  # a file system without locks: everybody computes them
            return True
        return self._held is not None

    def _learn(self) -> None:
        """Have the known vectors: from file, or computed by one worker of this host while the others wait for it."""
        deadline = time.monotonic() + 4 * ANSWER_S
        while not self._known and not self._why and not self._read():
            if self._take_lock():
                self._compute()
            elif time.monotonic() > deadline:
                self._why = "a neighbour did not come to compute them"
            else:
                self._alive(f"waiting for known vectors: {deadline - time.monotonic():.0f} s at most")
                time.sleep(0.2)

    def _compute(self) -> None:
        try:
            vectors = [self.processor.ask(text).vector for text in KNOWN]
            self._known = dict(zip(KNOWN, vectors))
            write_json(self._path, {"key": self._key, "vectors": vectors, "sha256": _digest(vectors)})
        except (CannotEither, Unusable) as why:
            self._why = str(why)
        except OSError:  # such as a full disk: they are in memory
            pass
        self.close()  # which gives its memory back

    def no_opinion(self) -> str:
        """Why the processor cannot be asked; empty where it can."""
        self._learn()
        return self._why

    # ---------------------------------------------------------------------------------------------------- the device

    def check(self, encoder: Any, whole: bool = True) -> None:
        """Raise DeviceFault unless the device does the known texts as the processor does.

        Alone and in batches as large as they come, unless not `whole`: then one sentence.
        """
        self._learn()
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

    def _vectors(self, encoder: Any, texts: list[str]) -> Any:
        def alive(rows: list[int]) -> None:
            self._alive(f"known texts: {time.monotonic():.3f}")

        return encoder.encode(texts, encoder.lengths(texts), [-1] * len(texts), alive)

    def _compare(self, encoder: Any, texts: list[str], vectors: Any) -> None:
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
