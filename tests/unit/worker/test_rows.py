"""Row ranges and fingerprints of texts."""

from __future__ import annotations

import hashlib
import itertools
import random

import pytest

from worker.rows import Covered, count, fingerprint, joined, missing


@pytest.mark.parametrize(
    ("have", "left"),
    [
        ([], [(10, 20)]),
        ([(10, 20)], []),
        ([(0, 100)], []),
        ([(12, 14)], [(10, 12), (14, 20)]),
        ([(15, 20), (10, 12)], [(12, 15)]),
        ([(10, 16), (12, 14), (14, 18)], [(18, 20)]),
        ([(0, 10), (20, 30)], [(10, 20)]),
        ([(0, 11), (19, 30)], [(11, 19)]),
        ([(12, 12), (15, 13)], [(10, 20)]),
    ],
)
def test_missing_is_what_no_range_covers(have: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    assert missing(10, 20, have) == left
    assert count(left) == len(set(range(10, 20)) - {row for low, high in have for row in range(low, high)})


def test_joined_ranges_hold_the_same_rows_in_as_few_as_can_be() -> None:
    dice = random.Random(1)
    for _ in range(200):
        ranges = [(low, low + dice.randrange(1, 6)) for low in (dice.randrange(60) for _ in range(dice.randrange(20)))]
        found = joined(ranges)
        rows, again = ({row for low, high in these for row in range(low, high)} for these in (ranges, found))
        assert rows == again
        assert all(before[1] < after[0] for before, after in itertools.pairwise(found))


def test_covered_rows_answer_every_question_as_a_set_would() -> None:
    dice = random.Random(2)
    for _ in range(300):
        have = [(low, low + dice.randrange(-2, 7)) for low in (dice.randrange(60) for _ in range(dice.randrange(20)))]
        covered, rows = Covered(have), {row for low, high in have for row in range(low, high)}
        for _ in range(20):
            start = dice.randrange(70)
            stop = start + dice.randrange(12)
            gaps = covered.missing(start, stop)
            assert [row for low, high in gaps for row in range(low, high)] == sorted(set(range(start, stop)) - rows)
            assert all(low < high for low, high in gaps) and gaps == missing(start, stop, have)


def test_a_fingerprint_never_changes() -> None:
    """Literal values: a run that is under way must find its rows after an update of this software."""
    assert fingerprint("") == "e3b0c44298fc1c149afbf4c8996fb924"
    assert fingerprint("Grüße, 世界 🌍\n") == hashlib.sha256("Grüße, 世界 🌍\n".encode()).hexdigest()[:32]
    assert fingerprint("a") != fingerprint("a ")


def test_rows_beside_are_covered_too_and_are_not_sorted_again():
    home = Covered([(0, 4), (10, 12)])
    host = Covered([(4, 6), (20, 30)], home)
    assert host.missing(0, 30) == [(6, 10), (12, 20)]
    assert host.missing(0, 6) == [] and host.missing(5, 11) == [(6, 10)]
    assert Covered((), home).missing(0, 12) == home.missing(0, 12) == [(4, 10)]


def test_rows_beside_give_the_same_gaps_as_all_ranges_together():
    rng = random.Random(5)
    for _ in range(500):
        some, others = ([(at, at + rng.randint(0, 9)) for at in rng.choices(range(60), k=6)] for _ in range(2))
        start, stop = sorted(rng.choices(range(70), k=2))
        assert Covered(some, Covered(others)).missing(start, stop) == Covered([*some, *others]).missing(start, stop)
