"""The report's sections on what was embedded, what was promised and what is next."""

from dataclasses import replace

import made_up
import pytest

from runbook_lib import records
from runbook_lib.corpus import corpus as corpora
from runbook_lib.phases import promise
from runbook_lib.phases.rehearsal import Lengths
from runbook_lib.report import next_steps, origin_shown, report
from runbook_lib.result import facts, parts
from runbook_lib.run import model_card
from worker.bins import BINS


@pytest.fixture
def done(tmp_path, monkeypatch):
    """A run of 60 documents with a result."""
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
    made = made_up.run_folder(tmp_path, count=60, dim=16)
    made.commit_all()
    made_up.published(made.run)
    return made


def test_what_was_embedded_is_named_with_sum_count_sample_software_person_and_profile(done):
    card = model_card.ModelCard("<b>gemma</b>", "@article{a, title={One}}")
    done.run.save_json(model_card.RECORD, records.plain(card))
    shown = str(origin_shown.section(facts.gather(done.run)))
    corpus = corpora.load(done.run.corpus)
    first = next(iter(corpus.articles()))["title"]
    for words in (
        "corpus.json",
        corpus.source_sha256,
        ">60 and 1 questions<",
        first,
        "embedding-runbook ",
        "@article{a",
    ):
        assert words in shown, words
    assert "&lt;b&gt;gemma" in shown and "<b>gemma" not in shown
    assert "run: made-up" in shown  # the profile as used


def test_a_run_of_an_earlier_version_says_what_it_did_not_record(done):
    found = facts.gather(done.run)
    events = [
        {key: value for key, value in event.items() if key not in ("software", "by", "command")}
        for event in found.events
    ]
    shown = str(origin_shown.section(replace(found, events=events)))
    assert shown.count("not recorded by the version") == 3
    assert "Nothing was promised" in origin_shown.promised(found)


def test_promise_and_fact_stand_side_by_side(done):
    found = facts.gather(done.run)
    came = found.manifest.lengths.documents
    lengths = Lengths(
        60, came.tokens, came.tokens - came.tokens_cut, came.truncated_rows, 99, (60,) + (0,) * (BINS - 1), True
    )
    busy_s = found.encoding.busy_s
    made = promise.Promise("", 61, lengths, 10, 100.0, 1.0, busy_s / 2, "", 10**6, ())
    done.run.save_json(promise.RECORD, records.plain(made))
    shown = str(origin_shown.promised(found))
    assert shown.count(">none<") == 2  # both shares are exact
    assert "+100.0 %" in shown and "-50.0 %" in shown  # time and rate
    off = replace(made, lengths=replace(lengths, cut=30))
    done.run.save_json(promise.RECORD, records.plain(off))
    assert " points" in origin_shown.promised(found)


def test_the_next_steps_fit_the_corpus(done):
    found = facts.gather(done.run)
    good = replace(found, results={phase: replace(r, ok=True) if r else _ok() for phase, r in found.results.items()})
    steps = dict(next_steps.next_steps(good))
    assert steps["Ask the corpus something"] == f"runbook search {done.run.name} 'Which one is about a lake?'"
    assert steps["See all of it on one page"] == f"runbook map {done.run.name}"
    failed = replace(found, results=dict.fromkeys(found.results))
    assert "runbook run PROFILE" in dict(next_steps.next_steps(failed)).values()
    assert "Next steps" in report.build(done.run).read_text()


def _ok():
    from runbook_lib.run.phase_result import PhaseResult

    return PhaseResult(ok=True)
