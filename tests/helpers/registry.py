"""What is asked of the package registry in tests: which versions fit together, and environments made of them.

By uv, by package name only; what it brings is kept under build/registry. Without uv, or without an answer, tests skip
and say so; with RUNBOOK_REQUIRE_REGISTRY such a skip fails.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "registry"
UNREACHABLE = re.compile(r"error sending request|failed to fetch|dns error|connect|timed? ?out|network|offline", re.I)
# torch is taken from here: no other build of it is ever brought.
TORCH = ("torch", "triton", "nvidia-", "cuda-")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def uv(*argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What uv answers; the test is skipped where it is not installed or the registry does not answer."""
    if importlib.util.find_spec("uv") is None:
        pytest.skip("uv is not installed here; make setup brings it")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    done = subprocess.run(
        [sys.executable, "-m", "uv", *argv],
        env={**kept, "UV_CACHE_DIR": str(KEPT / "cache"), "UV_HTTP_TIMEOUT": "60", "UV_NO_CONFIG": "1", **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode and UNREACHABLE.search(done.stderr):
        pytest.skip(f"the package registry does not answer: {done.stderr.strip()[-300:]}")
    return done


def resolved(*options: str, **variables: str) -> str:
    """The versions that fit together, a line each, from wheels alone. Fails where none do."""
    done = uv("pip", "compile", "-q", "--only-binary", ":all:", "--no-header", "--no-annotate", *options, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lowest(source: Path, *options: str) -> Path:
    """The Python of an environment with the lowest versions that `source` allows, and the torch that is here."""
    KEPT.mkdir(parents=True, exist_ok=True)
    pin = KEPT / "torch.txt"
    pin.write_text(f"torch=={metadata.version('torch').partition('+')[0]}\n")
    both = ("--resolution", "lowest-direct", "--python-version", VERSION)
    lines = resolved(*both, "--override", str(pin), *options, str(source)).splitlines()
    text = "".join(f"{line}\n" for line in lines if not line.startswith(TORCH))
    place = KEPT / f"lowest-{hashlib.sha256((text + sys.base_prefix).encode()).hexdigest()[:12]}"
    listed = KEPT / f"{place.name}.txt"
    listed.write_text(text)
    return _python_of(place, "--no-deps", "-r", str(listed), lend_torch=True)


def with_packages(*names: str) -> Path:
    """The Python of an environment that has these packages, the newest that fit together, and nothing of ours."""
    KEPT.mkdir(parents=True, exist_ok=True)
    place = KEPT / f"with-{hashlib.sha256(' '.join((*names, sys.base_prefix)).encode()).hexdigest()[:12]}"
    return _python_of(place, *names)


def _python_of(place: Path, *wanted: str, lend_torch: bool = False) -> Path:
    """The Python of the environment at `place`, which is made where there is none; whoever asks meanwhile waits."""
    python = place / "bin" / "python"
    with (KEPT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (place / "whole").exists():
            return python
        shutil.rmtree(place, ignore_errors=True)
        for argv in (
            ("venv", "-q", "--python", str(Path(sys.base_prefix, "bin", f"python{VERSION}")), str(place)),
            ("pip", "install", "-q", "--python", str(python), *wanted),
        ):
            done = uv(*argv)
            assert done.returncode == 0, done.stderr
        if lend_torch:
            _lend_torch(place)
        (place / "whole").touch()
    return python


def _lend_torch(place: Path) -> None:
    """Let an environment see the torch of this one, and nothing else of it."""
    lent = place / "torch"
    lent.mkdir()
    for found in metadata.distributions():
        if not found.metadata["Name"].lower().startswith(TORCH):
            continue
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            real = Path(str(found.locate_file(top)))
            if real.exists() and not (lent / top).exists():
                (lent / top).symlink_to(real)
    site = next((place / "lib").glob("python*/site-packages"))
    (site / "torch_of_this_machine.pth").write_text(f"{lent}\n")
