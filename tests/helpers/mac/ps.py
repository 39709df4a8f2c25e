"""`ps` as Apple's prints: `-p PID` or `-a -x`, with `-o stat=,lstart=` or `-o pid=,args=`."""

import os
import sys
import time
from pathlib import Path

PROC, *ARGV = sys.argv[1:]
HERTZ = os.sysconf("SC_CLK_TCK")


def booted() -> int:
    lines = Path(PROC, "stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("btime "))


def columns(pid: str) -> dict[str, str]:
    name, _, rest = Path(PROC, pid, "stat").read_text(errors="replace").rpartition(")")
    fields = rest.split()
    words = Path(PROC, pid, "cmdline").read_bytes().decode(errors="replace").rstrip("\0").replace("\0", " ")
    began = time.localtime(booted() + int(fields[19]) // HERTZ)  # by TZ, as Apple's
    return {
        "pid": f"{pid:>5}",
        "stat": f"{fields[0]:<4}",
        "lstart": f"{time.strftime('%a %b', began)} {began.tm_mday:>2} {time.strftime('%H:%M:%S %Y', began)}    ",
        "args": words or f"({name.partition('(')[2]})",
    }


def main() -> int:
    wanted: list[str] = []
    pids: list[str] = []
    words = iter(ARGV)
    for word in words:
        if word == "-o":
            wanted += [name.rstrip("=") for name in next(words).split(",")]
        elif word == "-p":
            pids = next(words).split(",")
        elif set(word[1:]) <= set("axw"):
            pids = sorted((entry.name for entry in Path(PROC).glob("[0-9]*")), key=int)
        else:
            print(f"ps: illegal option -- {word}", file=sys.stderr)
            return 1
    found = 0
    for pid in pids:
        try:
            row = columns(pid)
        except OSError:
            continue
        print(" ".join(row[name] for name in wanted))
        found += 1
    return 0 if found else 1


sys.exit(main())
