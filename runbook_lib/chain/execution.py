"""The execution of one notebook by papermill, in a child process of the chain.

The only door to papermill and the kernel manager. It prints one line about how a kernel ended, which `endings` reads.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from ..errors import GateError
from ..report import notebook_file

_started: list[subprocess.Popen[bytes]] = []  # the kernels of this process


def main() -> int:
    """Run as the child: execute one notebook with papermill; return the exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--run", required=True)
    parser.add_argument("--profile", default="")
    parser.add_argument("--hosts", default="")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with SIGINT ignored
    _end_with_parent()
    notebook_file.skip_grammar()
    import papermill
    from nbclient.exceptions import DeadKernelError

    given = {"run": args.run, "profile": args.profile, "hosts": args.hosts}
    parameters = {name: value for name, value in given.items() if value}
    known = set(papermill.inspect_notebook(str(args.notebook)))
    if not set(parameters) <= known:  # papermill itself only warns
        raise GateError(f"{args.notebook.name}: no parameter {sorted(set(parameters) - known)} in its parameters cell")
    unfinished = working(args.output)
    try:
        papermill.execute_notebook(
            str(args.notebook),
            str(unfinished),
            parameters=parameters,
            cwd=str(args.notebook.parent),
            kernel_name="python3",
            progress_bar=False,
            start_timeout=120,
            kernel_manager_class=_kernels(),
        )
    except DeadKernelError:
        print(_kernel_line(), flush=True)
        return 1
    finally:
        # papermill writes in place: a kill could leave half a notebook under the final name.
        if unfinished.exists():
            unfinished.replace(args.output)
    return 0


def working(output: Path) -> Path:
    """Return the path that papermill writes to while it works."""
    return output.with_name(f".{output.name}.part")


def _end_with_parent() -> None:
    """Interrupt ourselves when the parent dies: its end of our standard input closes."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _kernels() -> type[Any]:
    """Return a kernel manager that starts this very Python, whatever kernels are installed under its name, and
    remembers the process it started, so that we know its exit code.
    """
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class Remembering(AsyncKernelManager):
        @property
        def kernel_spec(self) -> Any:
            argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=argv, display_name="Python 3", language="python")

        async def start_kernel(self, **kwargs: Any) -> None:  # type: ignore[override]
            await super().start_kernel(**kwargs)
            process = getattr(self.provisioner, "process", None)
            if process is not None:
                _started.append(process)

    return Remembering


def _kernel_line() -> str:
    """Return the line that tells the parent how the kernel ended."""
    code = _started[-1].poll() if _started else None
    return f"kernel ended: {'unknown' if code is None else code}"


if __name__ == "__main__":
    sys.exit(main())
