"""Makes the Python environment of a host from pinned requirements; safe to repeat, and to kill.

Standard library only. `create` is a process of its own that outlives who started it; it holds the environment's lock
from its first step to its record. Where things lie: `worker.environment`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, NoReturn, TypedDict

from . import locks, pip_errors, process
from .environment import (
    BEGUN,
    CONDA_CREATE,
    Place,
    absolute,
    conda_prefix,
    digest,
    end_of,
    explained,
    line_with_secret,
    look,
    tail,
    variables,
    wheels_in,
)
from .files import make_folder, read_json, write_atomic, write_json
from .wire import EnvironmentFailure, EnvironmentOrder, Holder

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_BUSY, EXIT_STOPPED = 0, 1, 2, 3, 143

IMPORTS = ("torch", "sentence_transformers", "numpy")  # what a worker needs
VENV_S, CONDA_S, PIP_S, CHECK_S = 900.0, 3600.0, 3600.0, 900.0
PIP_INSTALL = "pip install"


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
        place = Place.of(order.kind, order.workdir, order.digest)
        os.umask(os.umask(0o022) | 0o022)  # what pip and conda make must not be changed by other accounts
        make_folder(place.folder, 0o700)
        if why := place.not_ours():
            return _refuse(why)
        lock = locks.take(place.lock)
    except (OSError, ValueError) as error:
        return _refuse(str(error))
    if lock is None:
        return _refuse(f"{place.lock}: another process makes this environment; this one leaves", EXIT_BUSY)
    try:
        reading = look(place, held=False)
        if reading["state"] in ("ready", "foreign"):
            return EXIT_DONE
        if reading["state"] == "unusable":
            return _refuse(reading["why"])
        return _Maker(order, place, lock, reading["tool"]).run()
    finally:
        os.close(lock)


def _refuse(why: str, code: int = EXIT_REFUSED) -> int:
    print(f"environment: {why}", file=sys.stderr, flush=True)
    return code


def _stop(signum: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: a second one must not break into the last words
    raise _Stopped


def _order(spec: Path) -> EnvironmentOrder:
    value = read_json(spec)
    if value is None:
        raise ValueError(f"{spec}: no such file")
    order = EnvironmentOrder.from_json(value, f"{spec}:")
    imports = IMPORTS if order.imports is None else order.imports
    return replace(order, python=order.python or "3.11", imports=imports)


CHECK = """import importlib, json, platform, sys
from importlib import metadata
for name in sys.argv[1:]:
    importlib.import_module(name)
packages = sorted({f"{found.metadata['Name']}=={found.version}" for found in metadata.distributions()})
print()
print(json.dumps({"version": platform.python_version(), "packages": packages}))
"""


class _Checked(TypedDict):
    """What `CHECK` prints."""

    version: str
    packages: list[str]


class _Maker:
    """Makes one environment, step by step, while it holds the lock."""

    def __init__(self, order: EnvironmentOrder, place: Place, lock: int, tool: str):
        self.order, self.place, self.lock, self.tool = order, place, lock, tool
        self.step = ""

    def run(self) -> int:
        """Make it, or leave a record of the failure."""
        before = signal.signal(signal.SIGTERM, _stop)
        try:
            self.place.failed.unlink(missing_ok=True)
            self._say(f"making {self.order.kind} for {self.place.digest}")
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
        write_atomic(self.place.requirements, self.order.requirements.encode())
        prefix = self._conda() if self.place.conda else self._venv()
        python = str(prefix / "bin" / "python")
        self._install(python)
        facts = self._check(python)
        self._note("record")
        os.sync()  # a record must not outlive, over a power cut, the files that it speaks of
        record = {"kind": self.order.kind, "digest": self.place.digest, "python": python, "made_at": began, **facts}
        write_json(self.place.record(prefix), record)
        (prefix / BEGUN).unlink(missing_ok=True)
        os.ftruncate(self.lock, 0)
        self._say("ready")

    def _check_sources(self) -> None:
        """What the digest speaks of must be what is here: half a folder of wheels would pass for the whole."""
        self._note("sources")
        if secret := line_with_secret(self.order.requirements):
            raise _Failed(
                f"line {secret} of the requirements carries a user or a password, which pip may print",
                hint="Put it into this host's pip.conf or .netrc.",
            )
        wheels = []
        if self.order.wheels is not None:
            folder = _absolute_folder(self.order.wheels)
            wheels = wheels_in(folder)
        if (actual := digest(self.order.requirements, wheels)) != self.place.digest:
            names = ", ".join(name for name, _ in wheels[:20]) or "none"
            raise _Failed(
                f"expected requirements and wheels with digest {self.place.digest}, found {actual}; wheels: {names}",
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
        prefix = conda_prefix(name, self.tool, ask=True)
        if prefix:  # ours, and not finished: `look` lets nothing else come here
            _refuse_while_used(prefix)
            return prefix
        self._note("conda")
        if not self.tool:
            raise _Failed("no conda, mamba or micromamba found", hint="Install Miniforge, or use venv or a path.")
        argv = [self.tool, "create", "-y", "-n", name]
        if Path(self.tool).name == "micromamba":
            argv += ["-c", "conda-forge"]  # the one without channels of its own
        try:
            self._command(CONDA_CREATE, [*argv, f"python={self.order.python}", "pip"], CONDA_S)
        except BaseException:
            with contextlib.suppress(OSError):
                if conda_prefix(name, self.tool, ask=True) is None:
                    os.ftruncate(self.lock, 0)  # nothing half made is left: what appears there later is not ours
            raise
        prefix = conda_prefix(name, self.tool, ask=True)
        if prefix is None:
            raise _Failed(f"conda made {name} and does not list it")
        write_json(prefix / BEGUN, {"digest": self.place.digest})
        return prefix

    def _install(self, python: str) -> None:
        argv = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        argv += ["-r", str(self.place.requirements)]
        if self.order.wheels is not None:
            argv += ["--no-index", "--find-links", str(_absolute_folder(self.order.wheels))]
        self._command(PIP_INSTALL, argv, PIP_S)

    def _check(self, python: str) -> _Checked:
        output = self._command(
            "import",
            [python, "-I", "-c", CHECK, *(self.order.imports or ())],
            CHECK_S,
        )
        facts: _Checked = json.loads(output.rstrip().splitlines()[-1])
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
                env=variables(),
            )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _end(child)
            raise _Failed(end_of(self.place.log, began), hint=f"It took longer than {timeout_s:g} s.") from None
        except BaseException:
            _end(child)
            raise
        output = end_of(self.place.log, began)
        if code != 0:
            raise _Failed(output, code)
        return output

    def _note(self, step: str) -> None:
        """Say in the lock what is being done: `find` reads it, and a kill leaves it there."""
        self.step = step
        locks.sign(self.lock, Holder(process.identify(os.getpid()), step=step))

    def _log(self) -> BinaryIO:
        """The log, for its owner only: old versions of pip print what they read from the user's settings."""
        return os.fdopen(os.open(self.place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab")

    def _say(self, text: str) -> int:
        """A line of our own in the log; gives where the log goes on behind it."""
        with self._log() as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())
            return log.tell()

    def _give_up(self, failure: _Failed, code: int = EXIT_FAILED) -> int:
        requirements, name = self.order.requirements, self.place.requirements.name
        output = pip_errors.without_secrets(failure.output)
        line = pip_errors.line_at_fault(requirements, output, name) if self.step == PIP_INSTALL else None
        record = EnvironmentFailure(
            at=time.time(),
            digest=self.place.digest,
            step=self.step,
            exit_code=failure.exit_code,
            requirement_line=line,
            tail=tuple(tail(output, 20)),
            error=pip_errors.error_in(output),
            hint=failure.hint or pip_errors.hint(output, self.order.wheels, failure.exit_code),
        )
        try:
            self._say(f"failed: {explained(record, self.place)}")
            write_json(self.place.failed, record.to_json())
        except OSError as error:  # a full disk
            print(f"environment: {error}", file=sys.stderr, flush=True)
        return code


def _absolute_folder(path: str) -> Path:
    try:
        folder = absolute(path)
    except ValueError as error:
        raise _Failed(f"wheels: {error}") from None
    if not folder.is_dir():
        raise _Failed(f"wheels: {folder} is not a folder on this host")
    return folder


def _refuse_while_used(prefix: Path) -> None:
    """_Failed while a process runs from a half-made environment, or where the system does not tell."""
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
    """The processes whose program or arguments lie in a folder; None where the system does not tell.

    Without /proc, `ps` shows the arguments only. What our own commands run holds the lock, which we have.
    """
    folders = {str(prefix), str(prefix.resolve())}
    if not Path("/proc/self/exe").exists():
        return _running_from_by_ps(folders)
    inside = tuple(f"{folder}/".encode() for folder in folders)
    pids = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        words = []
        with contextlib.suppress(OSError):  # ended meanwhile, or another account's
            words += (entry / "cmdline").read_bytes().split(b"\0")
            words.append(os.fsencode((entry / "exe").readlink()))
        if any(word.startswith(inside) for word in words):
            pids.append(int(entry.name))
    return sorted(pids)


def _running_from_by_ps(folders: set[str]) -> list[int] | None:
    lines = process.command_lines()
    if lines is None:
        return None
    return sorted(pid for pid, line in lines.items() if any(f" {folder}/" in f" {line}" for folder in folders))


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command that we started, with all that it started; conda needs a moment to clean up."""
    for signum, within_s in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        # Its own session, which we made, and not waited for yet: no other process is in it. A Mac says "not permitted"
        # of a group that has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(within_s)
            return
