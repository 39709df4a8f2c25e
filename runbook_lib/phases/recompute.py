"""Texts computed again on this machine's processor, in float32 or the run's own dtype, by the very files of the model.

A process of its own does it (`worker/processor.py`), so no torch is needed in this one: by the Python of a host that is
this machine, or by this Python where it has the libraries.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from worker.device import NO_GPU
from worker.escape import safe_text
from worker.texts import DOCUMENT, QUERY
from worker.wire import Opinion

from ..errors import DataError, HostError
from ..hosts import hosts as machines
from ..hosts.bundle import BUNDLE
from ..profile import secret
from ..run import model as models
from ..run.plan import Plan
from ..run.run import Run

LOAD_S = 180.0  # with nothing heard from the process by then there is none
QUIET = {"OMP_WAIT_POLICY": "passive"}  # threads that wait by turning would take the processors of others' work
NEEDED = ("torch", "sentence_transformers")


def model_at_hand(run: Run, plan: Plan, folder: Path | None = None) -> models.Model:
    """Return the run's model if all its files are on this machine, or in `folder`. Raises DataError or ProfileError."""
    spec = run.profile.model
    if folder is not None:
        spec = replace(spec, name=str(folder.absolute()), download="here")
    model = models.resolve(spec, models.read_token(run.profile.hf_token))
    if model.remote:
        raise DataError(f"the weights of {plan.model.name} are on the hosts only; name a folder with them (--model)")
    if model.digest != plan.model.digest:
        raise DataError(
            f"{model.folder}: files of the model: expected digest {plan.model.digest[:16]}…, found "
            f"{model.digest[:16]}…; name the folder of those that the run was made with (--model)"
        )
    return model


def _python(run: Run) -> str:
    for spec in run.profile.hosts:
        if spec.is_here:
            return machines.connect(spec, run.name).python
    if all(importlib.util.find_spec(name) is not None for name in NEEDED):
        return sys.executable
    raise DataError("there is no torch on this machine: pip install 'embedding-runbook[worker]'")


def answers(
    run: Run, plan: Plan, model: models.Model, texts: Sequence[tuple[str, bool]], dtype: str, within_s: float
) -> Iterator[Opinion]:
    """Yield what the model makes of each text alone, in order; fewer if the time is over. `texts`: (text, is question).

    Raises DataError if the model cannot be loaded so.
    """
    deadline = time.monotonic() + within_s
    argv = [_python(run), "-m", "worker", "recompute", "--model", str(model.folder), "--dtype", dtype]
    argv += ["--prompt", plan.prompt, "--question-prompt", plan.question_prompt]
    argv += ["--threads", str(os.cpu_count() or 1)]
    argv += ["--max-tokens", str(plan.max_tokens)] if plan.max_tokens else []
    argv += ["--chunk-tokens", str(plan.chunk_tokens)] if plan.chunk_tokens else []
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said:
        for text, question in texts:
            asked.write(json.dumps([{"text": text, "kind": QUERY if question else DOCUMENT}]).encode() + b"\n")
        asked.seek(0)
        with _process(argv, asked, said) as said_by:
            if said_by.next(min(deadline, time.monotonic() + LOAD_S)) is None:
                said.seek(0)
                words = said.read()[-2000:].decode(errors="replace").strip().splitlines()[-3:]
                raise DataError(f"the model cannot be loaded here: {safe_text(' / '.join(words), 500) or 'no answer'}")
            for _ in texts:
                line = said_by.next(deadline)
                if line is None:
                    return
                yield line


@contextmanager
def _process(argv: Sequence[str], asked: IO[bytes], said: IO[bytes]) -> Iterator[_Answers]:
    """Start that process without GPUs and secrets; it is ended when nothing more is wanted of it."""
    hidden = secret.variables()
    environment = {**QUIET, **{key: value for key, value in os.environ.items() if key not in hidden}, **NO_GPU}
    try:
        child = subprocess.Popen(
            argv, cwd=BUNDLE.parent, env=environment, stdin=asked, stdout=subprocess.PIPE, stderr=said
        )
    except OSError as error:
        raise HostError(f"cannot start {argv[0]}: {error.strerror}") from None
    assert child.stdout is not None
    try:
        yield _Answers(child.stdout)
    finally:
        child.kill()
        child.communicate()


class _Answers:
    """What the process prints, line by line, each with a deadline."""

    def __init__(self, stream: IO[bytes]):
        self._fd, self._have = stream.fileno(), b""

    def next(self, deadline: float) -> Opinion | None:
        """Return the next answer; None when the process ended, or none came in time, or it is none."""
        while b"\n" not in self._have:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0] or not (more := os.read(self._fd, 2**16)):
                return None
            self._have += more
        line, _, self._have = self._have.partition(b"\n")
        try:
            return Opinion.from_json(json.loads(line))
        except ValueError:
            return None
