"""The model in float32 on this machine's processor, in a process of its own that answers text by text.

A process of its own: a text may end it, and what a broken device does to the memory of its worker does not reach it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, TextIO

from .any_encoder import AnyEncoder
from .chunks import counts
from .device import NO_GPU
from .escape import safe_text
from .layout import HostFolder
from .process import ended_by
from .texts import QUERY, Question, kind_of
from .wire import PADDED, Assignment, Opinion, read_assignment

ANSWER_S = 600.0  # for one text, and three times that to load the model


class CannotEither(Exception):
    """The processor fails at a text too; the message says how."""


class Unusable(Exception):
    """The processor cannot run this model at all: it has no opinion."""


@dataclass(frozen=True)
class Answer:
    """What the processor makes of a text: its tokens before the cut, its vector, its chunks where it is not cut."""

    tokens: int
    vector: Sequence[float]
    chunks: int | None = None


def serve(root: Path, host: str, threads: int) -> int:
    """Be that process: texts a line on standard input, an answer a line on standard output, until it ends."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes to the log
    signal.alarm(int(3 * ANSWER_S))  # should the worker be gone, and this hang
    assignment = read_assignment(HostFolder(root).assignment(host))
    if assignment is None:
        return 1
    return _answer_all(load_padded(assignment, threads), out)


def recompute(
    model: Path, dtype: str, max_tokens: int | None, chunk_tokens: int | None, templates: dict[str, str], threads: int
) -> int:
    """Be the same for who holds a run's vectors against the model: without a run's folder, and in any dtype."""
    from .loading import make

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return _answer_all(make(model, "cpu", dtype, max_tokens, chunk_tokens, threads, templates), out)


def _answer_all(encoder: AnyEncoder, out: TextIO) -> int:
    print("{}", file=out, flush=True)
    signal.alarm(0)
    for line in sys.stdin:
        for asked in json.loads(line):
            signal.alarm(int(ANSWER_S))
            text = Question(asked["text"]) if asked["kind"] == QUERY else asked["text"]
            print(json.dumps(answer(encoder, text).to_json()), file=out, flush=True)
            signal.alarm(0)
    return 0


def load_padded(assignment: Assignment, threads: int) -> AnyEncoder:
    """The model as the library computes it: padded, so that a packed slot too is held against something else."""
    from .encode import load

    return load(replace(assignment, batching=PADDED), "cpu", "float32", threads)


def answer(encoder: AnyEncoder, text: str) -> Opinion:
    """What an encoder makes of a text alone, or how it fails at it."""
    try:
        lengths = encoder.lengths([text])
        vectors = encoder.encode([text], lengths, [-1])
        bad = encoder.bad_rows(vectors)
    except Exception as error:
        return Opinion(f"{type(error).__name__}: {error}"[:2000])
    if bad:
        return Opinion(bad[0])
    of_each = counts(lengths)
    return Opinion(tokens=lengths[0], vector=tuple(vectors[0].tolist()), chunks=of_each[0] if of_each else None)


class Processor:
    """Asks that process, and starts it anew when a text ended it."""

    def __init__(self, folder: HostFolder, assignment: Assignment, threads: int, alive: Callable[[str], None]):
        self._argv = [assignment.python, "-m", "worker", "second", "--root", str(folder.root)]
        self._argv += ["--host", assignment.host, "--threads", str(threads)]
        self._root, self._alive = folder.root, alive
        self._answer_s = assignment.answer_s or ANSWER_S
        self._child: subprocess.Popen[bytes] | None = None
        self.loaded = False
        self.pending = 0  # texts that were posted and are not answered yet
        self._have = b""  # of its output: more than a line may come at once

    def start(self) -> None:
        """Let it load, without waiting for it."""
        if self._child is None:
            self._child = self._popen(stdin=subprocess.PIPE)

    def learn(self) -> subprocess.Popen[bytes]:
        """Start the process that computes the known texts."""
        return self._popen("--learn", stdin=subprocess.DEVNULL)

    def _popen(self, *more: str, stdin: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **NO_GPU}
        argv = [*self._argv, *more]
        try:
            return subprocess.Popen(argv, cwd=self._root, env=environment, stdin=stdin, stdout=subprocess.PIPE)
        except OSError as error:
            raise Unusable(f"cannot start {argv[0]}: {error}") from None

    def ask(self, text: str) -> Answer:
        """The answer to one text. Raises CannotEither, or Unusable when it does not come to load the model."""
        self.start()
        if not self.loaded:
            self.loaded = self._line(3 * self._answer_s, "loading the model") is not None
            if not self.loaded:
                raise Unusable(self._end())
        self._send([text])
        return self.take()

    def post(self, texts: Sequence[str]) -> bool:
        """Let it begin with these texts, each to be had by `take`; False while it has not loaded the model."""
        self.start()
        assert self._child is not None and self._child.stdout is not None
        if not self.loaded and (self._have or select.select([self._child.stdout], [], [], 0.0)[0]):
            self.loaded = self._line(self._answer_s, "loading the model") is not None
        if self.loaded:
            self._send(texts)
        return self.loaded

    def _send(self, texts: Sequence[str]) -> None:
        assert self._child is not None and self._child.stdin is not None
        asked = [{"text": text, "kind": kind_of(text)} for text in texts]
        self.pending += len(asked)
        try:
            self._child.stdin.write(json.dumps(asked).encode() + b"\n")
            self._child.stdin.flush()
        except OSError:  # it has ended: `take` says how
            return

    def take(self) -> Answer:
        """The answer to the first text that was posted and is not answered. Raises CannotEither."""
        opinion = self._line(self._answer_s, "asking the processor")
        if opinion is None:
            raise CannotEither(self._end())
        self.pending -= 1
        if opinion.error is not None or opinion.tokens is None or opinion.vector is None:
            raise CannotEither(safe_text(opinion.error or "no answer"))
        return Answer(opinion.tokens, opinion.vector, opinion.chunks)

    def _line(self, within_s: float, doing: str) -> Opinion | None:
        """Its next line; None when it ended, or was ended because none came in time."""
        assert self._child is not None and self._child.stdout is not None
        began, fd = time.monotonic(), self._child.stdout.fileno()
        while b"\n" not in self._have:
            if select.select([fd], [], [], 0.5)[0]:
                if not (more := os.read(fd, 2**16)):
                    return None
                self._have += more
                continue
            waited = time.monotonic() - began
            self._alive(f"{doing}: {waited:.0f} s")
            if waited > within_s:
                return None
        line, _, self._have = self._have.partition(b"\n")
        try:
            return Opinion.from_json(json.loads(line))
        except ValueError:
            return None

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
        self._child, self.loaded, self.pending, self._have = None, False, 0, b""
