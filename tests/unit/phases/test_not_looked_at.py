"""A check that looked at nothing, or at less than was asked, says so: it is no proof of anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import made_up
import pytest

from runbook_lib import records
from runbook_lib.errors import GateError
from runbook_lib.phases import audit, doubled, validate
from runbook_lib.phases.subject import Subject
from runbook_lib.report import archive, gate, verification
from runbook_lib.result import done_twice, parts
from runbook_lib.result.audited import Audit, AuditedRow
from runbook_lib.result.figures import Figures
from runbook_lib.result.merged import Merged
from runbook_lib.run.checks import Check, Checks
from runbook_lib.run.run import PHASES
from worker.wire import Opinion

Answers = Callable[[int], made_up.MadeUp]


@pytest.fixture
def audited(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Makes a published run of 12 rows whose machine here has time to compute so many of them again, rightly."""

    def new(most: int) -> made_up.MadeUp:
        monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
        made = made_up.run_folder(tmp_path, count=12, questions=[])
        made.commit_all()
        made_up.published(made.run)
        corpus = made.corpus
        right = dict(zip(corpus.texts(range(12)), made.vectors.tolist(), strict=True))

        def answers(run: Any, plan: Any, model: Any, texts: Any, dtype: str, within_s: float) -> Iterator[Opinion]:
            return iter([Opinion(vector=tuple(right[text])) for text, _ in texts[:most]])

        monkeypatch.setattr(audit, "answers", answers)
        monkeypatch.setattr(audit, "model_at_hand", lambda *_: None)
        monkeypatch.setattr(doubled, "twice", lambda *given: doubled.Drawn(given[-1], ()))
        monkeypatch.setattr(doubled, "alone", lambda *given: dict.fromkeys(given[-1], (None, "nobody")))
        return made

    return new


@pytest.mark.parametrize(("most", "verdict"), [(0, "FAILED"), (3, "warning"), (12, "ok")])
def test_rows_that_a_reviewer_asked_for_and_did_not_get_are_told(audited: Answers, most: int, verdict: str) -> None:
    made, checks = audited(most), Checks("a")
    verification._once_more(made.run, verification._Seen(), verification.Again(5, "seed"), checks)
    (check,) = checks
    assert (check.name, check.verdict) == (verification.ONCE_MORE, verdict), check


@pytest.mark.parametrize(("most", "seen"), [(0, "none: no row was computed within 600 s"), (12, "12 of 12 rows")])
def test_an_audit_for_which_there_was_no_time_says_so(audited: Answers, most: int, seen: str) -> None:
    made, checks = audited(most), Checks("a")
    audit.after_all_parts(made.run, Merged(made.run.merged), checks, Figures(), sound=True)
    check = named(checks, audit.AUDIT)
    assert seen in check.seen and check.warn == (most == 0)


def test_rows_of_which_two_slots_differ_are_computed_again_first_though_their_check_fails(audited: Answers) -> None:
    run = audited(12).run
    run.journal.write(done_twice.EVENT, host="here", start=4, stop=8, furthest=0.5, slot="a", by="b")
    checks, _ = validate.validate(run)
    assert not named(checks, done_twice.NAME).ok and named(checks, audit.AUDIT).ok
    kept = records.read(Audit, run.report / audit.FILE)
    assert kept is not None and [each.row for each in kept.rows if not each.uniform] == [4, 5, 6]


@pytest.mark.parametrize("times", [1, 2])
def test_a_row_that_this_machine_did_wrong_once_blames_nobody(
    audited: Answers, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    made, checks, right = audited(12), Checks("a"), audit.answers
    left = [times]

    def flips(*given: Any) -> Iterator[Opinion]:
        opinions = list(right(*given))
        left[0] -= 1
        return iter(
            [Opinion(vector=tuple(reversed(opinions[0].vector))) if left[0] >= 0 else opinions[0], *opinions[1:]]
        )

    monkeypatch.setattr(audit, "answers", flips)
    audit.after_all_parts(made.run, Merged(made.run.merged), checks, Figures(), sound=True)
    assert named(checks, audit.AUDIT).ok is (times == 1)
    assert bool(made.run.plan().fences) is (times == 2)
    assert any(check.name == audit.SAME and check.warn for check in checks) is (times == 1)


def test_an_audit_without_a_drawn_row_bounds_nothing(audited: Answers) -> None:
    made, checks = audited(12), Checks("a")
    subject = Subject.of(made.run, Merged(made.run.merged))
    kept = Audit("", "", "", 1e-6, (AuditedRow(3, False, 0.0), AuditedRow(4, True, None, error="no memory")))
    shown = audit.tell(checks, subject, kept)
    (check,) = checks
    assert check.warn and "nothing follows for the rows that were not looked at" in check.seen
    assert shown.share_at_most is None


def test_on_file_it_proves_no_draw(audited: Answers) -> None:
    made = audited(12)
    shown = audit.after_all_parts(made.run, Merged(made.run.merged), Checks("a"), Figures(), sound=True)
    for rows, warn in ((12, False), (0, True)):
        kept = records.read(Audit, made.run.report / audit.FILE)
        assert kept is not None
        kept = replace(kept, rows=kept.rows[:rows])
        made.run.save_json(audit.FILE, records.plain(kept))
        stated = replace(shown, audit=audit.figures_of(kept, 12))
        made.run.save_json("validation.json", {"figures": stated.as_json()})
        checks = Checks("a")
        verification._audit(made.run, checks)
        check = named(checks, verification.DRAWN)
        assert check.ok and check.warn == warn, check


def test_batches_that_were_not_done_again_are_told_with_the_reason_of_that() -> None:
    checks = Checks("a")
    reasons = ("", doubled.TAKEN, "two: the disk is full")
    for why in reasons:
        doubled.tell(checks, doubled.Drawn("", ()), {}, why)
    assert [check.verdict for check in checks] == ["ok", "ok", "warning"]
    assert [check.seen for check in checks] == [f"none: {why or doubled.ALONE}" for why in reasons]


def test_figures_checks_and_notebooks_that_are_not_there_were_not_looked_at(audited: Answers) -> None:
    run, checks = audited(12).run, Checks("a")
    (run.report / "validation.json").write_text('{"figures": {}}')
    verification._stored(run, Figures(), (), checks)
    verification._verdicts({}, [], checks)
    verification._notebooks(run, checks)
    stored, verdicts, notebooks = checks
    assert "no figures" in stored.seen
    assert verdicts.warn and "not looked at" in verdicts.seen
    assert notebooks.warn and "not looked at" in notebooks.seen


def test_a_result_without_a_check_is_none_in_an_archive(audited: Answers) -> None:
    run = audited(12).run
    run.save_result(PHASES[0], ok=True, checks=[])
    assert "nothing was looked at" in "".join(archive._result(run, PHASES[0]))


def test_a_gate_without_a_check_stops(audited: Answers) -> None:
    run = audited(12).run
    with pytest.raises(GateError, match="no check was made"):
        gate.gate(run, PHASES[0], Checks("nothing"))
    assert not run.result(PHASES[0]).ok


def named(checks: Checks, name: str) -> Check:
    return next(check for check in checks if check.name == name)
