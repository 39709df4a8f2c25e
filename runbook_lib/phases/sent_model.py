"""The model on a host: one way to bring it there, for the try and for the run; only its listed files are sent."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import HostError, LinkLost
from ..hosts import hosts as machines
from ..hosts.content import file_content
from ..profile.secret import redact
from ..run import model as models
from ..run.run import Run

FETCH_S = 600.0  # time limit for a host to fetch the model, plus the time of its bytes on a slow line
SLOWEST_BYTES_S = 100_000.0
FETCH_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)  # between the tries if the connection breaks meanwhile


def model_folder(host: machines.Host, model: models.Model) -> Path:
    """Return the folder of a model on a host: named by its digest, shared by runs."""
    return host.workdir / "models" / model.digest[:32]


def send(
    run: Run, host: machines.Host, model: models.Model, on_bytes: Callable[[int], None] = lambda count: None
) -> int:
    """Send the model's files to a host, or let it fetch them; return how many were new there. Raises HostError."""
    new = 0
    for file in model.files:
        if file.path not in model.remote:
            content = file_content(model.folder / file.path, file.sha256)
            new += host.put(model_folder(host, model) / file.path, content, on_bytes)
    if model.remote:
        new += fetch_on_host(run, host, model, model_folder(host, model))
        on_bytes(sum(file.bytes for file in model.files if file.path in model.remote))
    return new


def fetch_on_host(run: Run, host: machines.Host, model: models.Model, place: Path) -> int:
    """Let a host fetch from the hub the files that are not here; return how many were new there."""
    token = models.read_token(run.profile.hf_token)
    order = models.fetch_order(model, place, token)
    argv = [host.python, "-m", "worker", "fetch"]
    limit_s = FETCH_S + sum(file.bytes for file in model.files if file.path in model.remote) / SLOWEST_BYTES_S
    for pause_s in (*FETCH_PAUSES_S, None):
        try:
            done = host.run(argv, limit_s, cwd=host.folder.root, secret_input=order)
            break
        except LinkLost:  # the download may go on there; the next command waits for it, or continues it
            if pause_s is None:
                raise
            time.sleep(pause_s)
    last = redact((done.err if done.exit_code else done.out).strip()).splitlines()[-1:]
    if done.exit_code:
        why = last[0] if last else f"exit code {done.exit_code}"
        raise HostError(f"{host.name}: fetching the model there: {why}")
    try:
        return int(json.loads(last[0])["new"])
    except (ValueError, TypeError, KeyError, IndexError):
        raise HostError(f"{host.name}: its answer about the model that it fetched is invalid") from None
