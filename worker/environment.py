"""The Python environment of a host: found, or made once from pinned requirements; never changed while it may be in use.

Standard library only. `find` looks and changes nothing; `worker.making` makes one.
An environment counts when its record is there, and the record is written last. Nothing that has a record is ever
changed or deleted: workers may run in it, here or on a host that shares the folder.

    <workdir>/environments/
        <stem>/                    a venv; its stem is the start of its digest, so another digest is another folder
        <stem>.json                its record (of a conda environment: <prefix>/runbook_environment.json)
        <stem>.lock                held while it is made, by the maker and by the command that it runs
        <stem>.log                 every command and what it printed, appended
        <stem>.failed.json         why the last try failed; gone with the next try
        <stem>.requirements.txt    what pip reads

The stem of a conda environment is conda_<name>: it is one place, whatever the digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, TypedDict  # noqa: UP035  (Python 3.9 on lab boxes)

from . import commands, locks, owned, process
from .escape import safe_text
from .fields import read_record
from .files import read_json, sha256_file
from .wire import EnvironmentFailure, Holder

# In a conda environment of ours; the second one from its making until the first one is written.
RECORD, BEGUN = "runbook_environment.json", "runbook_begun.json"
CONDA_CREATE = "conda create"  # the step during which what conda leaves behind belongs to no environment yet
ASK_S = 30.0

# A login that is not interactive has no conda in its PATH.
TOOLS = ("conda", "mamba", "micromamba")
KINDS = ("miniconda3", "miniforge3", "mambaforge", "anaconda3", "micromamba", "conda")
BASES = (
    *(f"{top}/{kind}" for top in ("~", "/opt", "/usr/local", "/opt/homebrew") for kind in KINDS),
    "~/.local/share/mamba",
)
CASKS = ("miniforge", "miniconda", "mambaforge")  # of Homebrew, on a Mac
BASES += tuple(f"{top}/Caskroom/{cask}/base" for top in ("/opt/homebrew", "/usr/local") for cask in CASKS)
TOOL_FOLDERS = (
    "~/.local/bin",
    "~/bin",
    "/opt/homebrew/bin",
    *(f"{base}/{folder}" for base in BASES for folder in ("bin", "condabin")),
)


class Found(TypedDict):
    """What there is of an environment; its states: see `find`."""

    python: str  # its path; empty where it cannot be used
    state: str
    why: str
    tool: str  # the path of conda, or of what does its work
    record: dict[str, Any] | None  # as its maker wrote it
    log: str  # the path of its maker's log


def digest(requirements: str, wheels: Iterable[tuple[str, str]]) -> str:
    """What an environment is made from, as one sha256: the requirements' text, and (name, sha256) of each wheel."""
    value = {"requirements": requirements, "wheels": sorted([name, sha256] for name, sha256 in wheels)}
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def wheels_in(folder: Path) -> list[tuple[str, str]]:
    """(name, sha256) of every file in a folder of wheels, as `digest` wants them; hidden files do not count."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted((path.name, sha256_file(path)) for path in files)


def line_with_secret(requirements: str) -> int | None:
    """The first line whose address carries a user or a password; `git@` and ${VARIABLES} are none."""
    lines = enumerate(requirements.splitlines(), 1)
    return next((number for number, line in lines if re.search(r"://(?!git@)[^/\s@]*[^}/\s@]@", line)), None)


@dataclass(frozen=True)
class Place:
    """Every path of one environment; `conda` is its name there, empty for a venv."""

    folder: Path
    digest: str
    conda: str = ""

    @classmethod
    def of(cls, kind: str, workdir: str, digest: str) -> Place:
        """The place of an environment of this kind. ValueError for what cannot be a part of a path."""
        name = kind[len("conda:") :] if kind.startswith("conda:") else ""
        if kind != "venv" and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
            raise ValueError(
                f"environment: expected venv, or conda: and a name of letters, digits, _ . -, found {kind!r}"
            )
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ValueError(f"environment: expected the digest as 64 hexadecimal digits, found {digest!r}")
        return cls(absolute(workdir) / "environments", digest, name)

    def _file(self, suffix: str) -> Path:
        return self.folder / ((f"conda_{self.conda}" if self.conda else self.digest[:32]) + suffix)

    @property
    def venv(self) -> Path:
        """The folder of the venv."""
        return self._file("")

    @property
    def lock(self) -> Path:
        """Held while the environment is made; tells who makes it, and the step."""
        return self._file(".lock")

    @property
    def log(self) -> Path:
        """Every command and its output."""
        return self._file(".log")

    @property
    def failed(self) -> Path:
        """Why the last try failed."""
        return self._file(".failed.json")

    @property
    def requirements(self) -> Path:
        """What pip reads."""
        return self._file(".requirements.txt")

    def not_ours(self) -> str:
        """Why what lies here must not be run, in words: others made it, or can change it. Empty where it is ours."""
        venv = self.venv
        site = [venv / "lib", *venv.glob("lib/python3*"), *venv.glob("lib/python3*/site-packages")]
        files = (self.lock, self.log, self.failed, self.requirements, self.record(venv), venv / "pyvenv.cfg")
        return owned.problem(self.folder.parent, self.folder, *files, venv / "bin", *site)

    def record(self, prefix: Path) -> Path:
        """What says that the environment is whole."""
        return prefix / RECORD if self.conda else self._file(".json")


def absolute(path: str) -> Path:
    """A path of the profile with its ~ resolved. ValueError for a relative one, or a ~name without such an account."""
    try:
        expanded = Path(path).expanduser()
    except RuntimeError as error:  # ~name
        raise ValueError(f"{path}: {error}") from None
    if not expanded.is_absolute():
        raise ValueError(f"{path}: expected an absolute path, or one that begins with ~/")
    return Path(os.path.normpath(expanded))  # links stay: a venv's python is one, and is not what it points to


def _runs(python: Path) -> bool:
    return python.is_file() and os.access(python, os.X_OK)


# --- find -------------------------------------------------------------------------------------------------------------


def find(kind: str, workdir: str, digest: str) -> Found:
    """What there is of an environment, changing nothing: its python, its state, and why it is in that state.

    `kind` is conda:NAME, venv, or the path of a python or of an environment's folder. The states: ready; foreign (a
    conda environment that we did not make: used as it is); absent; creating; failed; unusable.
    """
    if kind != "venv" and not kind.startswith("conda:"):
        return _find_path(kind)
    place = Place.of(kind, workdir, digest)
    return look(place, held=locks.held(place.lock))


def _find_path(kind: str) -> Found:
    state: Found = {"python": "", "state": "unusable", "why": "", "tool": "", "record": None, "log": ""}
    try:
        path = absolute(kind)
    except ValueError as error:
        return {**state, "why": str(error)}
    python = path / "bin" / "python" if path.is_dir() else path
    if _runs(python):
        return {**state, "python": str(python), "state": "ready"}
    problem = "may not be executed" if python.is_file() else "is not a file" if python.exists() else "is not there"
    return {**state, "why": f"{python} {problem}; expected a Python, or the folder of an environment with bin/python"}


def look(place: Place, held: bool) -> Found:
    """`find` for what we make; `held`: a process makes it now (asked before the record is read: none is missed)."""
    tool = _tool() if place.conda else ""
    state: Found = {"python": "", "state": "unusable", "why": "", "tool": tool, "record": None, "log": str(place.log)}
    if why := place.not_ours():
        return {**state, "why": why}
    try:
        prefix = conda_prefix(place.conda, tool, ask=not held) if place.conda else place.venv
        record = read_json(place.record(prefix)) if prefix else None
    except (OSError, ValueError) as error:
        return {**state, "why": str(error)}
    if prefix and record is not None:
        return _recorded(place, {**state, "record": record}, prefix)
    if held:
        return {**state, "state": "creating", "why": _progress(place)}
    if place.conda and prefix and not (prefix / BEGUN).exists():
        return _not_ours(place, state, prefix)
    failure = read_record(EnvironmentFailure, place.failed)
    if failure.digest == place.digest:
        return {**state, "state": "failed", "why": explained(failure, place)}
    why = "it was begun and not finished" if prefix and prefix.exists() else "it was not made yet"
    if place.conda and not tool:
        why = f"there is no {', '.join(TOOLS)} in PATH or in the usual places, so it cannot be made; use venv or a path"
    return {**state, "state": "absent", "why": why}


def _recorded(place: Place, found: Found, prefix: Path) -> Found:
    python = prefix / "bin" / "python"
    if (found["record"] or {}).get("digest") != place.digest:
        why = "it was made from other requirements, and workers may run in it: give the new one another name"
    elif not _runs(python):
        why = f"{python} does not run (was the Python that it was made with removed?)"
    else:
        return {**found, "state": "ready", "python": str(python)}
    return {**found, "why": f"{prefix}: {why}; or remove it when nothing uses it: {_removal(place, found, prefix)}"}


def _not_ours(place: Place, found: Found, prefix: Path) -> Found:
    python = prefix / "bin" / "python"
    removal = _removal(place, found, prefix)
    if read_record(Holder, place.lock).step == CONDA_CREATE:
        why = f"an earlier try was interrupted while conda made it; remove it: {removal}"
        return {**found, "why": f"{prefix}: {why} (or, if you made it yourself since then: rm {place.lock})"}
    if not _runs(python):
        return {**found, "why": f"{prefix}: it has no bin/python; add one, or remove it: {removal}"}
    return {**found, "state": "foreign", "python": str(python), "why": "not made by a run: used as it is"}


def _removal(place: Place, found: Found, prefix: Path) -> str:
    if place.conda:
        return shlex.join([found["tool"] or "conda", "env", "remove", "-n", place.conda])
    return shlex.join(["rm", "-r", str(prefix), str(place.record(prefix))])


def _progress(place: Place) -> str:
    note = read_record(Holder, place.lock)
    maker = note.process
    who = f"process {maker['pid'] if maker else None}"
    if maker is None or maker.get("boot") != process.boot_id():
        who += " of another host that shares this folder"
    elif not process.alive(maker):
        who = "its maker ended, and a command that it had started still runs"
    last = tail(end_of(place.log, limit=2**12), 1)
    return f"{note.step or 'starting'} ({who})" + (f": {last[0]}" if last else "")


# --- conda ------------------------------------------------------------------------------------------------------------


def _tool() -> str:
    """The path of conda, or of what can do its work; empty when there is none."""
    places = [str(Path(folder).expanduser()) for folder in TOOL_FOLDERS]
    path = os.pathsep.join([os.environ.get("PATH", ""), *places])
    return next((tool for name in TOOLS if (tool := shutil.which(name, path=path))), "")


def conda_prefix(name: str, tool: str, ask: bool) -> Path | None:
    """The folder of a conda environment. OSError when conda is to be asked and does not answer."""
    own = [str(Path(tool).resolve().parent.parent)] if tool else []
    bases = [Path(base).expanduser() for base in (*own, *BASES)]
    if name == "base":
        return next((base for base in bases if (base / "conda-meta").is_dir()), None)
    for envs in (*(base / "envs" for base in bases), Path("~/.conda/envs").expanduser()):
        if (envs / name).is_dir():
            return envs / name
    if not (ask and tool):
        return None
    return next((Path(prefix) for prefix in _conda_list(tool) if Path(prefix).name == name), None)


def _conda_list(tool: str) -> list[str]:
    argv = [tool, "env", "list", "--json"]
    try:
        done = commands.ask(argv, ASK_S, env=variables())
        return [str(prefix) for prefix in json.loads(done.stdout)["envs"]]
    except (ValueError, KeyError, TypeError):
        printed = tail(done.stderr or done.stdout, 3)
        raise OSError(f"{shlex.join(argv)}: expected a list of environments, found {printed}") from None


def variables() -> dict[str, str]:
    """Our variables for a command that makes or asks an environment: only its own packages count in it.

    The user's pip settings stay in force (proxies, mirrors), except those two that make pip refuse to work there.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "PYTHONNOUSERSITE": "1", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0"}


# --- what the last try left ------------------------------------------------------------------------------------------


def end_of(log: Path, start: int = 0, limit: int = 2**20) -> str:
    """A log from an offset on, but no more than its last `limit` bytes; empty when it cannot be read."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""


def tail(text: str, lines: int) -> list[str]:
    """The last lines that are not empty, fit to be shown."""
    return [safe_text(line, 500) for line in text.splitlines() if line.strip()][-lines:]


def explained(failure: EnvironmentFailure, place: Place) -> str:
    """A record of a failure as one text: the step, what was wrong, what to do, where to read on."""
    line, code = failure.requirement_line, failure.exit_code
    where = f" at line {line.number} of the requirements, {line.text!r}" if line else ""
    ended = "" if code is None else f" (exit code {code})"
    hint = f" {failure.hint}" if failure.hint else ""
    return f"{failure.step} failed{where}{ended}: {failure.error}.{hint} Log: {place.log}"
