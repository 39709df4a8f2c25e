"""Peers in environments of their own, as a user installs them.

    python benchmarks/peers.py make FOLDER [onnx openvino fastembed]

Each gets FOLDER/<name>; `all.py --peers FOLDER` finds them there. What is there is left as it is. About 2 GB each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

# With torch named exactly where it is installed, and first: else another build of it comes with the others.
INSTALLED = {
    "onnx": (["torch==2.13.0"], ["torch==2.13.0", "sentence-transformers[onnx]"]),
    "openvino": (["torch==2.13.0"], ["torch==2.13.0", "sentence-transformers[openvino]"]),
    "fastembed": (["fastembed"],),
}
# torchvision comes along in whatever build there is; in another one than torch's it keeps the library from loading.
REMOVED = {"openvino": "torchvision"}
HOW = "python benchmarks/peers.py make FOLDER {name}, then --peers FOLDER (or --{name}-python PYTHON)"


def python_of(folder: Path) -> Path:
    """The Python of an environment."""
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def find(name: str, folder: Path | None, given: Path | None) -> str:
    """The Python of a peer's environment, given or made in `folder`; empty where there is none."""
    python = given or (python_of(folder / name) if folder else None)
    return str(python.absolute()) if python and python.exists() else ""


def make(folder: Path, name: str) -> None:
    """Make one environment, unless it is there. Raises CalledProcessError where something cannot be installed."""
    target = folder / name
    if (target / "ready").exists():
        print(f"{target}: there already")
        return
    print(f"{target}: installing {', '.join(INSTALLED[name][-1])}", flush=True)
    venv.create(target, with_pip=True)
    for packages in INSTALLED[name]:
        subprocess.run([str(python_of(target)), "-m", "pip", "install", "--quiet", *packages], check=True)
    if name in REMOVED:
        argv = [str(python_of(target)), "-m", "pip", "uninstall", "--quiet", "--yes", REMOVED[name]]
        subprocess.run(argv, check=True)
    (target / "ready").touch()


def main() -> None:
    """Make those that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["make"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", default=[*INSTALLED], metavar="NAME", help=f"of {', '.join(INSTALLED)}")
    told = parser.parse_args()
    if unknown := {*told.names} - {*INSTALLED}:
        parser.error(f"no peer {', '.join(sorted(unknown))}: there are {', '.join(INSTALLED)}")
    for name in told.names:
        make(told.folder, name)


if __name__ == "__main__":
    main()
