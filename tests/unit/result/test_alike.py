"""What canaries say: a broken slot is named, a clean run of any mixture is not, and where nobody knows, nobody is."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from runbook_lib.errors import DataError
from runbook_lib.result import alike
from worker.wire import Canary

RIGHT = np.random.default_rng(1).normal(size=(16, 32))
RIGHT /= np.linalg.norm(RIGHT, axis=1, keepdims=True)
HERE = alike.Reference(1e-6, tuple(tuple(row) for row in RIGHT.tolist()))


def canary(vectors: np.ndarray, kind: str = "H200", exact: bool = True) -> Canary:
    return Canary(kind, exact, 32, base64.b64encode(vectors.astype("<f4").tobytes()).decode())


def noisy(size: float, seed: int = 2) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=RIGHT.shape)
    return RIGHT + size * noise / np.linalg.norm(noise, axis=1, keepdims=True)


def last_bits(seed: int) -> np.ndarray:
    """As another kind of device rounds: 1 - cosine is about 1e-13."""
    return noisy(3e-7, seed)


def judged(*given: list[Canary], here: alike.Reference | None = HERE, dtype: str = "float32") -> alike.Judgement:
    return alike.judge({f"s{number}": each for number, each in enumerate(given)}, here, dtype)


def clean(found: alike.Judgement) -> bool:
    return not found.wrong and not found.unsure and not found.all_off


def test_clean_slots_of_any_mixture_are_left_alone():
    mixed = [[canary(RIGHT)], [canary(RIGHT)], [canary(last_bits(3), "A100")], [canary(last_bits(4), "cpu", False)]]
    mixed.append([canary(last_bits(5), "cpu", False)])  # of one kind, and without the same bits each time
    assert clean(judged(*mixed)) and clean(judged(*mixed, here=None))
    half = [[canary(noisy(4e-2, seed), f"kind {seed}", seed % 2 > 0)] for seed in range(5)]
    assert clean(judged(*half, here=None, dtype="bfloat16"))
    assert clean(judged([canary(RIGHT), canary(last_bits(3), "torch 3")], [canary(RIGHT)]))  # other libraries since
    assert clean(judged([])) and clean(judged([canary(RIGHT)], here=None))


def test_a_slot_off_this_machine_is_wrong_though_its_host_says_the_same():
    found = judged([canary(RIGHT)], [canary(noisy(2e-3), "other")], [canary(noisy(2e-3), "other")])
    assert set(found.wrong) == {"s1", "s2"} and "2e-06 off what this machine gives" in found.wrong["s1"]
    assert not found.all_off and found.furthest == pytest.approx(2e-6, rel=0.1)


def test_where_every_slot_is_off_this_machine_may_be_the_wrong_one():
    found = judged([canary(noisy(2e-3))], [canary(noisy(2e-3))])
    assert found.all_off and len(found.wrong) == 2


def test_one_bit_names_a_slot_among_three_of_a_kind_and_nobody_among_two():
    flipped = RIGHT.astype("<f4").copy()
    flipped.view(np.uint32)[5, 7] ^= 1
    found = judged([canary(RIGHT)], [canary(flipped)], [canary(RIGHT)])
    assert list(found.wrong) == ["s1"] and "other bits than on 2 slots" in found.wrong["s1"]
    found = judged([canary(RIGHT)], [canary(flipped)])
    assert not found.wrong and "other bits on s0, s1" in found.unsure[0]
    assert clean(judged([canary(RIGHT, exact=False)], [canary(flipped, exact=False)], [canary(RIGHT, exact=False)]))


def test_a_slot_whose_bits_changed_is_wrong_though_both_are_near():
    found = judged([canary(RIGHT), canary(last_bits(3))], [canary(RIGHT)])
    assert list(found.wrong) == ["s0"] and "later" in found.wrong["s0"]


@pytest.mark.parametrize(
    "odd", [noisy(0.1), np.full_like(RIGHT, np.nan), np.zeros_like(RIGHT), RIGHT[:, ::-1], RIGHT[:0]]
)
def test_without_this_machine_the_odd_one_out_is_named_and_of_two_neither(odd):
    found = judged(*[[canary(each, exact=False)] for each in (RIGHT, last_bits(3), odd, RIGHT)], here=None)
    assert list(found.wrong) == ["s2"] and "3 of 3 other slots" in found.wrong["s2"]
    found = judged([canary(RIGHT, exact=False)], [canary(odd, exact=False)], here=None)
    assert not found.wrong and "nobody knows" in found.unsure[0]
    halves = [RIGHT, RIGHT, odd, odd]
    assert not judged(*[[canary(each, exact=False)] for each in halves], here=None).wrong


def test_what_is_no_array_is_refused():
    with pytest.raises(DataError, match="canaries of H200"):
        alike.vectors_of(Canary("H200", True, 32, "no base64"))
