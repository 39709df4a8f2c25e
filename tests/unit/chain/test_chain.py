"""The chain believes result files, not papermill: every way in which a notebook can end, with real kernels where
it is the kernel or papermill that ends oddly."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import forking
import nbformat
import pytest
from waiting import wait_for

from runbook_lib import cli, cli_run
from runbook_lib.chain import attempts, chain
from runbook_lib.chain.endings import ProcessEnd
from runbook_lib.errors import RunbookError
from runbook_lib.hosts import hosts
from runbook_lib.profile import profile
from runbook_lib.run import driver, opening, plan, run
from worker import process
from worker.files import write_json

PHASE = "01_preflight"
OPEN = """
from runbook_lib.report import gate
from runbook_lib.run.checks import Checks
from runbook_lib.run.opening import open_run
this = open_run(run=run)
"""
GATE = f'held = Checks("x")\nheld.add("one", True, "seen")\ngate.gate(this, "{PHASE}", held)'


@pytest.fixture(autouse=True)
def forked(request, monkeypatch):
    """What this process starts by its own Python is forked; a driver that a test starts, and its kernels, are not."""
    if request.node.get_closest_marker("kernel"):
        monkeypatch.setattr(sys, "executable", forking.python())


@pytest.fixture
def made(tmp_path):
    text = "run: t\ncorpus: {path: c.jsonl}\nmodel: {name: /nowhere}\n"
    text += "hosts:\n  - {name: here, kind: local, slots: 1, device: cpu}\n"
    (tmp_path / "p.yaml").write_text(text)
    return opening.create(profile.load(tmp_path / "p.yaml"))


def notebook(tmp_path, *cells, name=PHASE, parameters='profile: str = ""\nrun: str = ""'):
    folder = tmp_path / "notebooks"
    folder.mkdir(exist_ok=True)
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    first = nbformat.v4.new_code_cell(parameters)
    first.metadata["tags"] = ["parameters"]
    book.cells = [first, *map(nbformat.v4.new_code_cell, cells)]
    nbformat.write(book, folder / f"{name}.ipynb")
    return folder


HELD = 'held = Checks("x")\nheld.add("one", True, "seen")\n'


@pytest.fixture
def two(made, tmp_path, monkeypatch):
    """A run of two hosts with a slot of ten rows each, and four small notebooks that hand over what they were given."""
    here = made.profile.hosts[0]
    specs = tuple(replace(here, name=name, workdir=str(tmp_path / name)) for name in ("here", "there"))
    slots = tuple(
        plan.Slot(f"cluster{i}_gpu0", spec.name, 0, "cpu", 1, 10 * i, 10 * i + 10) for i, spec in enumerate(specs)
    )
    model = plan.ModelIdentity("m", "r", "d", 4, True)
    plan.Plan(made.name, 1, 18, 2, "c", model, "float32", "{text}", "{text}", None, 5, slots).save(made.plan_file)
    for phase in run.PHASES:
        hosts = phase in run.PHASES[1:3]
        parameters = 'profile: str = ""\nrun: str = ""' + ('\nhosts: str = ""' if hosts else "")
        gate = f'gate.gate(this, "{phase}", held, given={"hosts" if hosts else None})'
        folder = notebook(tmp_path, OPEN, HELD + gate, name=phase, parameters=parameters)
    execute = attempts.execute
    child = attempts._child

    def execute_one(this, phase, *files):
        return (child if phase in run.PHASES[1:3] else executed_here)(this, phase, *files)

    monkeypatch.setattr(attempts, "_child", execute_one)  # real kernels for the phases that are told of hosts
    monkeypatch.setattr(attempts, "execute", lambda this, phase: execute(this, phase, folder))
    monkeypatch.setattr(chain.report, "seal", lambda this, as_pdf=False: None)  # there is nothing to seal
    return run.Run(made.folder, replace(made.profile, hosts=specs))


def executed_here(run, phase, notebook, output):
    """Stands in for `attempts._child`: executes the cells in this process and leaves what papermill would leave."""
    book = nbformat.read(notebook, as_version=4)
    names, error = {}, None
    for number, cell in enumerate(book.cells, 1):
        cell.execution_count = number
        try:
            exec(cell.source, names)
        except Exception as raised:
            error = nbformat.v4.new_output("error", ename=type(raised).__name__, evalue=str(raised), traceback=[])
            cell.outputs = [error]
            break
        names.update({"run": str(run.folder)} if number == 1 else {})
    nbformat.write(book, output)
    return ProcessEnd(1 if error else 0, "")


@pytest.fixture
def no_kernel(monkeypatch):
    monkeypatch.setattr(attempts, "_child", executed_here)


def commit(this, name, *ranges):
    spec = next(spec for spec in this.profile.hosts if spec.name == name)
    for start, stop in ranges:
        write_json(hosts.connect(spec, this.name).folder.part(start, stop).with_suffix(".json"), {})


@pytest.mark.kernel
def test_with_some_hosts_only_launch_and_monitor_are_told_of_them_and_the_merge_waits(two):
    before = two.plan_file.read_bytes()
    commit(two, "there", (10, 20))
    said = []
    assert chain.drive(opening.limited(two, "there"), said.append)
    given = {phase: result.figures.get("given") if (result := two.result(phase)) else None for phase in run.PHASES}
    assert given == {run.PHASES[0]: None, run.PHASES[1]: "there", run.PHASES[2]: "there", run.PHASES[3]: None}
    assert said[-1].startswith("04_merge_validate: waits for the rows of the other hosts")
    assert two.result(run.PHASES[3]) is None
    assert not two.finished
    assert two.plan_file.read_bytes() == before

    # The rows of that host are done, so what was said of it holds; for all hosts it does not.
    assert [chain.holds(opening.limited(two, "there"), phase) for phase in run.PHASES[:3]] == [True] * 3
    assert [chain.holds(two, phase) for phase in run.PHASES[:3]] == [True, False, False]

    # Once the others are done too, the merge waits no longer, whoever is meant.
    commit(two, "here", (0, 10))
    said.clear()
    assert chain.drive(opening.limited(two, "there"), said.append)
    assert [line.partition(":")[0] for line in said if "done in" in line] == [run.PHASES[3]]
    assert two.finished


def test_the_command_says_for_which_hosts_all_holds(two, monkeypatch, capsys):
    monkeypatch.setattr(cli_run, "_open", lambda args: two)
    told = []
    monkeypatch.setattr(chain, "drive", lambda this, take_over: told.append(this.only) or True)
    assert cli.main(["run", "p.yaml", "--hosts", "there"]) == 0
    assert told == [{"there"}]
    said = capsys.readouterr().out
    assert "All checks hold for there" in said
    assert "merged embeddings" not in said
    assert cli.main(["run", "p.yaml", "--hosts", "nobody"]) == 1
    assert "no host nobody in this profile; there are: here, there" in capsys.readouterr().err
    assert len(told) == 1


def executed(attempt):
    return nbformat.read(attempt.notebook, as_version=4)


@pytest.mark.kernel
def test_a_phase_counts_when_its_gate_wrote_a_good_result(made, tmp_path):
    attempt = attempts.execute(made, PHASE, notebook(tmp_path, OPEN, GATE))
    assert attempt.ending.ok, attempt.ending.reason
    assert made.result(PHASE).ok
    assert (made.report / f"{PHASE}.ipynb").exists()
    assert executed(attempt).metadata.runbook.outcome == "done"
    assert chain.holds(made, PHASE)
    meta = executed(attempt).metadata.papermill  # the archive names no path of this machine
    assert Path(meta.input_path).name == meta.input_path
    assert Path(meta.output_path).name == meta.output_path


def test_a_result_made_from_another_profile_does_not_hold(made, tmp_path, no_kernel):
    assert attempts.execute(made, PHASE, notebook(tmp_path, OPEN, GATE)).ending.ok
    assert chain.holds(made, PHASE)
    (made.folder / "profile.yaml").write_text((made.folder / "profile.yaml").read_text() + "# changed\n")
    assert not chain.holds(made, PHASE)


REAL = pytest.mark.kernel  # what the kernel or papermill itself makes of it


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([OPEN, "raise ValueError('no room')"], "ValueError: no room"),
        pytest.param([OPEN, "raise SystemExit(0)", GATE], "SystemExit", marks=REAL),
        ([OPEN, "1 + 1"], "without writing its result file"),
        ([OPEN, GATE.replace("True", "False")], "GateError"),
        pytest.param(
            [OPEN, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", GATE], "kernel died", marks=REAL
        ),
    ],
    ids=["a cell raises", "SystemExit(0)", "no gate", "a check fails", "killed kernel"],
)
def test_what_does_not_count_says_why_and_is_marked_in_the_notebook(made, tmp_path, request, cells, reason):
    if not request.node.get_closest_marker("kernel"):
        request.getfixturevalue("no_kernel")
    attempt = attempts.execute(made, PHASE, notebook(tmp_path, *cells))
    assert not attempt.ending.ok
    assert reason in attempt.ending.reason
    book = executed(attempt)
    assert book.metadata.runbook.outcome == "failed"
    assert "This execution FAILED" in book.cells[0].source
    assert not (made.report / f"{PHASE}.ipynb").exists()
    assert not chain.holds(made, PHASE)
    assert [e["event"] for e in made.journal.events()][-1] == "phase failed"


def test_every_attempt_is_kept(made, tmp_path, no_kernel):
    folder = notebook(tmp_path, OPEN, "raise ValueError('no')")
    first, second = attempts.execute(made, PHASE, folder), attempts.execute(made, PHASE, folder)
    assert (first.number, second.number) == (1, 2)
    assert first.notebook.exists()
    assert second.notebook.exists()


@pytest.mark.process
def test_a_notebook_without_the_run_parameter_is_refused_before_a_kernel_starts(made, tmp_path):
    attempt = attempts.execute(made, PHASE, notebook(tmp_path, GATE, parameters="x: int = 1"))
    assert not attempt.ending.ok
    assert "no parameter" in attempt.ending.reason


DRIVER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts us with SIGINT ignored
from pathlib import Path
from runbook_lib.chain import attempts
from runbook_lib.run import opening
attempts.execute(opening.open_folder(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]))
"""


def executing(made, folder):
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(made.folder), PHASE, str(folder)], stderr=subprocess.PIPE, text=True
    )


@pytest.mark.kernel
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_when_the_driver_ends_its_kernel_ends_and_nothing_counts(made, tmp_path, signum):
    mark = tmp_path / "kernel.json"
    cell = (
        f"import json, os, pathlib, time\nfrom worker import process\n"
        f"pathlib.Path({str(mark)!r}).write_text(json.dumps(process.identify(os.getpid())))\ntime.sleep(600)"
    )
    child = executing(made, notebook(tmp_path, OPEN, cell, GATE))
    wait_for(lambda: mark.exists() and mark.read_text())
    kernel = json.loads(mark.read_text())
    os.kill(child.pid, signum)
    child.communicate(timeout=60)
    wait_for(lambda: not process.alive(kernel))
    assert made.result(PHASE) is None
    if signum == signal.SIGINT:
        assert next(made.journal.events("phase failed"))["reason"] == "interrupted"


@pytest.mark.process
def test_a_second_driver_is_refused_and_told_who_holds_the_run(made):
    with driver.hold(made):
        code = "import sys\nfrom pathlib import Path\nfrom runbook_lib.run import driver, opening\n"
        code += "with driver.hold(opening.open_folder(Path(sys.argv[1]))):\n    pass\n"
        done = subprocess.run(
            [sys.executable, "-c", code, str(made.folder)], capture_output=True, text=True, check=False
        )
    assert done.returncode
    assert "is being driven already" in done.stderr
    assert str(os.getpid()) in done.stderr
    with driver.hold(made):
        pass


@pytest.mark.process
def test_the_lock_of_a_dead_driver_holds_nobody_up(made):
    code = "import os, sys\nfrom pathlib import Path\nfrom runbook_lib.run import driver, opening\n"
    code += "with driver.hold(opening.open_folder(Path(sys.argv[1]))):\n    os.kill(os.getpid(), 9)\n"
    subprocess.run([sys.executable, "-c", code, str(made.folder)], check=False)
    with driver.hold(made):
        pass


def test_run_folders_of_one_profile_continue_until_finished(made):
    assert opening.current(made.profile).folder == made.folder
    assert opening.current(made.profile, new=True).folder == made.folder
    made.save_result(run.PHASES[-1], ok=True)
    assert opening.current(made.profile).folder == made.folder
    assert opening.current(made.profile, new=True).folder != made.folder


def test_a_profile_that_asks_for_other_vectors_starts_no_run_beside_an_unfinished_one(made):
    changed = profile.load(made.profile.path, {"model.max_tokens": "5"})
    for new in (True, False):
        with pytest.raises(RunbookError, match=r"model\.max_tokens"):
            opening.current(changed, new=new)
    made.save_result(run.PHASES[-1], ok=True)
    assert opening.current(changed, new=True).folder != made.folder


def test_a_harmless_edit_of_the_profile_lets_the_results_stand(made, tmp_path, no_kernel):
    assert attempts.execute(made, PHASE, notebook(tmp_path, OPEN, GATE)).ending.ok
    watched = opening.current(profile.load(made.profile.path, {"monitor.deadline_s": "9"}), new=True)
    assert watched.folder == made.folder and watched.profile.monitor.deadline_s == 9
    assert chain.holds(watched, PHASE)
    elsewhere = opening.current(profile.load(made.profile.path, {"output.folder": "elsewhere"}), new=True)
    assert elsewhere.folder == made.folder and not chain.holds(elsewhere, PHASE)


def test_an_unknown_run_lists_those_there_are(made, monkeypatch):
    monkeypatch.chdir(made.profile.path.parent)
    assert opening.find(made.name).folder == made.folder.absolute()
    with pytest.raises(RunbookError, match=made.name):
        opening.find("nonesuch")


HOLDING = """
import signal, sys, time
from pathlib import Path
from runbook_lib.run import driver, opening
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
with driver.hold(opening.open_folder(Path(sys.argv[1]))):
    try:
        print("held", flush=True)
        time.sleep(300)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


@pytest.fixture
def driving(made):
    """Another command that drives the run: `driving(code)`, ended when the test ends."""
    started = []

    def drive(code):
        child = subprocess.Popen([sys.executable, "-c", code, str(made.folder)], stdout=subprocess.PIPE)
        started.append(child)
        assert child.stdout and child.stdout.readline() == b"held\n"
        return child

    yield drive
    for child in started:
        child.kill()
        child.communicate()


@pytest.mark.process
def test_a_driver_may_be_taken_over_which_ends_it_as_ctrl_c_does_and_is_in_the_journal(made, driving):
    other = driving(HOLDING)
    with driver.hold(made, take_over=True):
        assert other.stdout.read() == b"interrupted\n"
        assert json.loads((made.folder / "driver.lock").read_text())["pid"] == os.getpid()
    (event,) = made.journal.events("taken over")
    assert json.loads(event["of"])["pid"] == other.pid


@pytest.mark.process
def test_a_driver_that_does_not_listen_is_ended(made, driving, monkeypatch):
    monkeypatch.setattr(driver, "TAKE_OVER_S", 0.5)
    deaf = HOLDING.replace("    try:", "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n    try:")
    other = driving(deaf)
    with driver.hold(made, take_over=True):
        assert other.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("holder", ["", "{", '{"pid": 1, "start": "0", "boot": "another machine"}'])
def test_a_driver_of_another_machine_is_not_taken_over(made, holder):
    """A signal to its number would hit somebody else here."""
    with driver.hold(made):
        (made.folder / "driver.lock").write_text(holder)
        with pytest.raises(RunbookError, match="no process of this machine"), driver.hold(made, take_over=True):
            pass
