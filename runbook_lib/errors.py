"""Every failure that an operator can act on, grouped by the next step.

    RunbookError
    ├── ProfileError   edit the profile (or the file it names)
    ├── CorpusError    repair the corpus file, or accept the oddity in the profile
    ├── HostError      look at that machine
    │   ├── CannotStart  a command does not exist there, or may not be run
    │   └── LinkLost   the connection broke or is silent; the machine may be working: try again later
    ├── DataError      a file of the run is not what its record says: move it away, run again
    └── GateError      make these checks pass, then run the phase again

A message says what was being done, where, what was expected, what was seen and the next step. Any other exception that
leaves the library is a bug in it.
"""

from __future__ import annotations


class RunbookError(Exception):
    """The base: catch this to catch everything an operator can act on."""


class ProfileError(RunbookError):
    """The profile, or a file it names, is not usable."""


class CorpusError(RunbookError):
    """The corpus or the questions cannot be used as they are."""


class HostError(RunbookError):
    """A machine did not do what it was asked."""

    def __init__(self, message: str, *, errno: int | None = None):
        """`errno`: the error number of the remote system, if the system itself failed."""
        super().__init__(message)
        self.errno = errno


class CannotStart(HostError):
    """A command does not exist on that machine, or may not be run."""


class InvalidReading(HostError):
    """A machine's reading cannot be true: a report in it is damaged or forged, and nothing is taken from it."""


class LinkLost(HostError):
    """The connection to a machine could not be made, broke or fell silent. Programs there may still run."""


class DataError(RunbookError):
    """A file of the run is missing, damaged, or belongs to another run."""


class GateError(RunbookError):
    """Checks of a phase fail, so the next phase must not start."""
