"""A text and its kind: documents are searched, questions ask. Models may have other prompts and heads for the two.

Standard library only.
"""

from __future__ import annotations

DOCUMENT, QUERY = KINDS = ("document", "query")  # as the library calls them


class Question(str):
    """A text that asks. Any other text is a document."""


def kind_of(text: str) -> str:
    """Which of `KINDS` a text is."""
    return QUERY if isinstance(text, Question) else DOCUMENT


def fixed_prompt(template: str) -> str | None:
    """What a prompt's template puts before every text; None where a title stands there too."""
    before = template.partition("{text}")[0]
    return None if "{title}" in before else before
