"""Numbering a corpus: row i is document i, and what cannot be taken is told before anything is written."""

import gzip
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runbook_lib.corpus import corpus, numbering
from runbook_lib.corpus import documents as reading
from runbook_lib.corpus.characters import has_long_word
from runbook_lib.corpus.corpus import Corpus
from runbook_lib.corpus.findings import ACCEPTABLE
from runbook_lib.corpus.formats import whole_file
from runbook_lib.corpus.formats.whole_file import WholeFile
from runbook_lib.corpus.inspection import Fields
from runbook_lib.corpus.prompt import as_encoded
from runbook_lib.errors import CorpusError, DataError, ProfileError, RunbookError
from runbook_lib.records import Written
from worker.files import sha256_file
from worker.rows import fingerprint

ROOT = Path(__file__).parents[3]
HOME_FILES = ["articles.jsonl", "corpus.json", "fingerprints.npy", "offsets.npy", "questions.jsonl", "texts.jsonl"]


def documents(count: int = 12) -> list[dict[str, Any]]:
    return [{"id": f"a{i}", "title": f"Title {i}", "text": f"text {i} é", "url": f"u/{i}"} for i in range(count)]


def number(folder: Path, items: Any, *, accept: str = "", template: str = "{text}", **options: Any) -> Corpus:
    source = folder / "source.pkl"
    source.write_bytes(items if isinstance(items, bytes) else pickle.dumps(items))
    fields = options.pop("fields", None) or Fields(accept=frozenset(accept.split()))
    expected, questions = options.pop("expected", None), options.pop("questions", None)
    return numbering.build(source, fields, expected, questions, template, "Q: {text}", folder / "corpus", **options)


def refused(folder: Path, items: Any, **options: Any) -> str:
    with pytest.raises(CorpusError) as caught:
        number(folder, items, **options)
    message = str(caught.value)
    assert "source.pkl" in message and "Next: " in message
    assert not [char for char in message.replace("\n", "") if ord(char) < 32 or 127 <= ord(char) < 160]
    message.encode()
    assert list((folder / "corpus").iterdir()) == []
    return message


def changed(changes: dict[int, dict[str, Any]], count: int = 12) -> list[dict[str, Any]]:
    items = documents(count)
    for row, fields in changes.items():
        items[row] = {name: value for name, value in {**items[row], **fields}.items() if value is not ...}
    return items


# ---------------------------------------------------------------- rows


def test_row_i_is_document_i_in_every_file(tmp_path: Path) -> None:
    items = documents(30)
    made = number(tmp_path, items, expected=30)
    assert (made.documents, made.questions, made.rows) == (30, 0, 30)
    assert list(made.texts(range(30))) == [item["text"] for item in items]
    assert list(made.articles()) == [
        {"row": i, "id": item["id"], "title": item["title"], "url": item["url"]} for i, item in enumerate(items)
    ]
    prints = made.fingerprints()
    assert [prints[i].tobytes().hex() for i in range(30)] == [fingerprint(item["text"]) for item in items]


def test_every_format_gives_the_same_corpus(tmp_path: Path) -> None:
    items = documents()
    made = number(tmp_path, items)
    lines = tmp_path / "c.jsonl"
    lines.write_text("".join(json.dumps(item) + "\n" for item in items))
    packed = tmp_path / "c.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    for source in (lines, packed):
        again = numbering.build(source, Fields(), 12, None, "{text}", "{text}", tmp_path / f"{source.name}.corpus")
        assert again.fingerprint == made.fingerprint
        assert again.texts_path.read_bytes() == made.texts_path.read_bytes()
        assert again.articles_path.read_bytes() == made.articles_path.read_bytes()


def test_offsets_give_each_line(tmp_path: Path) -> None:
    made = number(tmp_path, documents())
    offsets, whole = made.offsets(), made.texts_path.read_bytes()
    assert offsets[0] == 0 and offsets[-1] == len(whole) == made.text_bytes
    assert [whole[a:b] for a, b in itertools.pairwise(offsets)] == whole.splitlines(keepends=True)


def test_copied_rows_are_the_lines_of_that_range(tmp_path: Path) -> None:
    made = number(tmp_path, documents())
    lines = made.texts_path.read_bytes().splitlines(keepends=True)
    for start, stop in ((0, 12), (3, 7), (11, 12), (5, 5), (0, 0), (12, 12)):
        assert b"".join(made.copy_rows(start, stop)) == b"".join(lines[start:stop])
    for start, stop in ((-1, 2), (3, 2), (0, 13)):
        with pytest.raises(DataError, match="asked for"):
            made.copy_rows(start, stop)


def test_long_rows_are_copied_in_small_pieces(tmp_path: Path) -> None:
    made = number(tmp_path, changed({1: {"text": "long text " * 300_000}}))
    assert max(len(chunk) for chunk in made.copy_rows(0, 12)) <= 2**20


def test_texts_survive_whatever_they_hold(tmp_path: Path) -> None:
    texts = [
        'a "quoted" \\ text',
        "line\nline\r\n\x85 \u2028end",
        "{text} {title} {0}",
        "NUL\x00 \x1b[31m",
        "😀 e\u0301",
        " a ",
    ]
    made = number(tmp_path, [{"title": "T", "text": text} for text in texts])
    assert list(made.texts(range(len(texts)))) == texts
    assert len(made.texts_path.read_bytes().splitlines()) == len(texts)
    assert b"\x1b" not in made.texts_path.read_bytes()


def test_an_absent_id_is_the_row_and_an_absent_url_is_empty(tmp_path: Path) -> None:
    made = number(tmp_path, [{"title": "A", "text": "a"}, {"title": "B", "text": "b", "url": None}])
    assert [(article["id"], article["url"]) for article in made.articles()] == [(0, ""), (1, "")]
    assert made.notes == ('no document has an id ("id"): row numbers stand in; the fields are "title", "text"',)


def test_a_few_absent_ids_are_noted(tmp_path: Path) -> None:
    assert "no id in 1 document (item 3)" in number(tmp_path, changed({3: {"id": None}})).notes[0]


def test_fields_have_the_names_that_the_profile_says(tmp_path: Path) -> None:
    items = [{"n": i, "name": f"T{i}", "body": f"b{i}", "link": "l", "text": "not this"} for i in range(3)]
    made = number(tmp_path, items, fields=Fields("n", "name", "body", "link"))
    assert list(made.texts(range(3))) == ["b0", "b1", "b2"]
    assert next(iter(made.articles())) == {"row": 0, "id": 0, "title": "T0", "url": "l"}


def test_progress_tells_the_documents_read(tmp_path: Path) -> None:
    told: list[int] = []
    number(tmp_path, documents(2500), on_progress=told.append)
    assert told == [1000, 2000, 2500]


def test_the_characters_are_those_of_the_texts(tmp_path: Path) -> None:
    items = [{"title": "T", "text": "é" * length} for length in range(1, 102)]
    made = number(tmp_path, items, template="title: {title} | text: {text}")
    assert made.characters == {"total": 5151, "min": 1, "median": 51, "p95": 96, "max": 101}


# ---------------------------------------------------------------- the text as encoded


@pytest.mark.parametrize(
    ("template", "title", "text", "expected"),
    [
        ("{text}", "T", "x", "x"),
        ("title: {title} | text: {text}", "T", "x", "title: T | text: x"),
        ("title: {title} | text: {text}", "", "x", "title: none | text: x"),
        ("{title}: {text}", "{text}", "{title}", "{text}: {title}"),
        ("{text}", "T", "{0} {} {text} }{ %s \\1", "{0} {} {text} }{ %s \\1"),
        ("{x} {{text}} {text}", "T", "a", "{x} {a} a"),
    ],
)
def test_a_template_is_filled_literally_and_once(template: str, title: str, text: str, expected: str) -> None:
    assert as_encoded(template, text, title) == expected


def test_the_fingerprint_is_that_of_the_text_as_encoded(tmp_path: Path) -> None:
    made = number(tmp_path, documents(2), template="title: {title} | text: {text}")
    assert made.text(1) == "title: Title 1 | text: text 1 é"
    assert made.fingerprints()[1].tobytes().hex() == fingerprint(made.text(1))


def test_a_prompt_without_a_place_for_the_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"model\.prompt.*\{text\}"):
        number(tmp_path, documents(), template="title: {title}")


# ---------------------------------------------------------------- questions


def ask(folder: Path, value: Any) -> Path:
    path = folder / "questions.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_questions_are_rows_after_the_documents(tmp_path: Path) -> None:
    asked = [{"question": "Who?", "title": "T", "passage_index": 3, "row": 99, "answers": ["x"]}, {"question": "Why?"}]
    made = number(tmp_path, documents(), questions=ask(tmp_path, asked))
    assert (made.documents, made.questions, made.rows) == (12, 2, 14)
    assert list(made.texts([12, 13])) == ["Q: Who?", "Q: Why?"]
    assert made.questions_list() == [
        {"row": 12, "question": "Who?", "title": "T", "passage_index": 3},
        {"row": 13, "question": "Why?"},
    ]
    assert made.fingerprints().shape == (14, 16) and made.offsets().shape == (15,)
    assert len(list(made.articles())) == 12


@pytest.mark.parametrize("value", [["Who?", "Why?"], '{"question": "Who?"}\n{"question": "Why?"}\n'])
def test_questions_may_be_strings_or_lines(tmp_path: Path, value: Any) -> None:
    made = number(tmp_path, documents(), questions=ask(tmp_path, value))
    assert [question["question"] for question in made.questions_list()] == ["Who?", "Why?"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (["Who?", "  "], "item 1: empty question"),
        (["Who?", 7], "item 1: int"),
        ([{"text": "Who?"}], "item 0: no field `question`"),
        ([{"question": None}], "item 0: no field `question`"),
        ('["lone \\ud800"]', "item 0: half a surrogate pair"),
        ('{"question": "a"}\n{"question": NaN}\n', "line 2: no field `question`"),
        ("question\nWho?\n", "questions in CSV"),
        ("", "empty file"),
    ],
)
def test_bad_questions_are_named(tmp_path: Path, value: Any, said: str) -> None:
    path = ask(tmp_path, value)
    with pytest.raises(CorpusError) as caught:
        number(tmp_path, documents(), questions=path)
    assert said in str(caught.value) and "questions.json" in str(caught.value)


# ---------------------------------------------------------------- what stops a corpus


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({4: {"text": ...}}, ['item 4 ("Title 4"): no field "text"']),
        ({4: {"text": None}, 5: {"text": float("nan")}}, ["item 4", "NoneType", "item 5", "float (NaN)"]),
        ({4: {"text": b"bytes \xff"}}, ["item 4", "text is bytes"]),
        ({4: {"text": ["a"]}}, ["item 4", "text is list"]),
        ({0: {"text": ""}, 6: {"text": " \n\t\u00a0\u3000"}}, ["item 0: empty text", "item 6", "empty_text"]),
        (
            {1: {"text": "\u200b\u200d\ufeff"}, 2: {"text": "\x00" * 50}},
            ["item 1", "item 2: empty text: 50 characters"],
        ),
        ({2: {"title": ...}, 7: {"title": None}}, ['item 2: no field "title"', "item 7", "missing_title"]),
        (
            {2: {"title": ""}, 7: {"title": " "}, 8: {"title": float("nan")}},
            ["item 2", "item 7", "item 8", "missing_title"],
        ),
        ({1: {"title": 1984}, 2: {"title": 3.5}}, ["item 1: title is int", "item 2", "title_not_text"]),
        ({3: {"title": ["a"]}, 4: {"title": True}}, ["item 3: title is list", "item 4: title is bool"]),
        ({1: {"text": "half \ud83d"}}, ["item 1", "U+D83D", "character 5", "surrogates"]),
        ({2: {"title": "\udc80"}, 3: {"id": "\ud800"}, 4: {"url": "\ud800"}}, ["U+DC80", "id holds", "url holds"]),
        ({1: {"id": 1.5}, 2: {"id": True}, 3: {"id": 2**64}}, ["id is float", "id is bool", "over 64 bits"]),
        ({1: {"url": 7}}, ["item 1: url is int"]),
    ],
)
def test_a_document_that_cannot_be_taken_is_named(tmp_path: Path, changes: Any, said: list[str]) -> None:
    message = refused(tmp_path, changed(changes))
    assert [part for part in said if part not in message] == []


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    items: list[Any] = changed({0: {"text": ""}, 3: {"title": None}, 4: {"text": "\x1b[0m bell \x07"}})
    items[7] = "a string"
    message = refused(tmp_path, items, expected=13)
    for said in ("4 problems in 12 documents", "item 0", "item 3", "item 7: str", "12 documents found, 13 expected"):
        assert said in message
    assert "also seen: control characters in 1 document (item 4)" in message


def test_the_first_twenty_problems_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    message = refused(tmp_path, changed({row: {"text": ""} for row in range(50, 90)}, 100))
    assert "40 problems in 100 documents" in message and "item 69:" in message
    assert "item 70" not in message and "and 20 more" in message


def test_a_hostile_title_is_shown_as_escapes(tmp_path: Path) -> None:
    message = refused(tmp_path, changed({4: {"text": None, "title": "\x1b]0;owned\x07\nNext: rm -rf \u202e\ud800"}}))
    assert "\\x1b]0;owned\\x07\\nNext: rm -rf \\u202e\\ud800" in message


def test_a_field_that_no_document_has_is_a_slip_in_the_profile(tmp_path: Path) -> None:
    items = [{"pageid": i, "name": "T", "content": "text"} for i in range(3)]
    message = refused(tmp_path, items)
    for said in ('no field "title"', 'no field "text"', '"pageid", "name", "content"', "corpus.text", "corpus.title"):
        assert said in message
    assert "corpus.id" in refused(tmp_path, documents(), fields=Fields(id="pageid"))
    assert "leave corpus.title out" in refused(tmp_path, [{"text": "a"}, {"text": "b"}], fields=Fields(title="name"))


def test_a_slip_in_the_profile_is_told_without_reading_a_large_file_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_HOPELESS", 10)
    items = [{"content": "text"}] * 10 + [{"text": "never reached"}]
    assert 'no field "text"' in refused(tmp_path, items)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([], "no documents"),
        ([b"a text", b"another"], "a list of 2 items of type bytes; expected dicts"),
        (["a text", {"text": "another"}], "item 1: dict, expected a text, as the first"),
        ([{"text": "a", "title": "T"}, None, ("title", "text")], "item 1: NoneType"),
        (None, "None"),
        (250000, "int"),
    ],
)
def test_other_shapes_are_explained(tmp_path: Path, items: Any, said: str) -> None:
    assert said in refused(tmp_path, items)


def test_a_count_that_the_profile_does_not_assert_is_refused(tmp_path: Path) -> None:
    assert "59 documents found, 60 expected" in refused(tmp_path, documents(59), expected=60)


def test_bad_lines_and_bad_documents_are_told_together(tmp_path: Path) -> None:
    data = b'{"title": "T", "text": NaN}\n{"title": "T", "text": ""}\n{"title": "T", "text": "cut\n'
    message = refused(tmp_path, data)
    assert all(said in message for said in ('line 1 ("T"): text is NaN', "line 2: ", "line 3: "))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    def change(done: int) -> None:
        with (tmp_path / "source.pkl").open("ab") as file:
            file.write(b"more")

    assert "changed while it was read" in refused(tmp_path, documents(), on_progress=change)


# ---------------------------------------------------------------- what is accepted, and said


def test_nothing_is_accepted_by_default() -> None:
    assert Fields().accept == frozenset()


def test_an_unknown_oddity_cannot_be_accepted() -> None:
    with pytest.raises(ProfileError, match=r"corpus\.accept: bad_line is not one of empty_text"):
        Fields(accept=frozenset({"bad_line"}))


def test_every_acceptable_oddity_states_its_consequence() -> None:
    assert set(ACCEPTABLE) == {"empty_text", "missing_title", "title_not_text", "surrogates"}
    assert all(len(sentence.split()) > 5 for sentence in ACCEPTABLE.values())


def test_accepted_empty_texts_keep_their_rows_and_are_listed(tmp_path: Path) -> None:
    made = number(tmp_path, changed({0: {"text": ""}, 6: {"text": " \u200b"}}), accept="empty_text")
    assert list(made.texts([0, 1, 6])) == ["", "text 1 é", " \u200b"]
    assert "no text in 2 documents (item 0, item 6), accepted" in made.notes[0]


def test_accepted_missing_titles_are_empty_and_prompted_as_none(tmp_path: Path) -> None:
    items = changed({2: {"title": ...}, 3: {"title": None}, 4: {"title": ""}, 5: {"title": float("nan")}})
    made = number(tmp_path, items, accept="missing_title", template="{title}: {text}")
    assert [article["title"] for article in made.articles()][1:7] == ["Title 1", "", "", "", "", "Title 6"]
    assert made.text(3) == "none: text 3 é"
    assert "no title in 4 documents (item 2, item 3, item 4, item 5), accepted" in made.notes[0]


def test_a_corpus_without_titles_can_be_accepted(tmp_path: Path) -> None:
    made = number(tmp_path, [{"text": "a"}, {"text": "b"}], accept="missing_title")
    assert (made.documents, [article["title"] for article in made.articles()]) == (2, ["", ""])


def test_accepted_number_titles_become_text(tmp_path: Path) -> None:
    made = number(tmp_path, changed({1: {"title": 1984}, 2: {"title": 3.14}}), accept="title_not_text")
    assert [article["title"] for article in made.articles()][1:3] == ["1984", "3.14"]


def test_titles_of_other_types_cannot_be_accepted(tmp_path: Path) -> None:
    items = changed({3: {"title": ["a"]}, 4: {"title": float("inf")}, 5: {"title": 10**5000}, 6: {"title": True}})
    message = refused(tmp_path, items, accept="title_not_text")
    assert "4 problems" in message and "item 3: title is list" in message


def test_accepted_surrogates_are_replaced(tmp_path: Path) -> None:
    items = changed({1: {"text": "half \ud83d here"}, 2: {"title": "lone \udc80"}})
    made = number(tmp_path, items, accept="surrogates")
    assert made.text(1) == "half \ufffd here"
    assert list(made.articles())[2]["title"] == "lone \ufffd"
    assert "half a surrogate pair in 2 documents (item 1, item 2), accepted" in made.notes[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({3: {"id": "a2"}, 9: {"id": "a2"}}, 'of an earlier document in 2 documents (item 3: "a2" of row 2, item 9'),
        ({3: {"text": "text 2 é"}}, "the text of an earlier document in 1 document (item 3)"),
        (
            {3: {"text": "bell\x07"}, 4: {"title": "\x1b]0;owned\x07"}},
            "control characters in 2 documents (item 3, item 4)",
        ),
        ({3: {"text": "next\x85line"}}, "control characters in 1 document (item 3)"),
        ({3: {"text": "many words " * 100_000}}, "over 1,048,576 characters in the text of 1 document (item 3)"),
        ({3: {"text": "short " + "a" * 10_001}}, "a word of over 10,000 letters in 1 document (item 3)"),
    ],
)
def test_oddities_that_stop_nothing_are_said(tmp_path: Path, changes: Any, said: str) -> None:
    made = number(tmp_path, changed(changes))
    assert made.documents == 12 and len(made.notes) == 1 and said in made.notes[0]


@pytest.mark.parametrize(
    "text", ["a" * 10_000 + " b", "漢字 " * 5000, "tab\tline\nreturn\r\n", "é\u2028\ufeff\u200d😀"]
)
def test_ordinary_texts_are_not_remarked_on(tmp_path: Path, text: str) -> None:
    assert number(tmp_path, changed({3: {"text": text}})).notes == ()


@pytest.mark.parametrize("shift", range(0, 10_001, 1237))
def test_a_long_word_is_found_wherever_it_stands(shift: int) -> None:
    padding = "ab " * (shift // 3)
    assert has_long_word(padding + "w" * 10_001 + " end")
    assert not has_long_word(padding + "w" * 10_000 + " end" + " " + "w" * 10_000)


# ---------------------------------------------------------------- writing and reading back


def test_a_build_leaves_its_files_and_nothing_else(tmp_path: Path) -> None:
    made = number(tmp_path, documents(), questions=ask(tmp_path, ["Who?"]))
    assert sorted(path.name for path in made.folder.iterdir()) == HOME_FILES
    assert {path.stat().st_mode & 0o777 for path in made.folder.iterdir()} == {0o600}
    for name, file in made.files.items():
        assert file == Written(sha256_file(made.folder / name), (made.folder / name).stat().st_size)
    assert made.source_sha256 == sha256_file(tmp_path / "source.pkl")


def test_a_build_repeated_gives_the_same_bytes(tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        made = number(tmp_path, documents(), questions=ask(tmp_path, ["Who?"]))
        return {path.name: path.read_bytes() for path in made.folder.iterdir()}

    assert content() == content()


def test_what_is_built_is_what_is_loaded(tmp_path: Path) -> None:
    made = number(tmp_path, documents(), accept="empty_text surrogates")
    assert corpus.load(made.folder) == made
    assert made.fields.accept == {"empty_text", "surrogates"}


def test_a_refused_corpus_leaves_an_earlier_one_as_it_was(tmp_path: Path) -> None:
    made = number(tmp_path, documents())
    before = {path.name: path.read_bytes() for path in made.folder.iterdir()}
    with pytest.raises(CorpusError):
        number(tmp_path, changed({11: {"text": None}}))
    assert {path.name: path.read_bytes() for path in made.folder.iterdir()} == before


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(WholeFile, "write", full)
    with pytest.raises(DataError, match="No space left on device"):
        number(tmp_path, documents())
    assert list((tmp_path / "corpus").iterdir()) == []


@pytest.mark.parametrize("dies_at", HOME_FILES)
def test_a_build_that_dies_while_committing_is_no_corpus_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    number(tmp_path, documents(5))
    replace = os.replace

    def die(source: Any, target: Any) -> None:
        if Path(target).name == dies_at:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        patch.setattr(Path, "replace", lambda self, target: die(self, target))
        with pytest.raises(KeyboardInterrupt):
            number(tmp_path, documents())
    with pytest.raises(DataError, match="no corpus was numbered"):
        corpus.load(tmp_path / "corpus")
    assert number(tmp_path, documents()).documents == 12


def test_a_leftover_of_a_killed_build_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / ".texts.jsonl.part").write_bytes(b"half a file")
    made = number(tmp_path, documents())
    assert sorted(path.name for path in made.folder.iterdir()) == HOME_FILES


def test_a_planted_link_under_a_temporary_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "corpus" / ".texts.jsonl.part").symlink_to(tmp_path / "precious")
    number(tmp_path, documents())
    assert (tmp_path / "precious").read_bytes() == b"precious"


@pytest.mark.parametrize("name", [name for name in HOME_FILES if name != "corpus.json"])
def test_a_missing_or_cut_file_is_found_on_loading(tmp_path: Path, name: str) -> None:
    made = number(tmp_path, documents(), questions=ask(tmp_path, ["Who?"]))
    (made.folder / name).write_bytes((made.folder / name).read_bytes()[:-1])
    with pytest.raises(DataError, match=name):
        corpus.load(made.folder)
    (made.folder / name).unlink()
    with pytest.raises(DataError, match="no such file"):
        corpus.load(made.folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 2}', b'{"format": 1, "source": 7}', b"\xff"])
def test_a_bad_record_is_told(tmp_path: Path, content: bytes) -> None:
    made = number(tmp_path, documents())
    (made.folder / "corpus.json").write_bytes(content)
    with pytest.raises(DataError, match=r"corpus\.json"):
        corpus.load(made.folder)


def test_an_array_of_another_shape_is_refused(tmp_path: Path) -> None:
    made = number(tmp_path, documents())
    np.save(made.fingerprints_path, np.zeros((11, 16), np.uint8))
    with pytest.raises(DataError, match=r"fingerprints\.npy"):
        made.fingerprints()
    np.save(made.offsets_path, np.array([object()]), allow_pickle=True)
    with pytest.raises(DataError, match=r"offsets\.npy"):
        made.offsets()


def test_a_line_that_is_not_its_rows_is_refused(tmp_path: Path) -> None:
    made = number(tmp_path, documents())
    made.texts_path.write_bytes(made.texts_path.read_bytes().replace(b'"row": 3', b'"row": 4'))
    with pytest.raises(DataError, match="row 3"):
        made.text(3)


def test_a_changed_source_is_noticed(tmp_path: Path) -> None:
    made = number(tmp_path, documents())
    source = tmp_path / "source.pkl"
    assert made.source_unchanged(source)
    data = source.read_bytes()
    source.write_bytes(data.replace(b"text 1", b"text 2"))
    assert not made.source_unchanged(source)
    source.write_bytes(data + b"x")
    assert not made.source_unchanged(source)
    source.unlink()
    assert not made.source_unchanged(source)


def test_documents_can_be_read_without_building(tmp_path: Path) -> None:
    source = tmp_path / "source.pkl"
    source.write_bytes(pickle.dumps(changed({3: {"id": "a2"}})))
    notes: list[str] = []
    read = list(reading.read_documents(source, Fields(), notes=notes))
    assert [document.row for document in read] == list(range(12))
    assert len(notes) == 1


def test_every_refusal_can_be_acted_on() -> None:
    assert issubclass(CorpusError, RunbookError) and issubclass(DataError, RunbookError)


# ---------------------------------------------------------------- memory

MEASURE = """
    import sys
    from pathlib import Path
    from runbook_lib.corpus import numbering
    from runbook_lib.corpus.inspection import Fields
    from tests.helpers.memory import peak_mib
    numbering.build(Path(sys.argv[1]), Fields(), None, None, "{text}", "{text}", Path(sys.argv[2]))
    print(peak_mib())
"""


def peak_mib(source: Path, folder: Path) -> int:
    program = [sys.executable, "-c", textwrap.dedent(MEASURE), str(source), str(folder)]
    return int(subprocess.run(program, cwd=ROOT, capture_output=True, check=True, timeout=300).stdout)


@pytest.mark.process
def test_a_large_pickle_costs_one_copy_and_large_lines_cost_none(tmp_path: Path) -> None:
    items = documents(25_000)
    for row, item in enumerate(items):
        item["text"] = f"{row} " + "some words of a text " * 200
    for name, data in (("small.pkl", pickle.dumps(items[:10])), ("large.pkl", pickle.dumps(items))):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "large.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    size = (tmp_path / "large.pkl").stat().st_size // 2**20
    assert size >= 100
    base = peak_mib(tmp_path / "small.pkl", tmp_path / "small")
    assert peak_mib(tmp_path / "large.pkl", tmp_path / "large") - base < 1.5 * size
    assert peak_mib(tmp_path / "large.jsonl", tmp_path / "lines") - base < 0.3 * size


def test_a_disk_is_left_before_it_is_full_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "corpus.jsonl"
    source.write_text("".join(json.dumps({"title": "t", "text": f"{n} " + "x" * 10_000}) + "\n" for n in range(200)))
    usage = shutil.disk_usage(tmp_path)
    free = iter([usage.free] * 3)
    monkeypatch.setattr(whole_file, "LOOK", 2**20)
    monkeypatch.setattr(
        whole_file.shutil,
        "disk_usage",
        lambda folder: usage._replace(free=next(free, 2**20)),  # type: ignore[attr-defined]
    )
    with pytest.raises(DataError, match=r"next to no space left on the disk \(1 MiB\).*Next: look at that disk"):
        numbering.build(source, Fields(), None, None, "{text}", "{text}", tmp_path / "numbered")
    assert list((tmp_path / "numbered").iterdir()) == []


def test_ids_are_compared_as_they_are_and_documents_without_one_are_like_no_other(tmp_path: Path) -> None:
    changes: Any = {2: {"id": 7}, 3: {"id": "7"}, 4: {"id": None}, 5: {"id": None}, 6: {"id": 7}, 8: {"id": "7" * 90}}
    made = number(tmp_path, changed({**changes, 10: {"id": "7" * 90}}))
    note = next(note for note in made.notes if "id of an earlier document" in note)
    long = "7" * 40 + "…"
    assert f'in 2 documents (item 6: "7" of row 2, item 10: "{long}" of row 8): rows' in note
    assert not any("text of an earlier" in note for note in made.notes)


def test_a_problem_before_it_does_not_move_the_row_of_a_repeated_id(tmp_path: Path) -> None:
    message = refused(tmp_path, changed({0: {"text": None}, 1: {"id": None}, 5: {"id": "a2"}, 7: {"text": "text 2 é"}}))
    assert 'item 5: "a2" of row 2' in message and "the text of an earlier document in 1 document (item 7)" in message
