"""Counts of hashed words: the same word counts the same wherever it stands, in every script."""

from __future__ import annotations

import numpy as np
import pytest

from runbook_lib.result.hashed_words import counts

MANY = 2**16  # so many features that two words hardly share one


def of(*texts: str, characters: int = 1000) -> np.ndarray:
    return counts(texts, characters, MANY)


@pytest.mark.parametrize("text", ["river", "Straße", "привет", "Ἀθῆναι", "a1b2", "日本語の文章です", "ภาษาไทย", "x"])
def test_a_text_counts_the_same_wherever_it_stands_in_a_block(text: str) -> None:
    alone, among = of(text), of("before it", "", text, "and after")
    assert alone.sum() > 0 or text == "日"
    assert np.array_equal(alone[0], among[2])
    assert among[1].sum() == 0


def test_words_and_their_pieces_are_counted_and_case_is_not() -> None:
    assert of("ferry")[0].sum() == 3  # the word, ferr and erry
    assert np.array_equal(of("The Ferry"), of("the FERRY"))
    twice = of("ferry, ferry!")[0]
    assert np.array_equal(twice, 2 * of("ferry")[0])


def test_forms_of_a_word_share_pieces_and_other_words_share_none() -> None:
    ferry, ferries, comet = of("ferry", "ferries", "comet")
    assert np.minimum(ferry, ferries).sum() == 1
    assert np.minimum(ferry, comet).sum() == 0


def test_scripts_without_spaces_are_read_in_pairs() -> None:
    whole, part, other = of("東京都庁", "東京", "京都")
    assert (whole.sum(), part.sum()) == (3, 1)
    assert (
        np.minimum(whole, part).sum() == 1
        and np.minimum(whole, other).sum() == 1
        and np.minimum(part, other).sum() == 0
    )


def test_only_so_many_characters_are_read() -> None:
    assert np.array_equal(of("one two three four", characters=7), of("one two"))


def test_nothing_and_half_a_surrogate_are_texts_too() -> None:
    assert of("", "").sum() == 0
    assert of("a\ud800b", "word").shape == (2, MANY)
    assert counts([], 10, 2048).shape == (0, 2048)
