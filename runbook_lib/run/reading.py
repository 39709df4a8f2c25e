"""How much of a long document is read: its beginning, or all of it in chunks."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ProfileError
from ..profile.profile import CHUNK, ModelSpec
from .model import Model

LEAST_TOKENS = 16  # of a chunk: below it a prompt would take most of the room


@dataclass(frozen=True)
class Reading:
    """`max_tokens`: where a document is cut, as the profile says; `chunk_tokens`: the most tokens of a chunk.

    With chunks nothing is cut, so `max_tokens` is then None.
    """

    max_tokens: int | None
    chunk_tokens: int | None

    @classmethod
    def of(cls, spec: ModelSpec, model: Model) -> Reading:
        """What a profile asks of a model. Raises ProfileError if chunks cannot be made of so many tokens."""
        if spec.too_long != CHUNK:
            return cls(spec.max_tokens, None)
        known = [limit for limit in (spec.max_tokens, model.max_tokens) if limit is not None]
        if not known:
            raise ProfileError(
                f"model.too_long: chunk: {spec.name} does not say how many tokens it reads: set model.max_tokens"
            )
        if min(known) < LEAST_TOKENS:
            raise ProfileError(
                f"model.too_long: chunk: expected chunks of at least {LEAST_TOKENS} tokens, found {min(known)}: "
                "set model.max_tokens higher, or model.too_long: truncate"
            )
        return cls(None, min(known))

    def limit(self, model: Model) -> int | None:
        """How many tokens are read of a document, as far as it is known here; None for all."""
        known = [limit for limit in (self.max_tokens, model.max_tokens) if limit is not None]
        return None if self.chunk_tokens else min(known, default=None)
