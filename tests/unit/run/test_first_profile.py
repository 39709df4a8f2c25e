"""`runbook init`: the profile that is written for a corpus reads that corpus, and says what was guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runbook_lib import cli
from runbook_lib.corpus.documents import read_documents
from runbook_lib.corpus.inspection import Fields
from runbook_lib.errors import CorpusError, ProfileError
from runbook_lib.profile import profile
from runbook_lib.run import first_profile


def first(corpus: Path, **options: Any) -> tuple[profile.Profile, list[tuple[Any, str, str, str]], str]:
    """The profile that is written, the documents that are read by it, and its text."""
    target = corpus.parent / "first.yaml"
    first_profile.write(corpus, target, **options)
    made = profile.load(target)
    spec = made.corpus
    fields = Fields(spec.id, spec.title, spec.text, spec.url, frozenset(spec.accept))
    documents = read_documents(spec.path, fields, notes=[])
    return made, [(each.id, each.title, each.text, each.url) for each in documents], target.read_text()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("id,title,text,url\n1,A,alpha beta,http://a\n", ("1", "A", "alpha beta", "http://a")),
        ('Doc ID;Head line;"Body; text";n\n7;A;"a text, long";1\n', ("7", "A", "a text, long", "")),
        ("paragraph\tlang\nthe longest field is the text\ten\n", (0, "", "the longest field is the text", "")),
        ("name,docKey,abstract,body\nA,k1,x,a far longer body\n", ("k1", "A", "a far longer body", "")),
        ("group_id,text\n7,one\n7,two\n", (0, "", "one", "")),
    ],
)  # fmt: skip
def test_fields_are_guessed_by_name_and_by_what_they_hold(tmp_path: Path, data: str, expected: tuple[Any, ...]) -> None:
    (tmp_path / "a.csv").write_text(data)
    assert first(tmp_path / "a.csv")[1][0] == expected


def test_fields_inside_fields_texts_alone_and_folders(tmp_path: Path) -> None:
    nested = tmp_path / "nested.jsonl"
    nested.write_text(json.dumps({"meta": {"_id": 5, "title": "T {x}"}, "content": {"body": "text # \n here"}}) + "\n")
    made, documents, text = first(nested)
    assert documents == [(5, "T {x}", "text # \n here", "")] and made.run == "nested"
    assert "in the first document: T {x}" in text and made.model.dim == 384
    (tmp_path / "first.yaml").unlink()
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    assert [each[2] for each in first(tmp_path / "texts.txt")[1]] == ["one", "two"]
    (tmp_path / "first.yaml").unlink()
    (tmp_path / "shards").mkdir()
    for k in range(3):
        (tmp_path / "shards" / f"part-{k}.jsonl").write_text(json.dumps({"id": k, "text": f"t{k}"}) + "\n")
    made, documents, text = first(tmp_path / "shards" / "*.jsonl")
    assert [each[0] for each in documents] == [0, 1, 2] and made.run == "shards" and "3 files" in text


def test_missing_titles_are_taken_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "title": "A", "text": "a"}\n{"id": 2, "title": null, "text": "b"}\n')
    made, documents, text = first(tmp_path / "a.jsonl")
    assert made.corpus.accept == ("missing_title",) and len(documents) == 2 and "1 of those looked at have no" in text


@pytest.mark.parametrize("name", ['we"ird: #col', "no", "{text}", "a\\b", "ключ", "null"])
def test_any_name_of_a_field_survives_the_profile(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({name: "the only text there is"}) + "\n")
    assert first(tmp_path / "a.jsonl")[1] == [(0, "", "the only text there is", "")]


def test_nothing_is_written_over_and_nothing_is_left_of_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "mine.yaml").write_text("mine")
    with pytest.raises(ProfileError, match="such a file already"):
        first_profile.write(tmp_path / "a.txt", tmp_path / "mine.yaml")
    assert (tmp_path / "mine.yaml").read_text() == "mine"
    with pytest.raises(ProfileError):
        first_profile.write(tmp_path / "a.txt", tmp_path / "new.yaml", str(tmp_path / "no_model"))
    (tmp_path / "n.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(CorpusError, match="no field that looks like text"):
        first_profile.write(tmp_path / "n.jsonl", tmp_path / "new.yaml")
    assert not (tmp_path / "new.yaml").exists()


def test_the_command_says_what_it_saw_and_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My notes (2).csv").write_text("Doc ID,body,lang\n7,first text,en\n")
    assert cli.main(["init", "My notes (2).csv"]) == 0
    out = capsys.readouterr().out
    assert "text   body: first text" in out and "id     Doc ID: 7" in out and "title  none was found" in out
    assert "other fields: lang" in out and "Next: runbook check My_notes_2.yaml" in out
    assert profile.load(tmp_path / "My_notes_2.yaml").corpus.path == tmp_path / "My notes (2).csv"
    assert cli.main(["init", "My notes (2).csv"]) == 1
