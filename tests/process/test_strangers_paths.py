"""What other programs leave on the paths of Python and Jupyter is not taken for ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]


def test_a_strangers_worker_on_the_path_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("raise SystemExit('the worker of somebody else')")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    code = "import runbook_lib.cli, worker.escape; print(worker.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == ROOT / "worker" / "__init__.py"


def test_a_notebook_runs_in_the_python_of_the_command_whatever_kernels_are_installed(tmp_path: Path) -> None:
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    wrong = {"argv": ["/nowhere/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]}
    (kernel / "kernel.json").write_text(json.dumps({**wrong, "display_name": "another", "language": "python"}))
    given = nbformat.v4.new_code_cell('run = ""\nprofile = ""\nhosts = ""', metadata={"tags": ["parameters"]})
    cells = [given, nbformat.v4.new_code_cell("import sys; print(sys.executable)")]
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=about), tmp_path / "in.ipynb")
    argv = [sys.executable, "-m", "runbook_lib.chain.execution", "in.ipynb", "out.ipynb", "--run", "any"]
    ours, theirs = os.pipe()  # the child ends when its parent's end closes
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env={**os.environ, "JUPYTER_PATH": str(tmp_path / "jupyter"), "PYTHONPATH": str(ROOT)},
        stdin=ours,
        capture_output=True,
        text=True,
        timeout=200,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done.stdout + done.stderr
    told = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells[-1].outputs[0].text
    assert told.strip() == sys.executable
