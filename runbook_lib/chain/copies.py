"""JupyterLab on copies of the notebooks, for one profile: what is executed there changes no file of the project."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

from worker.files import make_folder, write_atomic

from ..errors import RunbookError
from ..profile.profile import Profile
from ..report import notebook_file
from ..run.disk import explain_disk_errors
from ..run.run import PHASES
from ..run.run_mark import PROFILE
from .attempts import NOTEBOOKS

KERNELS = ".kernels"  # beside the copies: the Python of this command, whatever kernels are installed under its name

OF = ".profile"  # beside them too: whose they are


@explain_disk_errors("copying the notebooks")
def of(profile: Profile) -> Path:
    """Return the folder of a profile's notebooks: copies with this profile as their parameter; those there are kept."""
    folder = _folder(profile)
    make_folder(folder)
    write_atomic(folder / OF, str(profile.path.absolute()).encode())
    for phase in PHASES:
        if not (folder / f"{phase}.ipynb").exists():
            notebook = notebook_file.read(NOTEBOOKS / f"{phase}.ipynb")
            _set_profile(notebook, profile.path.absolute())
            notebook_file.write(folder / f"{phase}.ipynb", notebook)
    kernel = {"argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "language": "python"}
    place = folder / KERNELS / "kernels" / "python3" / "kernel.json"
    make_folder(place.parent)
    write_atomic(place, json.dumps({**kernel, "display_name": "Python 3 (of runbook)"}).encode())
    return folder


def _folder(profile: Profile) -> Path:
    """Return a folder that holds no other profile's copies: two may have one name, and share the folder of runs."""
    lab, path = profile.runs / "lab", str(profile.path.absolute())
    if (lab / PROFILE).exists():
        raise RunbookError(
            f"{lab} is a run, and copies of the notebooks would lie in it. Next: name that run otherwise"
        )
    folder = lab / profile.path.stem
    if (folder / OF).exists() and (folder / OF).read_bytes() != path.encode():
        return folder.with_name(f"{folder.name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}")
    return folder


def _set_profile(notebook: object, path: Path) -> None:
    for cell in notebook.cells:  # type: ignore[attr-defined]
        if "parameters" in cell.metadata.get("tags", ()):
            first, *others = cell.source.splitlines()
            if not first.startswith("profile: str = "):
                raise RunbookError(f"{NOTEBOOKS}: expected `profile` as the first parameter, found {first!r}")
            cell.source = "\n".join([f"profile: str = {str(path)!r}  # the YAML file with what you chose", *others])


def command(profile: Profile, folder: Path, more: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of JupyterLab and its environment.

    What it shows is the folder that holds the profile and the runs; the copies alone, if that were the whole disk.
    """
    root = Path(os.path.commonpath([folder, profile.path.absolute().parent]))
    root = folder if root == Path(root.anchor) else root
    argv = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    argv += [str(folder / f"{PHASES[0]}.ipynb"), *more]
    paths = [str(folder / KERNELS), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    return argv, {**os.environ, "JUPYTER_PATH": os.pathsep.join(paths)}
