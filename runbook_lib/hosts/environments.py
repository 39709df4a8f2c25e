"""What a host's Python environment is made from: pinned requirements and, for hosts without network, wheels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import worker
from worker import environment

from ..errors import ProfileError
from ..profile.profile import HostSpec

REQUIREMENTS = Path(worker.__file__).parent / "requirements.txt"


@dataclass(frozen=True)
class Recipe:
    """The text of the requirements, the wheels that go with them as (file, sha256), and the digest of both."""

    requirements: str
    wheels: tuple[tuple[Path, str], ...]
    digest: str


def recipe(spec: HostSpec) -> Recipe:
    """Return what the environment of a host is made from. Raises ProfileError when a file of it cannot be read."""
    file = spec.requirements or REQUIREMENTS
    try:
        text = file.read_text(encoding="utf-8")
        wheels = _wheels(spec.wheels, spec.wheels.stat().st_mtime_ns) if spec.wheels else ()
    except (OSError, ValueError) as error:
        raise ProfileError(f"{spec.name}: reading what its environment is made from: {error}") from None
    if (line := environment.line_with_secret(text)) is not None:
        raise ProfileError(
            f"{file}:{line}: a user or password in an address, which would travel and be logged; "
            "use pip's own settings on that host"
        )
    if spec.wheels and not wheels:
        fill = f"pip download -d {spec.wheels} -r {file}"
        raise ProfileError(f"{spec.name}: no wheel in {spec.wheels}; fill it with: {fill}")
    return Recipe(text, wheels, environment.digest(text, [(path.name, sha256) for path, sha256 in wheels]))


@lru_cache(maxsize=16)
def _wheels(folder: Path, changed: int) -> tuple[tuple[Path, str], ...]:
    """Return the wheels of a folder, hashed again only after the folder `changed`."""
    return tuple((folder / name, sha256) for name, sha256 in environment.wheels_in(folder))


def is_made_by_us(kind: str | None) -> bool:
    """Whether an `environment` of a profile is one that is made where it is missing."""
    return bool(kind) and (kind == "venv" or str(kind).startswith("conda:"))
