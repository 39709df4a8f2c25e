"""Corpora as people have them: folders, patterns, Arrow, texts alone, nested fields, odd ids, no titles."""

from __future__ import annotations

import bz2
import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from runbook_lib.corpus import numbering, sources
from runbook_lib.corpus.corpus import Corpus
from runbook_lib.corpus.documents import read_documents
from runbook_lib.corpus.inspection import Fields
from runbook_lib.errors import CorpusError


def take(path: Path, **names: Any) -> tuple[list[tuple[Any, str, str]], str]:
    """The (id, title, text) of each document, and all notes."""
    notes: list[str] = []
    documents = list(read_documents(path, Fields(**names), notes=notes, scratch=path.parent))
    assert [document.row for document in documents] == list(range(len(documents)))
    return [(document.id, document.title, document.text) for document in documents], "\n".join(notes)


def refused(path: Path, **names: Any) -> str:
    with pytest.raises(CorpusError) as caught:
        take(path, **names)
    assert "Next: " in str(caught.value)
    return str(caught.value)


def lines(path: Path, items: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def numbered(start: int, stop: int) -> list[dict[str, Any]]:
    return [{"id": i, "title": f"T{i}", "text": f"text {i}"} for i in range(start, stop)]


def number(path: Path, folder: Path) -> Corpus:
    return numbering.build(path, Fields(), None, None, "{text}", "{text}", folder)


# ---------------------------------------------------------------- several files


@pytest.mark.parametrize("pattern", [".", "*.jsonl", "*"])
def test_several_files_are_read_in_the_order_of_their_names(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "data"
    for name, start, stop in (("b.jsonl", 3, 5), ("a.jsonl", 0, 3), ("c.jsonl", 5, 6)):
        lines(folder / name, numbered(start, stop))
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.jsonl").write_text("no JSON")
    documents, notes = take(folder / pattern)
    assert [identity for identity, _, _ in documents] == list(range(6))
    assert "3 files in this order: a.jsonl, b.jsonl, c.jsonl" in notes


def test_shards_of_parquet_and_of_packed_json_lines_are_one_corpus(tmp_path: Path) -> None:
    for name, start in (("train-00000-of-00003", 0), ("train-00001-of-00003", 4), ("train-00002-of-00003", 8)):
        table = pyarrow.Table.from_pylist(numbered(start, start + 4))
        (tmp_path / "p").mkdir(exist_ok=True)
        pyarrow.parquet.write_table(table, tmp_path / "p" / f"{name}.parquet")
        raw = "".join(json.dumps(item) + "\n" for item in numbered(start, start + 4)).encode()
        (tmp_path / "z").mkdir(exist_ok=True)
        (tmp_path / "z" / f"{name}.jsonl.gz").write_bytes(gzip.compress(raw))
    assert take(tmp_path / "p")[0] == take(tmp_path / "z" / "*.gz")[0] == take(tmp_path / "z")[0]
    assert take(tmp_path / "**" / "*.parquet")[0] == take(tmp_path / "p")[0]


def test_what_else_lies_in_a_folder_is_said_and_not_read(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", numbered(0, 2))
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "more").mkdir()
    assert "left out of" in take(tmp_path)[1] and "README.md, more" in take(tmp_path)[1]


def test_a_folder_of_several_kinds_is_not_guessed_at(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", numbered(0, 2))
    (tmp_path / "info.json").write_text("{}")
    message = refused(tmp_path)
    assert "1 *.json, 1 *.jsonl" in message and "corpus.path:" in message


def test_a_folder_whose_files_lie_deeper_says_the_pattern(tmp_path: Path) -> None:
    lines(tmp_path / "year=2020" / "a.jsonl", numbered(0, 2))
    assert f"{tmp_path}/**/*.jsonl" in refused(tmp_path)
    assert len(take(tmp_path / "**" / "*.jsonl")[0]) == 2
    (tmp_path / "empty").mkdir()
    assert "no file of a known kind" in refused(tmp_path / "empty")
    assert "no file fits this pattern" in refused(tmp_path / "*.csv")


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    lines(tmp_path / "a[1].jsonl", numbered(0, 1))
    lines(tmp_path / "a1.jsonl", numbered(5, 7))
    assert [each[0] for each in take(tmp_path / "a[1].jsonl")[0]] == [0]


def test_a_fault_names_its_file(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", numbered(0, 2))
    lines(tmp_path / "b.jsonl", [{"id": 2, "title": "T", "text": None}])
    assert "b.jsonl: line 1" in refused(tmp_path)
    (tmp_path / "b.jsonl").write_text("")
    assert "b.jsonl: empty file" in refused(tmp_path)


def test_columns_are_looked_at_in_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,title,text\n1,A,a\n")
    (tmp_path / "b.csv").write_text("id,title,body\n2,B,b\n")
    assert "b.csv: no field" in refused(tmp_path)


def test_a_file_changed_added_or_removed_is_another_corpus(tmp_path: Path) -> None:
    data = tmp_path / "data"
    lines(data / "a.jsonl", numbered(0, 2))
    lines(data / "b.jsonl", numbered(2, 4))
    made = number(data, tmp_path / "corpus")
    assert made.documents == 4 and made.source_unchanged(data) and made.source_unchanged(data / "*.jsonl")
    lines(data / "c.jsonl", numbered(4, 5))
    assert not made.source_unchanged(data)
    (data / "c.jsonl").unlink()
    assert made.source_unchanged(data)
    (data / "a.jsonl").rename(data / "z.jsonl")  # the same bytes in another order are other rows
    assert not made.source_unchanged(data)
    (data / "z.jsonl").unlink()
    (data / "b.jsonl").unlink()
    assert not made.source_unchanged(data) and not sources.exists(data / "*.jsonl")


def test_a_file_that_comes_while_others_are_read_is_noticed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    lines(data / "a.jsonl", numbered(0, 2))
    late = (lambda done: lines(data / "b.jsonl", numbered(2, 3)),)
    with pytest.raises(CorpusError, match="changed while it was read"):
        numbering.build(data, Fields(), None, None, "{text}", "{text}", tmp_path / "corpus", late[0])


# ---------------------------------------------------------------- Arrow


def saved(folder: Path, tables: list[pyarrow.Table], **state: Any) -> Path:
    """A folder as `datasets` makes it: streams of Arrow, and their names in state.json."""
    folder.mkdir(parents=True)
    names = [f"data-{k:05d}-of-{len(tables):05d}.arrow" for k in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pyarrow.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names], **state}))
    return folder


def test_a_folder_of_datasets_is_read_as_its_state_says(tmp_path: Path) -> None:
    tables = [pyarrow.Table.from_pylist(numbered(start, start + 3)) for start in (0, 3)]
    folder = saved(tmp_path / "train", tables)
    documents, notes = take(folder)
    assert documents == [(item["id"], item["title"], item["text"]) for item in numbered(0, 6)]
    assert "a folder that `datasets` saved" in notes


def test_a_folder_of_splits_and_one_of_chosen_rows_are_explained(tmp_path: Path) -> None:
    saved(tmp_path / "train", [pyarrow.Table.from_pylist(numbered(0, 3))])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert "the splits train" in refused(tmp_path)
    chosen = saved(tmp_path / "chosen", [pyarrow.Table.from_pylist(numbered(0, 3))], _indices_data_files=["i.arrow"])
    assert "flatten_indices" in refused(chosen)
    (chosen / "state.json").write_text('{"_data_files": [{"filename": "../../secret.arrow"}]}')
    assert "not the state of a dataset" in refused(chosen)
    (chosen / "state.json").write_text('{"_data_files": [{"filename": "away.arrow"}]}')
    assert "away.arrow: there is no such file" in refused(chosen)


@pytest.mark.parametrize("compression", ["uncompressed", "lz4", "zstd"])
def test_feather_is_read(tmp_path: Path, compression: str) -> None:
    table = pyarrow.Table.from_pylist(numbered(0, 50))
    pyarrow.feather.write_feather(table, tmp_path / "a.feather", compression=compression, chunksize=7)
    assert [text for _, _, text in take(tmp_path / "a.feather")[0]] == [f"text {i}" for i in range(50)]


def stream(table: pyarrow.Table, **options: Any) -> bytes:
    out = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(out, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(out.getvalue())


def test_arrow_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = stream(pyarrow.Table.from_pylist(numbered(0, 20)))
    path = tmp_path / "a.arrow"
    for size in range(4, len(whole), 61):
        path.write_bytes(whole[:size])
        assert refused(path)
    path.write_bytes(whole[:-8])
    assert "without its end mark" in refused(path)
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(numbered(0, 20)), path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "cut short: an Arrow file without its end" in refused(path)


def test_arrow_with_a_byte_changed_is_read_or_refused_and_never_crashes(tmp_path: Path) -> None:
    whole = stream(pyarrow.Table.from_pylist(numbered(0, 20)), compression="lz4")
    path = tmp_path / "a.arrow"
    outcomes = set()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        try:
            outcomes.add(len(take(path)[0]) == 20)
        except CorpusError:
            outcomes.add("refused")
    assert "refused" in outcomes


def test_arrow_that_claims_to_unpack_to_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    table = pyarrow.table({"text": ["a" * 200_000]})
    whole = stream(table, compression="zstd")
    claimed = struct.pack("<q", 200_000)
    at = whole.rindex(claimed)  # before the packed bytes of the text
    (tmp_path / "a.arrow").write_bytes(whole[:at] + struct.pack("<q", 2**40) + whole[at + 8 :])
    assert "would unpack to" in refused(tmp_path / "a.arrow")


def test_many_rows_that_share_one_long_text_are_out_of_proportion(tmp_path: Path) -> None:
    word = pyarrow.array(["x" * 2**20])
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 5000, pyarrow.int32()), word)
    (tmp_path / "a.arrow").write_bytes(stream(pyarrow.table({"text": texts})))
    assert "out of proportion" in refused(tmp_path / "a.arrow")


# ---------------------------------------------------------------- packed files, texts, tables


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lambda raw: pyarrow.compress(raw, "zstd", asbytes=True)])
def test_packed_files_are_read_and_a_cut_or_endless_one_is_refused(tmp_path: Path, pack: Any) -> None:
    raw = "".join(json.dumps(item) + "\n" for item in numbered(0, 3000)).encode()
    path = tmp_path / "a.jsonl.packed"
    path.write_bytes(pack(raw))
    assert len(take(path)[0]) == 3000 and "unpacked to read it" in take(path)[1]
    path.write_bytes(pack(raw)[:-9])
    assert refused(path)
    path.write_bytes(pack(bytes(80 * 2**20)))
    assert "unpacks to over" in refused(path)
    path.write_bytes(pack(pack(raw)))
    assert "within" in refused(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_list_of_texts_is_a_corpus(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["one", "two"]')
    assert take(path)[0] == [(0, "", "one"), (1, "", "two")]
    assert "row numbers stand in for ids, titles are empty" in take(path)[1]
    assert take(lines(tmp_path / "a.jsonl", ["one", "two"]))[0] == take(path)[0]
    path.write_text('["one", 2]')
    assert "item 1: int, expected a text" in refused(path)
    path.write_text('["one", " "]')
    assert "item 1: empty text" in refused(path)


@pytest.mark.parametrize("text", ["one\r\n\r\ntwo, and more\r\n[3] three", "one\n\ntwo, and more\n[3] three\n"])
def test_a_text_a_line_is_a_corpus(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    assert [each[2] for each in take(path)[0]] == ["one", "two, and more", "[3] three"]
    assert "1 blank line" in take(path)[1]


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        ("[1] Reference\nsecond\n", ["[1] Reference", "second"]),
        ("{curly} line\nsecond\n", ["{curly} line", "second"]),
        ("<b>bold</b>\nsecond\n", ["<b>bold</b>", "second"]),
        ('{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("id\ttext\n1\ta\n2\tb\n", ["a", "b"]),
    ],
)
def test_a_txt_file_is_read_as_what_it_holds(tmp_path: Path, data: str, texts: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_text(data)
    assert [each[2] for each in take(path)[0]] == texts


def test_a_txt_file_that_is_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\ncaf\xe9\n")
    assert "line 2: byte 7 of the file" in refused(path)


@pytest.mark.parametrize(("mark", "name"), [("\t", "tabs"), (";", "semicolons"), ("|", "vertical bars")])
def test_a_table_with_other_separators_is_read_and_said(tmp_path: Path, mark: str, name: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f'\nDoc ID{mark}"Body, long"{mark}title\n7{mark}"a{mark}b, c"{mark}A\n')
    documents, notes = take(path, id="Doc ID", text="Body, long")
    assert documents == [("7", "A", f"a{mark}b, c")] and f"separated by {name}" in notes


def test_commas_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text\none; two\n")
    assert [each[2] for each in take(path)[0]] == ["one; two"]
    path.write_text("id,text;note\n1,a\n")
    assert 'the fields found are "id", "text;note"' in refused(path)


def test_a_row_of_another_width_is_named_when_all_are(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,title,text\n1,A,first,\n2,B,second,\n")
    message = refused(path)
    assert "row 0 (line 2): 4 fields, the header has 3" in message and "no field" not in message


# ---------------------------------------------------------------- fields, ids, titles


def test_columns_that_nobody_asked_for_may_be_odd(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "title": "A", "text": "a", "score": NaN, "n": ' + "9" * 400 + ', "x": 1e999}\n')
    assert take(path)[0] == [(1, "A", "a")]
    assert "score" not in take(path)[1]
    path = tmp_path / "b.csv"
    path.write_text("id,title,text,n,n\n1,A,a,2,3\n")
    assert take(path)[0] == [("1", "A", "a")]
    assert 'column given twice: "n"' in refused(path, id="n")
    table = pyarrow.table({"text": ["a"], "list": [[1]], "bin": [b"\xff"]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    assert take(tmp_path / "c.parquet")[0] == [(0, "", "a")]


@pytest.mark.parametrize(
    ("value", "said"),
    [("NaN", "text is NaN"), ("1e999", "too large for a float"), ("9" * 30, "a number of 30 digits")],
)
def test_an_odd_value_in_a_field_that_is_asked_for_is_named(tmp_path: Path, value: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{{"text": {value}}}\n')
    assert "line 2: " in refused(path) and said in refused(path)
    path.write_text(f'{{"id": {"9" * 30}, "text": "fine"}}\n')
    assert "id is a number of 30 digits" in refused(path)


def test_fields_inside_fields_are_found(tmp_path: Path) -> None:
    items = [{"meta": {"id": 7, "head": {"line": "A"}}, "content.text": "dot", "content": {"text": "inside"}}]
    names = {"id": "meta.id", "title": "meta.head.line", "text": "content.text"}
    assert take(lines(tmp_path / "a.jsonl", items), **names)[0] == [(7, "A", "dot")]
    names["text"] = "body.text"
    table = pyarrow.Table.from_pylist([{"meta": items[0]["meta"], "body": {"text": "b"}}, {"meta": None, "body": None}])
    pyarrow.parquet.write_table(table.slice(0, 1), tmp_path / "a.parquet")
    assert take(tmp_path / "a.parquet", **names)[0] == [(7, "A", "b")]
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    assert "row 1: text is NoneType" in refused(tmp_path / "b.parquet", **names)
    message = refused(tmp_path / "a.parquet", text="body")
    assert "a column of lists or structs" in message and "body.text" in message
    assert 'no field "body.words"' in refused(tmp_path / "a.parquet", text="body.words")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2**64 - 1, 2**64 - 1), (-(2**63), -(2**63)), (7.0, 7), (float("nan"), 0), (None, 0), ("a b", "a b")],
)
def test_ids_of_many_kinds_are_taken(tmp_path: Path, value: Any, expected: Any) -> None:
    kind = pyarrow.uint64() if value == 2**64 - 1 else None
    table = pyarrow.table({"id": pyarrow.array([value], kind), "text": ["a"]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert take(tmp_path / "a.parquet")[0] == [(expected, "", "a")]


@pytest.mark.parametrize(("value", "said"), [(7.5, "float"), (2.0**60, "float"), (True, "bool")])
def test_ids_that_name_nothing_exactly_are_refused(tmp_path: Path, value: Any, said: str) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"id": [value], "text": ["a"]}), tmp_path / "a.parquet")
    assert f"row 0: id is {said}" in refused(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["Doc ID", "docId", "uuid", "_id", "PMID", "page_key"])
def test_ids_that_are_missing_are_said_with_the_column_that_may_hold_them(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text(f"{name},title,text\n7,A,a\n")
    documents, notes = take(tmp_path / "a.csv")
    assert documents[0][0] == 0
    assert f'corpus.id may name one of "{name}"' in notes and "row numbers stand in" in notes


def test_a_corpus_without_titles_needs_no_word_and_is_told(tmp_path: Path) -> None:
    documents, notes = take(lines(tmp_path / "a.jsonl", [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]))
    assert documents == [(1, "", "a"), (2, "", "b")]
    assert 'no document has a title ("title")' in notes


@pytest.mark.parametrize("first", [True, False])
def test_a_title_that_only_some_documents_have_is_asked_about(tmp_path: Path, first: bool) -> None:
    items = [{"text": "a", "title": "A"}, {"text": "b"}]
    message = refused(lines(tmp_path / "a.jsonl", items if first else items[::-1]))
    assert f"line {2 if first else 1}: no field" in message and "missing_title" in message


def test_a_file_that_is_not_there_is_named_with_the_key_to_correct(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere\.jsonl: there is no such file\. Next: .*corpus\.path"):
        numbering.build(tmp_path / "nowhere.jsonl", Fields(), None, None, "{text}", "{text}", tmp_path / "corpus")
