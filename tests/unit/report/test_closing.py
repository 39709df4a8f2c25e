"""The last line of `verify`: it claims what was looked at, by whom, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runbook_lib.report import closing, signature
from runbook_lib.report.closing import Looked, sentence
from runbook_lib.result.audited import HERE
from runbook_lib.result.figures import AuditFigures, Figures, FitFigures
from runbook_lib.run.checks import Checks

FIT = FitFigures(900, 0.46, 0.2, 0.998, 0.605, (7,), (0.02,))
AUDIT = AuditFigures(299, 50, 0, 1e-13, 1e-6, 0.0099, "ab" * 32, HERE)
FIGURES = Figures(documents=900, model="owner/model", fit=FIT, audit=AUDIT)
LOOKED = Looked("a-run", FIGURES)


def checks(signed: str = "there is none") -> Checks:
    found = Checks("verify")
    found.add(signature.NAME, True, signed)
    return found


def test_a_maker_s_word_is_no_proof() -> None:
    said = sentence(checks(), LOOKED)
    assert said.startswith("Run a-run, 900 documents by owner/model, not signed; every byte is the sealed one")
    assert "by the audit on file none is off" in said and "with 95 % confidence at most 0.99 % of all rows are" in said
    unproved = said.partition(". Not proved: ")[2]
    for what in (closing.MAKER, closing.CORPUS, closing.DISTANCES, closing.SINGLE, closing.PURPOSE):
        assert what in unproved


def test_what_was_looked_at_here_is_not_called_open() -> None:
    whole = replace(FIGURES, audit=replace(AUDIT, uniform=900, share_at_most=0.0))
    said = sentence(checks("good, by alice with ED25519 key SHA256:x"), Looked("a-run", whole, True, True))
    assert "signed by alice with ED25519 key SHA256:x" in said and "computed again here none is off" in said
    assert said.partition(". Not proved: ")[2] == f"{closing.PURPOSE}."


def test_a_key_that_nobody_vouches_for_is_no_maker() -> None:
    said = sentence(checks(f"good, by ED25519 key SHA256:x{signature.WHOSE}"), LOOKED)
    assert "signed by ED25519 key SHA256:x, whoever that is" in said and closing.MAKER in said


def test_a_power_is_rounded_down() -> None:
    assert "99 % came among the 50" in sentence(checks(), LOOKED) and "60 % where" in sentence(checks(), LOOKED)


def test_rows_that_fit_far_less_and_were_not_computed_are_said() -> None:
    assert "; 3 rows fit far less than is usual and were not computed again" in sentence(
        checks(), replace(LOOKED, low=3)
    )


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (replace(FIGURES, fit=None), "the documents are too few"),
        (replace(FIGURES, fit=replace(FIT, median=0.1)), "words tell nothing here"),
        (replace(FIGURES, audit=None), "no row was drawn and computed again"),
    ],
)
def test_what_was_not_looked_at_is_said(figures: Figures, words: str) -> None:
    assert words in sentence(checks(), Looked("a-run", figures))


def test_a_failed_check_leaves_nothing_proved() -> None:
    found = checks()
    found.add("a fact", False, "seen")
    assert sentence(found, LOOKED) == "Run a-run: NOT PROVED: 1 of 2 checks fail (a fact)."


def test_bytes_alone_are_said_to_be_bytes_alone() -> None:
    assert sentence(checks(), Looked("a-run")).endswith("nothing more was looked at.")
