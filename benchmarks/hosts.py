"""One run on several hosts: `unshare -Urmn python benchmarks/hosts.py`.

The hosts are network namespaces, each with a name, an address and a cable of its own to one
switch; they share this machine's file system, its processors and its clock. A Dask scheduler runs
on one, workers on two others, and the sweep is asked for on a fourth. A worker is killed while it
computes, the cable of one is cut, and two shards run at once, one of them killed; each time the
run must end with the bytes of one that had the machine to itself. Who is at work is seen by the
hosts' names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from faults import PARTS, _expect, grow, tree

_PATIENCE = 300.0
_NET = "10.77.0."
_PORT = 8786
# A worker that is not heard of for so long counts as dead: as a rule five minutes.
_SOON = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "20 seconds",
    "DASK_DISTRIBUTED__WORKER__LIFETIME__RESTART": "False",
}


def ip(*words: str) -> None:
    """Change the network of this namespace."""
    subprocess.run(["ip", *words], check=True)


class Host:
    """A network and a name of its own, kept alive by a process that does nothing."""

    def __init__(self, number: int) -> None:
        self.name, self.address = f"host{number}", f"{_NET}{number}"
        self._holder = subprocess.Popen(["unshare", "-nu", "sleep", "infinity"])
        self._cable, self._port = f"cable{number}", f"port{number}"
        self._running: list[subprocess.Popen[str]] = []

    def connect(self) -> None:
        """Plug it into the switch, and give it its name and address."""
        mine = Path("/proc/self/ns/net").readlink()
        wait_for(lambda: Path(f"/proc/{self._holder.pid}/ns/net").readlink() != mine, "a namespace")
        ip("link", "add", self._cable, "type", "veth", "peer", "name", self._port,
           "netns", str(self._holder.pid))  # fmt: skip
        ip("link", "set", self._cable, "master", "switch", "up")
        for command in (
            f"hostname {self.name}",
            "ip link set lo up",
            f"ip address add {self.address}/24 dev {self._port}",
            f"ip link set {self._port} up",
        ):
            ended = self.start(*command.split())
            _expect(ended.wait() == 0, f"{command!r} fails on {self.name}")

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Run a command on this host."""
        inside = ["nsenter", "-t", str(self._holder.pid), "-n", "-u", "--", *command]
        process = subprocess.Popen(inside, text=True, env=os.environ | _SOON, **options)
        self._running.append(process)
        return process

    def cut(self) -> None:
        """Take its cable out."""
        ip("link", "set", self._cable, "down")

    def end(self) -> None:
        """End all that runs here."""
        for process in self._running:
            process.kill()
            process.wait()
        self._holder.kill()
        self._holder.wait()
        # Its network goes some time later, and its cable with it, unless it is gone already.
        subprocess.run(["ip", "link", "delete", self._cable], check=False, capture_output=True)


def wait_for(there: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + _PATIENCE
    while not there():
        _expect(time.monotonic() < end, f"no {what} after {_PATIENCE:.0f} s")
        time.sleep(0.02)


@contextmanager
def network(count: int) -> Iterator[list[Host]]:
    """So many hosts at one switch."""
    ip("link", "set", "lo", "up")
    ip("link", "add", "switch", "type", "bridge")
    ip("link", "set", "switch", "up")
    hosts: list[Host] = []
    try:
        for number in range(1, count + 1):
            hosts.append(Host(number))
            hosts[-1].connect()
        yield hosts
    finally:
        for host in hosts:
            host.end()
        ip("link", "delete", "switch")


def asked(home: Path, out: Path, *options: str) -> list[str]:
    """The command line of a sweep."""
    study, suite = str(home / "suite" / "study.yaml"), str(home / "suite")
    command = [sys.executable, "-m", "kntrace", "run", study, suite, "--out", str(out), "--quiet"]
    return [*command, "--threads", "1", *options]


def worker(host: Host, scheduler: str, home: Path) -> subprocess.Popen[str]:
    """A Dask worker on this host."""
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler]
    command += ["--host", host.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    return host.start(*command, "--local-directory", str(home / host.name), stderr=log(home, host))


def log(home: Path, host: Host) -> Any:
    """Where a host's processes write what they have to say."""
    return (home / f"{host.name}.log").open("a", encoding="utf-8")


def said(home: Path, host: Host) -> str:
    """What has been written there."""
    return (home / f"{host.name}.log").read_text(encoding="utf-8")


def busy(out: Path, host: Host) -> bool:
    """Whether a process of this host is in the midst of a checkpoint, after a block at least."""
    from kntrace.archive import read_computing

    seen = [one for one in read_computing(out) if one.host == host.name]
    return any(one.alive and one.blocks for one in seen)


def with_scheduler(
    hosts: list[Host], home: Path, out: Path, disturb: Callable[[Host], None]
) -> None:
    """Sweep on two workers through a scheduler, and do something in the midst of it."""
    first, *others = hosts[:3]
    address = f"tcp://{first.address}:{_PORT}"
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
    first.start(*command, "--host", first.address, "--port", str(_PORT), stderr=log(home, first))
    for host in others:
        worker(host, address, home)
    # Once both are there: whoever comes late may find nothing left to do.
    wait_for(lambda: all("Registered" in said(home, host) for host in others), "workers")
    sweep = hosts[3].start(*asked(home, out, "--scheduler", address))
    at_work: list[Host] = []

    def seen() -> bool:
        at_work.extend(host for host in others if busy(out, host))
        return bool(at_work) or sweep.poll() is not None

    wait_for(seen, "work")
    _expect(bool(at_work), "the sweep ended before anybody was seen at work")
    disturb(at_work[0])
    _expect(sweep.wait(_PATIENCE) == 0, "the sweep fails")


def kill_worker(host: Host) -> None:
    """Kill what computes on this host."""
    host._running[-1].kill()


def shards(hosts: list[Host], home: Path, out: Path) -> None:
    """Compute two shards at once on two hosts, one of which is killed and given again."""
    parts = [host.start(*asked(home, out, "--shard", f"{number}/2"))
             for number, host in enumerate(hosts[:2], start=1)]  # fmt: skip
    wait_for(lambda: busy(out, hosts[0]), "shard at work")
    parts[0].kill()
    parts[0].wait()
    told = hosts[3].start(
        *(sys.executable, "-m", "kntrace", "status", str(out), "--json"), stdout=subprocess.PIPE
    )
    seen = {one["host"]: one["alive"] for one in json.loads(told.communicate()[0])["computing"]}
    _expect(seen.get(hosts[0].name) is False, f"status does not say who was killed: {seen}")
    again = hosts[2].start(*asked(home, out, "--shard", "1/2"))
    for process in (parts[1], again):
        _expect(process.wait(_PATIENCE) == 0, "a shard fails")


def main() -> int:
    """Do it all or what is named, and print one line for each."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--part", action="append", help="a worker killed, a cable cut …")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="kntrace-hosts-") as made:
        home = Path(made)
        grow(home / "suite")
        PARTS["run"].work(home / "alone")
        wanted = tree(home / "alone")

        work: dict[str, Callable[[list[Host], Path], None]] = {
            "a worker killed": lambda hosts, out: with_scheduler(hosts, home, out, kill_worker),
            "a cable cut": lambda hosts, out: with_scheduler(hosts, home, out, Host.cut),
            "two shards, one killed": lambda hosts, out: shards(hosts, home, out),
        }
        for number, (name, act) in enumerate(work.items()):
            if given.part and name not in given.part:
                continue
            begun, out = time.monotonic(), home / f"run{number}"
            with network(4) as hosts:
                act(hosts, out)
            same = {key: one for key, one in tree(out).items() if "sessions/" not in key} == wanted
            _expect(same, f"{name}: other bytes")
            for log_file in home.glob("*.log"):
                log_file.unlink()
            print(json.dumps({name: "same bytes", "seconds": round(time.monotonic() - begun)}))
            shutil.rmtree(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
