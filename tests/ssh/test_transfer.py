"""Files on their way: cut, resumed, refused, brought twice; over real OpenSSH hosts, behind a proxy that cuts."""

import hashlib
import os
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fleet
import pytest
from hosts_by_ssh import linked
from made_up import run_folder
from proxy import Proxy
from waiting import wait_for

from runbook_lib.errors import HostError
from runbook_lib.hosts.content import Content, file_content
from runbook_lib.report import report
from runbook_lib.slots import incidents

SIZE = 60_000_000
CUTS = [SIZE * (2 * k + 1) // 20 for k in range(10)]


@pytest.fixture(scope="module")
def there(ssh_fleet):
    return ssh_fleet.hosts["tensor01"]


@pytest.fixture(scope="module")
def large(there, tmp_path_factory):
    """A file on the host, its path there, its path here and its sha256."""
    block = os.urandom(1_000_003)
    raw = (block * (SIZE // len(block) + 1))[:SIZE]
    (there.home / "large").write_bytes(raw)
    here = tmp_path_factory.mktemp("large") / "large"
    here.write_bytes(raw)
    return here, hashlib.sha256(raw).hexdigest()


@pytest.fixture(autouse=True)
def nothing_was_brought(there):
    """Each test, and each way to log in, begins with a host that has the one file only."""
    for name in ("up", "both", "wrong"):
        shutil.rmtree(there.home / name, ignore_errors=True)


def remote(host, name="large"):
    return Path(host.transport.home) / name


@pytest.mark.usefixtures("either_client")
def test_ten_cuts_on_the_way_home_bring_hardly_a_byte_twice(there, large, tmp_path, either_client):
    here, digest = large
    with Proxy(there.address, there.port) as line, linked(there, address="127.0.0.1", port=line.port) as host:
        line.cut_after(down=CUTS)
        moved = []
        assert host.get(remote(host), tmp_path / "home", digest, moved.append)
        assert line.connections == 11
        # What ssh has received and not yet written into our pipe is lost with it: at most its window a cut.
        assert SIZE <= line.down <= (SIZE + len(CUTS) * 2**21 if either_client == "an alias" else 1.02 * SIZE)
        breaks = host.breaks()
        assert len(breaks) == 10 and not host.breaks()
    assert (tmp_path / "home").read_bytes() == here.read_bytes()
    assert sum(moved) == SIZE
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    (tmp_path / "run").mkdir()
    run = run_folder(tmp_path / "run").run
    incidents.link_breaks(run, "tensor01", breaks)
    told = report.failure_log(run).read_text().splitlines()
    assert len(told) == 10 and all("link broke: host: tensor01; seen: " in line and "large" in line for line in told)


def test_what_came_before_a_cut_is_kept_though_the_server_can_no_longer_be_told_so(there, large, monkeypatch):
    here, _ = large
    with linked(there) as host, host.transport.link.session() as session:
        coming = session.fetch(str(remote(host)), 0, SIZE)
        got = next(coming)

        def cut(message):
            raise EOFError

        wait_for(lambda: len(session.channel.in_buffer) > 1_000_000, "a megabyte on its way")
        monkeypatch.setattr(session.owner.transport.packetizer, "send_message", cut)
        got += next(coming)
        assert len(got) > 1_000_000
        assert got == here.read_bytes()[: len(got)]


@pytest.mark.usefixtures("either_client")
def test_ten_cuts_on_the_way_up_bring_no_more_twice_than_what_was_under_way(there, large):
    """What a server has received and not handed on when its connection breaks is lost: at most its window a cut."""
    here, digest = large
    with Proxy(there.address, there.port) as line, linked(there, address="127.0.0.1", port=line.port) as host:
        line.cut_after(up=CUTS)
        moved = []
        assert host.put(remote(host, "up/large"), file_content(here, digest), moved.append)
        assert line.connections == 11
        assert SIZE <= line.up <= SIZE + len(CUTS) * (2**21 + 2**17)
        assert host.sha256(remote(host, "up/large")) == digest
        assert [words.startswith(f"{remote(host, 'up/large')}: ") for words in host.breaks()] == [True] * 10
        assert not host.put(remote(host, "up/large"), file_content(here, digest))
    assert sum(moved) == SIZE
    assert [path.name for path in (there.home / "up").iterdir()] == ["large"]


@pytest.mark.usefixtures("either_client")
def test_what_an_earlier_process_brought_is_not_brought_again(there, large, tmp_path):
    here, digest = large
    (tmp_path / f".home.{digest[:16]}.part").write_bytes(here.read_bytes()[: SIZE // 2])
    with Proxy(there.address, there.port) as line, linked(there, address="127.0.0.1", port=line.port) as host:
        assert host.get(remote(host), tmp_path / "home", digest)
        assert line.down < 0.52 * SIZE
    assert (tmp_path / "home").read_bytes() == here.read_bytes()


@pytest.mark.usefixtures("either_client")
def test_a_beginning_that_is_not_the_files_own_is_thrown_away(there, large, tmp_path):
    here, digest = large
    (tmp_path / f".home.{digest[:16]}.part").write_bytes(b"something else")
    with linked(there) as host:
        assert host.get(remote(host), tmp_path / "home", digest)
    assert (tmp_path / "home").read_bytes() == here.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.usefixtures("either_client")
def test_a_file_of_another_sha256_never_gets_its_name_here_or_there(there, large, tmp_path):
    here, _ = large
    before = tmp_path / "home"
    before.write_bytes(b"an older good file")
    with linked(there) as host:
        with pytest.raises(HostError, match=r"tensor01: fetching .*expected sha256 0000.*nothing was kept"):
            host.get(remote(host), before, "0" * 64)
        lying = Content(SIZE, "0" * 64, file_content(here).chunks)
        with pytest.raises(HostError, match="expected sha256 0000"):
            host.put(remote(host, "wrong/large"), lying)
        small = Content(3, "0" * 64, lambda: iter([b"abc"]))
        with pytest.raises(HostError, match="expected sha256 0000"):
            host.put(remote(host, "wrong/small"), small)
        assert host.alive(None) is False  # the connection is still of use
    assert before.read_bytes() == b"an older good file"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert list((there.home / "wrong").iterdir()) == []


@pytest.mark.usefixtures("either_client")
def test_a_file_that_grows_beyond_what_was_expected_is_not_taken(there, large, tmp_path):
    with linked(there) as host:
        with pytest.raises(HostError, match="at most 1000 were expected"):
            host.get(remote(host), tmp_path / "home", large[1], limit=1000)
        assert host.alive(None) is False
    assert not (tmp_path / "home").exists()


@pytest.mark.usefixtures("either_client")
def test_a_missing_file_is_named(there, tmp_path):
    with linked(there) as host, pytest.raises(HostError, match=r"tensor01: fetching .*nowhere"):
        host.get(remote(host, "nowhere"), tmp_path / "home", "0" * 64)


@pytest.mark.usefixtures("either_client")
def test_two_connections_that_bring_the_same_file_bring_it_once(there, large):
    here, digest = large
    with linked(there) as one, linked(there) as two, ThreadPoolExecutor(2) as pool:
        content = file_content(here, digest)
        found = list(pool.map(lambda host: host.put(remote(host, "both/large"), content), (one, two)))
        assert True in found
        assert one.sha256(remote(one, "both/large")) == digest
    assert [path.name for path in (there.home / "both").iterdir()] == ["large"]


@pytest.mark.usefixtures("either_client")
def test_memory_does_not_grow_with_the_file(there, large, tmp_path):
    here, digest = large
    over = threading.Event()
    seen = []

    def look():
        while not over.wait(0.01):
            seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))

    with linked(there) as host:
        host.poll()
        watcher = threading.Thread(target=look)
        watcher.start()
        host.get(remote(host), tmp_path / "home", digest)
        host.put(remote(host, "memory"), file_content(here, digest))
        over.set()
        watcher.join()
    assert max(seen) - seen[0] < SIZE / 2


@pytest.mark.usefixtures("either_client")
def test_a_full_disk_there_is_told_in_its_own_words_and_what_came_stays(large, tmp_path):
    if os.geteuid() or fleet.available("loopback"):
        pytest.skip("no small disk can be made on this machine")
    here, digest = large
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    try:
        with (
            fleet.start(tmp_path / "fleet", names=["small"], mode="loopback") as made,
            linked(made.hosts["small"], workdir=str(disk)) as host,
        ):
            with pytest.raises(HostError, match=r"small: writing .*No space left on device"):
                host.put(host.workdir / "large", file_content(here, digest))
            assert [path.suffix for path in disk.iterdir()] == [".part"]
            assert host.facts("token")["workdir"] == str(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
