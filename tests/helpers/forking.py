"""Python processes that tests start often, forked from one that has imported their libraries.

To import torch and sentence-transformers takes a process 6 seconds of processor time, papermill and a kernel 3; a fork
takes hundredths. `python()` names a command that does what this Python does, and forks for these words:

    -m worker probe|rehearse|devices|warm|recompute|double, and encode|second where that is asked for: from a process
        with the encoder's libraries
    -m runbook_lib.cli|runbook_lib.chain.execution|papermill|ipykernel_launcher: from one with those of the driver
    benchmarks that load a model or start what does: from either one, as `forking_client.SCRIPTS` says

Anything else it starts plainly. No code of ours is imported before a fork: what runs on a host reads that host's files.
A forked process has the command as its `sys.executable`, so what it starts is forked too. The pid that the caller gets
is that of a small process that waits: it passes signals on, ends as the forked one ends, and to kill it kills both. A
test that needs the true pid, parent, limits or namespaces of a process starts `sys.executable` itself.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
KINDS = ("worker", "driver")
VERBS = ("probe", "rehearse", "devices", "warm", "recompute", "double")  # of `-m worker`
WORKERS = ("encode", "second")  # what a supervisor starts knows its pid
LONGEST = 120  # characters of a path that the first line of a script may name, on any Linux
COMMAND = """#!{python} -IS
import sys
sys.path.append({here!r})
import forking_client
forking_client.main({python!r}, {folder!r}, {verbs!r})
"""

_held: dict[str, socket.socket] = {}  # while one process of this session holds one, the process that forks lives
_folders: list[Path] = []


def python(workers: bool = False) -> str:
    """The command; this Python itself where forks after imports are not safe. It lasts as long as this session.

    With `workers` it forks a slot's worker and its second opinion too: for a test that starts them itself.
    """
    if sys.platform != "linux" or " " in sys.executable or len(sys.executable) > LONGEST:
        return sys.executable
    if not _folders:
        folder = _folder()
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for kind in KINDS:
                _held[kind] = _hold(folder / kind, kind)
            for name, verbs in (("python", VERBS), ("python_of_workers", VERBS + WORKERS)):
                _write(folder / name, folder, verbs)
        _folders.append(folder)
    return str(_folders[0] / ("python_of_workers" if workers else "python"))


@contextlib.contextmanager
def own_python() -> Iterator[None]:
    """Meanwhile what this process starts by its own Python goes by the command."""
    plain, sys.executable = sys.executable, python()
    try:
        yield
    finally:
        sys.executable = plain


def _write(command: Path, folder: Path, verbs: tuple[str, ...]) -> None:
    if not command.exists():
        text = COMMAND.format(python=sys.executable, here=str(HERE), folder=str(folder), verbs=verbs)
        (folder / "new").write_text(text)
        (folder / "new").chmod(0o755)
        (folder / "new").rename(command)


def _folder() -> Path:
    """Of this test session, for all of its processes: short, as a socket's path may have 108 characters."""
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")[:16] or str(os.getpid())
    folder = Path(tempfile.gettempdir(), f"forking_{os.getuid()}_{session}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _hold(path: Path, kind: str) -> socket.socket:
    """A connection to the process that forks, started where there is none yet."""
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(str(path))
    except OSError:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:  # whoever connects before the imports are done waits
            listener.bind(str(path))
            listener.listen(64)
            _start(listener, kind, path.with_name(f"{kind}.log"))
        link.connect(str(path))
    link.sendall(b"hold\n")
    atexit.register(link.close)
    return link


def _start(listener: socket.socket, kind: str, log: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # What libraries read when they are imported, as a host's supervisor and the notebooks have it.
    environment |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # or it begins a thread
    with log.open("wb") as output:
        subprocess.run(
            [sys.executable, str(HERE / "forking_server.py"), kind, str(listener.fileno())],
            env=environment, pass_fds=[listener.fileno()], start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True,
        )  # fmt: skip
