"""Completion in real shells: verbs, options, profiles and runs, and no command hidden in a folder's name."""

import shutil
import subprocess

import pytest

from runbook_lib import cli

BASH = """source "$1"; COMP_WORDS=("${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]}-1))
_runbook; printf "%s\\n" "${COMPREPLY[@]}"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a profile and two runs; a third folder's name is a command."""
    monkeypatch.chdir(tmp_path)
    for name in ("demo-1", "demo-2", "$(touch hacked)"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def script(shell, folder, capsys):
    assert cli.main(["completion", shell]) == 0
    file = folder / f"completion.{shell}"
    file.write_text(capsys.readouterr().out)
    return file


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["sta"], {"status"}),
        (["re"], {"report", "restart"}),
        (["watch", "de"], {"demo-1", "demo-2"}),
        (["verify", "--qu"], {"--quick"}),
        (["run", "m"], {"mine.yaml"}),
        (["run", "n"], set()),
        (["map", ""], {"demo-1", "demo-2"}),
    ],
)
def test_bash_completes(folder, capsys, words, found):
    file = script("bash", folder, capsys)
    done = subprocess.run(
        ["bash", "-c", BASH, "-", str(file), "runbook", *words], capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == found, done.stderr
    assert not (folder / "hacked").exists()


@pytest.mark.process
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_takes_its_script(folder, capsys, shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    file = script(shell, folder, capsys)
    done = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.process
def test_fish_completes(folder, capsys):
    if not shutil.which("fish"):
        pytest.skip("no fish here")
    file = script("fish", folder, capsys)
    asked = f"source {file}; complete -C 'runbook watch de'; complete -C 'runbook noti'"
    done = subprocess.run(["fish", "--no-config", "-c", asked], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert {"demo-1", "demo-2"} <= set(lines) and any(line.startswith("notify\t") for line in lines)
