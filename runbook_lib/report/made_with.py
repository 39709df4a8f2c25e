"""What a run was made with, on both sides: `report/environment.json`, written when it is sealed.

On this machine every installed package; of each host what its probe said. The model's files with their sums and its
licence are what preflight found (`report/model.json`); the commit of the software's source is what the chain found when
it began (`report/source.json`).
"""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from worker.escape import safe_text
from worker.files import read_json, write_json

from .. import records
from ..run import origin
from ..run.run import PHASES, Run

FILE, MODEL, COMMIT = "environment.json", "model.json", "source.json"
GIT_S = 20.0


@dataclass(frozen=True)
class Source:
    """The software: its version, the digest of its code, and its git commit; `dirty`: files differ from that commit.

    Both are empty for an installed package; `dirty` is None where there is no git to ask.
    """

    version: str = ""
    library: str = ""
    commit: str = ""
    dirty: bool | None = None


@dataclass(frozen=True)
class Side:
    """A machine: its system, its Python, the packages there with their versions, and its devices in words."""

    system: str = ""
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFiles:
    """The model as preflight found it: `files` are the sums by path; `licence` is empty where its files state none."""

    name: str = ""
    revision: str = ""
    digest: str = ""
    licence: str = ""
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeWith:
    """`report/environment.json`. `command` makes the run again, in the archive's folder."""

    command: str
    source: Source
    here: Side
    hosts: dict[str, Side]
    model: ModelFiles


def write(run: Run) -> Path:
    """Write the record, and return its path."""
    path = run.report / FILE
    write_json(path, records.plain(gather(run)))
    return path


def gather(run: Run) -> MadeWith:
    """Return what a run was made with, as far as its files and this machine know."""
    command = f"runbook run profile.yaml --run {run.name}-again"
    here = Side(platform.platform(), f"{platform.python_version()} ({sys.implementation.name})", _installed())
    model = records.read(ModelFiles, run.report / MODEL) or ModelFiles()
    return MadeWith(command, _source(run), here, {name: _host(run, name) for name in run.host_facts()}, model)


def _installed() -> dict[str, str]:
    found = {str(each.metadata["Name"] or "").lower(): each.version for each in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(found) if name}


def _source(run: Run) -> Source:
    result = run.result(PHASES[-1])
    kept = records.read(Source, run.report / COMMIT) or Source()
    return replace(kept, library=result.inputs.get("library", "") if result else "")


def keep_source(run: Run) -> None:
    """Keep the version of the software, and its commit if this is a checkout of git, in the run's report folder."""
    commit = origin.commit(origin.ROOT)
    found = Source(origin.version(), "", commit, _dirty() if commit else None)
    if records.read(Source, run.report / COMMIT) != found:
        run.save_json(COMMIT, records.plain(found))


def _dirty() -> bool | None:
    """Whether files differ from the commit; None where git does not say."""
    argv = ["git", "-C", str(origin.ROOT), "status", "--porcelain"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_S, check=False)
        return None if done.returncode else bool(done.stdout.strip())
    return None


def _host(run: Run, name: str) -> Side:
    """Return what a host said of itself before the run."""
    facts, answer = run.host_facts()[name], {}
    with suppress(OSError, ValueError):
        answer = (read_json(run.report / f"probe_{name}.json") or {}).get("answer", {})
    answer = answer if isinstance(answer, dict) else {}
    listed = [each for each in (answer.get("packages"), answer.get("versions")) if isinstance(each, dict)]
    packages = next(filter(None, listed), {})
    told = {safe_text(str(key), 100): safe_text(str(value), 100) for key, value in packages.items()}
    gpus = tuple(safe_text(str(gpu.get("name")), 100) for gpu in facts.get("gpus", []))
    device = safe_text(str(answer.get("device") or facts.get("device") or ""), 100)
    return Side(facts.get("system", ""), safe_text(str(answer.get("python") or ""), 100), told, gpus or (device,))
