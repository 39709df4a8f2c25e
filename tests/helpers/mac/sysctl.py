"""`sysctl -n NAME` as a Mac's: the session of a boot stands still; its time moves whenever the clock is set."""

import os
import sys
import time
from pathlib import Path

scratch, _, name = sys.argv[1:4]
if name == "kern.bootsessionuuid":
    print(Path(scratch, "session").read_text().strip().upper())
elif name == "kern.boottime":
    now = time.time_ns() // 1000
    print(f"{{ sec = {now // 10**6 - 600}, usec = {now % 10**6} }} {time.ctime(now // 10**6 - 600)}")
elif name == "hw.memsize":
    print(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
else:
    print(f"sysctl: unknown oid '{name}'", file=sys.stderr)
    sys.exit(1)
