"""What a run exports is read by the tools that people have: pandas, polars, DuckDB, datasets, mlcroissant."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import made_up
import pytest
import registry

from runbook_lib.afterwards import export
from runbook_lib.afterwards.finished import Finished, load
from runbook_lib.result import parts

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "helpers" / "read_exports.py"
RECIPES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "afterwards.md").read_text(encoding="utf-8"), re.S)
TOOLS = ("datasets", "duckdb", "faiss-cpu", "lancedb", "mlcroissant", "pandas", "polars", "pyarrow", "qdrant-client")


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A run of 60 documents with a result."""
    monkeypatch.setattr(parts, "_vectors", lambda part, file: [])
    made = made_up.run_folder(tmp_path, count=60, dim=16)
    made.commit_all()
    made_up.published(made.run)
    return load(made.run)


def by(python: Path | str, folder: Path, *argv: str) -> str:
    """What a Python prints that is cut off from the network and from our settings; it has to end well."""
    variables = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(
        [str(python), *argv],
        cwd=folder,
        env={**variables, "PYTHONPATH": str(ROOT) if python == sys.executable else ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_the_recipes_of_the_page_work(tmp_path: Path, result: Finished) -> None:
    python = registry.with_packages(*TOOLS)
    export.export(result, "parquet", tmp_path / "vectors.parquet")
    export.export(result, "hf", tmp_path / "vectors_dataset")
    assert len(RECIPES) >= 7
    for recipe in RECIPES:
        ours = "import runbook_lib" in recipe
        told = by(
            sys.executable if ours else python, tmp_path, "-c", recipe.replace('"RUN"', repr(str(result.run.folder)))
        )
        assert not ours or told.startswith("1.000 0 ")


def test_exports_are_read_by_other_peoples_tools(
    tmp_path: Path, result: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = registry.with_packages(*TOOLS)
    monkeypatch.setattr(export, "ROWS", 8)
    monkeypatch.setattr(export, "SHARD_BYTES", 16 * 4 * 8 * 2)  # several shards
    out = tmp_path / "exports"
    for form, name in (("parquet", "a.parquet"), ("hf", "data")):
        export.export(result, form, out / name)
    for form, name in (("parquet", "half.parquet"), ("hf", "half")):
        export.export(result, form, out / name, "float16")
    told = by(python, tmp_path, str(SCRIPT), str(out), str(result.merged.embeddings))
    assert told.endswith("all read\n")
