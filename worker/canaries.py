"""The canaries of one worker: computed when it has loaded, every ten minutes, and at its end.

They are read as documents and laid out alike on every slot. Slots of one kind must give the same bits, all slots nearly
what the operator's own machine gives: that is judged there. The worker itself sees whether its device gives later what
it gave first. This names machines that break. One that lies would do these texts right: they are known before.
"""

from __future__ import annotations

import base64
import time
from typing import Any

from .any_encoder import AnyEncoder
from .canary import digest, texts
from .device import kind
from .fields import read_record
from .files import write_json
from .layout import HostFolder
from .progress import Progress
from .say import say
from .second import DeviceFault
from .wire import Assignment, Canary, WorkerReport

EVERY_S = 600.0
SHARE = 0.01  # of a worker's time, at most: where the texts take long they are computed less often
AT_END = 0.05  # the same at its end: a short run is held against them twice, unless they take long beside it
KEPT = 8  # of a slot: each is another kind, or a fault

# How far the vector of a text may be from what the same device gave before, where the same bits are not promised: half
# the squared distance as a share of the squared length.
MOVED = {"float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-2}


class Canaries:
    """The canaries of one worker."""

    def __init__(self, folder: HostFolder, slot: str, assignment: Assignment, progress: Progress):
        self._folder, self._assignment, self._progress = folder, assignment, progress
        self._texts = texts(assignment.prompt, assignment.max_tokens)
        self._known = read_record(WorkerReport, folder.progress(slot)).canaries or ()  # of workers before
        self._first: Any = None
        self._exact = False
        self._last = self._began = time.monotonic()
        self._cost_s = 0.0

    def due(self, at_end: bool = False) -> bool:
        """Whether it is time for them again."""
        now = time.monotonic()
        if at_end:
            return self._cost_s < AT_END * (now - self._began)
        return now - self._last > max(EVERY_S, self._cost_s / SHARE)

    def compute(self, encoder: AnyEncoder) -> None:
        """Compute them, and put on file what comes out. Raises DeviceFault where it is not what came out before."""
        before = encoder.out_of_memory
        self._last = time.monotonic()
        try:
            vectors = self._vectors(encoder)
            self._cost_s = time.monotonic() - self._last
            if self._first is None and kind(encoder.device) == "cuda":
                self._exact = self._vectors(encoder).tobytes() == vectors.tobytes()
        except Exception as error:  # what a text of such a length does to a device, a part will show
            say(f"the canaries cannot be computed: {type(error).__name__}: {error}")
            return
        # Where memory runs out batches are halved, and other batches give other bits.
        self._exact = self._exact and encoder.out_of_memory == before == 0 and encoder.row_limit is None
        if self._first is None:
            self._first = vectors
        wrong = self._otherwise(encoder, vectors)  # before they are on file: it decides whether bits are a promise
        self._put_on_file(encoder, vectors)
        if wrong:
            raise DeviceFault(wrong)

    def _vectors(self, encoder: AnyEncoder) -> Any:
        def alive(rows: list[int]) -> None:
            self._progress.doing(f"canaries: {time.monotonic():.3f}")

        return encoder.encode(self._texts, encoder.lengths(self._texts), [-1] * len(self._texts), alive)

    def _otherwise(self, encoder: AnyEncoder, vectors: Any) -> str:
        """Why vectors are not what came out first, in words; empty where they are, or near enough.

        Bits that differ only now and then are no promise of this device, and no fault.
        """
        if vectors.tobytes() == self._first.tobytes():
            return ""
        furthest = max(_distance(one, other) for one, other in zip(vectors, self._first))
        if self._exact and self._comes_back(encoder):
            self._exact = False
            say(f"the canaries came out in other bits once ({furthest:.2g} off): bits are not compared any more")
        if not self._exact and furthest <= MOVED[self._assignment.dtype]:
            return ""
        return (
            f"a known text comes out otherwise than when the model was loaded: {furthest:.2g} off, and what this "
            "device computed since is not believed"
        )

    def _comes_back(self, encoder: AnyEncoder) -> bool:
        """Whether the first bits come out once more."""
        try:
            return bool(self._vectors(encoder).tobytes() == self._first.tobytes())
        except Exception as error:
            say(f"the canaries cannot be computed once more: {type(error).__name__}: {error}")
            return False

    def _put_on_file(self, encoder: AnyEncoder, vectors: Any) -> None:
        of_kind = [
            encoder.describe().device or encoder.device,
            *(f"{name} {version}" for name, version in sorted(encoder.versions().items())),
            self._assignment.dtype,
            self._assignment.batching,
        ]
        raw = base64.b64encode(vectors.tobytes()).decode()
        canary = Canary(", ".join(of_kind), self._exact, int(vectors.shape[1]), raw)
        named = digest(canary)
        path = self._folder.canary(named)
        if not path.exists():
            write_json(path, canary.to_json())
        if named not in self._known:
            self._known = (*self._known, named)[-KEPT:]
        self._progress.update(write=True, canaries=self._known)


def _distance(one: Any, other: Any) -> float:
    """Half the squared distance as a share of the second's squared length; infinite where that is no number."""
    apart, size = one.astype("f8") - other.astype("f8"), float((other.astype("f8") ** 2).sum())
    found = float((apart**2).sum()) / size / 2.0 if size else float("inf")
    return found if found == found else float("inf")
