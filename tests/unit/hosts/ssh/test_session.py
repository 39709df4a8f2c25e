"""The conversation with a far end: with a real one over pipes, and with one that says whatever it likes."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from far_end_code import alter, hurry
from waiting import wait_for

from runbook_lib.errors import HostError, LinkLost
from runbook_lib.hosts.ssh import answer_json
from runbook_lib.hosts.ssh import session as sessions
from runbook_lib.hosts.ssh.far_end import COMMAND, PLACES, bundle
from runbook_lib.hosts.ssh.session import NOISE_LIMIT, Heard, Patience, Session
from worker.agent import REQUEST_LIMIT

PATIENCE = Patience(login_s=10.0, silence_s=5.0, floor_window_s=2.0)
SHORT = replace(PATIENCE, login_s=0.3, silence_s=0.3)
SYSTEM = "/usr/bin:/bin"


def frame(data: bytes) -> bytes:
    return b"%d\n%s" % (len(data), data)


def answer(**value: Any) -> bytes:
    return frame(json.dumps(value).encode())


# ------------------------------------------------------------------------------------------------ a made-up far end


GREETING = {"home": "/home/x"}


class Liar:
    """A channel whose far end greets as it should, or says `instead`, and then says `words`, whatever it is asked."""

    def __init__(
        self,
        *words: bytes | Iterable[bytes],
        greeting: object = GREETING,
        instead: Iterable[bytes] | None = None,
        err: bytes = b"",
    ):
        self.words = itertools.chain.from_iterable([w] if isinstance(w, bytes) else w for w in words)
        self.greeting, self.instead, self.err, self.first = greeting, instead, err, b""
        self.asked = self.said = 0
        self.closed = False
        self.timeout = 0.0

    def settimeout(self, timeout: float | None) -> None:
        self.timeout = timeout or 0.0

    def sendall(self, s: bytes) -> None:
        self.asked += 1
        if self.asked == 1 and self.instead is None:
            nonce = s.split(b"\n", 3)[2].split()[0]
            self.first = b"\n%s\n%s" % (nonce, answer(ok=self.greeting))
        elif self.asked == 1:
            self.words = iter(self.instead or ())

    def recv(self, nbytes: int) -> bytes:
        said = self.first or next(self.words, None)
        self.first = b""
        if said is None:
            time.sleep(self.timeout)
            raise TimeoutError
        self.said += len(said)
        return said

    def recv_ready(self) -> bool:
        return False

    def recv_stderr_ready(self) -> bool:
        return bool(self.err)

    def recv_stderr(self, nbytes: int) -> bytes:
        return self.err

    def exit_status_ready(self) -> bool:
        return False

    def recv_exit_status(self) -> int:
        return -1

    def close(self) -> None:
        self.closed = True


def test_what_is_sent_needs_nothing_of_ours_that_is_not_sent_before_it() -> None:
    before: set[str] = set()
    for name, source in json.loads(zlib.decompress(bundle())):
        lines = re.findall(r"^\s*from \.(\w*) import (.+)", source, re.M)
        needed = {each for module, words in lines for each in ([module] if module else re.split(r",\s*", words))}
        assert needed <= before, f"{name} needs {needed - before}, which is not sent before it"
        before.add(name)


@pytest.mark.parametrize(
    "words",
    [
        b"9" * 19 + b"\n",
        b"9" * 30 + b"\n",
        b"%d\n" % (sessions.ANSWER_LIMIT + 1),
        b"-5\nabcde",
        b"\n",
        b"1e3\n",
        b"0x10\n",
        b"\xff\xfe\x00\n",
        b"no frame at all, and no end of line anywhere near" * 2,
        frame(b""),
        frame(b"\xff\xff"),
        frame(b"{'ok': 1}"),
        frame(b'{"ok": NaN}'),
        frame(b'{"ok": -Infinity}'),
        frame(b'{"ok": 1'),
        frame(b'{"ok": %s}' % (b"9" * 5000)),
        frame(b"[" * 200_000),
        frame(b'{"ok":' * 100_000),
        frame(b"5"),
        frame(b"null"),
        frame(b'["ok"]'),
        frame(b'{"what": 1}'),
    ],
    ids=lambda words: repr(words[:24]),
)
def test_an_answer_that_is_none_is_refused_and_the_session_is_of_no_more_use(words):
    session = Session(Liar(words), "box", SHORT)
    with pytest.raises(HostError, match=r"^box: answers with") as caught:
        session.call("poll", 5.0)
    assert not isinstance(caught.value, LinkLost)
    assert len(str(caught.value)) < 200
    assert not session.sound


def test_a_refusal_is_shown_without_its_control_characters():
    session = Session(Liar(answer(error="no \x1b[31m\u202e space")), "box", SHORT)
    with pytest.raises(HostError) as caught:
        session.call("poll", 5.0)
    assert str(caught.value) == "box: no \\x1b[31m\\u202e space"
    assert session.sound


@pytest.mark.parametrize("words", [b"", b"1", b"20\n", b"20\nhalf"], ids=repr)
@pytest.mark.parametrize("then", [[b""], []], ids=["closed", "silent"])
def test_an_end_or_a_silence_in_front_of_an_answer_or_in_it_is_a_lost_link(words, then):
    session = Session(Liar(*([words] if words else []), then), "box", SHORT)
    with pytest.raises(LinkLost, match="was closed" if then else "brought no byte"):
        session.call("poll", 5.0)
    assert not session.sound


def test_one_conversation_may_be_silent_while_others_fill_the_line():
    session = Session(Liar(), "box", SHORT, heard=(heard := Heard()))
    heard.at = (began := time.monotonic()) + 0.6
    with pytest.raises(LinkLost, match="brought no byte"):
        session.call("poll", 5.0)
    assert time.monotonic() - began > 0.6 + SHORT.silence_s
    heard.at = time.monotonic() + 60
    with pytest.raises(LinkLost, match="did not bring the answer in time"):
        session.call("poll", 0.5)


def test_signs_of_life_without_end_do_not_stand_for_an_answer():
    signs = (time.sleep(0.05) or b"+\n" for _ in itertools.count())
    session = Session(Liar(signs), "box", SHORT)
    with pytest.raises(LinkLost, match="did not bring the answer in time"):
        session.call("poll", 0.5)


def test_a_flood_of_signs_of_life_is_refused_at_once():
    session = Session(Liar(itertools.repeat(b"+\n" * 1000)), "box", SHORT)
    with pytest.raises(HostError, match="signs of life without end"):
        session.call("poll", 60.0)
    assert len(session._have) < 2**20 and not session.sound


def test_bytes_that_come_one_by_one_do_not_outlast_the_deadline():
    slow = (time.sleep(0.01) or b"x" for _ in itertools.count())
    session = Session(Liar(b"6000000\n", slow), "box", SHORT)
    with pytest.raises(LinkLost, match="did not bring the answer in time"):
        session.call("poll", 0.5)


@pytest.mark.parametrize("size", [-1, 2**70, True, 1.5, "7", None, [1]], ids=repr)
def test_a_file_of_a_size_that_cannot_be_is_refused(size):
    session = Session(Liar(answer(ok={"size": size})), "box", SHORT)
    with pytest.raises(HostError, match="at most 100 were expected"):
        list(session.fetch("/f", 0, 100))
    assert not session.sound


def test_of_a_file_no_more_bytes_are_taken_than_were_announced():
    session = Session(Liar(answer(ok={"size": 100}) + b"x" * 130, answer(ok=1)), "box", SHORT)
    assert b"".join(session.fetch("/f", 0, 100)) == b"x" * 100
    with pytest.raises(HostError, match=r"answers with a frame of|something that is no frame"):
        session.call("poll", 5.0)


@pytest.mark.parametrize("then", [[b""], []], ids=["closed", "silent"])
def test_a_file_that_ends_too_soon_is_a_lost_link(then):
    session = Session(Liar(answer(ok={"size": 100}), b"x" * 40, then), "box", SHORT)
    got = b""
    with pytest.raises(LinkLost, match="was closed" if then else "brought no byte"):
        for chunk in session.fetch("/f", 0, 100):
            got += chunk
    assert got == b"x" * 40
    assert not session.sound


def test_a_file_of_which_more_is_here_than_there_ends_at_once():
    assert list(Session(Liar(answer(ok={"size": 50})), "box", SHORT).fetch("/f", 70, 100)) == []


@pytest.mark.parametrize("offer", [{"have": 101}, {"have": -1}, {"have": "5"}, {"have": True}, {}, [1], None], ids=repr)
def test_an_offer_answered_with_what_cannot_be_is_refused(offer):
    session = Session(Liar(answer(ok=offer)), "box", SHORT)
    with pytest.raises(HostError, match=r"says it has|no answer"):
        session.give("/f", 100, "0" * 64)
    assert not session.sound


@pytest.mark.parametrize("greeting", [{"home": 5}, {}, "hello", None], ids=repr)
def test_a_greeting_that_is_none_is_refused(greeting):
    with pytest.raises(HostError, match="greets with something that is no greeting"):
        Session(Liar(greeting=greeting), "box", SHORT)


def test_a_login_that_prints_without_end_is_refused_before_it_fills_the_memory():
    liar = Liar(instead=itertools.repeat(b"welcome! " * 4000))
    with pytest.raises(HostError, match="the login prints more than 1048576 bytes; quiet its start-up files"):
        Session(liar, "box", PATIENCE)
    assert liar.said < 2 * NOISE_LIMIT
    with pytest.raises(HostError, match="the login prints more than"):
        Session(Liar(instead=[], err=b"warning! " * 4000), "box", PATIENCE)


def test_a_login_that_prints_slowly_and_never_ends_is_given_up_in_time():
    began = time.monotonic()
    with pytest.raises(LinkLost, match=r"did not bring up Python within 0\.3 s; it said: loading loading") as caught:
        Session(Liar(instead=(time.sleep(0.01) or b"loading " for _ in itertools.count())), "box", SHORT)
    assert time.monotonic() - began < 5
    assert len(str(caught.value)) < 1000


def test_a_login_that_says_nothing_is_given_up_in_time():
    with pytest.raises(LinkLost, match=r"did not bring up Python within 0\.3 s$"):
        Session(Liar(instead=[]), "box", SHORT)


def test_whatever_goes_wrong_while_sending_is_a_lost_link():
    for error, words in (
        (TimeoutError(), r"takes no byte for 0\.3 s"),
        (BrokenPipeError("gone"), r"broke while sending \(gone\)"),
        (EOFError(), r"broke while sending \(EOFError\)"),
    ):
        session = Session(liar := Liar(), "box", SHORT)

        def fail(s: bytes, error: Exception = error) -> None:
            raise error

        liar.sendall = fail  # type: ignore[method-assign]
        with pytest.raises(LinkLost, match=words):
            session.call("poll", 5.0)
        assert session.sending_since is None


# ----------------------------------------------------------------------------------------------- a real one, by pipes


class Pipes:
    """The command of a session, run here by a shell: a channel without SSH."""

    def __init__(self, shell: str, command: str, environment: dict[str, str], cwd: Path):
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(
            [shell, "-c", command], stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, env=environment, cwd=cwd
        )
        assert self.child.stdin and self.child.stdout and self.child.stderr
        self.stdin, self.stdout, self.stderr = self.child.stdin, self.child.stdout, self.child.stderr
        self.timeout = 0.0
        self.err, self.err_ended = b"", False

    def settimeout(self, timeout: float | None) -> None:
        self.timeout = timeout or 0.0

    def sendall(self, s: bytes) -> None:
        view = memoryview(s)
        while view:
            view = view[self.stdin.write(view) or 0 :]

    def _ready(self, stream: Any, within_s: float = 0.0) -> bool:
        return bool(select.select([stream], [], [], within_s)[0])

    def recv(self, nbytes: int) -> bytes:
        if not self._ready(self.stdout, self.timeout):
            raise TimeoutError
        return os.read(self.stdout.fileno(), min(nbytes, 2**18))

    def recv_ready(self) -> bool:
        return self._ready(self.stdout)

    def recv_stderr_ready(self) -> bool:
        while not self.err_ended and len(self.err) < 2**15 and self._ready(self.stderr):
            data = os.read(self.stderr.fileno(), 2**15)
            self.err, self.err_ended = self.err + data, not data
        return bool(self.err)

    def recv_stderr(self, nbytes: int) -> bytes:
        data, self.err = self.err[:nbytes], self.err[nbytes:]
        return data

    def exit_status_ready(self) -> bool:
        return self.child.poll() is not None

    def recv_exit_status(self) -> int:
        return self.child.wait()

    def close(self) -> None:
        self.stdin.close()
        self.stdout.close()
        self.stderr.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


@contextmanager
def far_end(
    tmp_path: Path,
    path: str = SYSTEM,
    shell: str = "/bin/sh",
    command: str = COMMAND,
    python: str = sys.executable,
    patience: Patience = PATIENCE,
) -> Iterator[Session]:
    """A session with a far end in `tmp_path`, which is its home."""
    channel = Pipes(shell, command, {"PATH": path, "HOME": str(tmp_path)}, tmp_path)
    try:
        yield Session(channel, "box", patience, python)
    finally:
        channel.close()


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def old_python(path: Path) -> Path:
    """A Python that says it is 3.6, as RHEL 8 has it."""
    code = "import sys; sys.version_info = (3, 6, 8, 'final', 0); exec(sys.argv[1])"
    return script(path, f'shift 3\nexec {sys.executable} -I -u -c {json.dumps(code)} "$1"')


def nowhere() -> str:
    """The command without the places where this machine has a Python."""
    command = COMMAND
    for place in PLACES:
        if place.startswith("/"):
            command = command.replace(f'"{place}"', f'"/nowhere{place}"')
    return command


@pytest.mark.process
@pytest.mark.parametrize("shell", ["sh", "dash", "bash", "zsh", "csh", "tcsh", "fish"])
def test_every_shell_reads_the_command_the_same_way(shell, tmp_path):
    if not (found := shutil.which(shell)):
        pytest.skip(f"no {shell} on this machine")
    odd = tmp_path / "it's a $HOME !! [~] \\ place"
    script(odd / "bin" / "python3", f'exec {sys.executable} "$@"')
    (odd / "bin" / "python").symlink_to("python3")
    with far_end(tmp_path, shell=found, python=str(odd)) as session:
        assert session.hello.home == str(tmp_path)
        assert session.call("alive", 5.0, identity=None) is False


@pytest.mark.process
def test_the_python_that_was_named_is_tried_first_then_the_one_of_the_path(tmp_path):
    for name in ("named", "path"):
        script(tmp_path / name / "python3", f'echo {name} >> {tmp_path}/ran; exec {sys.executable} "$@"')
    (tmp_path / "named" / "bin").mkdir()
    (tmp_path / "named" / "bin" / "python").symlink_to("../python3")
    path = f"{tmp_path}/path:{SYSTEM}"
    for python in ("~/named/python3", "~/named", str(tmp_path / "named"), "", "/nowhere", "two\nlines"):
        with far_end(tmp_path, path, python=python):
            pass
    assert (tmp_path / "ran").read_text().split() == ["named"] * 3 + ["path"] * 3


@pytest.mark.process
def test_without_a_python_named_none_is_guessed_at_the_root_of_the_disk(tmp_path):
    traced = COMMAND.replace("/bin/sh -c", "/bin/sh -xc", 1)
    channel = Pipes("/bin/sh", traced, {"PATH": SYSTEM, "HOME": str(tmp_path)}, tmp_path)
    try:
        channel.sendall(b"\nimport sys; sys.exit(97)\n")
        assert channel.recv_exit_status() == 96
        tried = channel.stderr.read().decode()
        assert "/usr/bin/python3" in tried
        assert not re.search(r"(?m)^\+ '?/bin/python", tried)
    finally:
        channel.close()


@pytest.mark.process
def test_an_old_python_in_front_is_passed_over(tmp_path):
    old_python(tmp_path / "stub" / "python3")
    script(tmp_path / ".local" / "bin" / "python3", f'exec {sys.executable} "$@"')
    with far_end(tmp_path, f"{tmp_path}/stub:{SYSTEM}", command=nowhere(), python="") as session:
        assert session.hello.python == sys.version_info[:3]


@pytest.mark.process
@pytest.mark.parametrize("there", ["none", "old", "two"])
def test_a_machine_with_no_python_or_only_an_old_one_is_told_so_at_once(there, tmp_path):
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "sh").symlink_to("/bin/sh")
    if there == "old":
        old_python(stub / "python3")
    if there == "two":  # Python 2 knows no -I and exits with 2
        script(stub / "python3", "echo 'Unknown option: -I' >&2; exit 2")
    began = time.monotonic()
    words = r"^box: no Python 3\.9 or newer there \(looked for python3, .*`environment`"
    with pytest.raises(HostError, match=words), far_end(tmp_path, str(stub), command=nowhere(), python=""):
        pass
    assert time.monotonic() - began < 5


@pytest.mark.process
def test_neither_setsid_nor_sha256sum_nor_any_other_tool_is_needed(tmp_path):
    stub = tmp_path / "stub"
    stub.mkdir()
    (stub / "python3").symlink_to(sys.executable)
    with far_end(tmp_path, str(stub), python="") as session:
        (tmp_path / "file").write_bytes(b"abc")
        assert session.call("sha256", 5.0, path=str(tmp_path / "file")) == hashlib.sha256(b"abc").hexdigest()
        code = "import os, time; print(os.getsid(0) == os.getpid(), flush=True); time.sleep(60)"
        identity = session.call(
            "start", 5.0, argv=[session.hello.executable, "-c", code], log=str(tmp_path / "log"), cwd=str(tmp_path)
        )
        wait_for(lambda: (tmp_path / "log").read_text() == "True\n", "a session of its own")
        assert session.call("stop", 20.0, identity=identity, grace_s=5.0) is True


@pytest.mark.process
def test_a_login_that_can_run_nothing_is_quoted(tmp_path):
    nologin = script(tmp_path / "nologin", "echo 'This account is \033[1mcurrently\033[0m not available.'; exit 1")
    for _ in range(10):  # the exit code may come a moment after the end of what it says
        with pytest.raises(HostError) as caught, far_end(tmp_path, shell=str(nologin)):
            pass
        assert str(caught.value) == (
            "box: the login works but no command can be run (exit code 1); it said: "
            "This account is \\x1b[1mcurrently\\x1b[0m not available."
        )


@pytest.mark.process
def test_noise_in_front_of_the_first_answer_is_passed_over(tmp_path):
    noise = tmp_path / "noise"
    noise.write_bytes(b"\x1b]0;title\x07\x1b[2J welcome \xff\xfe\r\n12\n+\n" * 5000)
    command = f"cat {noise}; cat {noise} >&2; printf 'no end of line'; {COMMAND}"
    with far_end(tmp_path, command=command) as session:
        assert session.call("alive", 5.0, identity=None) is False


@pytest.mark.process
def test_what_a_far_end_s_children_print_is_never_taken_for_an_answer(tmp_path):
    with far_end(tmp_path) as session:
        done = session.call("run", 9.0, argv=["sh", "-c", "echo 5; echo +; echo to no one >&2; exec cat"], limit_s=5.0)
        assert done == {"exit": 0, "out": "5\n+\n", "err": "to no one\n"}


@pytest.mark.process
def test_an_endless_talker_is_cut_to_its_last_words_and_fills_no_memory(tmp_path):
    with far_end(tmp_path) as session:
        script(tmp_path / "talk", "head -c 100000000 /dev/zero >&2; head -c 100000000 /dev/zero; printf end; exit 3")
        done = session.call("run", 60.0, argv=[str(tmp_path / "talk")], limit_s=50.0)
        assert done["exit"] == 3
        assert len(done["out"]) == 2**20
        assert done["out"].endswith("\0end")
        assert len(done["err"]) == 2**16
        status = Path(f"/proc/{session.hello.pid}/status")
        if status.exists():
            assert int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) < 100_000  # kB


@pytest.mark.process
def test_a_request_larger_than_any_ends_the_far_end_and_is_a_lost_link(tmp_path):
    with far_end(tmp_path) as session:
        session._send(b"%d\n" % (REQUEST_LIMIT + 1))
        with pytest.raises(LinkLost):
            session.call("poll", 5.0)


@pytest.mark.process
def test_a_verb_that_fails_or_is_unknown_is_answered_and_the_session_goes_on(tmp_path):
    with far_end(tmp_path) as session:
        for verb, arguments in (("read", {"path": "/nowhere", "limit": 5}), ("rub", {}), ("poll", {"no": 1})):
            with pytest.raises(HostError, match=r"^box: ") as caught:
                session.call(verb, 5.0, **arguments)
            assert not isinstance(caught.value, LinkLost)
            assert caught.value.errno == (errno.ENOENT if verb == "read" else None)
        assert session.call("alive", 5.0, identity=None) is False


@pytest.mark.process
def test_a_long_verb_gives_signs_of_life(tmp_path, monkeypatch):
    hurry(monkeypatch, SIGN_S=0.3)
    with far_end(tmp_path, patience=replace(PATIENCE, silence_s=1.5)) as session:
        assert session.call("run", 30.0, argv=["sleep", "2.5"], limit_s=10.0)["exit"] == 0


# ------------------------------------------------------------------------------------------------------------- files


def give(session: Session, path: Path, content: bytes, pause_s: float = 0.0) -> int:
    giving = session.give(str(path), len(content), hashlib.sha256(content).hexdigest())
    giving.bytes(content[giving.have : giving.have + 1000])
    time.sleep(pause_s)
    giving.bytes(content[giving.have + 1000 :])
    giving.end()
    return giving.have


@pytest.mark.process
def test_signs_of_life_in_the_middle_of_an_upload_are_no_answer(tmp_path, monkeypatch):
    hurry(monkeypatch, SIGN_S=0.2)
    with far_end(tmp_path) as session:
        give(session, tmp_path / "file", b"x" * 100_000, pause_s=1.0)
        assert session.sound
        assert (tmp_path / "file").read_bytes() == b"x" * 100_000


@pytest.mark.process
def test_a_far_end_that_takes_a_file_says_that_it_lives(tmp_path, monkeypatch):
    # On a slow line all of a file may stand in buffers on the way while the sender waits for the last answer.
    hurry(monkeypatch, SIGN_S=0.2)
    content = b"x" * 20_000
    with far_end(tmp_path, patience=replace(PATIENCE, silence_s=6.0)) as session:
        giving = session.give(str(tmp_path / "file"), len(content), hashlib.sha256(content).hexdigest())
        heard = 0
        for at in range(0, len(content), 1000):
            giving.bytes(content[at : at + 1000])
            time.sleep(0.08)
            heard += session.channel.recv_ready()
        assert heard
        giving.end()


@pytest.mark.process
def test_a_disk_that_is_full_is_told_in_the_middle_of_a_file_and_the_session_is_not_used_again(tmp_path):
    command = COMMAND.replace("/bin/sh -c '", "/bin/sh -c 'ulimit -f 200; ", 1)
    content = os.urandom(1_000_000)
    with far_end(tmp_path, command=command) as session:
        giving = session.give(str(tmp_path / "file"), len(content), hashlib.sha256(content).hexdigest())
        giving.bytes(content[:100_000])
        session._send(content[100_000:500_000])
        wait_for(session.channel.recv_ready, "word of it")
        with pytest.raises(HostError, match="File too large") as caught:
            giving.bytes(content[500_000:600_000])
        assert not isinstance(caught.value, LinkLost)
        assert not session.sound  # it would take the next request for bytes of the file
        assert not (tmp_path / "file").exists()


@pytest.mark.process
def test_a_disk_that_is_full_at_the_end_of_a_file_is_told_and_the_session_goes_on(tmp_path):
    command = COMMAND.replace("/bin/sh -c '", "/bin/sh -c 'ulimit -f 200; ", 1)
    with far_end(tmp_path, command=command) as session:
        content = os.urandom(200_000)
        giving = session.give(str(tmp_path / "file"), len(content), hashlib.sha256(content).hexdigest())
        session._send(content)
        giving.left = 0
        with pytest.raises(HostError, match="File too large"):
            giving.end()
        assert session.sound
        assert session.call("alive", 2.0, identity=None) is False


@pytest.mark.process
def test_a_disk_that_fails_in_the_middle_of_a_file_is_told_by_the_next_try(tmp_path, monkeypatch):
    content = os.urandom(1_000_000)
    (tmp_path / "file").write_bytes(content)
    alter(monkeypatch, "os.sendfile(", "failing(os.sendfile)(")
    alter(monkeypatch, "os.pread(", "failing(os.pread)(")
    alter(
        monkeypatch,
        "class _Digest:",
        "def failing(copy):\n"
        "    def call(*given):\n"
        "        if given[-2] + given[-1] > 600_000:\n"
        "            raise OSError(errno.EIO, 'Input/output error')\n"
        "        return copy(*given)\n"
        "    return call\n\n\nclass _Digest:",
    )
    got = b""
    with far_end(tmp_path) as session, pytest.raises(LinkLost, match="was closed"):
        for chunk in session.fetch(str(tmp_path / "file"), 0, 2_000_000):
            got += chunk
    assert got == content[: len(got)]
    assert len(got) >= 2**18
    with far_end(tmp_path) as session:
        with pytest.raises(HostError, match="Input/output error") as caught:
            list(session.fetch(str(tmp_path / "file"), 600_000, 2_000_000))
        assert not isinstance(caught.value, LinkLost)
        assert session.call("alive", 5.0, identity=None) is False


@pytest.mark.process
def test_an_upload_goes_on_from_the_last_byte_that_came(tmp_path):
    content = os.urandom(1_000_000)
    with far_end(tmp_path) as session:
        giving = session.give(str(tmp_path / "file"), len(content), hashlib.sha256(content).hexdigest())
        giving.bytes(content[:310_000])  # and here the line is cut
    with far_end(tmp_path) as session:
        assert give(session, tmp_path / "file", content) == 310_000
        assert (tmp_path / "file").read_bytes() == content
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.process
@pytest.mark.parametrize(("sent", "word"), [(99_000, "shrank"), (101_000, "grew")])
def test_a_source_that_changes_while_it_is_sent_is_seen_before_the_far_end_waits_for_it(tmp_path, sent, word):
    content = os.urandom(200_000)
    with far_end(tmp_path) as session:
        giving = session.give(str(tmp_path / "file"), 100_000, hashlib.sha256(content[:100_000]).hexdigest())
        with pytest.raises(HostError, match=word):
            giving.bytes(content[:sent])
            giving.end()
        assert not session.sound  # the far end takes what comes for the rest of the file
        assert not (tmp_path / "file").exists()


@pytest.mark.process
def test_a_client_that_went_silent_in_an_upload_makes_room_for_the_next(tmp_path, monkeypatch):
    hurry(monkeypatch, SIGN_S=0.2, STALE_S=1.0)
    content = os.urandom(100_000)
    with far_end(tmp_path) as dead, far_end(tmp_path) as session:
        dead.give(str(tmp_path / "file"), len(content), hashlib.sha256(content).hexdigest()).bytes(content[:50_000])
        digest = hashlib.sha256(content).hexdigest()
        assert session.give(str(tmp_path / "file"), len(content), digest).busy
        assert session.sound
        wait_for(lambda: not session.give(str(tmp_path / "file"), len(content), digest).busy, "room", 20)


@pytest.mark.process
def test_a_far_end_that_nobody_asks_ends_by_itself(tmp_path, monkeypatch):
    hurry(monkeypatch, IDLE_S=0.5)
    with far_end(tmp_path) as session:
        wait_for(session.channel.exit_status_ready, "its end", 20)
        with pytest.raises(LinkLost):
            session.call("alive", 5.0, identity=None)


def test_texts_full_of_brackets_are_no_lists_and_a_text_without_end_takes_no_time():
    texts = ['[{,\\" ' * 100_000] * 10
    assert answer_json.read(json.dumps({"ok": texts}).encode()) == {"ok": texts}
    with pytest.raises(ValueError):
        answer_json.read(b'{"ok": "' + b'[{,\\"' * 2_000_000)
    with pytest.raises(answer_json.TooManyValues):
        answer_json.read(b'["a"' + b',["]"]' * 300_000 + b"]")
