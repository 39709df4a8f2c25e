"""Secrets that slip into a profile, a note or a run's name: refused, not shown, and never written down."""

import subprocess
from pathlib import Path

import pytest
from readme import placed_by_the_readme

from runbook_lib import cli
from runbook_lib.errors import ProfileError
from runbook_lib.profile import profile, tokens
from runbook_lib.run import opening

BASE = "run: a\ncorpus: {path: corpus.jsonl}\nmodel: {name: owner/model}\nhosts: [{name: here, kind: local}]\n"
MARK = "CANARY"
# Each as it might be pasted; every one has MARK in it.
SECRETS = [
    "hf_CANARYabcdefghijklmnopqrstuvwx",
    "hf_CANARYshort",
    "hf_canaryCANARYcanary-canarycanary",
    " hf_CANARYabcdefghijklmnopqrst ",
    "hf_CANARYabcdefghijk lmnopqrstuvw",
    "api_org_CANARYabcdefghijklmnopqrstuv",
    "Bearer hf_CANARYabcdefghijklmnopqrst",
    "Authorization: Bearer CANARYabcdefghijklmn0pqrst",
    "ghp_CANARYabcdefghijklmnopqrstuvwxyz0123",
    "github_pat_11CANARY0abcdefghijklmnop",
    "glpat-CANARYabcdefghij0123",
    "sk-proj-CANARYabcdefghijklmno0123456789",
    "xoxb-CANARY-1234567890",
    "eyJhbGciOiJCANARY.eyJzdWIiOiIxMjM0.SflKxwRJSMeKK",
    "CANARYhunter2",
    "correct horse CANARY staple",
    "CANARY.horse",
    "aB3/CANARY+9fQ==",
    "/CANARY9j4AAQSkZJRgABAQ",
    "~CANARYp4ss!",
    "me:CANARYhunter2",
    "me:CANARYhunter2@gpu-box",
    "https://me:CANARYhunter2@hub.example/x",
    "password=CANARYhunter2",
    '{"password": "CANARYhunter2"}',
    "-----BEGIN OPENSSH PRIVATE KEY----- CANARYb3Blbn",
    "CANARY\tpassword",
    "CANARY" + "x" * 5000,
]
# Those in a form that gives them away under any key, where a person might as well mean text.
KNOWN = [text for text in SECRETS if tokens.looks_secret(text)]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def refusal(tmp_path: Path, text: str, **overrides: str) -> str:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ProfileError) as refused:
        profile.load(tmp_path / "p.yaml", {key.replace("__", "."): value for key, value in overrides.items()})
    return str(refused.value)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", ["hf_token", "credentials", "--set", "--set host"])
def test_a_secret_in_the_place_of_its_file_is_refused_and_not_shown(tmp_path: Path, key: str, secret: str) -> None:
    text, overrides = BASE, {}
    if key == "hf_token":
        text += f"hf_token: {quoted(secret)}\n"
    elif key == "credentials":
        text = text.replace("kind: local", f"credentials: {quoted(secret)}")
    elif key == "--set":
        overrides = {"hf_token": quoted(secret)}
    else:
        text, overrides = text.replace("kind: local", "kind: ssh"), {"hosts__here__credentials": quoted(secret)}
    message = refusal(tmp_path, text, **overrides)
    assert MARK not in message
    assert "token" in message or "credentials" in message or "a tab" in message


@pytest.mark.parametrize("secret", KNOWN)
@pytest.mark.parametrize(
    "key",
    ["corpus.path", "questions", "model.name", "output.folder", "output.merged", "hosts.here.workdir", "runs", "run",
     "hosts.here.environment", "hosts.here.requirements", "hosts.here.wheels", "hosts.here.ssh", "model.revision",
     "corpus.text", "nonsense"],
)  # fmt: skip
def test_a_token_is_refused_under_every_key(tmp_path: Path, key: str, secret: str) -> None:
    assert MARK not in refusal(tmp_path, BASE, **{key.replace(".", "__"): quoted(secret)})


def test_most_forms_are_known_by_themselves() -> None:
    assert len(KNOWN) >= 15


@pytest.mark.parametrize("first", ["*", "&", "!", "|", ">", "%", "@", "`", '"', "'", "[", "{", "- ", "? ", ": "])
def test_a_password_that_means_something_in_yaml_is_not_shown(tmp_path: Path, first: str) -> None:
    slip = BASE.replace("kind: local", "kind: ssh").replace("[{", "\n  - {")
    for text in (BASE + f"hf_token: {first}CANARY9\n", slip.replace("ssh}", f"ssh, credentials: {first}CANARY9}}")):
        assert MARK not in refusal(tmp_path, text)


@pytest.mark.parametrize("value", ["123456789123", "0.5", "true", "[CANARY]", "{CANARY: CANARY}", "2026-01-01"])
def test_what_is_no_text_is_not_shown_either(tmp_path: Path, value: str) -> None:
    message = refusal(tmp_path, BASE + f"hf_token: {value}\n")
    assert MARK not in message and value not in message


def test_a_token_alone_or_as_a_key_is_not_shown(tmp_path: Path) -> None:
    assert MARK not in refusal(tmp_path, f"{SECRETS[0]}\n")
    assert MARK not in refusal(tmp_path, BASE + f"{SECRETS[0]}: x\n")


@pytest.mark.parametrize(
    "path",
    ["hf.token", "../.credentials/hf.token", "~/.credentials/box.credentials", "token", "a.json", "/srv/keys/hf.txt",
     "there/already", "there/with a blank", "new/tensor01.credentials", "./hf_token", "${HOME}/x.key"],
)  # fmt: skip
def test_a_path_is_taken_whether_or_not_its_file_is_there(tmp_path: Path, path: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "p.yaml").write_text(BASE + f"hf_token: {quoted(path)}\n")
    assert profile.load(tmp_path / "p.yaml").hf_token


def test_a_file_that_is_there_may_have_any_name(tmp_path: Path) -> None:
    for secret in ("hf_CANARYabcdefghijklmnopqrstuvwx", "hunter2"):
        (tmp_path / secret).write_text("x")
        (tmp_path / "p.yaml").write_text(BASE + f"hf_token: {secret}\nquestions: {secret}\n")
        assert profile.load(tmp_path / "p.yaml").hf_token == tmp_path / secret


def test_a_runs_own_copy_is_read_where_the_files_of_its_secrets_are_gone(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "mine").write_text("x")
    (tmp_path / "p.yaml").write_text(BASE + "hf_token: keys/mine\n")
    this = opening.create(profile.load(tmp_path / "p.yaml"), "one")
    (tmp_path / "keys" / "mine").unlink()
    (tmp_path / "keys").rmdir()
    assert opening.open_folder(this.folder).profile.hf_token == tmp_path / "keys" / "mine"


def test_ordinary_words_are_no_secrets() -> None:
    for text in (
        "title: {title} | text: {text}", "Represent this sentence for searching relevant passages: {text}",
        "google/embeddinggemma-300m", "hf_models/all-MiniLM-L6-v2", "data/sk-learn-embeddings-of-2025.jsonl",
        "gpu@10.0.0.7", "me@fe80::1", "conda:mapper_gpu", "hf_token.txt", "https://example.org:8080/a@b", "/data/a:b",
        "basic understanding of representations",
    ):  # fmt: skip
        assert not tokens.looks_secret(text), text


def test_a_note_or_a_name_with_a_token_in_it_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(BASE)
    this = opening.create(profile.load(tmp_path / "p.yaml"), "one")
    before = (this.folder / "journal.jsonl").read_bytes()
    with pytest.raises(ProfileError, match="looks like a secret"):
        this.note(f"put {SECRETS[0]} into the file")
    with pytest.raises(ProfileError, match="looks like a secret") as refused:
        opening.create(this.profile, SECRETS[0])
    assert MARK not in str(refused.value)
    assert (this.folder / "journal.jsonl").read_bytes() == before
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["one"]


@pytest.mark.parametrize("secret", KNOWN[:6])
def test_the_command_line_shows_and_writes_no_token(tmp_path: Path, secret: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(BASE)
    for more in (["--set", f"hf_token={quoted(secret)}"], ["--set", secret], ["--run", secret]):
        assert cli.main(["check", "p.yaml", *more]) == 1
    assert cli.main(["check", secret]) == 1
    said = capsys.readouterr()
    assert MARK not in said.out + said.err
    assert [path.name for path in tmp_path.iterdir()] == ["p.yaml"]


# ----------------------------------------------------------------------------------------------- what git would take

ROOT = Path(__file__).parents[3]


@pytest.mark.process
def test_git_would_take_no_secret_and_no_result_that_the_readme_or_a_profile_places(tmp_path: Path) -> None:
    wanted = placed_by_the_readme()
    for file in (ROOT / "profiles").glob("*.yaml"):
        found = profile.load(file)
        wanted |= {found.runs / "any" / "plan.json", found.output.folder / found.output.merged}
        wanted |= {found.output.backups / "any.pkl", *([found.hf_token] if found.hf_token else [])}
        wanted |= {host.credentials for host in found.hosts if host.credentials}
        wanted |= {Path(host.workdir) / "any" / "plan.json" for host in found.hosts if host.kind == "local"}
    inside = sorted(str(path.relative_to(ROOT)) for path in wanted if path.is_relative_to(ROOT))
    assert len(inside) >= 12
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"], cwd=tmp_path, input="\n".join(inside), capture_output=True, text=True
    )
    assert sorted(done.stdout.splitlines()) == inside


@pytest.mark.process
def test_nothing_that_the_project_keeps_is_ignored() -> None:
    done = subprocess.run(["git", "ls-files", "-ci", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == ""
