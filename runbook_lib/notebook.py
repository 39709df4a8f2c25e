"""Everything that a notebook imports, in one line: the phases, the gate, and the displays."""

from .phases import canaries, download, launch, merge, monitor, preflight, publish, staging, validate
from .report import gate, report
from .run.run import open_run
from .show import console, live, pictures

__all__ = [
    "canaries",
    "console",
    "download",
    "gate",
    "launch",
    "live",
    "merge",
    "monitor",
    "open_run",
    "pictures",
    "preflight",
    "publish",
    "report",
    "staging",
    "validate",
]
