"""Stands in for a host's Python: the worker as sent to that host, with an encoder that needs no torch.

Called as `host_python.py SITE PACE BREAK -m worker VERB ...` in the run's folder on the host; a script that history.py
writes puts the first three words there. SITE is where numpy is, PACE the seconds that a part takes (SLOWER times that
while a file `slow` lies beside the hosts' folders), BREAK the name of a safety mechanism to take out (see broken.py),
or `-`.

A profile has no knob for the supervisor's pauses, so they are shortened here: the one liberty taken with the worker.
A file `chaos.<what>` in the run's folder is an order to whichever worker finds it first:

    crash   it kills itself in the middle of a batch       hang   it stops for ever
    nan     a vector is NaN, and right when redone         small  its files may not grow: as on a full disk

A file `modes.json` beside the run's folders says how the device of a slot behaves from now on, such as
{"cluster0_gpu1": "nan"}; MODES lists what it may do. A text with RAISE, KILL or NOTANUMBER in it does that everywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import time
import types
import zlib
from pathlib import Path

BACK_OFF_S = (0.02, 0.05, 0.1, 0.2, 0.3)
POLL_S = 0.05
STALL_S = 6.0
IDLE_S = 3.0
PACE, SLOWER = 0.0, 6


class RowError(Exception):
    """As in worker.encoder."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row, self.reason = row, reason


def vector(text: str):
    """A text's vector: 32 numbers from its digest, of length one; whole numbers until the last step, so exact."""
    import numpy as np

    whole = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=64).digest(), "<i2").astype(np.int64)
    return (whole / math.sqrt(int((whole * whole).sum()))).astype(np.float32)


def _every_third(found, calls=[]):  # noqa: B006
    calls.append(1)
    return found * math.nan if len(calls) % 3 == 0 else found


MODES = {
    "nan": lambda found, text: found * math.nan,
    "nan-long": lambda found, text: found * math.nan if len(text.split()) > 2 else found,  # a word comes out right
    "nan-often": lambda found, text: _every_third(found),
    "inf": lambda found, text: found * math.inf,
    "zeros": lambda found, text: found * 0,
    "half": lambda found, text: found / 2,
    "constant": lambda found, text: vector("the same for all"),
    "turned": lambda found, text: found[::-1].copy(),  # of the right length, in another direction
    "kill": lambda found, text: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda found, text: os.kill(os.getpid(), signal.SIGSTOP) or found,
    "slow": lambda found, text: time.sleep(0.2) or found,
}


def mode() -> str:
    """How the device of this slot behaves."""
    slot = sys.argv[sys.argv.index("--slot") + 1] if "--slot" in sys.argv else ""
    try:
        return json.loads(Path("../modes.json").read_bytes()).get(slot, "")
    except (OSError, ValueError):
        return ""


def poison(text: str) -> None:
    """What some texts do on every device."""
    if "KILL" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "RAISE" in text:
        raise ValueError("this text cannot be encoded")


def computed(text: str):
    """A text's vector as the device at hand gives it."""
    poison(text)
    found, how = vector(text), mode()
    if "NOTANUMBER" in text:
        return found * math.nan
    if how == "raise":
        raise RuntimeError("CUDA error: an illegal instruction was encountered")
    return MODES[how](found, text) if how in MODES else found


def ordered(what: str) -> bool:
    """Whether there is an order, and nobody else took it."""
    try:
        Path(f"chaos.{what}").rename(f"chaos.{what}.{os.getpid()}.taken")
    except OSError:
        return False
    return True


class Encoder:
    """What the worker asks of an encoder."""

    normalises, out_of_memory, row_limit, ahead = True, 0, None, False

    limits, budget, device = {"document": 64, "query": 64}, 2048, "cpu"

    def __init__(self, folder, device, dtype, max_tokens, threads=None, templates=None) -> None:
        self.max_tokens = min(64, max_tokens or 64)
        # Half the slots are as a GPU: the next rows are claimed and tokenized, and a part is committed, meanwhile.
        self.ahead = "--slot" in sys.argv and zlib.crc32(sys.argv[sys.argv.index("--slot") + 1].encode()) % 2 == 1
        how = mode()
        if how == "kill-load":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "hang-load":
            os.kill(os.getpid(), signal.SIGSTOP)
        if how == "raise-load":
            raise RuntimeError("CUDA error: no CUDA-capable device is detected")

    def describe(self):
        from worker.wire import Described

        return Described("cpu (none)", "none", "3", 64)

    def lengths(self, texts):
        return [2 + len(text.split()) for text in texts]

    def encode(self, texts, lengths, rows, before_batch=lambda rows: None):
        import numpy as np

        from worker.batches import batches

        probed = "--slot" not in sys.argv or rows[0] < 0
        with contextlib.suppress(OSError), open(os.devnull if probed else "encoded.log", "ab", buffering=0) as log:  # noqa: PTH123
            log.write(f"{rows[0]} {len(rows)} {os.getpid()}\n".encode())
        found = np.empty((len(texts), 32), np.float32)
        layout = batches(lengths, 2048)
        pace = 0.0 if probed else PACE * (SLOWER if Path("../../slow").exists() else 1)
        for batch in layout:
            before_batch([rows[i] for i in batch])
            time.sleep(pace / len(layout))
            for i in batch:
                found[i] = computed(texts[i])
            if not probed:
                self._obey(found, batch[0])
        return found

    def _obey(self, found, at: int) -> None:
        if ordered("crash"):
            os.kill(os.getpid(), signal.SIGKILL)
        if ordered("hang"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if ordered("nan"):
            found[at] = math.nan
        if ordered("small"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))

    def cut(self, lengths, texts):
        return [min(length, self.max_tokens) for length in lengths]

    def pack(self):
        return "it has no layers"

    def readers(self):
        return ["document"]

    def as_the_library(self, texts):
        import numpy as np

        return np.stack([vector(text) for text in texts])

    def versions(self):
        return {"torch": "none"}

    def padding(self, lengths, texts):
        return {"real_tokens": sum(lengths), "padded_tokens": sum(lengths)}

    def bad_rows(self, vectors):
        import numpy as np

        return {int(i): "NaN or infinity in the vector" for i in np.flatnonzero(~np.isfinite(vectors).all(axis=1))}

    def redo(self, texts, positions, vectors):
        for i in positions:
            vectors[i] = computed(texts[i])
        return {i: reason for i, reason in self.bad_rows(vectors).items() if i in positions}


def stand_in() -> None:
    """Put the light encoder in the place of the one that needs torch."""
    module = types.ModuleType("worker.encoder")
    module.Encoder, module.RowError = Encoder, RowError
    module.libraries = lambda cuda: {"versions": {"torch": "none"}, "cuda_build": None, "gpus": []}
    sys.modules["worker.encoder"] = module


def hurry() -> None:
    """Shorten the supervisor's pauses; a name that is gone must not pass unnoticed."""
    from worker import slot, supervise

    supervised = ("BACK_OFF_S", BACK_OFF_S), ("STALL_S", STALL_S), ("IDLE_S", IDLE_S)
    for module, name, value in (*((slot, *each) for each in supervised), (supervise, "POLL_S", POLL_S)):
        assert hasattr(module, name), f"{module.__name__} has no {name} any more"
        setattr(module, name, value)


def weaken(name: str) -> None:
    """Take out a safety mechanism; broken.py is loaded by its path, as nothing of the tests is on a host."""
    found = importlib.util.spec_from_file_location("broken", Path(__file__).with_name("broken.py"))
    broken = importlib.util.module_from_spec(found)
    sys.modules["broken"] = broken
    found.loader.exec_module(broken)
    broken.MECHANISMS[name].on_host()


if __name__ == "__main__":
    site, pace, weak = sys.argv[1:4]
    PACE = float(pace)
    sys.path[0] = str(Path.cwd())  # the worker as sent to this host
    sys.path.append(site)
    stand_in()
    if "supervise" in sys.argv:
        hurry()
        # Started by a worker whose disk is "full", it must not inherit that: a disk is not full for one family alone.
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if weak != "-":
        weaken(weak)

    from worker.__main__ import main

    sys.exit(main(sys.argv[6:]))
