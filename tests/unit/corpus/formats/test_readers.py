"""Reading a corpus file: every format by its content, every damage told, nothing run."""

import copyreg
import csv
import gzip
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from runbook_lib.corpus.formats import json_stream, text_lines
from runbook_lib.corpus.formats.readers import open_source
from runbook_lib.corpus.formats.source import Unreadable
from runbook_lib.errors import CorpusError

ROOT = Path(__file__).parents[4]
ITEMS = [{"id": i, "title": f"Title {i}", "text": f"text {i} é 漢"} for i in range(12)]
PROTO4 = b"\x80\x04"


def read(path: Path, **options: Any) -> list[tuple[str, Any]]:
    with open_source(path, **options) as source:
        return list(source.items)


def notes_of(path: Path) -> list[str]:
    with open_source(path) as source:
        list(source.items)
        return source.notes


def refused(folder: Path, data: bytes, name: str = "corpus.pkl") -> str:
    path = folder / name
    path.write_bytes(data)
    with pytest.raises(CorpusError) as caught:
        read(path)
    message = str(caught.value)
    assert name in message and "Next: " in message
    assert not [char for char in message if ord(char) < 32 or 127 <= ord(char) < 160]
    return message


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


# ---------------------------------------------------------------- which format


def jsonl(items: list[Any]) -> bytes:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode()


def as_csv(items: list[dict[str, Any]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(items[0]))
    writer.writeheader()
    writer.writerows(items)
    return out.getvalue().encode()


def parquet(items: list[dict[str, Any]], **options: Any) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), out, **options)
    return out.getvalue()


FORMATS = {
    "pickle": pickle.dumps(ITEMS),
    "JSON lines": jsonl(ITEMS),
    "JSON array": json.dumps(ITEMS, indent=1).encode(),
    "Parquet": parquet(ITEMS, row_group_size=5),
    "CSV": as_csv(ITEMS),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_format_is_known_by_its_content(tmp_path: Path, name: str, packed: bool) -> None:
    path = tmp_path / "corpus.bin"
    path.write_bytes(gzip.compress(FORMATS[name]) if packed else FORMATS[name])
    with open_source(path, scratch=tmp_path) as source:
        items = [item for _, item in source.items]
        assert source.format == name
    expected = ITEMS if name != "CSV" else [{**item, "id": str(item["id"])} for item in ITEMS]
    assert items == expected
    assert [note for note in source.notes if "gzip" in note] == source.notes[: int(packed)]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("pickle", "item 0", "item 11"),
        ("JSON lines", "line 1", "line 12"),
        ("JSON array", "item 0", "item 11"),
        ("Parquet", "row 0", "row 11"),
        ("CSV", "row 0 (line 2)", "row 11 (line 13)"),
    ],
)
def test_every_item_has_a_place_a_person_finds(tmp_path: Path, name: str, first: str, last: str) -> None:
    path = tmp_path / "corpus"
    path.write_bytes(FORMATS[name])
    places = [place for place, _ in read(path)]
    assert (places[0], places[-1]) == (first, last)


def test_a_name_that_says_another_format_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(FORMATS["JSON array"])
    assert notes_of(path) == ["the name ends in .pkl, the content is JSON array: read as such"]


def test_a_name_that_says_the_format_is_not_noted(tmp_path: Path) -> None:
    for name, format_name in {
        "a.pkl": "pickle",
        "a.json": "JSON array",
        "b.json": "JSON lines",
        "a.csv": "CSV",
    }.items():
        (tmp_path / name).write_bytes(FORMATS[format_name])
        assert notes_of(tmp_path / name) == []
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(FORMATS["JSON lines"]))
    assert notes_of(tmp_path / "c.jsonl.gz") == ["compressed with gzip: unpacked to read it"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty file"),
        (gzip.compress(b"", mtime=0), "empty file"),
        (b"<!DOCTYPE html><html>404</html>", "this is HTML"),
        (b" \n<html>", "this is HTML"),
        (b"\n\r\n", "blank lines and nothing else"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"PK\x03\x04rest", "ZIP archive"),
        (b"BZh91AY", "bzip2 cut short"),
        (b"\xfd7zXZ\x00", "unxz"),
        (b"\x28\xb5\x2f\xfd\x00", "zstd not readable (Truncated"),
        ('{"text": "a"}'.encode("utf-16"), "UTF-16"),
        (gzip.compress(gzip.compress(b"x", mtime=0), mtime=0), "gzip within gzip"),
        (b"\x00\x01\x02\x1b[31m", "not a known format (first bytes 00 01 02 1b"),
    ],
)
def test_what_is_no_corpus_is_named_with_its_fix(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refused(tmp_path, data)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such file"):
        read(tmp_path / "none.pkl")
    with pytest.raises(CorpusError, match="not a file"):
        read(tmp_path)


def test_a_cut_or_damaged_gzip_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(FORMATS["pickle"])
    assert "gzip cut short" in refused(tmp_path, data[:-20])
    assert "gzip not readable" in refused(tmp_path, data[:-8] + b"\x00" * 8)


def test_a_gzip_bomb_is_refused_while_it_unpacks(tmp_path: Path) -> None:
    assert "over 100 times its size" in refused(tmp_path, gzip.compress(b" " * 2**27))


# ---------------------------------------------------------------- pickle


class Call:
    """Calls a function when it is unpickled without care."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def plain(seed: int, depth: int = 3) -> Any:
    """Some plain data that JSON could hold, and bytes."""
    chance = random.Random(seed)
    kind = chance.randrange(9 if depth else 7)
    if kind == 7:
        return [plain(chance.random().__hash__(), depth - 1) for _ in range(chance.randrange(5))]
    if kind == 8:
        return {str(chance.random()): plain(chance.random().__hash__(), depth - 1) for _ in range(chance.randrange(5))}
    values = [
        None,
        True,
        chance.randrange(-(2**70), 2**70),
        chance.random(),
        "aé漢\ud800\n" * chance.randrange(90),
        "",
        7,
    ]
    return values[kind]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_read_as_the_standard_library_reads_them(tmp_path: Path, protocol: int) -> None:
    items = [{"n": n, "value": plain(n)} for n in range(300)]
    items += [items[0], {"tuple": (1, (2, 3), ()), "long": 2**3000}]
    path = tmp_path / "corpus.pkl"
    for whole in (items, tuple(items), items[:1], tuple(items[:2])):
        path.write_bytes(pickle.dumps(whole, protocol))
        assert [item for _, item in read(path)] == list(whole)


def test_sets_inside_an_item_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(pickle.dumps([{"tags": {"a", "b"}, "more": frozenset("ab"), "text": "t"}]))
    assert read(path) == [("item 0", {"tags": set(), "more": frozenset(), "text": "t"})]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_calls_a_function_is_refused_and_runs_nothing(
    tmp_path: Path, protocol: int, capfd: pytest.CaptureFixture[str]
) -> None:
    data = pickle.dumps([*ITEMS, Call(print, "HOSTILE")], protocol)
    message = refused(tmp_path, data)
    assert "item 12" in message and ".print" in message and "nothing was run" in message and "Parquet" in message
    assert "HOSTILE" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_item_that_reads_the_environment_is_named_and_its_value_stays_unread(
    tmp_path: Path, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2")
    items = [dict(item) for item in ITEMS]
    items[5]["text"] = Call(os.getenv, "A_SECRET")
    message = refused(tmp_path, pickle.dumps(items, protocol))
    assert "item 5" in message and "os.getenv" in message and "hunter2" not in message


def test_a_foreign_class_is_named_where_its_library_is_not_installed(tmp_path: Path) -> None:
    foreign = b"cpandas._libs.tslibs.timestamps\n_unpickle_timestamp\n(I0\ntR"
    data = PROTO4 + b"](" + b"}(" + text("title") + text("a") + b"u" + b"}(" + text("title") + foreign + b"ue."
    message = refused(tmp_path, data)
    assert "item 1" in message and "timestamps._unpickle_timestamp" in message and "plain strings" in message


def test_a_data_frame_is_told_how_to_be_saved(tmp_path: Path) -> None:
    data = PROTO4 + text("pandas.core.frame") + text("DataFrame") + b"\x93)\x81."
    assert "to_parquet" in refused(tmp_path, data)


def test_a_numpy_value_is_told_how_to_be_saved(tmp_path: Path) -> None:
    assert ".item()" in refused(tmp_path, PROTO4 + b"](cnumpy.core.multiarray\nscalar\n")


def test_a_hostile_name_is_shown_as_escapes(tmp_path: Path) -> None:
    assert "\\x1b[31mred" in refused(tmp_path, b"\x80\x02cos\n\x1b[31mred\n.")


@pytest.mark.parametrize("warm", [False, True])
def test_an_extension_code_is_refused_even_with_a_warm_cache(
    tmp_path: Path, warm: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(copyreg._inverted_registry, 77, ("builtins", "print"))  # type: ignore[attr-defined]
    if warm:
        monkeypatch.setitem(copyreg._extension_cache, 77, print)  # type: ignore[attr-defined]
    assert "EXT1" in refused(tmp_path, b"\x80\x02\x82\x4d(" + text("HOSTILE") + b"tR.")
    assert "HOSTILE" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x80\x02Pabc\n.", "PERSID"),
        (b"\x80\x02NQ.", "BINPERSID"),
        (b"\x80\x02]NR.", "REDUCE"),
        (b"\x80\x02]}b.", "BUILD"),
        (b"\x80\x02])\x81.", "NEWOBJ"),
        (b"\x80\x02(]o.", "OBJ"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".", "BYTEARRAY8"),
    ],
)
def test_instructions_beyond_plain_data_are_named(tmp_path: Path, data: bytes, name: str) -> None:
    assert f"instruction {name}," in refused(tmp_path, data)


def test_bytes_after_the_end_are_counted(tmp_path: Path) -> None:
    whole = pickle.dumps(ITEMS)
    assert f"920 bytes follow the end of the pickle at byte {len(whole)}" in refused(tmp_path, whole + b"\x00" * 920)
    assert "another pickle" in refused(tmp_path, whole + whole)


def test_a_pickle_cut_anywhere_is_said_to_be_cut_short(tmp_path: Path) -> None:
    whole = pickle.dumps(ITEMS)
    for length in range(2, len(whole), 37):
        assert "cut short" in refused(tmp_path, whole[:length])


def test_a_damaged_pickle_is_said_to_be_so_with_the_byte(tmp_path: Path) -> None:
    assert "not readable as a pickle at byte 3 of" in refused(tmp_path, PROTO4 + b"]=" + pickle.dumps(ITEMS))


def test_damage_anywhere_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    path, chance = tmp_path / "corpus.pkl", random.Random(7)
    whole = [pickle.dumps(ITEMS, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for _ in range(3000):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(data)
        try:
            read(path)
        except CorpusError as error:
            assert "corpus.pkl" in str(error)


BOMBS = {
    "huge text": PROTO4 + b"X" + struct.pack("<I", 2**32 - 1) + b"abc.",
    "huger text": PROTO4 + b"\x8d" + struct.pack("<Q", 2**40) + b"abc.",
    "endless text": PROTO4 + b"\x8d" + struct.pack("<Q", 2**63 - 1) + b"abc.",
    "huge bytes": PROTO4 + b"\x8e" + struct.pack("<Q", 2**36) + b"abc.",
    "huge number": PROTO4 + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"abc.",
    "huge frame": PROTO4 + b"\x95" + struct.pack("<Q", 2**40) + b"abc.",
    "huge memo": PROTO4 + b"]r" + struct.pack("<I", 2**28) + b"N.",
    "huge digits": b"](I" + b"9" * 10**6 + b"\ne.",
    "laughs": PROTO4 + b"]" + b"(" + b"]" + b"(22e2" * 60 + b"e.",
    "tuples that hash for ever": PROTO4 + b"](}NN\x86" + b"q\x01h\x01h\x01\x86" * 60 + b"Nse.",
    "a key nested to the end of the stack": PROTO4 + b"](}N" + b"\x85" * 10**6 + b"Nse.",
    "a set nested to the end of the stack": PROTO4 + b"](\x8f(N" + b"\x85" * 10**6 + b"\x90" + b"NRe.",
    "deep lists": PROTO4 + b"]" * 10**6 + b"a" * (10**6 - 1) + b"N.N",
    "deep marks": PROTO4 + b"(" * 10**6 + b".",
}


@pytest.mark.process
def test_bombs_are_refused_quickly_and_in_little_memory(tmp_path: Path) -> None:
    for name, data in BOMBS.items():
        (tmp_path / f"{name}.pkl").write_bytes(data)
    program = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from runbook_lib.errors import CorpusError
        from runbook_lib.corpus.formats.readers import open_source
        from tests.helpers.memory import peak_mib
        for path in sorted(Path(sys.argv[1]).iterdir()):
            start = time.perf_counter()
            try:
                with open_source(path) as source:
                    list(source.items)
                print(path.name, "read")
            except CorpusError:
                if time.perf_counter() - start > 5:
                    print(path.name, "slow")
        if peak_mib() > 600:
            print("memory")
        """
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_endless_values_in_an_item_are_never_walked(tmp_path: Path) -> None:
    laughs: list[Any] = ["ha"]
    for _ in range(100):
        laughs = [laughs, laughs]
    path = tmp_path / "corpus.pkl"
    path.write_bytes(pickle.dumps([{"text": "t", "extra": laughs}]))
    assert [place for place, _ in read(path)] == ["item 0"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None (NoneType)"),
        (250000, "one int"),
        ("a text", "one str"),
        ({}, "a dict of 0 keys"),
        ({"A title": "a text", "B": "b"}, "{title: text}"),
        ({"documents": ITEMS, "version": 1}, "a dict of 2 keys (values: int, list)"),
        ({0: {"text": "t"}}, "a dict of 1 keys (values: dict)"),
        ({"title": ["a"] * 12, "text": ["b"] * 10}, "title has 12, text has 10"),
        ([{(1, 2): "tuple as key"}], "a dict key of type tuple"),
    ],
)
def test_other_shapes_are_explained(tmp_path: Path, value: Any, said: str) -> None:
    assert said in refused(tmp_path, pickle.dumps(value))


def test_a_dict_of_columns_is_read_as_rows_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "corpus.pkl"
    path.write_bytes(pickle.dumps({"title": ["A", "B"], "text": ("a", "b")}))
    with open_source(path) as source:
        assert source.columns == ("title", "text")
        assert list(source.items) == [
            ("item 0", {"title": "A", "text": "a"}),
            ("item 1", {"title": "B", "text": "b"}),
        ]
    assert source.notes == ["a dict of 2 columns, read as rows"]


# ---------------------------------------------------------------- JSON


def test_blank_lines_are_noted_and_do_not_shift_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"a": 1}\n\n \r\n{"a": 2}')
    assert read(path) == [("line 1", {"a": 1}), ("line 4", {"a": 2})]
    assert notes_of(path) == ["2 blank lines passed over (first: line 2)"]


@pytest.mark.parametrize("data", [b'{"a": 1}\r\n{"a": 2}\r\n', b'[{"a": 1},\r\n{"a": 2}]', b"a\r\n1\r\n2\r\n"])
def test_a_byte_order_mark_is_noted_and_loses_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "corpus"
    path.write_bytes(b"\xef\xbb\xbf" + data)
    assert [int(item["a"]) for _, item in read(path)] == [1, 2]
    assert len(notes_of(path)) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1, "a": 2}', '"a" is given twice'),
        (b'{"a": {"\\u001b": 1, "\\u001b": 2}}', '"\\x1b" is given twice'),
        (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"text": "cut', "not one JSON value"),
        (b'{"a": 1} {"a": 2}', "not one JSON value"),
        (b'{"text": "\xe9"}', "byte 19 of the file (0xe9) is not UTF-8; expected UTF-8"),
    ],
)
def test_a_line_that_cannot_be_taken_stands_in_its_place_with_the_reason(
    tmp_path: Path, line: bytes, said: str
) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    first, second, third = read(path)
    assert (first, third) == (("line 1", {"a": 1}), ("line 3", {"a": 3}))
    assert second[0] == "line 2" and isinstance(second[1], Unreadable) and said in second[1].reason


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'[{"a": 1}, {"a": 1, "a": 2}]', "item 1: the key"),
        (b'[{"a": 1}, {"a": ', "item 1: cut short"),
        (b'[{"a": 1}', "cut short"),
        (b'[{"a": 1} {"a": 2}]', 'expected ","'),
        (b'[{"a": 1}] []', "follows the end"),
        (b'[{"a": "\xff"}]', "byte 8 of the file (0xff) is not UTF-8"),
        (b"[" * 300_000, "nested too deeply"),
        (b'[{"a": 1}, {a: 1}' + b" " * 3 * 2**20 + b"]", "item 1: not JSON"),
    ],
)
def test_a_bad_json_array_is_refused_with_the_item(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refused(tmp_path, data, "corpus.json")


def test_the_byte_of_bad_utf8_is_right_deep_in_a_json_array(tmp_path: Path) -> None:
    start = b'["' + "é".encode() * (2**20 + 5)
    assert f"byte {len(start)} of the file (0xff)" in refused(tmp_path, start + b'\xff"]', "corpus.json")


def test_a_json_array_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items: list[Any] = [
        *ITEMS,
        {"n": 1.5, "deep": [{"a": []}], "s": '\\"é漢😀' * 50},
        -12,
        345678901,
        "text",
        None,
        [],
        {},
    ]
    path = tmp_path / "corpus.json"
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(json_stream, "_CHUNK", size)
        for ascii_only in (False, True):
            path.write_text(json.dumps(items, ensure_ascii=ascii_only, indent=1), encoding="utf-8")
            assert [item for _, item in read(path)] == items


def test_an_empty_json_array_has_no_items(tmp_path: Path) -> None:
    path = tmp_path / "corpus.json"
    path.write_bytes(b" [ ] \n")
    assert read(path) == []


def test_a_line_of_endless_length_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "LONGEST", 1000)
    assert "line 1 has over 1000 bytes" in refused(tmp_path, b'{"text": "' + b"a" * 2000, "corpus.jsonl")


# ---------------------------------------------------------------- Parquet and CSV


def test_only_wanted_parquet_columns_are_read(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    path.write_bytes(parquet([{**item, "big": [1, 2]} for item in ITEMS]))
    with open_source(path, {"text", "url"}) as source:
        assert source.columns == ("id", "title", "text", "big")
        assert next(source.items) == ("row 0", {"text": ITEMS[0]["text"]})


def test_a_cut_parquet_is_cut_short_and_a_damaged_one_is_not_readable(tmp_path: Path) -> None:
    whole = FORMATS["Parquet"]
    assert "cut short" in refused(tmp_path, whole[:-200], "corpus.parquet")
    assert "cut short" in refused(tmp_path, whole[:5], "corpus.parquet")
    assert "not readable" in refused(tmp_path, whole[:60] + b"\xff" * 200 + whole[260:], "corpus.parquet")


def test_csv_fields_hold_quotes_commas_and_line_ends(tmp_path: Path) -> None:
    items = [{"id": "1", "text": 'a "quoted", \r\nlong\ntext'}, {"id": "2", "text": "b" * 200_000}]
    path = tmp_path / "corpus.csv"
    path.write_bytes(as_csv(items))
    before = csv.field_size_limit()
    assert read(path) == [("row 0 (line 2)", items[0]), ("row 1 (line 5)", items[1])]
    assert csv.field_size_limit() == before


def test_a_csv_row_of_another_width_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_bytes(b"id,text\n1,a\n\n2,b,c\n3,d\n")
    assert read(path)[1] == ("row 1 (line 4)", Unreadable("3 fields, the header has 2"))
    assert notes_of(path) == ["1 blank lines passed over (first: line 3)"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'id,text\n1,"fine"\n2,"never closed\n3,last\n', "line 3: a quote opens here"),
        (b'id,text\n1,"two\nlines","never\nclosed\n', "line 3: a quote opens here"),
        (b'id,text\n1,"a ""b""\nc"",\nnever\n', "line 2: a quote opens here"),
        (b'id,text\n1,"a"b\n', "line 2: not CSV"),
        (b"id,text\n1,caf\xe9\n", "byte 13 of the file (0xe9) is not UTF-8"),
        (b"id,text,id\n1,a,2\n", '"id"'),
    ],
)
def test_bad_csv_is_refused_with_the_line(tmp_path: Path, data: bytes, said: str) -> None:
    assert said in refused(tmp_path, data, "corpus.csv")
