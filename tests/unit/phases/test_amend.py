"""Mended texts are taken into a run: the same rows, and only the parts that hold them are done again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from local_run import folder, new_run, planned

from runbook_lib.errors import DataError, ProfileError
from runbook_lib.phases import amend, download, merge, preflight, staging
from runbook_lib.profile import profile
from runbook_lib.result.manifest import Amended
from runbook_lib.run import opening, plan, run
from worker.files import write_json
from worker.layout import committed
from worker.rows import planned_parts

DIM = 4
Change = Callable[[list[dict[str, Any]]], Any]


def vectors(start: int, stop: int) -> np.ndarray:
    return made_up.vectors(30, DIM)[start:stop]


def commit(this: run.Run, start: int, stop: int) -> None:
    """Rows committed on their host as a worker does it, from the texts of now."""
    now = this.plan()
    slot = next(slot for slot in now.slots if slot.start <= start < slot.stop)
    made = made_up.MadeUp(this, now, preflight.corpora.load(this.corpus), made_up.vectors(30, DIM))
    record = made.record(start, stop, max_tokens=64, model_max_tokens=64)
    made_up.commit(folder(this, slot.host), start, vectors(start, stop), record)


def mended(this: run.Run, change: Change) -> profile.Profile:
    """The profile, after its corpus was changed."""
    file = this.profile.corpus.path
    documents = json.loads(file.read_text())
    changed = change(documents)
    file.write_text(json.dumps(documents if changed is None else changed))
    return profile.load(this.folder.parents[1] / "profile.yaml")


def text_of(row: int, text: str) -> Change:
    return lambda documents: documents[row].update(text=text)


@pytest.fixture
def done(tmp_path: Path) -> run.Run:
    """A run of 18 rows on two hosts, staged, with every part committed on its host and at home."""
    this = new_run(tmp_path)
    drawn = planned(this)
    assert staging.stage(this).ok
    for slot in drawn.slots:
        for start, stop in planned_parts(slot.start, slot.stop, drawn.part_rows):
            commit(this, start, stop)
    assert download.collect(this).rows == 18
    return this


def sums(this: run.Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(this.local.parts.iterdir())}


def test_only_the_parts_that_hold_a_mended_text_are_done_again(done):
    first = merge.merge(done)
    kept, old = sums(done), done.plan()
    changed = mended(done, text_of(4, "mended"))
    with pytest.raises(DataError, match="runbook run PROFILE --amend"):
        raise DataError(preflight.the_corpus(done, preflight.the_model(done)[1])[0].failed[0].seen)
    this = opening.current(changed, new=True, amend=True)
    assert this.folder == done.folder
    assert amend.amend(this).ok
    assert committed(this.local.parts) == [(0, 3), (6, 9), (9, 12), (12, 15), (15, 18)]
    assert (3, 6) not in committed(folder(this, "one").parts) and (9, 12) in committed(folder(this, "two").parts)
    now = this.plan()
    assert (now.epoch, now.corpus != old.corpus) == (old.epoch + 1, True)
    assert now.amendments == (plan.Amendment(now.epoch, old.corpus, (4,)),)
    assert plan.load(this.plan_file) == now and plan.load(this.revision_file(old.epoch)) == old
    assert preflight.the_corpus(this, preflight.the_model(this)[1])[0].ok
    assert planned(this) == now and staging.stage(this).ok

    commit(this, 3, 6)
    assert download.collect(this).rows == 18
    assert all(sums(this)[name] == raw for name, raw in kept.items() if not name.startswith("rows_000000003"))
    manifest = merge.merge(this)
    assert manifest.amended == (Amended(now.epoch, (4,)),)
    assert manifest.corpus == now.corpus != first.corpus
    (told,) = this.journal.events("corpus amended")
    assert (told["rows"], told["first"]) == (1, [4])


def test_a_part_of_the_text_before_is_not_taken(done):
    this = opening.current(mended(done, text_of(4, "mended")), new=True, amend=True)
    old = folder(this, "one").part(3, 6)
    kept = {path: path.read_bytes() for path in (old, old.with_suffix(".json"))}
    assert amend.amend(this).ok
    for path, raw in kept.items():
        path.write_bytes(raw)  # as from a host that was away
    found = download.collect(this)
    assert (found.rows, len(found.refused)) == (15, 1)
    assert "the text of 1 rows is not the corpus's: rows 4" in found.refused[0]


def test_a_row_that_was_given_up_is_tried_again_once_it_is_mended(done):
    for place in (folder(done, "one"), done.local):
        write_json(place.quarantined(4), {"row": 4, "reason": "ended 4 workers"})
        write_json(place.quarantined(7), {"row": 7, "reason": "ended 4 workers"})
    this = opening.current(mended(done, text_of(4, "mended")), new=True, amend=True)
    assert amend.amend(this).ok
    for place in (folder(done, "one"), done.local):
        assert not place.quarantined(4).exists() and place.quarantined(7).exists()


def test_a_finished_run_is_amended_and_is_unfinished_then(done):
    done.save_result(run.PHASES[-1], ok=True)
    done.sums.write_text("sealed\n")
    this = opening.current(mended(done, text_of(0, "mended")), new=True, amend=True)
    assert this.folder == done.folder
    assert amend.amend(this).ok and not this.finished and not this.sums.exists()


def test_a_corpus_mended_in_another_file_is_taken_too(done, tmp_path):
    documents = json.loads(done.profile.corpus.path.read_text())
    documents[5]["text"] = "mended"
    (tmp_path / "mended.json").write_text(json.dumps(documents))
    changed = profile.load(tmp_path / "profile.yaml", {"corpus.path": str(tmp_path / "mended.json")})
    with pytest.raises(ProfileError, match=r"corpus\.path.*\n.*--amend"):
        opening.current(changed, new=True)
    this = opening.current(changed, new=True, amend=True)
    assert this.folder == done.folder and amend.amend(this).ok
    assert opening.current(changed, new=True).folder == done.folder


def test_titles_alone_are_amended_without_a_row(done):
    first = merge.merge(done)
    this = opening.current(mended(done, lambda ds: ds[1].update(title="Another")), new=True, amend=True)
    assert amend.amend(this).ok
    assert committed(this.local.parts) == committed(done.local.parts) and len(committed(this.local.parts)) == 6
    assert merge.merge(this).outputs["articles.jsonl"] != first.outputs["articles.jsonl"]


REFUSED: dict[str, tuple[Change, str]] = {
    "one more": (lambda ds: ds.append({**ds[0], "id": "new"}), "expected the 18 documents of the run, found 19"),
    "one less": (lambda ds: ds[:-1], "expected the 18 documents of the run, found 17"),
    "another order": (lambda ds: list(reversed(ds)), "row 0: expected the document"),
    "another id": (lambda ds: ds[2].update(id="other"), "row 2: expected the document 2, found 'other'"),
    "nothing": (lambda ds: None, "nothing in the corpus changed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_documents_are_no_amendment(done, what):
    change, seen = REFUSED[what]
    before = done.plan_file.read_bytes(), sums(done), done.corpus.joinpath("texts.jsonl").read_bytes()
    with pytest.raises(DataError, match=seen):
        amend.amend(opening.current(mended(done, change), new=True, amend=True))
    assert (done.plan_file.read_bytes(), sums(done), done.corpus.joinpath("texts.jsonl").read_bytes()) == before


def test_other_settings_are_no_amendment(done):
    changed = profile.load(done.folder.parents[1] / "profile.yaml", {"model.max_tokens": "5"})
    with pytest.raises(ProfileError, match=r"model\.max_tokens"):
        opening.current(changed, new=True, amend=True)


def test_an_amendment_that_was_cut_off_is_made_again(done, monkeypatch):
    this = opening.current(mended(done, text_of(4, "mended")), new=True, amend=True)
    monkeypatch.setattr(amend, "sync_folder", lambda path: None)
    whole = amend.verbs.set_aside

    def cut_off(root: str, names: list[str], stamp: str) -> list[str]:
        if names == ["corpus"]:
            raise KeyboardInterrupt
        return whole(root, names, stamp)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(amend.verbs, "set_aside", cut_off)
        amend.amend(this)
    assert amend.amend(this).ok
    assert [a.rows for a in this.plan().amendments] == [(4,)]
    assert planned(this) == this.plan()
