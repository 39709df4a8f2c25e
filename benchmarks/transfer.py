"""How fast files come home and go up, beside `scp` and `rsync` in the same run, every byte held against its sha256.

    python benchmarks/transfer.py                    8 x 150 MB down and 790 MB up, direct and behind 30 ms
    python benchmarks/transfer.py --quick            a tenth of that
    python benchmarks/transfer.py --ssh              ours by an alias, as the person's own ssh goes

Hosts are real OpenSSH servers on this machine, their files in memory where /dev/shm has the room (else on the disk, or
where --folder says): on a disk its own mood is most of what is measured.
The delay is added by a proxy that both go through: it shows what SSH's windows cost, not what a real network loses.
Ours is measured as the product does it: parts with the sha256 that their worker recorded, two at a time; what goes up
has a sha256 that is known here (preflight hashed the model, launch the shards: the last line says what that takes), is
hashed there as it comes, synced to the disk, compared and renamed. scp checks and syncs nothing; "scp, synced" is scp
and then the same sync, which is what a file that must survive a power cut takes with it. rsync copies over ssh with its
defaults; where it is not installed its column is empty.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
HELPERS = [str(ROOT / "demo"), str(ROOT / "tests" / "helpers")]
sys.path[:0] = HELPERS

import fleet  # noqa: E402
from hosts_by_ssh import by_alias, linked  # noqa: E402

from runbook_lib.hosts import hosts  # noqa: E402
from runbook_lib.hosts.content import file_content  # noqa: E402
from runbook_lib.hosts.ssh.session import Patience  # noqa: E402
from runbook_lib.hosts.ssh.ssh import SshTransport  # noqa: E402
from runbook_lib.phases import download  # noqa: E402
from worker.files import sha256_file  # noqa: E402

MB = 1_000_000
Took = tuple[float, float, float]
"""Seconds, CPU seconds of this process and its ended children, rise of memory in MB."""
Round = dict[str, Took | None]
"""scp, sync (of its files), rsync (None where it is not installed), ours."""


class Peak(threading.Thread):
    """The most memory this process held while it ran, in MB above where it began."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.began = self.most = self.now()
        self.over = threading.Event()

    @staticmethod
    def now() -> float:
        """Resident memory now, in MB."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / MB

    def run(self) -> None:
        """Look until told to stop."""
        while not self.over.wait(0.02):
            self.most = max(self.most, self.now())

    def end(self) -> float:
        """Stop looking; the rise in MB."""
        self.over.set()
        self.join()
        return self.most - self.began


def sync(*files: Path) -> None:
    """Have the bytes of these files on the disk, as ours has before it renames."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def roomy() -> Path | None:
    """A folder in memory with room for all files of this benchmark, or None."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and shutil.disk_usage(memory).free > 8_000 * MB else None


def timed(work: Callable[[], None]) -> Took:
    """What `work` takes."""
    before = sum(os.times()[:4])
    peak = Peak()
    peak.start()
    began = time.monotonic()
    work()
    took = time.monotonic() - began
    return took, sum(os.times()[:4]) - before, peak.end()


def scp(host: fleet.Host, port: int, address: str, *names: str) -> None:
    """Copy with the OpenSSH client and its defaults."""
    options = ["-q", "-B", "-i", str(host.key), "-P", str(port), "-o", "StrictHostKeyChecking=no"]
    options += ["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]
    sides = [name.replace("THERE:", f"{host.username}@{address}:") for name in names]
    subprocess.run(["scp", *options, *sides], check=True, stdin=subprocess.DEVNULL)


def rsync(host: fleet.Host, port: int, address: str, *names: str) -> None:
    """Copy with rsync over ssh and its defaults."""
    ssh = ["ssh", "-q", "-i", str(host.key), "-p", str(port), "-o", "StrictHostKeyChecking=no"]
    ssh += ["-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"]
    sides = [name.replace("THERE:", f"{host.username}@{address}:") for name in names]
    subprocess.run(["rsync", "-e", shlex.join(ssh), *sides], check=True, stdin=subprocess.DEVNULL)


@contextlib.contextmanager
def way(host: fleet.Host, rtt_s: float) -> Iterator[tuple[str, int]]:
    """Address and port of the host, direct or behind a proxy that delays."""
    if not rtt_s:
        yield host.address, host.port
        return
    # In a process of its own: in ours it would take turns with what is measured.
    code = "import sys; from proxy import Proxy; p = Proxy(sys.argv[1], int(sys.argv[2])); p.delay(float(sys.argv[3]))"
    argv = [sys.executable, "-c", f"{code}; print(p.port, flush=True); sys.stdin.read(); p.close()"]
    with subprocess.Popen(
        [*argv, host.address, str(host.port), str(rtt_s / 2)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(HELPERS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as between:
        assert between.stdin and between.stdout
        yield "127.0.0.1", int(between.stdout.readline())
        between.stdin.close()


def close(ours: hosts.Host) -> None:
    """End the connection, so that the CPU time of an ssh of ours counts."""
    assert isinstance(ours.transport, SshTransport)
    ours.transport.link.close()


def down(host: fleet.Host, rtt_s: float, names: list[str], sums: dict[str, str], into: Path) -> Round:
    """One round of downloads: scp, then ours."""
    with way(host, rtt_s) as (address, port):
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir(parents=True)
        theirs = timed(lambda: scp(host, port, address, *(f"THERE:files/{name}" for name in names), str(into)))
        synced = timed(lambda: sync(*(into / name for name in names)))
        shutil.rmtree(into)
        into.mkdir(parents=True)
        sources = [f"THERE:files/{name}" for name in names]
        by_rsync = timed(lambda: rsync(host, port, address, *sources, str(into))) if shutil.which("rsync") else None
        shutil.rmtree(into)
        into.mkdir(parents=True)
        with linked(host, Patience(), address=address, port=port) as ours:
            folder = Path(ours.transport.home) / "files"  # connects

            def bring() -> None:
                with ThreadPoolExecutor(download.STREAMS) as pool:
                    list(pool.map(lambda name: ours.get(folder / name, into / name, sums[name]), names))
                close(ours)

            ours_took = timed(bring)
        assert all(sha256_file(into / name) == sums[name] for name in names)
    return {"scp": theirs, "sync": synced, "rsync": by_rsync, "ours": ours_took}


def up(host: fleet.Host, rtt_s: float, source: Path, known: str) -> Round:
    """One round of an upload: scp, then ours."""
    with way(host, rtt_s) as (address, port):
        theirs = timed(lambda: scp(host, port, address, str(source), "THERE:files/up"))
        synced = timed(lambda: sync(host.home / "files" / "up"))
        (host.home / "files" / "up").unlink()  # each makes a new file
        by_rsync = None
        if shutil.which("rsync"):
            by_rsync = timed(lambda: rsync(host, port, address, str(source), "THERE:files/up"))
            (host.home / "files" / "up").unlink()
        with linked(host, Patience(), address=address, port=port) as ours:
            target = Path(ours.transport.home) / "files" / "up_ours"
            content = file_content(source, known)

            def send() -> None:
                ours.put(target, content)
                close(ours)

            ours_took = timed(send)
            assert ours.sha256(target) == known
        (host.home / "files" / "up_ours").unlink()
    return {"scp": theirs, "sync": synced, "rsync": by_rsync, "ours": ours_took}


def summary(rounds: list[Round]) -> list[float]:
    """The figures of the table's columns; nan for rsync where it is not installed."""

    def all_of(who: str, what: int = 0) -> list[float]:
        return [took[what] if (took := each[who]) else math.nan for each in rounds]

    scp_s, sync_s, ours_s = all_of("scp"), all_of("sync"), all_of("ours")
    ratios = [ours / theirs for ours, theirs in zip(ours_s, scp_s, strict=True)]
    durable = [ours / (theirs + more) for ours, theirs, more in zip(ours_s, scp_s, sync_s, strict=True)]
    by_rsync = [ours / theirs for ours, theirs in zip(ours_s, all_of("rsync"), strict=True)]
    cpu = [ours / theirs for ours, theirs in zip(all_of("ours", 1), all_of("scp", 1), strict=True)]
    columns = (scp_s, ours_s, ratios, [max(ratios)], durable, by_rsync, cpu, [max(all_of("ours", 2))])
    return [statistics.median(values) for values in columns]


def main() -> int:
    """Measure, print the table, give 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of scp and ours in turn (default 3)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the bytes")
    parser.add_argument("--rtt-ms", type=float, default=30.0, help="the delay there and back of the second table")
    parser.add_argument(
        "--ssh", action="store_true", help="ours by an alias, so by the person's own ssh; else paramiko"
    )
    parser.add_argument("--mode", default="auto", choices=["auto", "netns", "loopback"], help="see demo/fleet.py")
    parser.add_argument("--folder", type=Path, help="where the files are (default: in memory, if there is room)")
    parser.add_argument("--json", type=Path, help="keep the figures here")
    options = parser.parse_args()
    part, count, large = (15, 8, 79) if options.quick else (150, 8, 790)
    where = options.folder or roomy()
    if where:
        where.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Round]] = {}
    with (
        tempfile.TemporaryDirectory(dir=where) as scratch,
        fleet.start(Path(scratch) / "fleet", names=["tensor01"], mode=options.mode) as made,
    ):
        host = made.hosts["tensor01"]
        if options.ssh:
            (Path(scratch) / "alias").mkdir()
            by_alias.append(Path(scratch) / "alias")
            os.environ["RUNBOOK_SSH_CONFIG"] = str(by_alias[0] / "config")
        files = host.home / "files"
        files.mkdir()
        block = os.urandom(MB)
        for number in range(count):
            (files / f"part{number}").write_bytes(bytes([number]) * 7 + block * part)
        source = Path(scratch) / "large"
        with source.open("wb") as file:
            for _ in range(large):
                file.write(block)
        names = [f"part{number}" for number in range(count)]
        began = time.monotonic()
        known = sha256_file(source)
        hashing_s = time.monotonic() - began
        sums = {name: sha256_file(files / name) for name in names}
        for rtt_ms in (0.0, options.rtt_ms):
            for _ in range(options.rounds):
                label = f"{rtt_ms:g} ms"
                results.setdefault(f"down {count} x {part} MB, {label}", []).append(
                    down(host, rtt_ms / 1000, names, sums, Path(scratch) / "home")
                )
                results.setdefault(f"up {large} MB, {label}", []).append(up(host, rtt_ms / 1000, source, known))
    print(f"files in {where or tempfile.gettempdir()}; load {os.getloadavg()[0]:.1f}; ratios: our time to theirs")
    head = ["scp s", "ours s", "ratio", "worst", "scp, synced", "rsync", "CPU", "memory MB"]
    print(f"{'median of ' + str(options.rounds) + ' rounds':32}" + "".join(f" {name:>11}" for name in head))
    for name, rounds in results.items():
        print(f"{name:32}" + "".join(f" {value:11.2f}" for value in summary(rounds)))
    print(f"hashing {large} MB here, before: {hashing_s:.2f} s")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
