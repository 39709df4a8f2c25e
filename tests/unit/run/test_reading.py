"""How much of a document a profile has read: its beginning, or all of it in chunks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from local_run import model_folder

from runbook_lib.errors import ProfileError
from runbook_lib.profile.profile import ModelSpec
from runbook_lib.run import model as models
from runbook_lib.run.reading import Reading


@pytest.mark.parametrize(
    ("too_long", "max_tokens", "found", "limit"),
    [
        ("truncate", None, Reading(None, None), 64),
        ("truncate", 32, Reading(32, None), 32),
        ("refuse", 128, Reading(128, None), 64),
        ("chunk", None, Reading(None, 64), None),
        ("chunk", 32, Reading(None, 32), None),
        ("chunk", 128, Reading(None, 64), None),
    ],
)
def test_it_follows_from_the_profile_and_the_model(
    tmp_path: Path, too_long: str, max_tokens: int | None, found: Reading, limit: int | None
) -> None:
    spec = ModelSpec(str(model_folder(tmp_path / "model")), too_long=too_long, max_tokens=max_tokens)
    model = models.resolve(spec)
    assert model.max_tokens == 64
    assert Reading.of(spec, model) == found
    assert found.limit(model) == limit


@pytest.mark.parametrize(
    ("limit", "max_tokens", "said"),
    [
        (None, None, "does not say how many tokens it reads: set model.max_tokens"),
        (64, 8, "at least 16 tokens, found 8"),
    ],
)
def test_chunks_of_no_known_size_and_tiny_ones_are_refused(
    tmp_path: Path, limit: int | None, max_tokens: int | None, said: str
) -> None:
    spec = ModelSpec(str(model_folder(tmp_path / "model")), too_long="chunk", max_tokens=max_tokens)
    model = models.resolve(spec)
    with pytest.raises(ProfileError, match=said):
        Reading.of(spec, replace(model, max_tokens=limit))
