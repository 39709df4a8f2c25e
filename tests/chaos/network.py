"""Faults of tier B: of the line to a host, of its SSH server, and of the machine. They are in the same table.

In tier A there is no line, so their weight there is zero; WEIGHTS has those of tier B.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from .faults import fault

if TYPE_CHECKING:
    from .history import Scene

SILENT_S = 3.0  # after so long of silence the rows of a host move: the profile's `unreachable_s` here


def _name(scene: Scene, dice: random.Random) -> str:
    """A host that is not gone for good; empty before anybody dialled."""
    machines = scene.machines
    names = [name for name in machines.there if machines.lines[name].connections] if machines else []
    return dice.choice(names) if names else ""


@fault(23, 26, weight=0, early=True)
def cut_line(scene: Scene, dice: random.Random) -> str:
    """Every connection to a host ends, orderly or by a reset."""
    if (name := _name(scene, dice)) and (active := scene.machines.lines[name].active):
        scene.machines.lines[name].cut(reset=dice.random() < 0.5)
        return f"{name}: {active}"
    return ""


@fault(23, weight=0, early=True)
def cut_in_transfer(scene: Scene, dice: random.Random) -> str:
    """The connection ends after so many more bytes, several times, wherever that is."""
    if not (name := _name(scene, dice)):
        return ""
    line = scene.machines.lines[name]
    bytes_ = sorted(dice.randrange(1, 60_000) for _ in range(3))
    line.cut_after(down=[line.down + more for more in bytes_], up=[line.up + more for more in bytes_])
    return f"{name}: after {', '.join(map(str, bytes_))} bytes"


@fault(18, 20, 21, 22, weight=0, early=True)
def silence(scene: Scene, dice: random.Random) -> str:
    """Nothing passes for a while, neither way; the connections stay."""
    if not (name := _name(scene, dice)):
        return ""
    seconds = dice.uniform(0.2, SILENT_S * 0.8)
    scene.machines.lines[name].blackhole()
    time.sleep(seconds)
    scene.machines.lines[name].resume()
    return f"{name}: {seconds:.1f} s"


@fault(18, 19, weight=0)
def long_silence(scene: Scene, dice: random.Random) -> str:
    """A host is silent for so long that its rows move to the other; it works on, and its late results come."""
    if not (name := _name(scene, dice)):
        return ""
    seconds = SILENT_S + dice.uniform(2.0, 5.0)
    scene.machines.lines[name].blackhole()
    time.sleep(seconds)
    scene.machines.lines[name].resume()
    return f"{name}: {seconds:.1f} s"


@fault(26, weight=0, early=True)
def refusal(scene: Scene, dice: random.Random) -> str:
    """The server takes no connections for a moment, and those that were are cut."""
    if not (name := _name(scene, dice)):
        return ""
    line = scene.machines.lines[name]
    line.refuse()
    line.cut(reset=True)
    time.sleep(dice.uniform(0.1, 1.5))
    line.resume()
    return name


@fault(24, weight=0, early=True)
def slow_line(scene: Scene, dice: random.Random) -> str:
    """A narrow and long line for a second."""
    if not (name := _name(scene, dice)):
        return ""
    line = scene.machines.lines[name]
    line.rate(100_000)
    line.delay(0.15)
    time.sleep(1.0)
    line.rate(None)
    line.delay(0)
    return name


@fault(26, weight=0, early=True)
def kill_sessions(scene: Scene, dice: random.Random) -> str:
    """SIGKILL to the server's side of every connection: what ran over them has an unknown outcome."""
    if not (name := _name(scene, dice)) or not (hit := scene.machines.hang_up(name)):
        return ""
    return f"{name}: {hit}"


@fault(21, 40, weight=0, early=True)
def hung_server(scene: Scene, dice: random.Random) -> str:
    """The SSH server stops and goes on a moment later: it takes connections and says nothing."""
    if not (name := _name(scene, dice)):
        return ""
    scene.machines.hosts[name].cut()
    time.sleep(dice.uniform(0.2, 1.5))
    scene.machines.hosts[name].restore()
    return name


@fault(17, weight=0)
def reboot(scene: Scene, dice: random.Random) -> str:
    """Power off: everything on a host dies at once; it is on again a moment later, and nobody starts anything there."""
    if not (name := _name(scene, dice)):
        return ""
    scene.machines.hosts[name].crash()
    scene.machines.lines[name].cut(reset=True)
    time.sleep(dice.uniform(0.1, 2.0))
    scene.machines.hosts[name].boot()
    return name


@fault(19, weight=0)
def power_off(scene: Scene, dice: random.Random) -> str:
    """A host dies for good, at most one a history, and never before its rows were planned."""
    planned = scene.run and (scene.run / "plan.json").exists()
    if not planned or scene.machines.gone or not (name := _name(scene, dice)):
        return ""
    scene.machines.gone = name
    scene.machines.lines[name].refuse()
    scene.machines.lines[name].cut(reset=True)
    scene.machines.hosts[name].crash()
    return name


@fault(19, 23, weight=0)
def power_off_and_cut(scene: Scene, dice: random.Random) -> str:
    """A host dies for good, and the line to the other breaks at the very moment when the rows move there."""
    before = scene.epoch()
    if not (said := power_off(scene, dice)):
        return ""
    (other,) = scene.machines.there
    if scene.wait(lambda: scene.epoch() > before or scene.driver is None, 4 * SILENT_S) and scene.driver:
        scene.machines.lines[other].refuse()
        scene.machines.lines[other].cut(reset=True)
        time.sleep(SILENT_S / 2)
        scene.machines.lines[other].resume()
        return f"{said}, and {other} was not told at once"
    return said


@fault(31, weight=0, early=True)
def impostor(scene: Scene, dice: random.Random) -> str:
    """Somebody with another host key answers in a host's place for a while: nobody may log in there."""
    if not (name := _name(scene, dice)):
        return ""
    line = scene.machines.lines[name]
    with scene.machines.impostor(name) as let_in:
        before = line.connections
        scene.wait(lambda: line.connections >= before + 2, 3.0)
        dialled = line.connections - before
        if let_in():
            scene.blame(f"{let_in()} logins at {name}, which showed another host key")
    return f"{name}: dialled {dialled} times" if dialled else ""


WEIGHTS = {
    "cut_line": 8.0,
    "cut_in_transfer": 6.0,
    "silence": 4.0,
    "long_silence": 2.0,
    "refusal": 3.0,
    "slow_line": 1.0,
    "kill_sessions": 5.0,
    "hung_server": 3.0,
    "reboot": 4.0,
    "power_off": 0.5,
    "power_off_and_cut": 0.5,
    "impostor": 3.0,
}
# Of tier C, where the model is real and a worker takes seconds to begin: no fault that asks the stand-in for it.
REAL = {
    "kill_worker": 8.0,
    "kill_supervisor": 1.5,
    "kill_host": 1.5,
    "kill_driver": 1.5,
    "interrupt_driver": 0.5,
    "kill_everything": 0.5,
    "cut_line": 2.0,
    "cut_in_transfer": 2.0,
    "silence": 1.0,
    "kill_sessions": 1.0,
    "reboot": 1.5,
    "power_off": 0.3,
    "flip_part": 1.5,
    "spoil_part": 0.5,
    "spoil_record": 0.5,
    "damage_shard": 0.7,
    "flip_home": 0.7,
    "leave_temporary": 0.5,
    "restart_file": 0.5,
    "reused_pid": 0.5,
}
