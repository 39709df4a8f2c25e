"""Launch: each host gets its own rows, once; one supervisor runs; stopping ends this run's processes and no others."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from local_run import executable, folder, host, new_run, planned
from waiting import wait_for

from runbook_lib import cli
from runbook_lib.corpus import corpus
from runbook_lib.hosts.bundle import bundle_files
from runbook_lib.phases import launch, staging, workers
from runbook_lib.run import opening
from runbook_lib.slots import incidents
from worker import process
from worker.files import read_json, sha256_file, write_json


@pytest.fixture
def one(make):
    """A staged run with a single host and slot."""
    this = make(names=("one",))
    assert staging.stage(this).ok
    return this


def seen(checks):
    return {check.where: check.seen for check in checks}


def supervisor(this, name="one"):
    """The report of a living supervisor whose workers have started."""

    def look():
        reading = host(this, name).poll()
        report = reading.supervisor
        started = report and all(slot.process for slot in report.slots.values())
        return report if reading.supervisor_alive and started else None

    return wait_for(look)


def give_up(this, row):
    write_json(folder(this).quarantined(row), {"row": row})


def commit(this, *ranges, name="one"):
    for start, stop in ranges:
        write_json(folder(this, name).part(start, stop).with_suffix(".json"), {})


# -------------------------------------------------------------------------------------------------------------- stage


def test_a_host_gets_its_own_rows_and_nobody_elses(make):
    this = make()
    assert staging.stage(this).ok
    rows, plan = corpus.load(this.corpus), this.plan()
    for slot in plan.slots:
        shard = folder(this, slot.host).shard(slot.start, slot.stop)
        shards = list(shard.parent.iterdir())
        assert shards == [shard]
        assert shards[0].read_bytes() == b"".join(rows.copy_rows(slot.start, slot.stop))
        lines = [json.loads(line) for line in shards[0].read_text().splitlines()]
        assert [line["row"] for line in lines] == list(range(slot.start, slot.stop))


def test_the_worker_and_the_model_arrive_byte_for_byte(one, tmp_path):
    for relative, source in bundle_files():
        assert (folder(one).root / relative).read_bytes() == source.read_bytes()
    place = tmp_path / "one" / "models" / one.plan().model.digest[:32]
    sent = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert "model.safetensors" in sent
    assert all((place / name).read_bytes() == (tmp_path / "model" / name).read_bytes() for name in sent)


def test_the_assignment_says_what_is_to_be_done_with_sums(one, tmp_path):
    plan, told = one.plan(), read_json(folder(one).assignment("one"))
    assert (told["run"], told["corpus"], told["plan"], told["dtype"]) == (one.name, plan.corpus, plan.sha256, "float32")
    assert told["keep_awake"] is True  # this machine itself
    (slot,) = told["slots"]
    (shard,) = slot["shards"]
    assert slot["part_rows"] == 3
    assert shard == {"start": 0, "stop": 18, "grid": 0, "file": [0, 18], "sha256": shard["sha256"]}
    assert shard["sha256"] == sha256_file(folder(one).shard(0, 18))
    assert told["model"]["digest"] == plan.model.digest
    assert told["model"]["folder"].startswith(str(tmp_path / "one" / "models"))
    assert told["python"] == str(tmp_path / "bin" / "python")


def files(this):
    return {path: path.stat().st_ino for path in host(this).workdir.rglob("*") if path.is_file()}


def test_staging_again_sends_nothing(one):
    before, calls = files(one), []
    again = staging.stage(one, lambda name, done, total: calls.append((done, total)))
    assert "0 files new" in seen(again)["one"]
    assert files(one) == before
    assert calls[-1][0] == calls[-1][1]


def test_a_staged_file_that_was_damaged_is_sent_again(one):
    shard = folder(one).shard(0, 18)
    good = shard.read_bytes()
    shard.write_bytes(good[:-5] + b"evil\n")
    assert staging.stage(one).ok
    assert shard.read_bytes() == good


def test_a_model_that_changed_since_the_plan_is_refused_and_nothing_is_sent(make, tmp_path):
    this = make()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other weights")
    checks = staging.stage(this)
    assert checks.failed[0].remedy == "put the model back, or runbook run PROFILE --new"
    assert not folder(this).root.exists()


def test_a_second_run_finds_the_model_there_already(one, tmp_path):
    before = files(one)
    again = new_run(tmp_path, names=("one",))
    planned(again)
    staging.stage(again)
    after = files(one)
    models = {path: inode for path, inode in before.items() if "models" in path.parts}
    assert models and models.items() <= after.items()
    assert len([path for path in after if "models" in path.parts]) == len(models)


def test_a_host_without_rows_gets_nothing(make):
    this = make(count=1)
    empty, _ = sorted(this.plan().slots, key=lambda slot: slot.rows)
    assert "nothing staged" in seen(staging.stage(this))[empty.host]
    assert not folder(this, empty.host).root.exists()


@pytest.mark.process
def test_a_host_that_takes_no_files_hides_no_other(make, tmp_path):
    this = make()
    (tmp_path / "two").write_text("a file stands where the folder should be")
    assert [check.where for check in staging.stage(this).failed] == ["two"]
    assert folder(this).assignment("one").exists()
    checks = launch.start(this)
    assert [check.where for check in checks.failed] == ["two"]
    assert seen(checks)["one"].startswith("started")


# ----------------------------------------------------------------------------------------------------- start and stop


@pytest.mark.process
def test_one_supervisor_is_started_and_a_second_start_reports_it(one):
    first = launch.start(one)
    assert seen(first)["one"].startswith("started (pid ")
    report = supervisor(one)
    again = launch.start(one)
    assert again.ok
    assert seen(again)["one"] == f"runs already (pid {report.process['pid']}), 18 rows left"
    assert len(list(one.journal.events("supervisor started"))) == 1


@pytest.mark.process
def test_stopping_ends_this_runs_processes_and_spares_one_that_looks_alike(one):
    words = ["-m", "worker", "supervise", "--root", str(folder(one).root), "--host", "one"]
    decoy = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", *words])
    try:
        launch.start(one)
        report = supervisor(one)
        worker = report.slots["cluster0_gpu0"].process
        assert process.alive(worker)
        checks = workers.stop(one)
        assert checks.ok and seen(checks)["one"] == "stopped"
        assert not process.alive(worker)
        assert not host(one).alive(report.process)
        assert decoy.poll() is None
    finally:
        decoy.kill()
        decoy.wait()
    assert seen(workers.stop(one))["one"] == "nothing was running"
    assert list(one.journal.events("workers stopped"))


@pytest.mark.process
def test_a_stopped_host_starts_again(one):
    write_json(folder(one).stop_request("one"), {"stop": True})
    launch.start(one)
    supervisor(one)
    assert not folder(one).stop_request("one").exists()


@pytest.mark.process
@pytest.mark.parametrize("harm", [{"exits": 7, "slots": []}, {"slots": {"cluster0_gpu0": 7}}, {"process": 1}])
@pytest.mark.parametrize("lives", [False, True])
def test_a_report_that_cannot_be_true_keeps_no_host_from_its_launch(one, harm, lives):
    """Found by the chaos suite: its writer was dead, so the same command refused for ever."""
    assert launch.start(one).ok
    before = supervisor(one).process
    if not lives:
        process.send(before, signal.SIGKILL)
        wait_for(lambda: not process.alive(before))
    write_json(folder(one).supervisor("one"), harm)
    assert launch.start(one).ok
    after = supervisor(one).process
    assert (after == before) == lives and process.alive(after)


@pytest.mark.process
def test_stopping_ends_a_worker_whose_supervisor_died_before_it_reported(one):
    launch.start(one)
    report = supervisor(one)
    process.send(report.process, signal.SIGKILL)
    wait_for(lambda: not host(one).alive(report.process))
    worker = report.slots["cluster0_gpu0"].process
    assert process.alive(worker)
    assert seen(workers.stop(one))["one"] == "stopped"
    wait_for(lambda: not process.alive(worker))


def test_stopping_where_nothing_was_staged_says_so(make):
    assert set(seen(workers.stop(make())).values()) == {"nothing was staged here"}


def test_nothing_starts_where_nothing_is_staged(make):
    checks = launch.start(make())
    assert all("nothing is staged; launch it first" in check.seen for check in checks.failed)
    assert len(checks.failed) == 2


def test_nothing_starts_where_every_row_is_committed(one):
    commit(one, (0, 9), (9, 18))
    assert seen(launch.start(one))["one"] == "no rows left for this host"
    assert not host(one).poll().supervisor_alive


@pytest.mark.process
def test_rows_given_up_get_one_more_chance_only_when_asked_for(one):
    commit(one, (0, 9), (10, 18))
    give_up(one, 9)
    assert seen(launch.start(one, retry_given_up=False))["one"] == "no rows left for this host"
    assert folder(one).quarantined(9).exists()
    assert seen(launch.start(one))["one"].endswith("1 rows left")
    assert not folder(one).quarantined(9).exists()


@pytest.mark.process
def test_rows_given_up_stay_so_while_others_are_done(one):
    give_up(one, 9)
    assert seen(launch.start(one, retry_given_up=False))["one"].endswith("17 rows left")
    assert folder(one).quarantined(9).exists()


@pytest.mark.process
def test_only_the_hosts_that_are_meant_are_started(make):
    this = make()
    staging.stage(this)
    found = seen(launch.start(this, only={"two"}))
    assert found["one"] == "left as it is"
    assert found["two"].startswith("started")


@pytest.mark.process
def test_a_python_that_cannot_be_started_is_a_failing_check(one, tmp_path):
    (tmp_path / "bin" / "python").unlink()
    (check,) = launch.start(one).failed
    assert str(tmp_path / "bin" / "python") in check.seen
    executable(tmp_path / "bin" / "python", "#!/bin/sh\n")


# ------------------------------------------------------------------------------------------- restart, and some hosts


@pytest.fixture
def both(make):
    """A staged and started run of two hosts, whose workers live."""
    this = make()
    assert staging.stage(this).ok and launch.start(this).ok
    supervisor(this, "one"), supervisor(this, "two")
    return this


def at_work(this, name="one"):
    """The supervisor and the worker of a host."""
    report = supervisor(this, name)
    return [report.process, *(slot.process for slot in report.slots.values())]


@pytest.mark.process
def test_restarting_ends_the_workers_and_starts_others(one):
    launch.start(one)
    before = at_work(one)
    commit(one, (0, 3))
    checks = workers.restart(one)
    assert checks.ok
    stopped, staged, started = checks
    assert stopped.seen == "stopped" and staged.seen.endswith("0 files new")
    assert started.seen.endswith("15 rows left")
    assert not any(process.alive(identity) for identity in before)
    after = at_work(one)
    assert all(process.alive(identity) for identity in after)
    assert not folder(one).stop_request("one").exists()


@pytest.mark.process
def test_restarting_where_nothing_ran_starts_it(one):
    assert workers.restart(one).ok
    supervisor(one)


def test_nothing_is_restarted_where_nothing_is_staged(make):
    assert "nothing is staged; launch it first" in workers.restart(make(names=("one",))).failed[0].seen


@pytest.mark.process
@pytest.mark.parametrize("name", [True, False])
def test_restarting_one_host_leaves_the_other_one_alone(both, name):
    before = at_work(both, "one"), at_work(both, "two")
    checks = workers.restart(both, "two") if name else workers.restart(opening.limited(both, "two"))
    assert {check.where for check in checks} == {"two"}
    assert at_work(both, "one") == before[0]
    assert all(process.alive(identity) for identity in before[0])
    assert not any(process.alive(identity) for identity in before[1])


@pytest.mark.process
@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_a_command_for_one_host_touches_no_other(both, capsys, verb):
    one, two = at_work(both, "one"), at_work(both, "two")
    assert cli.main([verb, str(both.folder), "--hosts", "two"]) == 0
    assert "one:" not in capsys.readouterr().out
    assert all(process.alive(identity) for identity in one)
    assert not any(process.alive(identity) for identity in two)
    assert not folder(both, "one").stop_request("one").exists()
    if verb == "stop":
        assert not host(both, "two").poll().supervisor_alive
    else:
        assert supervisor(both, "two").process != two[0]


def test_some_hosts_get_the_rows_that_the_plan_of_all_gives_them(make):
    this = make()
    before = this.plan_file.read_bytes()
    only = opening.limited(this, "two")
    assert staging.stage(only).ok
    assert not folder(this, "one").root.exists()
    (slot,) = read_json(folder(this, "two").assignment("two"))["slots"]
    assert (slot["slot"], slot["shards"][0]["file"]) == ("cluster1_gpu0", [9, 18])
    assert [check.where for check in launch.verify(only, 0.0)] == ["two"]
    assert this.plan_file.read_bytes() == before


@pytest.mark.parametrize("verb", ["stop", "restart", "status", "fetch"])
def test_a_host_that_is_not_there_is_refused_with_those_that_are(one, capsys, verb):
    assert cli.main([verb, str(one.folder), "--hosts", "one,three\x1b"]) == 1
    assert "no host three\\x1b in this profile; there are: one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        ("", ["one", "two"]),
        (" , ", ["one", "two"]),
        ("two, one", ["one", "two"]),
        ("two,", ["two"]),
        ("two,two", ["two"]),
    ],
)
def test_hosts_are_named_by_a_comma_list_and_none_means_all(make, names, meant):
    this = opening.limited(make(), names)
    assert [spec.name for spec in this.hosts] == meant
    assert bool(this.only) == (len(meant) < 2)


# ----------------------------------------------------------------------------------------------------------------- logs

FOLLOW = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with SIGINT ignored
from runbook_lib import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.process
def test_a_log_is_followed_until_interrupted(one):
    path = log(one, "".join(f"line {number}\n" for number in range(50)))
    words = ["logs", str(one.folder), "cluster0_gpu0", "-n", "2", "--follow"]
    child = subprocess.Popen([sys.executable, "-c", FOLLOW, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True)  # fmt: skip
    try:
        assert [child.stdout.readline() for _ in range(2)] == ["line 48\n", "line 49\n"]
        with path.open("a") as file:
            file.write("\x1b[31mnew\n")
        assert child.stdout.readline() == "\\x1b[31mnew\n"
        child.send_signal(signal.SIGINT)
        rest, told = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, rest) == (130, "")
    assert "Interrupted" in told


def test_a_log_is_shown_to_its_end_without_following(one, capsys):
    log(one, "first\nlast\n")
    assert cli.main(["logs", str(one.folder), "cluster0_gpu0", "-n", "1"]) == 0
    assert capsys.readouterr().out == "last\n"


# -------------------------------------------------------------------------------------------------------- reporting in


@pytest.mark.process
def test_a_slot_that_never_reports_is_named_with_its_host_and_where_to_look(one):
    launch.start(one)
    began = time.monotonic()
    (check,) = launch.verify(one, 0.2).failed
    assert time.monotonic() - began < 60
    assert (check.name, check.where) == ("cluster0_gpu0", "one")
    assert check.seen == "no report; its log is empty"
    assert check.remedy == f"runbook logs {one.name} cluster0_gpu0"


def log(this, text, slot="cluster0_gpu0", name="one"):
    path = folder(this, name).log(slot)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_last_words_of_a_slots_log_are_told_safe_to_print(one):
    log(one, "loading\n\x1b[31mRuntimeError: CUDA error: no kernel image\n")
    (check,) = launch.verify(one, 0.0).failed
    assert check.seen == "no report; its log ends: \\x1b[31mRuntimeError: CUDA error: no kernel image"


def test_why_a_slots_worker_ended_is_told(one):
    write_json(folder(one).exits("cluster0_gpu0"), {"exits": [{"reason": "killed by SIGKILL"}]})
    write_json(folder(one).progress("cluster0_gpu0"), {"state": "failed"})
    log(one, "row 7\n")
    assert launch.verify(one, 0.0).failed[0].seen == "failed: killed by SIGKILL; its log ends: row 7"


@pytest.mark.process
@pytest.mark.parametrize("state", ["starting", "loading model", "running"])
def test_a_living_worker_has_reported_in_and_produces_only_when_it_runs(one, state):
    sleeper = subprocess.Popen(["sleep", "300"])
    try:
        report = {"state": state, "process": process.identify(sleeper.pid), "loaded_s": 0.5}
        write_json(folder(one).progress("cluster0_gpu0"), report)
        assert launch.verify(one, 0.0).ok
        produced = launch.first_progress(one, 0.0)
        assert produced.ok == (state == "running")
        said = "" if produced.ok else "; its log is empty"
        assert seen(produced)["one"] == f"model loaded in 0.5 s, 0 of 18 rows committed{said}"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_slot_whose_rows_are_committed_needs_no_living_worker(one):
    commit(one, (0, 18))
    assert launch.verify(one, 0.0).ok
    assert launch.first_progress(one, 0.0).ok


def test_a_host_that_cannot_be_read_is_named_for_each_of_its_slots(make, tmp_path):
    this = make()
    (tmp_path / "two").write_text("a file stands where the folder should be")
    checks = launch.verify(this, 0.0)
    assert [check.where for check in checks.failed] == ["one", "two"]
    assert "Not a directory" in checks.failed[1].seen


@pytest.mark.parametrize("how", ["stopped", "fenced"])
def test_nobody_waits_for_a_worker_that_will_not_come(one, how):
    if how == "stopped":
        write_json(folder(one).stop_request("one"), {"stop": True})
    else:
        write_json(folder(one).supervisor("one"), {"slots": {"cluster0_gpu0": {"state": "fenced"}}})
    for look in (launch.verify, launch.first_progress):
        assert not look(one, 3600.0).ok  # an hour, were it waited for


# ------------------------------------------------------------------------------- one bad slot beside others


def fenced(this, slot, name="one", reason="CUDA error: out of memory"):
    """As its supervisor leaves a slot that was given up."""
    path = folder(this, name).supervisor(name)
    slots = (read_json(path) or {}).get("slots", {})
    write_json(path, {"slots": {**slots, slot: {"state": "fenced", "deaths": 5}}})
    write_json(folder(this, name).exits(slot), {"exits": [{"reason": reason, "code": 1, "deaths": 5}]})


@pytest.fixture
def working():
    """Makes a slot's worker of a process that lives, and whose report says that it runs."""
    started = []

    def make(this, slot, name="one", state="running"):
        started.append(subprocess.Popen(["sleep", "300"]))
        report = {"state": state, "process": process.identify(started[-1].pid)}
        write_json(folder(this, name).progress(slot), report)

    yield make
    for child in started:
        child.kill()
        child.wait()


BOTH = (launch.verify, launch.first_progress)


@pytest.mark.process
@pytest.mark.parametrize("look", BOTH)
def test_one_bad_slot_is_a_warning_and_an_incident_while_another_one_works(make, working, look):
    this = make(names=("one",), slots=2)
    staging.stage(this)
    fenced(this, "cluster0_gpu1")
    working(this, "cluster0_gpu0")
    checks = look(this, 3600.0)  # an hour, were it waited for
    assert checks.ok
    (warning,) = [check for check in checks if check.warn]
    assert (warning.name, warning.where) == ("cluster0_gpu1", "one")
    assert "CUDA error: out of memory" in warning.seen
    (event,) = this.journal.events(incidents.BEGAN)
    assert (event["slot"], event["host"], event["verdict"]) == ("cluster0_gpu1", "one", "out of memory")
    assert "CUDA error" in event["cause"] and event["action"]


@pytest.mark.parametrize("look", BOTH)
def test_where_no_slot_works_each_is_refused_with_its_reason(make, look):
    this = make(slots=2)
    staging.stage(this)
    for name, slot, why in (
        ("one", "cluster0_gpu0", "GPU a"), ("one", "cluster0_gpu1", "GPU b"),
        ("two", "cluster1_gpu0", "GPU c"), ("two", "cluster1_gpu1", "GPU d"),
    ):  # fmt: skip
        fenced(this, slot, name, why)
    checks = look(this, 3600.0)
    assert [why for why, check in zip("abcd", checks.failed, strict=True) if f"GPU {why}" in check.seen] == [*"abcd"]
    assert not list(this.journal.events(incidents.BEGAN))


def test_what_a_slot_committed_before_it_was_given_up_is_no_sign_that_it_works(one):
    commit(one, (0, 3))
    fenced(one, "cluster0_gpu0")
    (check,) = launch.first_progress(one, 3600.0).failed
    assert "3 of 18 rows committed: CUDA error" in check.seen


@pytest.mark.process
def test_a_host_of_which_every_slot_is_bad_holds_up_no_other(make, working):
    this = make(slots=2)
    staging.stage(this)
    for slot in ("cluster0_gpu0", "cluster0_gpu1"):
        fenced(this, slot)
    for slot in ("cluster1_gpu0", "cluster1_gpu1"):
        working(this, slot, "two")
    checks = launch.first_progress(this, 3600.0)
    assert checks.ok and {check.where for check in checks if check.warn} == {"one"}
    one = opening.limited(this, "one")
    only = launch.first_progress(one, 3600.0)  # rows stay where they are: nobody else does them
    assert len(only.failed) == 2


@pytest.mark.process
@pytest.mark.parametrize(("keys", "lenient"), [
    ({"recovery": "ask"}, False), ({"recovery": "off"}, False),
    ({"policy": "{fenced: off}"}, False), ({"recovery": "off", "policy": "{fenced: auto}"}, True),
])  # fmt: skip
def test_what_the_profile_does_not_allow_stops_the_launch(make, working, keys, lenient):
    this = make(names=("one",), slots=2, **keys)
    staging.stage(this)
    fenced(this, "cluster0_gpu1")
    working(this, "cluster0_gpu0")
    assert launch.first_progress(this, 3600.0).ok == lenient


@pytest.mark.process
def test_a_slot_that_died_twice_is_not_waited_for_while_others_work(make, working):
    this = make(names=("one",), slots=2)
    staging.stage(this)
    path = folder(this).supervisor("one")
    write_json(path, {"slots": {"cluster0_gpu1": {"state": "waiting", "deaths": 2}}})
    working(this, "cluster0_gpu0")
    assert launch.verify(this, 3600.0).ok and launch.first_progress(this, 3600.0).ok


@pytest.mark.process
def test_a_slot_that_still_loads_when_the_time_is_over_is_a_warning_beside_one_that_works(make, working):
    this = make(names=("one",), slots=2)
    staging.stage(this)
    working(this, "cluster0_gpu0")
    working(this, "cluster0_gpu1", state="loading model")
    checks = launch.first_progress(this, 0.0)
    assert checks.ok and [check.name for check in checks if check.warn] == ["cluster0_gpu1"]


@pytest.mark.process
def test_a_stopped_slot_is_no_warning(make, working):
    this = make()
    staging.stage(this)
    working(this, "cluster1_gpu0", "two")
    write_json(folder(this).stop_request("one"), {"stop": True})
    assert not launch.first_progress(this, 3600.0).ok


@pytest.mark.process
def test_a_slot_that_hangs_as_it_loads_keeps_nobody_from_being_watched(make, working, monkeypatch):
    """It is waited for longer than the others took; that it loads is no trouble yet."""
    monkeypatch.setattr(launch, "LATE_S", 0.5)
    this = make(names=("one",), slots=2)
    staging.stage(this)
    working(this, "cluster0_gpu0")
    working(this, "cluster0_gpu1", state="loading model")
    checks = launch.first_progress(this, 3600.0)  # an hour, were it waited for
    assert checks.ok and [check.name for check in checks if check.warn] == ["cluster0_gpu1"]
    assert not list(this.journal.events(incidents.BEGAN))


@pytest.mark.process
def test_a_slot_that_hangs_is_waited_for_where_a_person_is_to_act(make, working, monkeypatch):
    monkeypatch.setattr(launch, "LATE_S", 0.1)
    this = make(names=("one",), slots=2, recovery="ask")
    staging.stage(this)
    working(this, "cluster0_gpu0")
    working(this, "cluster0_gpu1", state="loading model")
    began = time.monotonic()
    assert not launch.first_progress(this, 2.0).ok and time.monotonic() - began >= 2.0


@pytest.mark.process
def test_a_slot_is_waited_for_longer_where_the_others_took_long(make, working, monkeypatch):
    monkeypatch.setattr(launch, "LATE_S", 0.0)
    this = make(names=("one",), slots=2)
    staging.stage(this)
    looks = []

    def after_a_while(done, of):
        looks.append(time.monotonic())
        if done == 0 and looks[-1] - looks[0] > 1.0:
            working(this, "cluster0_gpu0")

    began = time.monotonic()
    assert launch.first_progress(this, 3600.0, lambda what, done, of: after_a_while(done, of)).ok
    assert time.monotonic() - began > 3.0


@pytest.mark.process
def test_a_supervisor_that_is_killed_during_the_launch_is_started_again_before_anybody_watches(one, working):
    working(one, "cluster0_gpu0", state="loading model")  # whose guard hangs with it
    gone = {"pid": 2**22 + 1, "start": "1", "boot": "of another time"}
    write_json(folder(one).supervisor("one"), {"process": gone, "working": True, "slots": {}})
    launch.first_progress(one, 6.0)
    reading = host(one).poll()
    assert reading.supervisor_alive and len(list(one.journal.events("supervisor started"))) == 1


@pytest.mark.process
def test_a_supervisor_that_looked_for_the_last_time_is_waited_for_and_another_one_started(one):
    ending = subprocess.Popen(["sleep", "1"])
    threading.Thread(target=ending.wait).start()
    last = {"process": process.identify(ending.pid), "working": False, "slots": {}}
    write_json(folder(one).supervisor("one"), last)
    assert launch.start(one).ok
    assert ending.poll() is not None
    assert supervisor(one).process["pid"] != ending.pid
    workers.stop(one)


@pytest.mark.process
def test_a_supervisor_that_ended_in_order_is_not_started_again_by_the_launch(one, working):
    working(one, "cluster0_gpu0", state="loading model")
    gone = {"pid": 2**22 + 1, "start": "1", "boot": "of another time"}
    write_json(folder(one).supervisor("one"), {"process": gone, "working": False, "slots": {}})
    launch.first_progress(one, 2.0)
    assert not host(one).poll().supervisor_alive and not list(one.journal.events("supervisor started"))


@pytest.mark.process
def test_a_worker_that_has_not_reported_yet_is_no_trouble_while_its_supervisor_has_it(make, working, monkeypatch):
    monkeypatch.setattr(launch, "LATE_S", 0.2)
    this = make(names=("one",), slots=2)
    staging.stage(this)
    working(this, "cluster0_gpu0")
    alive = read_json(folder(this).progress("cluster0_gpu0"))["process"]
    slots = {"cluster0_gpu1": {"state": "running", "process": alive, "deaths": 0}}
    write_json(folder(this).supervisor("one"), {"process": alive, "working": True, "slots": slots})
    for look in BOTH:
        checks = look(this, 3600.0)
        assert checks.ok and [check.name for check in checks if check.warn] == ["cluster0_gpu1"]
    assert not list(this.journal.events(incidents.BEGAN))
