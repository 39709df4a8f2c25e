"""Canaries: sixteen fixed texts that every worker computes, and the operator's machine too: the same ones on each.

One word to more than is read, several scripts, two that are equal, two that differ by a capital. Standard library only.
"""

from __future__ import annotations

import hashlib

from .wire import Canary

MOST_TOKENS, OVER = 2048, 50  # the longest text has so many words more than are read, where that is known

PASSAGE = (
    "In 1984 the museum of glass and iron was opened near the old bridge ; its roof , forty metres wide , was the work "
    "of two sisters who came down the river by boat with all that they had"
)
SENTENCE = "The Quick Brown Fox jumps over the lazy dog near the old river bank."
SHORT = (
    "river",
    "River",
    SENTENCE,
    SENTENCE,
    "Über dem Fluß saßen zwölf Mädchen, während es früh dämmerte.",
    "Le garçon naïf goûta l'œuf à Noël.",
    "Η πόλη βρίσκεται κοντά στη θάλασσα.",
    "Музей был открыт в 1984 году у старого моста.",
    "博物館は千九百八十四年に古い橋の近くで開館した。",
    "افتتح المتحف بالقرب من الجسر القديم.",
    "संग्रहालय पुराने पुल के पास खोला गया था।",
    "x = 3.14 * (a[i] - 2**-7)  # μ ≤ 0.5 → 🙂",
)


COUNT = len(SHORT) + 4


def texts(template: str, max_tokens: int | None) -> list[str]:
    """The sixteen texts as they are encoded: `template` is the document's prompt, `max_tokens` where texts are cut."""
    limit = min(max_tokens or MOST_TOKENS, MOST_TOKENS)

    words = PASSAGE.split()

    def of(count: int) -> str:
        return " ".join(words[i % len(words)] for i in range(count))

    whole = template.replace("{title}", "none")
    return [whole.replace("{text}", each) for each in (*SHORT, of(40), of(200), of(limit // 2), of(limit + OVER))]


def digest(canary: Canary) -> str:
    """What names the vectors of a kind: two are equal in every bit where it is equal."""
    return hashlib.sha256(f"{canary.kind}\n{canary.vectors}".encode()).hexdigest()
