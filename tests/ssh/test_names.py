"""Names with anything in them: refused when they are read, in plain words, or right the whole way through real SSH."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import fleet
import pytest
import wired
import yaml
from hosts_by_ssh import linked, profile_text
from waiting import wait_for

from runbook_lib import cli
from runbook_lib.errors import DataError, HostError, ProfileError, RunbookError
from runbook_lib.hosts import hosts
from runbook_lib.hosts.bundle import bring_bundle
from runbook_lib.hosts.content import file_content, json_content
from runbook_lib.hosts.ssh import link
from runbook_lib.profile import profile
from runbook_lib.run import opening
from worker.files import sha256_file

SEED = 60
PIECES = [*"abz09_.-~ '\"`$(){}[]<>|&;*?!#%^=+,:@\\", "$HOME", "${IFS}", "$(touch PWNED)", "`touch PWNED`",
          "; touch PWNED;", "é", "東京", "🚀", "\u202e", "\u00a0", "\u200d", "%h", "%s", "$$", "!!", "||", "&&", ">x",
          "-rf", "~root"]  # fmt: skip
FOLDERS = [
    "a b",
    " a",
    "a ",
    "it's",
    '"quoted"',
    "\\",
    "a\\nb",
    "$(touch PWNED)",
    "`touch PWNED`",
    "; touch PWNED #",
    "&& touch PWNED",
    "| touch PWNED",
    "> PWNED",
    "$HOME",
    "${HOME}",
    "-rf",
    "--root",
    "-",
    "*",
    "?[a-z]{a,b}",
    "a/~/b",
    "~root",
    "!!",
    "%h %i %%",
    "#hash",
    "a:b",
    "é",
    "e\u0301",
    "東京/データ",
    "🚀",
    "\u202etxt.exe",
    "x" * 250,
    "東" * 83,
    "/".join(["d" * 100] * 8),
    "a//b",
    "a/./b",
    "a/../b",
    "a/",
]
# A profile is read by people: in none of its names is there a control character, a line break or half a character.
UNREADABLE = ["a\nb", "a\rb", "a\tb", "\x1b[2J", "a\x00b", "\x7f", "\x9b31m", "\u2028", "\u2029"]


def drawn(chance: random.Random) -> str:
    """A folder of one to three parts, each of one to twelve pieces that mean something somewhere."""
    parts = ("".join(chance.choices(PIECES, k=chance.randint(1, 12))) for _ in range(chance.randint(1, 3)))
    return "/".join(part for part in parts)


FOLDERS += [drawn(random.Random(SEED + i)) for i in range(16)]


def loaded(folder: Path, **host: object) -> profile.HostSpec:
    """The host of a profile with these keys, as the profile reads it."""
    entry = {"name": "tensor01", "kind": "ssh", "slots": 1, "device": "cpu", **host}
    value = {"run": "t", "corpus": {"path": "c.json"}, "model": {"name": "a/b"}, "hosts": [entry]}
    (folder / "p.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    return profile.load(folder / "p.yaml").hosts[0]


def executed(box: fleet.Host) -> list[Path]:
    """What a shell would have left behind, had one read a name."""
    places = [box.home, Path.cwd(), Path("/")]
    return [*(place / "PWNED" for place in places if (place / "PWNED").exists()), *box.home.rglob("PWNED")]


@pytest.fixture(scope="module")
def way(ssh_fleet: fleet.Fleet) -> Iterator[hosts.Host]:
    """One connection for all of these hosts."""
    with linked(ssh_fleet.hosts["tensor01"]) as host:
        yield host


@pytest.fixture
def box(ssh_fleet: fleet.Fleet) -> Iterator[fleet.Host]:
    found = ssh_fleet.hosts["tensor01"]
    yield found
    shutil.rmtree(found.home / "names", ignore_errors=True)
    assert executed(found) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: ascii(folder[:40]))
def test_a_folder_of_any_name_works_the_whole_way(
    way: hosts.Host, box: fleet.Host, tmp_path: Path, folder: str
) -> None:
    chosen = loaded(tmp_path, workdir=f"~/names/{folder}")
    assert chosen.workdir == f"~/names/{folder}"
    host = hosts.Host(chosen, "r", way.transport)
    there = host.folder
    assert Path(os.path.normpath(there.root)).is_relative_to(Path(way.transport.home, "names"))
    outside = box.home / "names" / folder / "r"

    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"small")
    large.write_bytes(os.urandom(200_000))
    for source, name in ((small, "a small one"), (large, "shards/$(touch PWNED) 'large'")):
        assert host.put(there.root / name, file_content(source))
        assert not host.put(there.root / name, file_content(source))
        assert (outside / name).read_bytes() == source.read_bytes()
        assert host.get(there.root / name, tmp_path / "home" / source.name, sha256_file(source))
        assert host.sha256(there.root / name) == sha256_file(tmp_path / "home" / source.name)
    assert host.read(there.root / "a small one") == b"small"
    assert dict(host.files()) == {"a small one": 5, "shards/$(touch PWNED) 'large'": 200_000}

    assert host.facts("token-1")["writable"] is True
    assert host.facts("token-1")["workdir"] == str(host.workdir)
    assert bring_bundle(host) > 0
    assignment = wired.assignment([], run="r", host=host.name, python=sys.executable)
    host.put(there.mark, json_content({"id": assignment["run_id"]}))
    host.put(there.assignment(host.name), json_content(assignment))
    log = there.log("host_$(touch PWNED)")
    argv = [sys.executable, "-m", "worker", "supervise", "--root", str(there.root), "--host", host.name]
    identity = host.start(argv, log, there.root)
    wait_for(lambda: not host.alive(identity), "the supervisor of no slots ends")
    assert host.tail(log).splitlines()[-1].endswith("supervisor of tensor01: ends; ")
    assert "0 slots" in host.follow(log, 0)[0]
    reading = host.poll()
    assert reading.assigned and reading.supervisor.slots == {} and not reading.supervisor_alive

    done = host.run([sys.executable, "-c", "open('made here', 'w').close()"], 30, cwd=there.root)
    assert done.exit_code == 0 and (outside / "made here").exists()
    host.remove(there.root / "shards")
    assert "shards/$(touch PWNED) 'large'" not in dict(host.files())
    host.remove(there.root)
    assert host.files() == [] and not outside.exists() and outside.parent.exists()


@pytest.mark.parametrize("text", UNREADABLE, ids=ascii)
def test_a_name_that_nobody_can_read_is_refused_in_the_profile_by_its_line(tmp_path: Path, text: str) -> None:
    for key in ("workdir", "environment"):
        with pytest.raises(ProfileError) as caught:
            loaded(tmp_path, **{key: f"/srv/{text}/x"})
        said = str(caught.value)
        assert f"hosts.0.{key}" in said and text not in said and said.isprintable() is ("\n" not in said)


@pytest.mark.parametrize("workdir", ["relative", "./x", "~root/x", "-rf", "$HOME/x", "", " /x", "C:\\x", "~"])
def test_a_folder_that_is_not_absolute_is_refused_in_the_profile(tmp_path: Path, workdir: str) -> None:
    with pytest.raises(ProfileError, match=r"hosts\.0\.workdir"):
        loaded(tmp_path, workdir=workdir)


def test_a_folder_with_two_slashes_stays_in_the_home_folder(way: hosts.Host, tmp_path: Path) -> None:
    for workdir in ("~//names", "~///names", "~/./names", "~/names"):
        host = hosts.Host(loaded(tmp_path, workdir=workdir), "r", way.transport)
        assert host.workdir == Path(way.transport.home, "names")


def test_a_name_too_long_for_the_disk_is_told_with_the_name_of_the_host(way: hosts.Host, tmp_path: Path) -> None:
    host = hosts.Host(loaded(tmp_path, workdir="~/names/" + "x" * 256), "r", way.transport)
    with pytest.raises(HostError, match=r"^tensor01: .*File name too long"):
        host.put(host.folder.root / "a", json_content({}))
    found = host.facts("token-1")
    assert found["writable"] is False and "File name too long" in found["why_not"]


BAD = ["", " ", "a b", "a'b", 'a"b', "$(touch PWNED)", "`touch PWNED`", "a;b", "a\nb", "a\n", "\na", "-rf", "--new",
       "../x", "/abs", ".", "..", ".hidden", "a/b", "a\\b", "é", "東京", "*", "~", "~root", "a\x1b[2J", "a\x00b",
       "\u202ea", "a%b", "a:b", "a@b", "x" * 101, "\ud800"]  # fmt: skip


@pytest.mark.parametrize("name", [*BAD, "x" * 65], ids=lambda name: ascii(name[:20]))
def test_the_name_of_a_host_is_letters_digits_and_little_else(tmp_path: Path, name: str) -> None:
    if name == "\ud800":  # no file holds it; a YAML escape may
        text = profile_text([], tmp_path) + '  - {name: "\\uD800", kind: local}\n'
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(ProfileError, match=r"hosts\.0\.name|p\.yaml"):
            profile.load(tmp_path / "p.yaml")
        return
    with pytest.raises(ProfileError, match=r"hosts\.0\.name"):
        loaded(tmp_path, name=name)


@pytest.mark.parametrize("name", BAD[1:], ids=lambda name: ascii(name[:20]))
def test_the_name_of_a_run_is_letters_digits_and_little_else(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded(tmp_path)
    choices = profile.load(tmp_path / "p.yaml")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ProfileError, match="letters, digits"):
        opening.create(choices, name)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "p.yaml", f"--run={name}"]) == 1
    assert cli.main(["run", "p.yaml", f"--run={name}"]) == 1
    said = capsys.readouterr().err
    assert "letters, digits" in said and said.replace("\n", "").isprintable()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", BAD[1:], ids=lambda name: ascii(name[:20]))
def test_a_name_on_the_command_line_that_nothing_has_is_said_in_plain_words(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded(tmp_path)
    this = opening.create(profile.load(tmp_path / "p.yaml"), "mine")
    monkeypatch.chdir(tmp_path)
    if name.strip():
        with pytest.raises(ProfileError, match="no host"):
            opening.limited(this, name)
    with pytest.raises(DataError):
        opening.find(name)
    assert cli.main(["status", "--", name]) == 1
    said = capsys.readouterr().err
    assert said.replace("\n", "").isprintable() and "Traceback" not in said


def test_the_prefix_of_runs_is_checked_in_the_profile(tmp_path: Path) -> None:
    for name in [*BAD[1:-1], "x" * 61]:
        value = {"run": name, "corpus": {"path": "c.json"}, "model": {"name": "a/b"}, "hosts": [{"name": "a"}]}
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
        with pytest.raises(ProfileError, match="run"):
            profile.load(tmp_path / "p.yaml")


ENVIRONMENTS = ["my env", "it's", '"best"', "$(touch PWNED)", "`touch PWNED`", "; touch PWNED;", "$HOME", "*", "東京",
                "\\", "a\\nb", "-rf", "~root", "🚀 x", "%h"]  # fmt: skip


NOTED = """#!/bin/sh
printf '%s\\n' "$0" >> "$HOME/names/used"
exec "{python}" "$@"
"""


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize("end", ["", "/bin/python"])
def test_the_path_of_an_environment_is_read_by_no_shell(box: fleet.Host, tmp_path: Path, name: str, end: str) -> None:
    used = box.home / "names" / "used"
    python = box.home / "names" / name / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(NOTED.format(python=sys.executable))
    python.chmod(0o755)
    chosen = loaded(tmp_path, environment=f"~/names/{name}{end}", credentials=str(box.credentials))
    host = hosts.connect(chosen, "r")
    try:
        assert host.python == f"{host.transport.home}/names/{name}/bin/python"
        done = host.run([host.python, "-c", "import sys; print(sys.argv[1:])", "$(touch PWNED)", "*", ""], 30)
        assert (done.exit_code, done.out) == (0, "['$(touch PWNED)', '*', '']\n")
    finally:
        hosts._hosts.pop((chosen, "r"))
        link.close_all()
    # The far end ran on it from the start, and so did the command.
    assert used.read_text().splitlines() == [f"{host.transport.home}/names/{name}/bin/python"] * 2


@pytest.mark.parametrize("environment", [" x", "-x", "", "\tx", "x" * 1001])
def test_an_environment_that_cannot_be_one_is_refused_in_the_profile(tmp_path: Path, environment: str) -> None:
    with pytest.raises(ProfileError, match=r"hosts\.0\.environment"):
        loaded(tmp_path, environment=environment)


@pytest.mark.parametrize(
    "environment", ["conda:$(touch PWNED)", "conda:", "conda:-n", "conda:../x", "relative", "~x/y"]
)
def test_an_environment_that_cannot_be_found_is_told_and_nothing_is_run(
    way: hosts.Host, box: fleet.Host, tmp_path: Path, environment: str
) -> None:
    host = hosts.Host(loaded(tmp_path, environment=environment), "r", way.transport)
    with pytest.raises(RunbookError, match=r"^tensor01: ") as caught:
        host.python  # noqa: B018
    assert len(str(caught.value)) < 500


def test_a_command_s_arguments_are_taken_as_they_are(way: hosts.Host, box: fleet.Host) -> None:
    argv = [
        "",
        " ",
        "'",
        '"',
        "$(touch PWNED)",
        "`touch PWNED`",
        "\n",
        "\\",
        "*",
        "~",
        "-c",
        "é東🚀",
        "\x1b[2J",
        "; touch PWNED",
    ]
    done = way.run([sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *argv], 30)
    assert done.out == ascii(argv) + "\n"
    with pytest.raises(HostError, match=r"^tensor01: "):
        way.run(["$(touch PWNED)"], 30)
    with pytest.raises(HostError, match=r"^tensor01: "):
        way.run([sys.executable, "a\x00b"], 30)
