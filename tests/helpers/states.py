"""Made-up states of a run, as the monitor hands them to whoever shows them."""

from __future__ import annotations

from dataclasses import replace

from runbook_lib.slots.snapshot import SlotState, Snapshot

NASTY = "<script>alert(1)</script>\"'\x1b[31m\u202e<img src=http://evil/x>"


def slot(number: int, **changes: object) -> SlotState:
    made = SlotState(
        slot=f"cluster{number // 8}_gpu{number % 8}",
        host=f"tensor{number // 8:02d}",
        rows=15625,
        committed=1234 + number,
        in_part=64,
        state="running",
        rate=45.6,
        age_s=1.2,
    )
    return replace(made, **changes)


def state(slots: int = 16, **changes: object) -> Snapshot:
    made = Snapshot(
        run="made-up-1",
        at=0.0,
        elapsed_s=240.0,
        rows=15625 * slots,
        committed=1234 * slots,
        slots=tuple(slot(i) for i in range(slots)),
        rate=712.3,
        eta_s=180.0,
        history=tuple((float(t), 700.0 + t) for t in range(0, 240, 4)),
        norms=tuple(1 + i * 1e-8 for i in range(-20, 20)),
        quarantined=(),
        alerts=(),
    )
    return replace(made, **changes)


def done(seen: Snapshot) -> Snapshot:
    return replace(
        seen, committed=seen.rows, slots=tuple(replace(s, committed=s.rows, state="done") for s in seen.slots)
    )


class Hands:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
