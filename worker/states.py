"""What a host writes of a slot: the words of a worker's report, and of its supervisor's.

The control machine makes its own states of them (`runbook_lib/slots/states.py`). They are on disk: no word may change.
"""

from __future__ import annotations

STARTING, LOADING = "starting", "loading model"  # a worker; without a report it is starting too
RUNNING, DONE, STOPPED = "running", "done", "stopped"  # a worker, and its supervisor of it
FAILED = "failed"  # a worker, as it ends
WAITING, FENCED = "waiting", "fenced"  # a supervisor: between two workers; given up
TAKEN = "ended by the scheduler"  # a supervisor of its worker, and why that ended: a time limit, a preemption

BY_A_PERSON = "restarted by a person"  # why a worker ended, where nothing went wrong
AT_WORK = (RUNNING, WAITING)
LOADS = (None, STARTING, LOADING)
