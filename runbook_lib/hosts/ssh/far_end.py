"""What is sent to begin a session: the far end's code, and the one command that finds a Python there to run it.

Nothing is installed or left on the host. The command is the same constant for every host: what differs (which Python,
every path) goes over standard input, where no shell of any kind reads it and no process listing shows it.
"""

from __future__ import annotations

import json
import zlib
from functools import cache
from pathlib import Path

import worker

# The far end's modules, each after what it imports.
SENT = (
    *("escape", "files", "rows", "layout", "fields", "wire", "owned", "placed", "locks", "commands", "process"),
    *("launcher", "batch_script", "slurm", "node_job", "reserve", "states", "snapshot", "chip", "limits", "machine"),
    *("environment", "verbs", "agent"),
)
PLACES = (
    *("python3", "/usr/bin/python3", "/usr/local/bin/python3", "/opt/homebrew/bin/python3", "/opt/conda/bin/python3"),
    *(f"$HOME/{name}/bin/python3" for name in ("miniconda3", "miniforge3", "mambaforge", "anaconda3", ".local")),
)
TOO_OLD = 97
NO_PYTHON = 96
# Quoted so that sh, csh and fish read the same: no quote, backslash, exclamation mark or newline inside.
COMMAND = (
    '/bin/sh -c \'IFS= read -r first; IFS= read -r code; case "$first" in [~]/*) first="$HOME/${first#??}";; esac; '
    'for python in "$first" "${first:+$first/bin/python}" '
    + " ".join(f'"{place}"' for place in PLACES)
    + '; do [ -n "$python" ] || continue; "$python" -I -u -c "$code"; r=$?; '
    + f"case $r in 2|{TOO_OLD}|126|127) ;; *) exit $r;; esac; done; exit {NO_PYTHON}'"
)
BOOTSTRAP = f"""
import sys
if sys.version_info < (3, 9):
    sys.exit({TOO_OLD})
import json, types, zlib
source = open(0, "rb", 262144, closefd=False)
nonce, size = source.readline().split()
package = types.ModuleType("worker")
package.__path__ = []
sys.modules["worker"] = package
for name, text in json.loads(zlib.decompress(source.read(int(size)))):
    module = types.ModuleType("worker." + name)
    module.__package__ = "worker"
    sys.modules[module.__name__] = module
    setattr(package, name, module)
    exec(compile(text, "worker/" + name + ".py", "exec"), module.__dict__)
sys.modules["worker.agent"].serve(nonce.decode(), source)
"""


@cache
def bundle() -> bytes:
    """The far end's code, as it is sent."""
    folder = Path(worker.__file__).parent
    sources = [(name, (folder / f"{name}.py").read_text(encoding="utf-8")) for name in SENT]
    return zlib.compress(json.dumps(sources).encode())
