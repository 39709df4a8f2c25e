"""An entry of kind slurm: the hosts it becomes, and every wrong combination with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook_lib.errors import ProfileError
from runbook_lib.hosts.scheduler import options_of
from runbook_lib.profile import profile as profiles
from runbook_lib.profile.profile import Profile

TOP = "run: t\ncorpus: {path: c.jsonl}\nmodel: {name: ./m}\nhosts:\n"
WHOLE = "name: cluster, kind: slurm, tasks: 3, workdir: /shared"


def loaded(folder: Path, *entries: str) -> Profile:
    path = folder / "p.yaml"
    path.write_text(TOP + "".join(f"  - {{{entry}}}\n" for entry in entries))
    return profiles.load(path)


def refusal(folder: Path, *entries: str) -> str:
    with pytest.raises(ProfileError) as raised:
        loaded(folder, *entries)
    return str(raised.value)


def test_an_entry_becomes_a_host_a_task_that_share_folder_and_login(tmp_path: Path) -> None:
    found = loaded(tmp_path, "name: box, kind: ssh", f"{WHOLE}, slots: 8, gres: gpu:8, time: 4:00:00, ssh: login")
    assert [host.name for host in found.hosts] == ["box", "cluster.0", "cluster.1", "cluster.2"]
    tasks = found.hosts[1:]
    assert {host.reached for host in tasks} == {"cluster"} and [host.task for host in tasks] == [0, 1, 2]
    assert {(host.workdir, host.ssh, host.slots, host.is_task, host.is_here) for host in tasks} == {
        ("/shared", "login", 8, True, False)
    }
    assert found.hosts[0].reached == "box" and not found.hosts[0].is_task


def test_without_a_login_the_login_node_is_this_machine(tmp_path: Path) -> None:
    (host,) = loaded(tmp_path, "name: c, kind: slurm, tasks: 1, workdir: shared").hosts
    assert host.is_here and not host.computes_here and host.workdir == str(tmp_path / "shared")
    (far,) = loaded(tmp_path, "name: c, kind: slurm, tasks: 1, workdir: ~/x, ssh: me@login").hosts
    assert not far.is_here and far.workdir == "~/x"


def test_the_profile_as_used_says_the_entry_and_is_read_back_the_same(tmp_path: Path) -> None:
    found = loaded(tmp_path, f"{WHOLE}, partition: gpu, account: me, time: 30, extra: [--exclusive], array_limit: 2")
    text = profiles.as_yaml(found)
    assert text.count("name: cluster") == 1
    (tmp_path / "again.yaml").write_text(text)
    assert profiles.load(tmp_path / "again.yaml").hosts == found.hosts


def test_a_key_is_overridden_by_the_entrys_name(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(TOP + f"  - {{{WHOLE}}}\n")
    assert len(profiles.load(path, {"hosts.cluster.tasks": "5"}).hosts) == 5


@pytest.mark.parametrize("time", ["30", "90:00", "4:00:00", "1-0", "1-12:30", '"7-00:00:00"'])
def test_a_time_limit_is_taken_in_slurms_words(tmp_path: Path, time: str) -> None:
    assert loaded(tmp_path, f"{WHOLE}, time: {time}").hosts[0].time == time.strip('"')


WRONG = [
    ("no tasks", ["name: c, kind: slurm, workdir: /s"], ":5: hosts.0.tasks: is missing"),
    ("tasks of an ssh host", ["name: c, kind: ssh, tasks: 3"], ":5: hosts.0.tasks: only a host of kind slurm"),
    ("partition of a local host", ["name: c, kind: local, partition: p"], "hosts.0.partition: only a host of kind"),
    ("extra of an ssh host", ["name: c, extra: [--x]"], "hosts.0.extra: only a host of kind slurm"),
    ("heartbeat of an ssh host", ["name: c, heartbeat_s: 3"], "hosts.0.heartbeat_s: only a host of kind slurm"),
    ("no task", [f"{WHOLE}".replace("tasks: 3", "tasks: 0")], "hosts.0.tasks: expected a whole number from 1"),
    ("two logins", [f"{WHOLE}, ssh: a, credentials: b.json"], "hosts.0.ssh: credentials are given too"),
    ("a relative folder far away", [f"{WHOLE}, ssh: a".replace("/shared", "shared")], "expected a folder on that host"),
    ("a gpu of a mac", [f"{WHOLE}, device: mps"], "hosts.0.device: expected cuda or cpu on a cluster"),
    ("a time in other words", [f"{WHOLE}, time: 4h"], "hosts.0.time: expected a time limit"),
    ("no time", [f"{WHOLE}, time: 0"], "hosts.0.time: expected a time limit"),
    ("time without bounds", [f"{WHOLE}, time: UNLIMITED"], "hosts.0.time: expected a time limit"),
    ("more slots than gpus", [f"{WHOLE}, slots: 8, gres: gpu:4"], "hosts.0.slots: expected at most 4"),
    ("more slots than gpus of a type", [f"{WHOLE}, slots: 8, gres: gpu:a100:4"], "hosts.0.slots: expected at most 4"),
    ("a name twice", [WHOLE, "name: cluster, kind: local"], ":6: hosts.1.name: expected another name"),
    ("a name of a task", [WHOLE, "name: Cluster.1, kind: local"], "hosts.1.name: expected another name"),
    ("a task's name before", ["name: cluster.2, kind: local", WHOLE], "hosts.1.name: expected another name"),
    ("a long name", [f"name: {'c' * 63}, kind: slurm, tasks: 12, workdir: /s"], "leaves room for .11"),
    ("extra as text", [f"{WHOLE}, extra: --exclusive"], "hosts.0.extra: expected a list"),
    ("extra that is no option", [f"{WHOLE}, extra: [exclusive]"], "hosts.0.extra: expected a list of options"),
    ("extra of two lines", [f'{WHOLE}, extra: ["--a\\n--b"]'], "hosts.0.extra: expected a list of options"),
    ("extra that ends the script", [f'{WHOLE}, extra: ["--x=$(rm -r ~)"]'], "hosts.0.extra: expected"),
    ("an array of one's own", [f"{WHOLE}, extra: [--array=0-9]"], "runbook sets it"),
    ("an output of one's own", [f'{WHOLE}, extra: ["-o x"]'], "runbook sets it"),
    ("a signal of one's own", [f"{WHOLE}, extra: [--signal=TERM]"], "runbook sets it"),
    ("a partition as extra", [f"{WHOLE}, extra: [--partition=p]"], "say it by the key `partition`"),
    ("cores as extra", [f"{WHOLE}, extra: [--cpus-per-task=4]"], "say it by the key `threads`"),
    ("a partition with a blank", [f'{WHOLE}, partition: "a b"'], "hosts.0.partition: expected"),
    ("an account with a quote", [f'{WHOLE}, account: "a;b"'], "hosts.0.account: expected"),
    ("a limit that is none", [f"{WHOLE}, array_limit: 0"], "hosts.0.array_limit: expected"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "entries", "said"), WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_entry_is_refused_with_its_line(tmp_path: Path, case: str, entries: list[str], said: str) -> None:
    assert said in refusal(tmp_path, *entries)


@pytest.mark.parametrize("flag", ["--exclusive", "--qos=low", "-C a100", "--mem=0", "--constraint=a100|h100", "-q low"])
def test_other_options_go_to_sbatch_as_they_are(tmp_path: Path, flag: str) -> None:
    found = loaded(tmp_path, f'{WHOLE}, extra: ["{flag}"]').hosts[0]
    assert options_of(found).extra == (flag,)


def test_cores_of_a_task_are_asked_for_where_the_profile_says_threads(tmp_path: Path) -> None:
    assert options_of(loaded(tmp_path, f"{WHOLE}, slots: 4, threads: 6").hosts[0]).cpus == 24
    assert options_of(loaded(tmp_path, f"{WHOLE}, slots: 4").hosts[0]).cpus is None
