"""What pip and conda printed when they failed, as one line, the line of the requirements at fault, and what to do."""

from __future__ import annotations

import re
import signal
import sys

from .environment import tail
from .escape import safe_text
from .wire import FaultyLine


def without_secrets(text: str) -> str:
    """An address from the user's own settings may carry a user and a password."""
    return re.sub(r"://[^/\s@]+@", "://***@", text)


def error_in(output: str) -> str:
    """The one line that says most: pip's last error, or an exception's; else the last line."""
    errors = re.findall(r"^ {0,2}(?:ERROR: (?!ResolutionImpossible)|error: |\w*Error: ).*", output, re.MULTILINE)
    telling = [line.strip() for line in errors if len(line.split()) > 2]
    return safe_text((telling or errors or tail(output, 1) or [""])[-1], 500)


_ERROR_LINE = re.compile(r" {0,2}ERROR: |error: | {4}\S+ from .*\):$|.*\(from line \d+ of ")
_NAMED = re.compile(
    r"(?:No matching distribution found for|satisfies the requirement|Cannot install|Failed to build|\(from"
    r"|(?:Failed building wheel|Could not build wheels) for) '?(?!versions:|line )(\w[^\s;),']*)"
)


def line_at_fault(requirements: str, output: str, file: str) -> FaultyLine | None:
    """The line of the requirements that pip's error speaks of: by its number, else by what it quotes of it."""
    lines = requirements.splitlines()
    text = "\n".join(line for line in output.splitlines() if _ERROR_LINE.match(line))
    number = re.search(rf"{re.escape(file)} \(line (\d+)\)|line (\d+) of .*{re.escape(file)}", text)
    if number:
        return _numbered(lines, int(number.group(1) or number.group(2)))
    named: list[str] = _NAMED.findall(text)
    if "subprocess-exited-with-error" in output:  # a package that cannot be built is named only as it is fetched
        named += re.findall(
            r"^(?:Collecting |Processing (?:[^(]*/)?)(\w[^\s;]*?)(?:-\d\S*)?(?: .*)?$", output, re.MULTILINE
        )[-1:]
    for quoted in named:
        same = [n for n, line in enumerate(lines, 1) if _canonical(line) == _canonical(quoted)]
        if same:  # one package may stand there twice, for different Pythons
            return _numbered(lines, next((n for n in same if quoted in lines[n - 1].replace(" ", "")), same[0]))
    wrong = [n for n, line in enumerate(lines, 1) if line.strip() and f"Invalid requirement: {line.strip()}" in text]
    return _numbered(lines, wrong[0]) if wrong else None


def _canonical(requirement: str) -> str:
    """The name in a requirement, as pip compares names."""
    match = re.match(r"\s*(\w[\w.-]*)", requirement)
    return re.sub(r"[-_.]+", "-", match.group(1)).strip("-").lower() if match else ""


def _numbered(lines: list[str], number: int) -> FaultyLine | None:
    if not 1 <= number <= len(lines):
        return None
    return FaultyLine(number, safe_text(lines[number - 1].strip(), 500))


# Looked through in this order: without a network pip also says that it found no version.
_HINTS = (
    ("ensurepip", "On Debian or Ubuntu: apt-get install python3-venv; or use conda:NAME or a path."),
    (
        "No space left on device|Dis[ck] quota exceeded|Errno (28|69|122)\\b",
        "Free space there, or in the folder for temporary files (the variable TMPDIR chooses another one).",
    ),
    (
        "Temporary failure in name resolution|Name or service not known|nodename nor servname provided"
        "|Network is unreachable|NewConnectionError"
        "|Connection refused|timed out|ProxyError|CondaHTTPError|ConnectionError|Could not resolve host",
        "This host does not reach the package index: send a folder of wheels along, or set a proxy for pip.",
    ),
    ("Terms of Service", "Accept the terms of that conda channel on the host, or set its channels to conda-forge."),
    (
        "DO NOT MATCH THE HASHES",
        "The file is not the one that was pinned: a damaged download or mirror, or another build. Correct one of them.",
    ),
    (
        "Failed building wheel|Could not build wheels|subprocess-exited-with-error",
        "There is no ready-made wheel of it for this Python and machine: pin a version that has one.",
    ),
    ("conflicting dependencies", "Pin versions that fit each other."),
    ("No module named", "The requirements do not bring it: pin the package that does."),
)


def hint(output: str, wheels: str | None, code: int | None) -> str:
    """What to do about an error; empty when nothing better is known than its words."""
    if code == -signal.SIGKILL:
        return "Killed: perhaps out of memory."
    for pattern, remedy in _HINTS:
        if re.search(pattern, output):
            return remedy
    if "No matching distribution found" in output:
        python = ".".join(map(str, sys.version_info[:2]))
        where = f"{wheels} lacks it" if wheels else "The package index lacks it"
        return f"{where} for this machine and Python (a venv has {python}): another version, or a newer Python."
    return ""
