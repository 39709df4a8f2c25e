"""What a machine tells of itself in one go: disk, markers of sharers, logind, nvidia-smi in all its moods."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import wait_for

from runbook_lib.hosts import gpus
from worker import machine, process

ROOT = Path(__file__).parents[3]
ID = "0000aaaa-1111-2222-3333-44445555666"
LOST = "Unable to determine the device handle for GPU 0000:0B:00.0: Unknown Error"


def row(index, tail=", 3, 41, 95.20, Disabled, 0, Default"):
    return f"{index}, GPU-{ID}{index}, NVIDIA A100-SXM4-80GB, 81920, 17, 535.104.05{tail}"


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Put commands in front of PATH: name -> {pattern of its arguments: shell text}, in order."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def make(name, cases):
        lines = [f"{pattern}) {text} ;;" for pattern, text in cases.items()]
        (folder / name).write_text("\n".join(["#!/bin/sh", 'case "$*" in', *lines, "esac", ""]))
        (folder / name).chmod(0o755)
        return folder / name

    return make


@pytest.fixture
def nvidia(commands):
    """A fake nvidia-smi, and what `facts` has of it."""

    def ask(cases, timeout_s=20.0):
        commands("nvidia-smi", cases)
        return machine._nvidia(timeout_s)

    return ask


def say(text, code=0, stream=1):
    return f"cat >&{stream} <<'END'\n{text}\nEND\nexit {code}"


# The place


def facts(workdir, token="me", cuda=False):
    return machine.facts(str(workdir), cuda, token)


@pytest.mark.process
def test_everything_is_told_and_is_json(tmp_path):
    found = facts(tmp_path / "work", cuda=True)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["python"] == list(sys.version_info[:3])
    assert found["cores"] >= 1 and found["memory_bytes"] > 2**20
    assert found["system"].startswith(f"{os.uname().sysname} {os.uname().release} {os.uname().machine}")
    assert abs(found["now"] - time.time()) < 60
    assert set(found["nvidia"]) == {"gpus", "list", "apps"}


@pytest.mark.process
def test_no_gpu_is_asked_for_where_none_is_wanted(tmp_path):
    assert "nvidia" not in facts(tmp_path)


@pytest.mark.process
def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path):
    found = facts(tmp_path / "a" / "b")
    assert found["workdir"] == str(tmp_path / "a" / "b")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]
    assert (found["writable"], found["why_not"]) == (True, "")
    assert 0 < found["free_bytes"] <= shutil.disk_usage(tmp_path).total
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [".runbook_here"]


@pytest.mark.process
def test_a_folder_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    facts(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


@pytest.mark.process
def test_the_home_may_be_written_short(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert facts("~/work")["workdir"] == str(tmp_path / "work")
    machine.unmark("~/work", "me")
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.process
@pytest.mark.parametrize("workdir", ["/dev/null/here", "{file}/below", "~nobody-of-this-name/x", "nul\0byte"])
def test_a_folder_that_cannot_be_written_says_why(tmp_path, workdir):
    (tmp_path / "file").write_text("")
    workdir = workdir.format(file=tmp_path / "file")
    found = facts(workdir)
    assert (found["writable"], found["seen"], found["free_bytes"]) == (False, None, None)
    assert found["why_not"].startswith(f"{workdir}: ") and len(found["why_not"]) > len(workdir) + 5


@pytest.mark.process
def test_a_folder_that_takes_names_but_no_bytes_is_not_writable(tmp_path):
    limit = "import json, resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); from worker import machine; "
    code = f"{limit} print(json.dumps(machine.facts({str(tmp_path)!r}, False, 'me')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    found = json.loads(done.stdout)
    assert (found["writable"], found["why_not"]) == (False, f"{tmp_path}: [Errno 27] File too large")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
def test_a_disk_that_hangs_hides_no_other_fact(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(machine, "_place", lambda workdir, token: release.wait(60) and {})
    try:
        found = machine.facts(str(tmp_path), False, "me", timeout_s=0.5)
    finally:
        release.set()
    assert found["why_not"] == f"{tmp_path}: the disk did not answer within 0.5 s"
    assert (found["writable"], found["seen"], found["python"]) == (False, None, list(sys.version_info[:3]))


# Markers


@pytest.mark.process
def test_hosts_that_share_a_folder_see_each_other_until_they_leave(tmp_path):
    assert facts(tmp_path, "one")["seen"] == []
    assert facts(tmp_path, "two")["seen"] == ["one"]
    assert facts(tmp_path, "one")["seen"] == ["two"]
    machine.unmark(str(tmp_path), "two")
    assert facts(tmp_path, "one")["seen"] == []
    machine.unmark(str(tmp_path), "one")
    assert list(tmp_path.iterdir()) == []
    machine.unmark(str(tmp_path), "one")


@pytest.mark.process
def test_old_markers_go_and_young_ones_stay(tmp_path):
    facts(tmp_path, "old")
    facts(tmp_path, "young")
    now = time.time()
    os.utime(tmp_path / ".runbook_here" / "old", (now - 700, now - 700))
    os.utime(tmp_path / ".runbook_here" / "young", (now - 500, now - 500))
    assert facts(tmp_path, "me")["seen"] == ["young"]
    assert sorted(path.name for path in (tmp_path / ".runbook_here").iterdir()) == ["me", "young"]


@pytest.mark.process
def test_only_plain_files_with_a_markers_name_count_and_not_without_end(tmp_path):
    folder = tmp_path / ".runbook_here"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").touch()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    for name in [".half.1234.part", "with blank", "x" * 81, *(f"z{n}" for n in range(200))]:
        (folder / name).touch()
    seen = facts(tmp_path)["seen"]
    assert len(seen) == machine.MARKER_LIMIT and all(name.startswith("z") for name in seen)


@pytest.mark.process
def test_where_no_marker_can_be_left_nothing_is_claimed(tmp_path):
    (tmp_path / ".runbook_here").write_text("somebody's file")
    found = facts(tmp_path)
    assert (found["writable"], found["seen"]) == (True, None)


@pytest.mark.parametrize("token", ["", "..", ".", ".me", "a/b", "x" * 81, "a\n", "ä"])
def test_a_marker_never_leaves_its_folder(tmp_path, token):
    with pytest.raises(ValueError, match="marker"):
        facts(tmp_path, token)
    with pytest.raises(ValueError, match="marker"):
        machine.unmark(str(tmp_path), token)


# Logging out


@pytest.fixture
def logind(commands, tmp_path, monkeypatch):
    """What is made of loginctl's and busctl's answers, and of configuration files, for the account that runs this."""
    user = machine._user()
    monkeypatch.setattr(machine, "BOOTED", str(tmp_path))
    monkeypatch.setattr(machine, "LOGIND_PLACES", (str(tmp_path / "lib"), str(tmp_path / "etc")))

    def ask(bus="exit 1", linger="exit 1", **files):
        commands("busctl", {"*KillUserProcesses*": bus.replace("ME", user)})
        commands("loginctl", {f"'show-user {user} --property=Linger'": linger, "*": say("Linger=odd question")})
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("_d_", ".d/").replace("_conf", ".conf")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("ME", user))
        found = machine._logout(20.0)
        return found["kills_user_processes"], found["linger"]

    return ask


BUS = [
    ("b false\nas 0\nas 0", False),
    ("b true\nas 0\nas 0", True),
    ("b true", True),
    ('b true\nas 0\nas 2 "others" "ME"', False),
    ('b true\nas 1 "others"\nas 0', False),
    ('b true\nas 2 "others" "ME"\nas 1 "others"', True),
    ('b true\nas 1 "ME"\nas 1 "ME"', False),
]


@pytest.mark.process
@pytest.mark.parametrize(("said", "kills"), BUS)
def test_logind_is_asked_whether_a_log_out_kills(logind, said, kills):
    assert logind(bus=say(said), linger=say("Linger=yes")) == (kills, True)


@pytest.mark.process
@pytest.mark.parametrize(("said", "linger"), [("Linger=no", False), ("no", False), ("yes", True), ("what?", None)])
def test_lingering_is_told_in_two_ways(logind, said, linger):
    assert logind(linger=say(said))[1] is linger


SPARE_ROOT = "\nKillExcludeUsers="  # the tests may run as root, which logind spares unless told otherwise
FILES = [
    ({"etc__logind_conf": "[Login]\nKillUserProcesses=yes" + SPARE_ROOT}, True),
    ({"etc__logind_conf": "[Login]\n#KillUserProcesses=no"}, False),
    ({"etc__logind_conf": "[Login]\n#KillUserProcesses=yes\n#KillExcludeUsers="}, True),
    ({"etc__logind_conf": "[Login]\nKillUserProcesses=1" + SPARE_ROOT + "\n#KillUserProcesses=no"}, True),
    ({"etc__logind_conf": "[Login]\nKillUserProcesses=yes\nKillExcludeUsers=you ME"}, False),
    ({"etc__logind_conf": "[Login]\nKillUserProcesses=yes\nKillOnlyUsers=you" + SPARE_ROOT}, False),
    ({"etc__logind_conf_d_a_conf": "[Login]\nKillUserProcesses=yes" + SPARE_ROOT}, True),
    ({"etc__logind_conf": "", "lib__logind_conf_d_x_conf": "KillUserProcesses = on" + SPARE_ROOT}, True),
    (
        {
            "lib__logind_conf_d_a_conf": "KillUserProcesses=yes" + SPARE_ROOT,
            "etc__logind_conf_d_a_conf": "KillUserProcesses=no" + SPARE_ROOT,
        },
        False,
    ),
    ({}, None),
]


@pytest.mark.process
@pytest.mark.parametrize(("files", "kills"), FILES)
def test_without_loginds_answer_its_files_are_read(logind, files, kills):
    assert logind(**files) == (kills, None)


@pytest.mark.process
def test_without_systemd_nobody_kills(logind, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "BOOTED", str(tmp_path / "no"))
    assert logind(etc__logind_conf="KillUserProcesses=yes" + SPARE_ROOT)[0] is False


def test_systemd_run_needs_a_run_time_folder(commands, tmp_path, monkeypatch):
    commands("systemd-run", {"*": "exit 0"})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert machine._here()["systemd_run"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "gone"))
    assert not machine._here()["systemd_run"]


# nvidia-smi


@pytest.mark.process
def test_cards_list_and_processes_are_told_as_they_came(nvidia):
    app = f"GPU-{ID}0, 4711, python, 1024"
    listing = f"GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-{ID}0)"
    said = nvidia({"-L": say(listing), "--query-compute*": say(app), "--query-gpu=*compute_mode*": say(row(0))})
    assert said == {
        "gpus": {"out": row(0) + "\n", "err": "", "exit": 0},
        "list": {"out": listing + "\n", "err": "", "exit": 0},
        "apps": {"out": app + "\n", "err": "", "exit": 0},
    }
    (gpu,) = gpus.inventory(said).gpus
    assert (gpu.trouble, gpu.users, gpu.watts) == ("", ((4711, "python", 1024),), 95.2)


@pytest.mark.process
def test_the_question_names_every_field_that_is_judged(commands, tmp_path):
    commands("nvidia-smi", {"*": f'echo "$*" >>{tmp_path}/asked; exit 0'})
    machine._nvidia(20.0)
    asked = sorted((tmp_path / "asked").read_text().splitlines())
    form = "--format=csv,noheader,nounits"
    assert asked == [
        f"--query-compute-apps=gpu_uuid,pid,process_name,used_gpu_memory {form}",
        "--query-gpu=index,uuid,name,memory.total,memory.used,driver_version,utilization.gpu,temperature.gpu,"
        f"power.draw,mig.mode.current,ecc.errors.uncorrected.volatile.total,compute_mode {form}",
        "-L",
    ]


@pytest.mark.process
@pytest.mark.parametrize("stream", [1, 2])
def test_an_old_driver_is_asked_for_what_it_knows(nvidia, stream):
    refusal = say('Field "mig.mode.current" is not a valid field to query.', 2, stream)
    said = nvidia({"--query-gpu=*mig*": refusal, "--query-gpu=*driver_version' '*": say(row(0, "")), "*": "exit 0"})
    assert said["gpus"] == {"out": row(0, "") + "\n", "err": "", "exit": 0}
    assert gpus.inventory(said).gpus[0].trouble == ""


@pytest.mark.process
@pytest.mark.parametrize(("stream", "code"), [(1, 15), (2, 15), (1, 0)])
def test_a_lost_card_hides_no_other(nvidia, stream, code):
    listing = f"GPU 0: A (UUID: GPU-{ID}0)\n{LOST}\nGPU 2: A (UUID: GPU-{ID}2)"
    said = nvidia(
        {
            "-L": say(listing, code),
            "'-i 0 '*": say(row(0)),
            "'-i 1 '*": say(LOST, 15, stream),
            "'-i 2 '*": say(row(2)),
            "-i*": say("No devices were found", 6),
            "--query-gpu*": say(LOST, 15, stream),
            "*": "exit 0",
        }
    )
    assert said["gpus"]["out"] == f"{row(0)}\n{row(2)}"
    assert (said["gpus"]["exit"], said["gpus"]["lost"]) == (15, {"1": LOST})
    found = gpus.inventory(said)
    assert [(gpu.index, gpu.trouble) for gpu in found.gpus] == [(0, ""), (1, LOST), (2, "")]
    assert found.complaint == LOST and "off the bus" in found.remedy


@pytest.mark.process
def test_only_cards_that_a_whole_list_names_are_asked_one_by_one(nvidia, tmp_path):
    listing = f"GPU 0: A (UUID: GPU-{ID}0)\nGPU 1: A (UUID: GPU-{ID}1)"
    count = f"echo >>{tmp_path}/asked; "
    nvidia({"-L": say(listing), "-i*": count + say(row(0)), "--query-gpu*": say(LOST, 15), "*": "exit 0"})
    assert len((tmp_path / "asked").read_text()) == 2


@pytest.mark.process
def test_without_nvidia_smi_that_is_the_answer(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "NVIDIA_PLACES", ())
    assert machine._nvidia(20.0)["gpus"] == {"out": "", "err": "nvidia-smi: not found", "exit": 127}
    assert machine.nvidia_smi() == ""
    assert machine.gpu_sample() == ""


@pytest.mark.process
def test_nvidia_smi_outside_path_is_found(tmp_path, commands, monkeypatch):
    commands("nvidia-smi", {"*": say(f"GPU-{ID}0, 1, 2, 3, 4")})
    monkeypatch.setenv("PATH", "/bin")
    monkeypatch.setattr(machine, "NVIDIA_PLACES", (str(tmp_path / "bin"),))
    assert machine.nvidia_smi() == str(tmp_path / "bin/nvidia-smi")
    assert machine.gpu_sample()


@pytest.mark.process
def test_an_nvidia_smi_that_cannot_start_says_why(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF broken")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = machine._nvidia(20.0)["gpus"]
    assert said["exit"] == 126 and "format" in said["err"]


@pytest.mark.process
def test_a_hanging_nvidia_smi_is_left_after_its_time(commands, tmp_path):
    commands("nvidia-smi", {"*": f"echo $$ >>{tmp_path}/pids; echo half; exec sleep 600"})
    found = machine.facts(str(tmp_path), True, "me", timeout_s=3.0)
    late = {"out": "half\n", "err": "did not answer within 3 s", "exit": None}
    assert found["nvidia"] == {"gpus": late, "list": late, "apps": late}
    assert found["writable"]
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(pids) == 3 and not any(process.start_time(pid) for pid in pids)
    assert gpus.inventory(found["nvidia"]).remedy.startswith("a card or its driver hangs")


@pytest.mark.process
def test_what_a_command_leaves_running_is_not_waited_for(nvidia, tmp_path):
    began = time.monotonic()
    said = nvidia({"-L": f"sleep 600 & echo $! >{tmp_path}/pid; echo listed", "*": "exit 0"}, timeout_s=60.0)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert (said["list"]["out"], said["list"]["exit"]) == ("listed\n", 0)
    assert time.monotonic() - began < 30


@pytest.mark.process
def test_an_endless_answer_is_cut(nvidia):
    said = nvidia({"-L": "head -c 5000000 /dev/zero | tr '\\0' x; exit 3", "*": "exit 0"})
    assert (len(said["list"]["out"]), said["list"]["exit"]) == (2**16, 3)


@pytest.mark.process
def test_bytes_that_are_no_text_do_no_harm(nvidia):
    said = nvidia({"-L": "printf '\\377\\376ok'", "*": "exit 0"})
    assert said["list"]["out"] == "\ufffd\ufffdok"
    assert json.dumps(said)


# Samples


@pytest.mark.process
def test_a_sample_is_a_line_per_gpu_and_nothing_else(commands):
    question = "--query-gpu=uuid,utilization.gpu,memory.used,temperature.gpu,power.draw' '*"
    text = f"GPU-{ID}0, 98, 70211, 61, 301.55\n{LOST}\nGPU-{ID}2, [N/A], 1, 2, [N/A]"
    commands("nvidia-smi", {question: say(text, 15)})
    assert gpus.samples(machine.gpu_sample()) == {
        f"GPU-{ID}0": (98, 70211, 61, 301.55),
        f"GPU-{ID}2": (None, 1, 2, None),
    }


@pytest.mark.process
@pytest.mark.parametrize("text", ["exit 9", "exec sleep 600", say("Failed to initialize NVML: Unknown Error", 18)])
def test_no_sample_is_an_empty_text(commands, text):
    commands("nvidia-smi", {"*": text})
    assert machine.gpu_sample(timeout_s=0.5) == ""


@pytest.mark.process
def test_while_one_question_hangs_in_the_driver_no_other_is_asked(commands, tmp_path, monkeypatch):
    commands("nvidia-smi", {"*": f"touch {tmp_path}/asked; " + say(f"GPU-{ID}0, 1, 2, 3, 4")})
    stuck = subprocess.Popen(["sleep", "600"])
    monkeypatch.setattr(machine, "_hanging", [stuck])
    try:
        assert machine.gpu_sample() == ""
        assert not (tmp_path / "asked").exists()
    finally:
        stuck.kill()
    wait_for(lambda: machine.gpu_sample() != "", "asked again once the other has gone")
    assert machine._hanging == []
