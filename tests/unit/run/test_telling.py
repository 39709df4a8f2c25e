"""Telling: messages to a real web server, a real mail server and a real command; once each, and with no secret."""

import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sinks
from made_up import run_folder
from small_run import runbook_here

from runbook_lib.errors import ProfileError
from runbook_lib.profile import profile as profiles
from runbook_lib.profile import secret
from runbook_lib.profile.notify_spec import NotifySpec
from runbook_lib.run import sending, telling

DONE = telling.Message("done", "All 20 documents are embedded.", "runbook verify made-up-1", "done 1")
TOKEN = "tk-AbCd1234EfGh"


def with_notify(tmp_path, **keys):
    run = run_folder(tmp_path).run
    return replace(run, profile=replace(run.profile, notify=NotifySpec(**keys)))


def urls(folder: Path, *lines: str) -> Path:
    file = folder / "notify.urls"
    file.write_text("# mine\n" + "\n".join(lines) + "\n")
    file.chmod(0o600)
    return file


def outcomes(run):
    return {line["to"]: line["why"] for line in telling.told(run) if "to" in line}


@pytest.mark.process
def test_a_web_server_a_mail_server_and_a_command_get_the_message_with_sentence_and_command(tmp_path):
    with sinks.http() as web, sinks.smtp() as mail:
        taker = [sys.executable, "-c", "import os,sys;open(sys.argv[1],'w').write(os.environ['RUNBOOK_EVENT']+'|'+"
                 "os.environ['RUNBOOK_TITLE']+'|'+sys.stdin.read())", str(tmp_path / "taken")]  # fmt: skip
        file = urls(
            tmp_path,
            f"json://127.0.0.1:{web.port}/{TOKEN}",
            f"mailto://127.0.0.1:{mail.port}?from=runs@lab.example&to=me@lab.example&mode=insecure",
        )
        run = with_notify(tmp_path, urls=file, command=tuple(taker))
        assert telling.tell(run, DONE).wait(60) == 0
    assert outcomes(run) == {"address 1 (json)": "", "address 2 (mailto)": "", "command": ""}
    ((path, body),) = web.got
    assert path == f"/{TOKEN}"
    sent = json.loads(body)
    assert sent["title"] == f"runbook: {run.name} is done"
    assert "All 20 documents are embedded." in sent["message"] and "runbook verify made-up-1" in sent["message"]
    ((to, content),) = mail.got
    assert to == "me@lab.example" and f"{run.name} is done" in content.replace("\r\n ", " ")
    event, title, text = (tmp_path / "taken").read_text().split("|")
    assert (event, title) == ("done", sent["title"]) and "runbook verify made-up-1" in text
    assert not [file for file in run.folder.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]


@pytest.mark.process
def test_a_message_is_sent_once_and_a_topic_is_quiet_for_an_hour(tmp_path):
    with sinks.http() as web:
        run = with_notify(tmp_path, urls=urls(tmp_path, f"json://127.0.0.1:{web.port}/a"))
        assert telling.tell(run, replace(DONE, topic="t")).wait(60) == 0
        assert telling.tell(run, DONE) is None
        assert telling.tell(run, replace(DONE, key="done 2", topic="t")) is None
        assert telling.tell(run, replace(DONE, key="done 3", topic="u")).wait(60) == 0
    assert len(web.got) == 2


@pytest.mark.parametrize(("put_back_s", "told"), [(600.0, False), (10 * 86400.0, True)])
def test_a_clock_that_was_put_back_keeps_a_matter_quiet_for_an_hour_and_no_longer(
    tmp_path, monkeypatch, put_back_s, told
):
    run, now = with_notify(tmp_path, command=("true",)), time.time()
    monkeypatch.setattr(sending, "start", lambda letter, without: letter)
    assert telling.tell(run, replace(DONE, topic="t"))
    monkeypatch.setattr(telling.time, "time", lambda: now - put_back_s)
    assert bool(telling.tell(run, replace(DONE, key="done 2", topic="t"))) == told


def test_an_event_that_is_not_wanted_or_nobody_to_tell_starts_nothing(tmp_path):
    run = with_notify(tmp_path, command=("true",), events=("failed",))
    assert telling.tell(run, DONE) is None
    assert telling.tell(with_notify(tmp_path / "b"), DONE) is None
    assert not run.told_file.exists()


@pytest.mark.process
def test_a_server_that_fails_for_a_moment_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(sending, "WAIT_S", 0.01)
    with sinks.http() as web:
        web.refuse = 1
        letter = telling.letter(NotifySpec(urls=urls(tmp_path, f"json://127.0.0.1:{web.port}/a")), "r", DONE)
        assert sending.send(letter) == [sending.Outcome("address 1 (json)")]
    assert len(web.got) == 1


@pytest.mark.process
def test_a_server_that_hangs_holds_nobody_up_and_the_reason_shows_no_piece_of_the_address(tmp_path):
    with sinks.http() as web:
        web.delay_s = 30
        file = urls(tmp_path, f"json://user:{TOKEN}@127.0.0.1:{web.port}/path-{TOKEN}?rto=60")
        run = with_notify(tmp_path, urls=file, timeout_s=2.0)
        began = time.monotonic()
        child = telling.tell(run, DONE)
        assert time.monotonic() - began < 1.5
        child.kill()  # it would try three times
        child.wait()
        quick = replace(telling.letter(run.profile.notify, "r", DONE), tries=1)
        (outcome,) = sending.send(quick)
    assert outcome.why == "no answer within 2 s"


@pytest.mark.process
def test_what_cannot_be_sent_says_why_without_a_secret(tmp_path):
    gone = telling.letter(NotifySpec(urls=urls(tmp_path, f"json://127.0.0.1:9/{TOKEN}")), "r", DONE)
    odd = telling.letter(NotifySpec(urls=urls(tmp_path, f"nosuch://{TOKEN}")), "r", DONE)
    failing = telling.letter(NotifySpec(command=(sys.executable, "-c", "raise SystemExit('no luck')")), "r", DONE)
    missing = telling.letter(NotifySpec(command=("/no/such/program",)), "r", DONE)
    (why, unknown, exited, none) = (
        sending.send(replace(each, tries=1))[0].why for each in (gone, odd, failing, missing)
    )
    assert why and TOKEN not in why
    assert "does not know such an address" in unknown and TOKEN not in unknown
    assert "exit code 1: no luck" in exited
    assert none == "/no/such/program: No such file or directory"


def test_a_reason_shows_no_password_as_it_is_meant_either():
    url = "mailto://me:p%40ss%20word@mail.lab.example"
    said = "login of me with p@ss word refused (mailto://me:p@ss word@mail.lab.example)"
    assert "p@ss" not in sending._hidden(said, url)


@pytest.mark.process
def test_the_command_of_a_trial_is_given_no_variable_of_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIAL_URLS", f"json://127.0.0.1:9/{TOKEN}")
    program = "import os, sys; sys.exit('given' if 'TRIAL_URLS' in os.environ else 0)"
    spec = NotifySpec(urls_env="TRIAL_URLS", command=(sys.executable, "-c", program))
    letter = replace(telling.letter(spec, "r", DONE), urls=(), tries=1)
    assert sending.send(letter) == [sending.Outcome("command")]


def test_a_message_holds_no_secret_no_control_character_and_is_short(tmp_path):
    file = urls(tmp_path, f"json://127.0.0.1:9/{TOKEN}")
    spec = NotifySpec(urls=file)
    spoken = replace(DONE, sentence=f"see hf_{'aB3' * 12} and \x1b[31m" + "x" * 5000)
    letter = telling.letter(spec, "r", spoken)
    assert "hf_aB3" not in letter.body and "\x1b" not in letter.body and len(letter.body) < telling.LONGEST + 200
    assert letter.body.endswith(": runbook verify made-up-1")


def test_an_error_of_the_addresses_is_kept_and_raises_nothing(tmp_path):
    run = with_notify(tmp_path, urls=tmp_path / "no-such.urls")
    assert telling.tell(run, DONE) is None
    (why,) = outcomes(run).values()
    assert "there is no such file" in why


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("ntfy://host/topic", 0o644, "other users can get at it"),
        ("# nothing\n", 0o600, "seen 0"),
        ("just-a-token", 0o600, "address 1 is none"),
        ("ntfy://a/b\nwith a blank://x", 0o600, "address 2 is none"),
    ],
)
def test_a_file_of_addresses_that_cannot_be_used_is_refused_without_showing_it(tmp_path, content, mode, words):
    file = tmp_path / "n.urls"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(ProfileError, match=re.escape(words)) as refused:
        NotifySpec(urls=file).addresses()
    assert "just-a-token" not in str(refused.value)


def test_addresses_come_from_an_environment_variable_too(monkeypatch):
    monkeypatch.setenv("MY_URLS", "ntfy://a/b\nntfy://c/d")
    assert [each.reveal() for each in NotifySpec(urls_env="MY_URLS").addresses()] == ["ntfy://a/b", "ntfy://c/d"]
    with pytest.raises(ProfileError, match="no such environment variable"):
        NotifySpec(urls_env="NOT_THERE").addresses()


PROFILE = """run: x
corpus: {path: c.jsonl}
model: {name: owner/model}
hosts: [{name: here, kind: local}]
notify: NOTIFY
"""


def loaded(tmp_path: Path, notify: str) -> profiles.Profile:
    (tmp_path / "p.yaml").write_text(PROFILE.replace("NOTIFY", notify))
    return profiles.load(tmp_path / "p.yaml")


def test_no_process_that_we_start_inherits_the_variable_of_addresses(monkeypatch):
    monkeypatch.setenv("MY_OTHER_URLS", "ntfy://a/b\nntfy://c/d")
    assert "MY_OTHER_URLS" not in secret.variables()
    NotifySpec(urls_env="MY_OTHER_URLS")
    assert "MY_OTHER_URLS" in secret.variables()


def test_a_profile_names_files_commands_and_events_and_is_written_back_the_same(tmp_path):
    found = loaded(tmp_path, '{urls: n.urls, command: [sh, -c, "mail me"], events: [failed], timeout_s: 5}')
    assert found.notify == NotifySpec(tmp_path / "n.urls", None, ("sh", "-c", "mail me"), ("failed",), 5.0)
    (tmp_path / "as-used.yaml").write_text(profiles.as_yaml(found))
    assert profiles.load(tmp_path / "as-used.yaml").notify == found.notify
    assert not loaded(tmp_path, "{}").notify.wanted


@pytest.mark.parametrize(
    "notify",
    [
        "{urls: 'ntfy://me:hunter2hunter2@ntfy.lab/topic'}",
        "{urls: ['ntfy://tk_AbCd1234@ntfy.lab/topic']}",
        "{command: [curl, 'https://hooks.slack.com/services/T000/B000/hunter2hunter2']}",
        "{command: [curl, 'https://api.telegram.org/bot123456789:hunter2hunter2hunter2/send']}",
    ],
)
def test_an_address_in_the_profile_itself_is_refused_and_not_shown(tmp_path, notify):
    with pytest.raises(ProfileError) as refused:
        loaded(tmp_path, notify)
    assert "hunter2" not in str(refused.value) and "tk_AbCd1234" not in str(refused.value)


@pytest.mark.process
def test_the_command_line_sends_a_trial_and_says_what_became_of_it(tmp_path):
    with sinks.http() as web:
        urls(tmp_path, f"json://127.0.0.1:{web.port}/a", f"json://127.0.0.1:9/{TOKEN}")
        loaded(tmp_path, "{urls: notify.urls}")
        said = runbook_here("notify", "--test", "p.yaml", cwd=tmp_path, code=1)
    assert "told address 1 (json)" in said and "could not tell address 2 (json)" in said and TOKEN not in said
    assert "trial" in web.got[0][1]
    loaded(tmp_path, "{}")
    assert "nobody is to be told" in runbook_here("notify", "p.yaml", cwd=tmp_path, code=1)
