"""Which Apple chip this machine has, and the build of its system: vectors are the same only where both are."""

from __future__ import annotations

import platform
import sys

from . import commands

ASK_S = 5.0


def apple_chip() -> str:
    """Such as `Apple M2, macOS 14.5 (23F79)`; empty on what is no Mac."""
    if sys.platform != "darwin":
        return ""
    chip = _say(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"])
    build = _say(["/usr/bin/sw_vers", "-buildVersion"])
    system = f"macOS {platform.mac_ver()[0]}" + (f" ({build})" if build else "")
    return f"{chip}, {system}" if chip else system


def _say(argv: list[str]) -> str:
    """What a command of the system prints; empty where it does not."""
    try:
        done = commands.ask(argv, ASK_S)
    except OSError:
        return ""
    return done.stdout.strip()[:200] if done.returncode == 0 else ""
