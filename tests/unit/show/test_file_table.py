"""Files as a small table."""

from __future__ import annotations

from runbook_lib.records import Written
from runbook_lib.result.placed import Placed
from runbook_lib.show import file_table


def test_name_size_and_sum_are_shown_in_words_and_as_a_table() -> None:
    shown = file_table.merged({"a.npy": Written("ab" * 32, 12), "<b>.npy": Written("cd" * 32, 3_200_000)})
    assert repr(shown).splitlines() == [
        "Merged files",
        f"  a.npy      12 bytes  {'ab' * 32}",
        f"  <b>.npy      3.2 MB  {'cd' * 32}",
    ]
    html = shown._repr_html_()
    assert "&lt;b&gt;.npy" in html and "<b>" not in html and html.count('scope="col"') == 3
    assert "/x/y.pkl" in repr(file_table.placed(Placed("ab" * 32, 1, "/x/y.pkl")))
