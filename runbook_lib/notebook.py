"""Everything that a notebook imports, in one line: the phases, the gate, and the displays."""

from .hosts.ssh.sign_in import sign_in
from .phases import canaries, download, launch, merge, monitor, preflight, publish, staging, validate
from .report import ending, gate
from .run.opening import open_run
from .show import console, file_table, live, pictures

__all__ = [
    "canaries",
    "console",
    "download",
    "ending",
    "file_table",
    "gate",
    "launch",
    "live",
    "merge",
    "monitor",
    "open_run",
    "pictures",
    "preflight",
    "publish",
    "sign_in",
    "staging",
    "validate",
]
