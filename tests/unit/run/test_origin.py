"""Who began a run, by which software: from git's own files, without a process, and without a secret."""

import subprocess
import sys
from pathlib import Path

import pytest
from local_run import new_run

from runbook_lib.run import model_card, origin

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def checkout(folder, **files):
    for name, text in files.items():
        file = folder / ".git" / name.replace("__", "/").replace("packed_refs", "packed-refs")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.mark.parametrize(
    "files",
    [
        {"HEAD": COMMIT + "\n"},
        {"HEAD": "ref: refs/heads/main\n", "refs__heads__main": COMMIT + "\n"},
        {"HEAD": "ref: refs/heads/main\n", "packed_refs": f"# pack-refs\n{COMMIT} refs/heads/main\n"},
    ],
)
def test_the_commit_of_a_checkout_is_read_however_git_keeps_it(tmp_path, files):
    assert origin.commit(checkout(tmp_path, **files)) == COMMIT
    assert origin.software(tmp_path).endswith(f", commit {COMMIT}")


@pytest.mark.parametrize(
    "files", [{}, {"HEAD": "nonsense"}, {"HEAD": "ref: refs/heads/main"}, {"HEAD": "ref: ../../x"}]
)
def test_what_is_no_checkout_has_no_commit(tmp_path, files):
    assert origin.commit(checkout(tmp_path, **files)) == ""
    assert "commit" not in origin.software(tmp_path)


@pytest.mark.process
def test_a_second_work_tree_is_read_too(tmp_path):
    git = [
        "git",
        "-C",
        str(tmp_path / "one"),
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@b",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", "init", "-q", str(tmp_path / "one")], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run([*git, "worktree", "add", "-q", "-b", "other/name", str(tmp_path / "two")], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert origin.commit(tmp_path / "one") == origin.commit(tmp_path / "two") == head


def test_a_run_records_who_began_it_by_what_and_how_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/bin/runbook", "run", "my profile.yaml", f"hf_{'aB3' * 12}"])
    (event,) = new_run(tmp_path, 8).journal.events("run created")
    assert event["command"] == "runbook run 'my profile.yaml' (not shown)"
    assert "@" in event["by"] and event["software"].startswith("embedding-runbook ")


CARD = """---
language: en
license: other
license_name: "gemma"
license_link: https://ai.example/terms  # theirs
---
# A model
```bibtex
@article{a, title={One}}
```
```python
print("@no{entry}")
```
"""


def test_licence_and_citation_of_a_model_are_those_of_its_card(tmp_path):
    (tmp_path / "README.md").write_text(CARD)
    card = model_card.read(tmp_path)
    assert card.licence == "other, gemma (https://ai.example/terms  # theirs)"
    assert card.citation == "@article{a, title={One}}"


@pytest.mark.parametrize("raw", [b"", b"no head\nlicense: mit\n", b"\xff\xfe\x00", b"---\nlicense:\n---\n"])
def test_a_card_without_them_gives_none(tmp_path: Path, raw: bytes):
    (tmp_path / "README.md").write_bytes(raw)
    assert model_card.read(tmp_path) == model_card.ModelCard()
    assert model_card.read(tmp_path / "nowhere") == model_card.ModelCard()


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# A model", "apache-2.0"),
        ("# A model\nSee its license: none here", ""),
        ("# A model\nlicense: in a sentence of its own", ""),
        ("---\nlicense:\n---\n", ""),
        (None, ""),
    ],
)
def test_its_licence_is_what_its_card_states(tmp_path: Path, card: str | None, licence: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert model_card.read(tmp_path).licence == licence
