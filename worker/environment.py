"""The Python environment of a host: found, or made once from pinned requirements; never changed while it may be in use.

Standard library only. `find` looks and changes nothing. `create` is a process of its own that outlives who started it.
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

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Iterable, NoReturn  # noqa: UP035  (Python 3.9 on lab boxes)

from . import process
from .layout import read_json, safe_text, sha256_file, write_atomic, write_json

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_BUSY, EXIT_STOPPED = 0, 1, 2, 3, 143

IMPORTS = ("torch", "sentence_transformers", "numpy")  # what a worker needs
# In a conda environment of ours; the second one from its making until the first one is written.
RECORD, BEGUN = "runbook_environment.json", "runbook_begun.json"
ASK_S, VENV_S, CONDA_S, PIP_S, CHECK_S = 30.0, 900.0, 3600.0, 3600.0, 900.0

# A login that is not interactive has no conda in its PATH.
TOOLS = ("conda", "mamba", "micromamba")
KINDS = ("miniconda3", "miniforge3", "mambaforge", "anaconda3", "micromamba", "conda")
BASES = (*(f"{top}/{kind}" for top in ("~", "/opt", "/usr/local") for kind in KINDS), "~/.local/share/mamba")
TOOL_FOLDERS = ("~/.local/bin", "~/bin", *(f"{base}/{folder}" for base in BASES for folder in ("bin", "condabin")))

CONDA_CREATE, PIP_INSTALL = "conda create", "pip install"

Found = dict[str, Any]


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
        return cls(_absolute(workdir) / "environments", digest, name)

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

    def record(self, prefix: Path) -> Path:
        """What says that the environment is whole."""
        return prefix / RECORD if self.conda else self._file(".json")


def _absolute(path: str) -> Path:
    try:
        found = Path(path).expanduser()
    except RuntimeError as error:  # ~somebody
        raise ValueError(f"{path}: {error}") from None
    if not found.is_absolute():
        raise ValueError(f"{path}: expected an absolute path, or one that begins with ~/")
    return Path(os.path.normpath(found))  # links stay: a venv's python is one, and is not what it points to


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
    return _look(place, held=_held(place.lock))


def _find_path(kind: str) -> Found:
    found: Found = {"python": "", "state": "unusable", "why": "", "tool": "", "record": None, "log": ""}
    try:
        path = _absolute(kind)
    except ValueError as error:
        return {**found, "why": str(error)}
    python = path / "bin" / "python" if path.is_dir() else path
    if _runs(python):
        return {**found, "python": str(python), "state": "ready"}
    problem = "may not be executed" if python.is_file() else "is not a file" if python.exists() else "is not there"
    return {**found, "why": f"{python} {problem}; expected a Python, or the folder of an environment with bin/python"}


def _look(place: Place, held: bool) -> Found:
    """`find` for what we make; `held`: somebody makes it now (asked before the record is read: none is missed)."""
    tool = _tool() if place.conda else ""
    found: Found = {"python": "", "state": "unusable", "why": "", "tool": tool, "record": None, "log": str(place.log)}
    try:
        prefix = _conda_prefix(place.conda, tool, ask=not held) if place.conda else place.venv
        record = read_json(place.record(prefix)) if prefix else None
    except (OSError, ValueError) as error:
        return {**found, "why": str(error)}
    if prefix and record is not None:
        return _recorded(place, {**found, "record": record}, prefix)
    if held:
        return {**found, "state": "creating", "why": _progress(place)}
    if place.conda and prefix and not (prefix / BEGUN).exists():
        return _not_ours(place, found, prefix)
    failure = _read(place.failed)
    if failure.get("digest") == place.digest:
        return {**found, "state": "failed", "why": _why(failure, place)}
    why = "it was begun and not finished" if prefix and prefix.exists() else "it was not made yet"
    if place.conda and not tool:
        why = f"there is no {', '.join(TOOLS)} in PATH or in the usual places, so it cannot be made; use venv or a path"
    return {**found, "state": "absent", "why": why}


def _recorded(place: Place, found: Found, prefix: Path) -> Found:
    python = prefix / "bin" / "python"
    if found["record"].get("digest") != place.digest:
        why = "it was made from other requirements, and workers may run in it: give the new one another name"
    elif not _runs(python):
        why = f"{python} does not run (was the Python that it was made with removed?)"
    else:
        return {**found, "state": "ready", "python": str(python)}
    return {**found, "why": f"{prefix}: {why}; or remove it when nothing uses it: {_removal(place, found, prefix)}"}


def _not_ours(place: Place, found: Found, prefix: Path) -> Found:
    python = prefix / "bin" / "python"
    removal = _removal(place, found, prefix)
    if _read(place.lock).get("step") == CONDA_CREATE:
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
    note = _read(place.lock)
    maker = note.get("process") or {}
    who = f"process {maker.get('pid')}"
    if maker.get("boot") != process.boot_id():
        who += " of another host that shares this folder"
    elif not process.alive(maker):
        who = "its maker ended, and a command that it had started still runs"
    last = _tail(_end_of(place.log, limit=2**12), 1)
    return f"{note.get('step', 'starting')} ({who})" + (f": {last[0]}" if last else "")


def _read(path: Path) -> dict[str, Any]:
    """A note of ours; empty when there is none, or it was written half."""
    try:
        return read_json(path) or {}
    except (OSError, ValueError):
        return {}


def _held(path: Path) -> bool:
    """Whether a living process holds a lock; whoever wants it meanwhile tries again (see `_take`)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


# --- conda ------------------------------------------------------------------------------------------------------------


def _tool() -> str:
    """The path of conda, or of what can do its work; empty when there is none."""
    places = [str(Path(folder).expanduser()) for folder in TOOL_FOLDERS]
    path = os.pathsep.join([os.environ.get("PATH", ""), *places])
    return next((found for name in TOOLS if (found := shutil.which(name, path=path))), "")


def _conda_prefix(name: str, tool: str, ask: bool) -> Path | None:
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
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ASK_S, env=_variables(), check=False
        )
        return [str(prefix) for prefix in json.loads(done.stdout)["envs"]]
    except subprocess.TimeoutExpired:
        raise OSError(f"{shlex.join(argv)}: no answer within {ASK_S:g} s") from None
    except (ValueError, KeyError, TypeError):
        said = _tail(done.stderr or done.stdout, 3)
        raise OSError(f"{shlex.join(argv)}: expected a list of environments, found {said}") from None


def _variables() -> dict[str, str]:
    """Our variables for a command that makes or asks an environment: only its own packages count in it.

    The user's pip settings stay in force (proxies, mirrors), except those two that make pip refuse to work there.
    """
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, "PYTHONNOUSERSITE": "1", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_USER": "0"}


# --- create -----------------------------------------------------------------------------------------------------------


class _Failed(Exception):
    """A step that did not do what it should: its exit code, if it had one, what it printed, and what to do."""

    def __init__(self, output: str, exit_code: int | None = None, hint: str = ""):
        super().__init__(output)
        self.output, self.exit_code, self.hint = output, exit_code, hint


class _Stopped(BaseException):
    """The operator asked us to end."""


def create(spec: Path) -> int:
    """Make the environment that the JSON file `spec` describes, and give the exit code; safe to repeat.

    Keys: kind, workdir, digest, requirements (the text); and, where wanted, wheels (a folder on this host), python (the
    version for conda), imports (what must be importable at the end).
    """
    try:
        order = _order(spec)
        place = Place.of(order["kind"], order["workdir"], order["digest"])
        place.folder.mkdir(parents=True, exist_ok=True)
        lock = _take(place.lock)
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    if lock is None:
        return _refuse(f"{place.lock}: another process makes this environment; this one leaves", EXIT_BUSY)
    try:
        found = _look(place, held=False)
        if found["state"] in ("ready", "foreign"):
            return EXIT_DONE
        if found["state"] == "unusable":
            return _refuse(found["why"])
        return _Maker(order, place, lock, found["tool"]).run()
    finally:
        os.close(lock)


def _refuse(why: str, code: int = EXIT_REFUSED) -> int:
    print(f"environment: {why}", file=sys.stderr, flush=True)
    return code


def _stop(signum: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not break into the last words
    raise _Stopped


def _order(spec: Path) -> dict[str, Any]:
    order = read_json(spec)
    if order is None:
        raise ValueError(f"{spec}: no such file")
    order = {"wheels": None, "python": "3.11", "imports": list(IMPORTS), **order}
    texts = all(isinstance(order.get(key), str) for key in ("kind", "workdir", "digest", "requirements", "python"))
    if not texts or not isinstance(order["wheels"], (str, type(None))) or not isinstance(order["imports"], list):
        raise ValueError(
            f"{spec}: expected texts for kind, workdir, digest and requirements, found keys {sorted(order)}"
        )
    if not re.fullmatch(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?", order["python"]):
        raise ValueError(f"{spec}: expected a python such as 3.11, found {order['python']!r}")
    if not all(isinstance(name, str) and re.fullmatch(r"[A-Za-z_][\w.]*", name) for name in order["imports"]):
        raise ValueError(f"{spec}: expected names of modules in imports, found {order['imports']}")
    return order


def _take(path: Path) -> int | None:
    """The lock, or None when another process keeps it; whoever only looks (`_held`) has it for a moment."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                return None
            time.sleep(0.05)
        except OSError as error:  # such as a network file system without locks
            os.close(fd)
            raise OSError(error.errno, f"cannot lock this file: {error.strerror}", str(path)) from None


CHECK = """import importlib, json, platform, sys
from importlib import metadata
for name in sys.argv[1:]:
    importlib.import_module(name)
packages = sorted({f"{found.metadata['Name']}=={found.version}" for found in metadata.distributions()})
print()
print(json.dumps({"version": platform.python_version(), "packages": packages}))
"""


class _Maker:
    """Makes one environment, step by step, while it holds the lock."""

    def __init__(self, order: dict[str, Any], place: Place, lock: int, tool: str):
        self.order, self.place, self.lock, self.tool = order, place, lock, tool
        self.step = ""

    def run(self) -> int:
        """Make it, or leave a record of the failure."""
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            self.place.failed.unlink(missing_ok=True)
            self._say(f"making {self.order['kind']} for {self.place.digest}")
            self._make()
        except _Stopped:
            return self._give_up(_Failed("stopped by the operator", EXIT_STOPPED), EXIT_STOPPED)
        except _Failed as failure:
            return self._give_up(failure)
        except OSError as error:
            return self._give_up(_Failed(str(error)))
        finally:
            signal.signal(signal.SIGTERM, before)
        return EXIT_DONE

    def _make(self) -> None:
        began = time.time()
        self._check_sources()
        write_atomic(self.place.requirements, self.order["requirements"].encode())
        prefix = self._conda() if self.place.conda else self._venv()
        python = str(prefix / "bin" / "python")
        self._install(python)
        facts = self._check(python)
        self._note("record")
        os.sync()  # a record must not outlive, over a power cut, the files that it speaks of
        record = {"kind": self.order["kind"], "digest": self.place.digest, "python": python, "made_at": began, **facts}
        write_json(self.place.record(prefix), record)
        (prefix / BEGUN).unlink(missing_ok=True)
        os.ftruncate(self.lock, 0)
        self._say("ready")

    def _check_sources(self) -> None:
        """What the digest speaks of must be what is here: half a folder of wheels would pass for the whole."""
        self._note("sources")
        if secret := line_with_secret(self.order["requirements"]):
            raise _Failed(
                f"line {secret} of the requirements carries a user or a password, which pip may print",
                hint="Put it into this host's pip.conf or .netrc.",
            )
        wheels = []
        if self.order["wheels"] is not None:
            folder = _absolute_folder(self.order["wheels"])
            wheels = wheels_in(folder)
        if (seen := digest(self.order["requirements"], wheels)) != self.place.digest:
            names = ", ".join(name for name, _ in wheels[:20]) or "none"
            raise _Failed(
                f"expected requirements and wheels with digest {self.place.digest}, found {seen}; wheels: {names}",
                hint="Send the wheels again: a file is missing, damaged or too many.",
            )

    def _venv(self) -> Path:
        folder = self.place.venv
        self._note("venv")
        if folder.exists():
            _refuse_while_used(folder)
            shutil.rmtree(folder)
        self._command("venv", [sys.executable, "-m", "venv", str(folder)], VENV_S)
        return folder

    def _conda(self) -> Path:
        name = self.place.conda
        prefix = _conda_prefix(name, self.tool, ask=True)
        if prefix:  # ours, and not finished: `_look` lets nothing else come here
            _refuse_while_used(prefix)
            return prefix
        self._note("conda")
        if not self.tool:
            raise _Failed("no conda, mamba or micromamba found", hint="Install Miniforge, or use venv or a path.")
        argv = [self.tool, "create", "-y", "-n", name]
        if Path(self.tool).name == "micromamba":
            argv += ["-c", "conda-forge"]  # the one without channels of its own
        try:
            self._command(CONDA_CREATE, [*argv, f"python={self.order['python']}", "pip"], CONDA_S)
        except BaseException:
            with contextlib.suppress(OSError):
                if _conda_prefix(name, self.tool, ask=True) is None:
                    os.ftruncate(self.lock, 0)  # nothing half made is left: what appears there later is not ours
            raise
        prefix = _conda_prefix(name, self.tool, ask=True)
        if prefix is None:
            raise _Failed(f"conda made {name} and does not list it")
        write_json(prefix / BEGUN, {"digest": self.place.digest})
        return prefix

    def _install(self, python: str) -> None:
        argv = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        argv += ["-r", str(self.place.requirements)]
        if self.order["wheels"] is not None:
            argv += ["--no-index", "--find-links", str(_absolute_folder(self.order["wheels"]))]
        self._command(PIP_INSTALL, argv, PIP_S)

    def _check(self, python: str) -> dict[str, Any]:
        output = self._command("import", [python, "-I", "-c", CHECK, *self.order["imports"]], CHECK_S)
        facts: dict[str, Any] = json.loads(output.rstrip().splitlines()[-1])
        return facts

    def _command(self, step: str, argv: list[str], timeout_s: float) -> str:
        """Run a command to its end and give what it printed, which is in the log too."""
        self._note(step)
        began = self._say(f"$ {shlex.join(argv)}")
        with self._log() as log:
            child = subprocess.Popen(
                argv,
                cwd=self.place.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[self.lock],  # should we be killed, the lock holds until this command has ended too
                env=_variables(),
            )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _end(child)
            raise _Failed(_end_of(self.place.log, began), hint=f"It took longer than {timeout_s:g} s.") from None
        except BaseException:
            _end(child)
            raise
        output = _end_of(self.place.log, began)
        if code != 0:
            raise _Failed(output, code)
        return output

    def _note(self, step: str) -> None:
        """Say in the lock what is being done: `find` reads it, and a kill leaves it there."""
        self.step = step
        note = {"process": process.identify(os.getpid()), "step": step}
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, json.dumps(note).encode(), 0)

    def _log(self) -> BinaryIO:
        """The log, for its owner only: old versions of pip print what they read from the user's settings."""
        return os.fdopen(os.open(self.place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")

    def _say(self, text: str) -> int:
        """A line of our own in the log; gives where the log goes on behind it."""
        with self._log() as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())
            return log.tell()

    def _give_up(self, failure: _Failed, code: int = EXIT_FAILED) -> int:
        requirements, name = self.order["requirements"], self.place.requirements.name
        output = _without_secrets(failure.output)
        record = {
            "at": time.time(),
            "digest": self.place.digest,
            "step": self.step,
            "exit_code": failure.exit_code,
            "requirement_line": None if self.step != PIP_INSTALL else _line_at_fault(requirements, output, name),
            "tail": _tail(output, 20),
            "error": _error_in(output),
            "hint": failure.hint or _hint(output, self.order["wheels"], failure.exit_code),
        }
        try:
            self._say(f"failed: {_why(record, self.place)}")
            write_json(self.place.failed, record)
        except OSError as error:  # a full disk
            print(f"environment: {error}", file=sys.stderr, flush=True)
        return code


def _absolute_folder(path: str) -> Path:
    try:
        folder = _absolute(path)
    except ValueError as error:
        raise _Failed(f"wheels: {error}") from None
    if not folder.is_dir():
        raise _Failed(f"wheels: {folder} is not a folder on this host")
    return folder


def _refuse_while_used(prefix: Path) -> None:
    """_Failed while a process runs from a half-made environment, or nobody can tell."""
    pids = running_from(prefix)
    if pids is None:
        raise _Failed(
            f"{prefix}: half made, and this system does not tell whether a process runs from it",
            hint=f"Remove it when nothing uses it: {shlex.join(['rm', '-r', str(prefix)])}",
        )
    if pids:
        raise _Failed(
            f"{prefix}: half made, and in use by process {', '.join(map(str, pids))}",
            hint="Wait until it has ended, or end it.",
        )


def running_from(prefix: Path) -> list[int] | None:
    """The processes whose program or arguments lie in a folder; None where the system does not tell (no /proc)."""
    if not Path("/proc/self/exe").exists():
        return None
    inside = tuple(f"{folder}/".encode() for folder in {str(prefix), str(prefix.resolve())})
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        words = []
        with contextlib.suppress(OSError):  # ended meanwhile, or somebody else's
            words += (entry / "cmdline").read_bytes().split(b"\0")
            words.append(os.fsencode((entry / "exe").readlink()))
        if any(word.startswith(inside) for word in words):
            found.append(int(entry.name))
    return sorted(found)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command that we started, with all that it started; conda needs a moment to clean up."""
    for signum, within_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        try:
            os.killpg(child.pid, signum)  # its own session, which we made, and not waited for yet: nobody else is in it
            child.wait(within_s)
            return
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


# --- what a failure says ----------------------------------------------------------------------------------------------


def _end_of(log: Path, start: int = 0, limit: int = 2**20) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(start, os.fstat(file.fileno()).st_size - limit))
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""


def _tail(text: str, lines: int) -> list[str]:
    return [safe_text(line, 500) for line in text.splitlines() if line.strip()][-lines:]


def _without_secrets(text: str) -> str:
    """An address from the user's own settings may carry a user and a password."""
    return re.sub(r"://[^/\s@]+@", "://***@", text)


def _error_in(output: str) -> str:
    """The one line that says most: pip's last error, or an exception's; else the last line."""
    errors = re.findall(r"^ {0,2}(?:ERROR: (?!ResolutionImpossible)|error: |\w*Error: ).*", output, re.MULTILINE)
    telling = [line.strip() for line in errors if len(line.split()) > 2]
    return safe_text((telling or errors or _tail(output, 1) or [""])[-1], 500)


_ERROR_LINE = re.compile(r" {0,2}ERROR: |error: | {4}\S+ from .*\):$|.*\(from line \d+ of ")
_NAMED = re.compile(
    r"(?:No matching distribution found for|satisfies the requirement|Cannot install|Failed to build|\(from"
    r"|(?:Failed building wheel|Could not build wheels) for) '?(?!versions:|line )(\w[^\s;),']*)"
)


def _line_at_fault(requirements: str, output: str, file: str) -> dict[str, Any] | None:
    """The line of the requirements that pip's error speaks of: by its number, else by what it quotes of it."""
    lines = requirements.splitlines()
    text = "\n".join(line for line in output.splitlines() if _ERROR_LINE.match(line))
    number = re.search(rf"{re.escape(file)} \(line (\d+)\)|line (\d+) of .*{re.escape(file)}", text)
    if number:
        return _numbered(lines, int(number.group(1) or number.group(2)))
    named: list[str] = _NAMED.findall(text)
    if "subprocess-exited-with-error" in output:  # a package that cannot be built is named only as it is fetched
        named += re.findall(
            r"^(?:Collecting |Processing (?:[^(]*/)?)(\w[^\s;]*?)(?:-\d\S*)?(?: .*)?$", output, re.MULTILINE
        )[-1:]
    for quoted in named:
        same = [n for n, line in enumerate(lines, 1) if _canonical(line) == _canonical(quoted)]
        if same:  # one package may stand there twice, for different Pythons
            return _numbered(lines, next((n for n in same if quoted in lines[n - 1].replace(" ", "")), same[0]))
    wrong = [n for n, line in enumerate(lines, 1) if line.strip() and f"Invalid requirement: {line.strip()}" in text]
    return _numbered(lines, wrong[0]) if wrong else None


def _canonical(requirement: str) -> str:
    """The name in a requirement, as pip compares names."""
    match = re.match(r"\s*(\w[\w.-]*)", requirement)
    return re.sub(r"[-_.]+", "-", match.group(1)).strip("-").lower() if match else ""


def _numbered(lines: list[str], number: int) -> dict[str, Any] | None:
    if not 1 <= number <= len(lines):
        return None
    return {"number": number, "text": safe_text(lines[number - 1].strip(), 500)}


# Looked through in this order: without a network pip also says that it found no version.
_HINTS = (
    ("ensurepip", "On Debian or Ubuntu: apt-get install python3-venv; or use conda:NAME or a path."),
    (
        "No space left on device|Disk quota exceeded|Errno 28|Errno 122",
        "Free space there, or in the folder for temporary files (the variable TMPDIR chooses another one).",
    ),
    (
        "Temporary failure in name resolution|Name or service not known|Network is unreachable|NewConnectionError"
        "|Connection refused|timed out|ProxyError|CondaHTTPError|ConnectionError|Could not resolve host",
        "This host does not reach the package index: send a folder of wheels along, or set a proxy for pip.",
    ),
    ("Terms of Service", "Accept the terms of that conda channel on the host, or set its channels to conda-forge."),
    (
        "DO NOT MATCH THE HASHES",
        "The file is not the one that was pinned: a damaged download or mirror, or another build. Correct one of them.",
    ),
    (
        "Failed building wheel|Could not build wheels|subprocess-exited-with-error",
        "There is no ready-made wheel of it for this Python and machine: pin a version that has one.",
    ),
    ("conflicting dependencies", "Pin versions that fit each other."),
    ("No module named", "The requirements do not bring it: pin the package that does."),
)


def _hint(output: str, wheels: str | None, code: int | None) -> str:
    """What to do about an error; empty when nothing better is known than its words."""
    if code == -signal.SIGKILL:
        return "Killed: perhaps out of memory."
    for pattern, hint in _HINTS:
        if re.search(pattern, output):
            return hint
    if "No matching distribution found" in output:
        python = ".".join(map(str, sys.version_info[:2]))
        where = f"{wheels} lacks it" if wheels else "The package index lacks it"
        return f"{where} for this machine and Python (a venv has {python}): another version, or a newer Python."
    return ""


def _why(failure: dict[str, Any], place: Place) -> str:
    line = failure.get("requirement_line")
    where = f" at line {line['number']} of the requirements, {line['text']!r}" if line else ""
    code = failure.get("exit_code")
    ended = "" if code is None else f" (exit code {code})"
    hint = f" {failure['hint']}" if failure.get("hint") else ""
    return f"{failure.get('step')} failed{where}{ended}: {failure.get('error')}.{hint} Log: {place.log}"
