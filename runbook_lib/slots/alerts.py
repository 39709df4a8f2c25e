"""Alerts: the findings of a poll that a person should see, one sentence each; an empty text means no alert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import RunbookError
from .observed import Observed
from .readings import Answer, Late
from .snapshot import Refusal
from .states import NAMED, UNREACHABLE, UNSUPERVISED, Verdict

LATE_S = 10.0  # a host that takes longer to answer gets an alert


def of_host(name: str, answer: Answer) -> str:
    """Return an alert for a host that failed, or takes long to answer."""
    if isinstance(answer, RunbookError):  # unreachable is not dead
        return str(answer) if str(answer).startswith(name) else f"{name}: {answer}"
    if isinstance(answer, Late) and answer.asked_s > LATE_S:
        return f"{name}: no answer for {answer.asked_s:.0f} s; its last answer is shown"
    return ""


def of_slot(observed: Observed, verdict: Verdict, evidence: str) -> str:
    """Return an alert for a slot in trouble; for an unreachable slot its host has one."""
    if not (verdict.wrong and evidence) or (observed.silent and observed.state == UNREACHABLE):
        return ""
    return f"{observed.name} on {observed.slot.host}: {verdict.name}: {_with_remedies(evidence, verdict)}"


def of_rows(rows: Sequence[int], named: Mapping[int, str], refusals: Sequence[Refusal]) -> str:
    """Return an alert for the rows that were given up, with the reason of the first one."""
    if not rows:
        return ""
    names = ", ".join(named[row] for row in rows[:10])
    why = next((each.reason for each in refusals if each.row == rows[0]), "")
    return f"rows given up: {names}{' …' if len(rows) > 10 else ''}{f'; the first: {why}' if why else ''}"


def of_unsupervised(host: str, alive: int) -> str:
    """Return an alert for a host with `alive` workers and no supervisor: a worker that dies would not be restarted."""
    evidence = f"its supervisor is gone, {alive} of its workers live and would not be started again"
    return f"{host}: {UNSUPERVISED}: {_with_remedies(evidence, NAMED[UNSUPERVISED])}"


def _with_remedies(evidence: str, verdict: Verdict) -> str:
    return f"{evidence}. By itself: {verdict.by_itself}. You: {verdict.person}."
