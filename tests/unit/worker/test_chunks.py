"""Where a long text is cut up: nothing lost, nothing twice, each chunk short enough and with its prompt."""

from __future__ import annotations

import random

import pytest

from worker.chunks import around, cut_up

TITLED = "title: {title} | text: {text}"


def letters(texts: list[str]) -> list[int]:
    """A tokenizer of two special tokens, and a token for each character that is no blank."""
    return [2 + sum(not character.isspace() for character in text) for text in texts]


@pytest.mark.parametrize(
    ("template", "text", "found"),
    [
        ("{text}", "river", ("", "")),
        ("search: {text}", "search: river", ("search: ", "")),
        (TITLED, "title: A | b\nc | text: the river | text: again", ("title: A | b\nc | text: ", "")),
        ("say {text} please", "say river please", ("say ", " please")),
        ("say {text}", "river", ("", "")),
        ("{text} end", " end", ("", " end")),
        ("a{text}a", "a", ("a", "")),
    ],
)
def test_what_a_prompt_put_around_a_text_is_found(template: str, text: str, found: tuple[str, str]) -> None:
    assert around(template, text) == found


def test_the_chunks_of_any_text_are_the_text_and_none_is_too_long() -> None:
    draw = random.Random(7)
    for limit in (8, 16, 61):
        for _ in range(60):
            words = ["x" * draw.choice((1, 3, 9, 40, 200)) for _ in range(draw.randint(1, 60))]
            body = draw.choice((" ", "  ", "\n", "")).join(words)
            text = f"p: {body}"
            chunks, lengths = cut_up(text, letters([text])[0], limit, "p: {text}", letters)
            repeated = limit >= 2 * letters(["p: "])[0]
            assert "".join(chunk.removeprefix("p: ") for chunk in chunks) == (body if repeated else text[3:])
            assert lengths == letters(chunks) and max(lengths) <= limit
            assert not repeated or all(chunk.startswith("p: ") and len(chunk) > 3 for chunk in chunks)
            assert len(chunks) <= 1 + 3 * sum(lengths) // limit


def test_chunks_end_after_a_blank_where_there_is_one() -> None:
    body = "river stone " * 40
    chunks, _ = cut_up(body, letters([body])[0], 32, "{text}", letters)
    assert len(chunks) > 2 and all(chunk.endswith(" ") for chunk in chunks)


def test_a_prompt_that_would_fill_the_chunks_stands_in_the_first_one_only() -> None:
    text = f"title: {'long ' * 20}| text: {'river ' * 40}"
    chunks, lengths = cut_up(text, letters([text])[0], 60, TITLED, letters)
    assert "".join(chunks) == text and max(lengths) <= 60 and sum("title" in chunk for chunk in chunks) == 1


def test_a_character_of_more_tokens_than_a_chunk_may_have_is_a_chunk_of_its_own() -> None:
    chunks, lengths = cut_up("abc", 302, 16, "{text}", lambda texts: [2 + 100 * len(text) for text in texts])
    assert chunks == ["a", "b", "c"] and lengths == [102] * 3
