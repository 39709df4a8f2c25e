"""Every corpus of the hostile collection does what its table says."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from runbook_lib.corpus import numbering
from runbook_lib.corpus.corpus import Corpus
from runbook_lib.corpus.inspection import Fields
from runbook_lib.errors import CorpusError

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "hostile"
EXPECTED = json.loads((FOLDER / "expected.json").read_text()) if (FOLDER / "expected.json").exists() else []
pytestmark = pytest.mark.skipif(not EXPECTED, reason=f"no hostile corpora beside this repository ({FOLDER})")

# Where the table leaves a choice, the files that are taken, with what is said about them.
TAKEN = {
    "gzip_named_pkl.pkl": "compressed with gzip",
    "json_named_pkl.pkl": "the content is JSON array",
    "control_characters.pkl": "control characters in 2 documents (item 3, item 4)",
    "same_id_twice.pkl": "in 2 documents (item 3:",
    "dict_of_columns.pkl": "a dict of 2 columns",
    "list_of_strings.pkl": "texts and nothing else",
    "semicolons.csv": "separated by semicolons",
    "json_array.json": "",
    "ok_quotes_newlines.csv": "",
}
# What "accept and say" says.
SAID = {
    "ok_duplicates.pkl": "the text of an earlier document in 7 documents",
    "ok_one_2MiB_text.pkl": "over 1,048,576 characters in the text of 1 document (item 3)",
    "ok_one_word_200k.pkl": "a word of over 10,000 letters in 1 document (item 4)",
    "blank_lines.jsonl": "13 blank lines",
}
# What a refusal says, besides the file and the items.
STOPPED = {
    "truncated.pkl": ["cut short", "40275"],
    "zero_bytes.pkl": ["empty file"],
    "garbage_after_end.pkl": ["920 bytes follow the end"],
    "damaged_middle.pkl": ["not readable as a pickle at byte 30267", "fetch"],
    "html_error_page.pkl": ["this is HTML"],
    "git_lfs_pointer.pkl": ["Git LFS pointer", "git lfs pull"],
    "code_print.pkl": ["builtins.print", "Parquet", "nothing was run"],
    "code_getenv.pkl": ["os.getenv", "Parquet", "nothing was run"],
    "foreign_class_timestamp.pkl": ["_unpickle_timestamp", "plain strings"],
    "title_not_text.pkl": ["int", "float", "list"],
    "missing_text.pkl": ["University of Notre Dame"],
    "none_and_nan_text.pkl": ["NoneType", "NaN"],
    "bytes_text.pkl": ["bytes"],
    "lone_surrogates.pkl": ["U+D83D", "U+DC80"],
    "items_not_dicts.pkl": ["str", "NoneType", "tuple"],
    "other_field_names.pkl": ['"pageid", "name", "content"', "corpus.title and corpus.text"],
    "dict_title_to_text.pkl": ["a dict of 12 keys", "{title: text}"],
    "dict_of_columns_uneven.pkl": ["title has 12, text has 10"],
    "dataframe.pkl": ["DataFrame", "to_parquet"],
    "empty_list.pkl": ["no documents"],
    "none.pkl": ["NoneType"],
    "a_number.pkl": ["int"],
    "wrong_count.pkl": ["59 documents found, 60 expected"],
    "latin1.jsonl": ["byte 25", "expected UTF-8"],
    "nan_and_escapes.jsonl": ["text is NaN", "line 2: text holds U+D800", 'line 3: the key "text" is given twice'],
    "unclosed_quote.csv": ["line 3: a quote opens here"],
    "other_columns.parquet": ['"wiki_title", "body", "n"', "corpus.text"],
    "truncated.parquet": ["cut short"],
}
# What is taken whole when the profile accepts it.
ACCEPTED = {
    "missing_titles.pkl": "missing_title",
    "none_and_empty_titles.pkl": "missing_title",
    "empty_texts.pkl": "empty_text",
    "whitespace_texts.pkl": "empty_text",
    "nul_bytes.pkl": "empty_text",
    "lone_surrogates.pkl": "surrogates",
}
CASES = {entry["file"]: entry for entry in EXPECTED}


def build(name: str, folder: Path, accept: str = "") -> Corpus:
    expected = 60 if name == "wrong_count.pkl" else None
    fields = Fields(accept=frozenset(accept.split()))
    return numbering.build(FOLDER / name, fields, expected, None, "title: {title} | text: {text}", "{text}", folder)


def in_order(made: Corpus, count: int) -> None:
    assert made.documents == count
    assert [article["row"] for article in made.articles()] == list(range(count))
    assert len(list(made.texts(range(count)))) == count


def is_printable(message: str) -> bool:
    return all(ord(char) >= 32 and not 127 <= ord(char) < 160 for char in message.replace("\n", ""))


def place(name: str, item: int) -> str:
    if name == "nan_and_escapes.jsonl":
        return f"line {item + 1}"
    return f"{'line' if name.endswith('.jsonl') else 'row' if name.endswith('.parquet') else 'item'} {item}"


def among(files: Iterable[str]) -> list[str]:
    return [name for name in files if name in CASES] or ["none"]


@pytest.mark.parametrize("name", among(n for n, c in CASES.items() if c["outcome"].startswith("accept") or n in TAKEN))
def test_a_corpus_that_can_be_taken_gives_every_row_in_order(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    made = build(name, tmp_path / "corpus")
    in_order(made, case["documents"])
    said = " ".join(made.notes)
    assert is_printable(said)
    if case["outcome"] == "accept":
        assert [
            note for note in made.notes if "byte order mark" not in note and "no document has an id" not in note
        ] == []
    else:
        assert {**SAID, **TAKEN}[name] in said
        assert all(place(name, item) in said for item in case["items"])


@pytest.mark.parametrize(
    "name", among(n for n, c in CASES.items() if c["outcome"].startswith("stop") and n not in TAKEN)
)
def test_a_corpus_that_stops_names_file_items_and_fix_and_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/a-home-that-nobody-has")
    with pytest.raises(CorpusError) as caught:
        build(name, tmp_path / "corpus")
    message = str(caught.value)
    assert name in message and "Next: " in message and is_printable(message)
    assert [item for item in CASES[name]["items"] if place(name, item) not in message] == []
    assert [said for said in STOPPED.get(name, []) if said not in message] == []
    assert list((tmp_path / "corpus").iterdir()) == []
    printed = "".join(capfd.readouterr())
    assert printed == "" and "a-home-that-nobody-has" not in message and "HOSTILE" not in message


@pytest.mark.parametrize("name", among(ACCEPTED))
def test_an_accepted_oddity_keeps_every_row_and_is_said(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    made = build(name, tmp_path / "corpus", ACCEPTED[name])
    in_order(made, case["documents"])
    said = " ".join(made.notes)
    assert "accepted" in said and all(place(name, item) in said for item in case["items"])


def test_of_titles_that_are_not_text_only_numbers_can_be_accepted(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        build("title_not_text.pkl", tmp_path / "corpus", "title_not_text")
    assert "1 problem in 12 documents" in str(caught.value) and "item 3: title is list" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["ok_protocol5.pkl", "ok_protocol0.pkl", "ok_tuple_of_dicts.pkl", "gzip_named_pkl.pkl", "json_named_pkl.pkl",
             "ok_control.jsonl", "no_last_newline.jsonl", "blank_lines.jsonl", "with_bom.jsonl", "json_array.json"],
)  # fmt: skip
def test_the_same_documents_in_another_format_are_the_same_corpus(name: str, tmp_path: Path) -> None:
    one, other = build("ok_control.pkl", tmp_path / "one"), build(name, tmp_path / "other")
    assert other.fingerprint == one.fingerprint
    assert other.articles_path.read_bytes() == one.articles_path.read_bytes()


def test_texts_of_many_scripts_stay_as_they_are(tmp_path: Path) -> None:
    made = build("ok_scripts_and_emoji.pkl", tmp_path / "corpus")
    assert made.text(6).endswith("Caf\u00e9 and Cafe\u0301 look the same and are different code points.")
    assert "\ufeffBOM first, soft\u00adhyphen, no\u00a0break, line\u2028separator." in made.text(8)


def test_every_file_of_the_collection_has_a_case() -> None:
    files = {path.name for path in FOLDER.iterdir()} - {"README.md", "expected.json", "make_hostile.py"}
    assert files == set(CASES)
    assert (set(TAKEN) | set(SAID) | set(STOPPED) | set(ACCEPTED)) - files == set()
