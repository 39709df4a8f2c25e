"""The result file of a phase: written by its gate, read by the next phase and by the report."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..records import parse

OUTPUTS = ("founding", "backup")  # figures of the last phase: files of the result outside the run's folder


@dataclass(frozen=True)
class CheckRecord:
    """A check as the gate recorded it; `group` is the title of its `Checks`."""

    group: str = ""
    name: str = ""
    ok: bool = False
    seen: str = ""
    expected: str = ""
    remedy: str = ""
    where: str = ""
    warn: bool = False
    verdict: str = ""


@dataclass(frozen=True)
class Output:
    """A file of the result outside the run's folder; `same_disk`, of a backup: it lies on the disk of the original."""

    path: str = ""
    sha256: str = ""
    bytes: int | None = None
    same_disk: bool = False


@dataclass(frozen=True)
class PhaseResult:
    """A phase's result; `ok` when all of its checks held.

    `inputs` and `choices` are digests of what it depended on. `figures` are a phase's own, for the report.
    """

    phase: str = ""
    run: str = ""
    ok: bool | int = False
    at: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)
    checks: tuple[CheckRecord, ...] = ()
    figures: dict[str, object] = field(default_factory=dict)

    def output(self, name: str) -> Output | None:
        """Return `founding` or `backup` as the last phase states it, or None. Raises DataError."""
        stated = self.figures.get(name)
        return parse(Output, stated, f"{self.phase}.result.json: figures.{name}") if stated else None
