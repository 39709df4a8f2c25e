"""A corpus of some documents of another: the same texts, numbered anew, with all questions."""

import json

import numpy as np
import pytest
from made_up import documents

from runbook_lib.corpus import inspection, numbering, subset


@pytest.fixture
def whole(tmp_path):
    (tmp_path / "corpus.json").write_text(json.dumps(documents(30)))
    (tmp_path / "questions.json").write_text(json.dumps([{"question": "Which?", "title": "Title 1"}]))
    folder = tmp_path / "whole"
    return numbering.build(
        tmp_path / "corpus.json",
        inspection.Fields(),
        None,
        tmp_path / "questions.json",
        "t: {title} | {text}",
        "q: {text}",
        folder,
    )


@pytest.mark.parametrize("rows", [[0], [29], [3, 4, 11, 28], list(range(30))])
def test_it_has_the_chosen_texts_their_fingerprints_and_the_questions(whole, tmp_path, rows):
    def chosen():
        yield np.asarray(rows[:2], np.int64)
        yield np.asarray(rows[2:], np.int64)

    part = subset.write(whole, chosen, len(rows), tmp_path / "part")
    assert (part.documents, part.questions, part.rows) == (len(rows), 1, len(rows) + 1)
    assert list(part.texts(range(part.rows))) == list(whole.texts([*rows, 30]))
    assert np.array_equal(part.fingerprints(), whole.fingerprints()[[*rows, 30]])
    assert [{**a, "row": rows[i]} for i, a in enumerate(part.articles())] == [
        a for a in whole.articles() if a["row"] in rows
    ]
    assert part.questions_list()[0] == {**whole.questions_list()[0], "row": len(rows)}
    assert part.source_sha256 == whole.source_sha256 and part.template == whole.template


def test_all_of_it_is_the_same_corpus_but_for_json_spacing(whole, tmp_path):
    part = subset.write(whole, lambda: iter([np.arange(30)]), 30, tmp_path / "part")
    assert part.fingerprint == whole.fingerprint and part.files["texts.jsonl"] == whole.files["texts.jsonl"]
    assert part.files["offsets.npy"] == whole.files["offsets.npy"]
    assert part.files["fingerprints.npy"] == whole.files["fingerprints.npy"]
