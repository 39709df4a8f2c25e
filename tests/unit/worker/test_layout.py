"""What a host's folder holds, by its names."""

from __future__ import annotations

from pathlib import Path

from worker.layout import committed, quarantined


def test_only_final_names_of_records_count_as_committed(tmp_path: Path) -> None:
    names = [
        "rows_000000004_000000008.json",
        "rows_000000000_000000004.json",
        "rows_000000008_000000012.npy",
        ".rows_000000012_000000016.json.1a2b3c4d.part",
        "rows_000000016_000000020.json~",
        "rows_16_20.json",
        "rows_0000000160_0000000200.json",
        "rows_-00000016_000000020.json",
        "rows_000000020_000000016.json",
        "rows_000000020_000000020.json",
        "rows_٠٠٠٠٠٠٠١٦_٠٠٠٠٠٠٠٢٠.json",
        "rows_000000024_000000028.json\n",
        "README",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert committed(tmp_path) == [(0, 4), (4, 8)]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert committed(tmp_path / "parts") == []
    assert quarantined(tmp_path / "quarantine") == []


def test_rows_given_up_are_known_by_their_names(tmp_path: Path) -> None:
    for name in ("row_000000007.json", "row_000000003.json", "row_3.json", ".row_000000009.json.1.part"):
        (tmp_path / name).touch()
    assert quarantined(tmp_path) == [3, 7]
