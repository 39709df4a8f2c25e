"""Files as strangers have them: taken with what is odd said, or refused in words that say what to do."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from runbook_lib.corpus import first_look, sources
from runbook_lib.corpus.documents import Document, read_documents
from runbook_lib.corpus.inspection import Fields
from runbook_lib.corpus.plain_ids import plain_id
from runbook_lib.errors import CorpusError

TEXTS = [f"the {number}th river is long and has many bridges" for number in range(6)]


def read(path: Path, notes: list[str] | None = None, **names: str) -> list[Document]:
    return list(read_documents(path, Fields(**names), notes=[] if notes is None else notes))


def table(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table({"text": TEXTS, **columns}), path)
    return path


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Decimal("7.00"), 7),
        (Decimal("7.5"), "7.5"),
        (Decimal("NaN"), None),
        (7.0, 7),
        (7.5, 7.5),
        (float("nan"), None),
        (2.0**60, 2.0**60),
        (datetime(2020, 1, 2, tzinfo=UTC), "2020-01-02T00:00:00+00:00"),
        (datetime(2020, 1, 2).date(), "2020-01-02"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("7", "7"),
        (True, True),
    ],
)
def test_an_id_in_another_plain_form_is_text_or_a_whole_number(value: object, plain: object) -> None:
    found = plain_id(value)
    assert (found, type(found)) == (plain, type(plain))


@pytest.mark.parametrize(
    ("column", "first"),
    [
        (pa.array([Decimal(n) for n in range(6)], pa.decimal128(10, 2)), 0),
        (pa.array([datetime(2020, 1, 1 + n) for n in range(6)]), "2020-01-01T00:00:00"),
        (pa.array([float(n) for n in range(6)]), 0),
        (pa.array([f"k{n}" for n in range(6)]).dictionary_encode(), "k0"),
        (pa.array([f"k{n}" for n in range(6)], pa.large_string()), "k0"),
        (pa.array([0, 1, None, 3, 4, 5]), 0),
    ],
    ids=["decimal", "time", "float", "dictionary", "large text", "with a gap"],
)
def test_a_first_look_finds_the_ids_that_reading_takes(tmp_path: Path, column: object, first: object) -> None:
    path = table(tmp_path / "a.parquet", id=column)
    assert first_look.look(path).names["id"] == "id"
    assert read(path)[0].id == first


@pytest.mark.parametrize("column", [pa.array([[n] for n in range(6)]), pa.array([{"n": n} for n in range(6)])])
def test_a_column_of_lists_that_is_only_called_id_stops_nobody_and_is_said(tmp_path: Path, column: object) -> None:
    notes: list[str] = []
    path = table(tmp_path / "a.parquet", id=column, key=pa.array(range(6)))
    assert [each.id for each in read(path, notes)] == [*range(6)]
    assert notes[0].startswith('"id" is ') and notes[0].endswith(": not read")
    assert 'row numbers stand in; corpus.id may name one of "key"' in notes[1]
    with pytest.raises(CorpusError, match="a column of lists or structs"):
        read(path, text="id")


def test_text_of_a_writer_that_does_not_say_that_it_is_text_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([text.encode() for text in TEXTS], pa.binary())}), path)
    assert first_look.look(path).names == {"text": "text"}
    assert [each.text for each in read(path)] == TEXTS
    pq.write_table(pa.table({"text": pa.array([b"\xff\xfe"] * 3, pa.binary())}), path)
    with pytest.raises(CorpusError, match="text is bytes, expected a string"):
        read(path)


def test_lines_of_separators_alone_are_no_documents(tmp_path: Path) -> None:
    path, notes = tmp_path / "a.csv", list[str]()
    path.write_text("Doc ID;Body\nA;river\n;\nB;stone\n;\n;\n")
    assert first_look.look(path).names == {"text": "Body", "id": "Doc ID"}
    assert [each.text for each in read(path, notes, id="Doc ID", text="Body")] == ["river", "stone"]
    assert "3 blank lines passed over (first: line 3)" in notes


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"data": [{"text": text} for text in TEXTS]}, 'its field "data" holds a list of 6 objects'),
        ({f"k{n}": {"text": text} for n, text in enumerate(TEXTS)}, '6 objects by their keys, such as "k0"'),
        ({"id": [*range(6)], "text": TEXTS}, 'lists by their columns, such as "id"'),
    ],
)
def test_one_object_that_holds_all_documents_is_not_taken_for_one_document(
    tmp_path: Path, value: object, said: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    with pytest.raises(CorpusError, match=f"one object, not a list of documents: {said}.*JSON lines"):
        first_look.look(path)
    path.write_text(json.dumps({"text": TEXTS[0], "tags": ["a", "b"], "meta": {"title": "River"}}))
    assert first_look.look(path).names["text"] == "text"


def workbook(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")


def archive_of_one(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", "[]")


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("a.xlsx", workbook, "an Excel workbook.*save the sheet as CSV UTF-8"),
        ("renamed.csv", workbook, "an Excel workbook.*save the sheet as CSV UTF-8"),
        ("a.zip", archive_of_one, "a ZIP archive.*unpack it and name the file inside"),
        ("a.xls", lambda path: path.write_bytes(bytes.fromhex("d0cf11e0a1b11ae1")), "Excel or Word.*CSV UTF-8"),
        ("a.pdf", lambda path: path.write_bytes(b"%PDF-1.7\n%\xe2\xe3"), "a PDF.*text taken out"),
        ("a.db", lambda path: path.write_bytes(b"SQLite format 3\x00"), "an SQLite database.*save the table"),
    ],
)
def test_files_of_other_programs_are_refused_by_name_with_what_to_do(
    tmp_path: Path, name: str, make: object, said: str
) -> None:
    path = tmp_path / name
    make(path)  # type: ignore[operator]
    with pytest.raises(CorpusError, match=said):
        first_look.look(path)


@pytest.mark.process
def test_a_pickled_data_frame_is_refused_with_a_command_that_makes_it_a_corpus(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "it's a frame.pkl"
    pandas.DataFrame({"id": range(6), "text": TEXTS}).to_pickle(path)
    with pytest.raises(CorpusError) as refused:
        first_look.look(path)
    _, _, command = str(refused.value).partition("python -c ")
    code = shlex.split(command)[0].removesuffix(";")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert [each.text for each in read(tmp_path / "it's a frame.parquet")] == TEXTS


@pytest.mark.parametrize("address", ["s3://bucket/a.parquet", "https://example.org/a.jsonl", "hf://datasets/a/b"])
def test_an_address_is_told_from_a_file_that_is_missing(address: str) -> None:
    with pytest.raises(CorpusError, match=r"an address .*download it"):
        sources.find(Path(address).absolute())


def test_what_spark_leaves_beside_its_files_is_not_read(tmp_path: Path) -> None:
    for number in range(3):
        table(tmp_path / f"part-0000{number}.snappy.parquet", id=pa.array(range(6 * number, 6 * number + 6)))
        (tmp_path / f".part-0000{number}.snappy.parquet.crc").write_bytes(b"crc\x00")
    (tmp_path / "_SUCCESS").touch()
    assert [each.id for each in read(tmp_path)] == [*range(18)]
