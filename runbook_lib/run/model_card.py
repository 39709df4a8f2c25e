"""What a model's own README.md says of its licence, and how it wants to be cited; both are its maker's words."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worker.escape import safe_text

RECORD = "model_card.json"
LARGEST, CITATION = 2**20, 3000
_HEAD = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*\n", re.DOTALL)
_FENCED = re.compile(r"```[a-z]*\s*\n(\s*@[a-zA-Z]+\s*\{.*?)\n```", re.DOTALL)


@dataclass(frozen=True)
class ModelCard:
    """The licence in the maker's words and BibTeX entries; empty where the card has none."""

    licence: str = ""
    citation: str = ""


def read(folder: Path) -> ModelCard:
    """Read the card of a model in a folder; an empty one where there is none, or it is no text."""
    with suppress(OSError, UnicodeDecodeError):
        with (folder / "README.md").open("rb") as file:
            text = file.read(LARGEST).decode("utf-8").replace("\r\n", "\n")
        entries = [entry.strip() for entry in _FENCED.findall(text)]
        return ModelCard(_licence(text), safe_text("\n\n".join(entries), CITATION))
    return ModelCard()


def _licence(text: str) -> str:
    head = _HEAD.match(text)
    if head is None:
        return ""
    given = dict(re.findall(r"^(license|license_name|license_link):[ \t]*([^\s#].*?)[ \t]*$", head[1], re.MULTILINE))
    words = [value.strip("\"'") for value in (given.get("license"), given.get("license_name")) if value]
    link = given.get("license_link", "").strip("\"'")
    return safe_text(" ".join([", ".join(words), *([f"({link})"] if words and link else [])]), 300)
