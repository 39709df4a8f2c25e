"""Alerts: what a poll finds that a person should see, each in one sentence; empty where there is nothing to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import RunbookError
from .observed import Observed
from .readings import Answer, Late
from .snapshot import Refusal
from .states import NAMED, UNREACHABLE, UNSUPERVISED, Verdict

LATE_S = 10.0  # a host that takes longer to answer is named


def of_host(name: str, answer: Answer) -> str:
    """A host that failed, or takes long to answer."""
    if isinstance(answer, RunbookError):  # unreachable is not dead
        return str(answer) if str(answer).startswith(name) else f"{name}: {answer}"
    if isinstance(answer, Late) and answer.asked_s > LATE_S:
        return f"{name}: no answer for {answer.asked_s:.0f} s; what it said last is shown"
    return ""


def of_slot(observed: Observed, verdict: Verdict, evidence: str) -> str:
    """A slot in trouble; one that cannot be reached is told of by its host."""
    if not (verdict.wrong and evidence) or (observed.silent and observed.state == UNREACHABLE):
        return ""
    return f"{observed.name} on {observed.slot.host}: {verdict.name}: {_what_then(evidence, verdict)}"


def of_rows(rows: Sequence[int], named: Mapping[int, str], refusals: Sequence[Refusal]) -> str:
    """The rows that were given up, and why the first of them was."""
    if not rows:
        return ""
    names = ", ".join(named[row] for row in rows[:10])
    why = next((each.reason for each in refusals if each.row == rows[0]), "")
    return f"rows given up: {names}{' …' if len(rows) > 10 else ''}{f'; the first: {why}' if why else ''}"


def of_unsupervised(host: str, alive: int) -> str:
    """A host whose supervisor is gone and `alive` workers go on: one that dies then would not be started again."""
    evidence = f"its supervisor is gone, {alive} of its workers live and would not be started again"
    return f"{host}: {UNSUPERVISED}: {_what_then(evidence, NAMED[UNSUPERVISED])}"


def _what_then(evidence: str, verdict: Verdict) -> str:
    return f"{evidence}. By itself: {verdict.by_itself}. You: {verdict.person}."
