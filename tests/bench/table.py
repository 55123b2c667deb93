#!/usr/bin/env python3
"""Measures etcfsd beside etcd, and the mount beside its floor; writes JSON.

    cargo build --release -p etcfs-cli -p etcfs-server -p etcfs-fs
    cargo build --release -p etcfs-tests --bin floor
    tests/bench/table.py --etcd /path/to/etcd --out FILE [PART ...]

Meant for a machine that is otherwise quiet. Parts: floor requests clients
answers keys growth many stalls cluster mount prefix; all of them if none is
named, and FILE keeps what it has of others. prefix wants etcdctl.
Each figure of the two servers comes from alternating rounds, so that what else
runs falls on both. The data lies in a temporary directory below --dir, which
should be on the disk that is to be measured. plot.py draws what this writes.
"""

import argparse
import contextlib
import datetime
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
# Requests of a round are chosen so that it takes some seconds.
REQUESTS = {
    "put, 1 client": ["--ops=put", "--clients=1", "--connections=1", "--total=5000"],
    "put": ["--ops=put", "--clients=1000", "--connections=100", "--total=100000"],
    "range of 1 key": ["--ops=range-l,range-s", "--clients=1000", "--connections=100", "--total=200000"],
    "range of 10k keys": ["--ops=range-l-10k", "--clients=8", "--connections=8", "--total=400"],
    "txn": ["--ops=txn", "--clients=1000", "--connections=100", "--total=100000"],
    "watch": ["--ops=watch", "--clients=8", "--connections=100", "--watchers=10000", "--total=200"],
    "lease keep-alive": ["--ops=lease-keep-alive", "--clients=1000", "--connections=100", "--total=100000"],
}
MANY = {
    "10k watchers of a key each": ["--ops=watch-keys", "--clients=8", "--connections=100", "--watchers=10000",
                                   "--total=50000"],
    "100k leases kept alive": ["--ops=lease-keep-alive", "--clients=1000", "--connections=100",
                               "--leases=100000", "--total=100000"],
}
CLIENTS = [1, 4, 16, 64, 256, 1000]
KEYS = [10_000, 100_000, 1_000_000, 4_000_000]
WATCHERS = [10, 1000, 10_000]
SIDES = ["etcfsd", "etcd"]
IN_MEMORY = "snapshot to memory"
SMALL_FILES = 10_000


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A member on a data directory of its own, alone or one of several."""

    def __init__(self, program, directory, name="m0", ports=None, members=None):
        self.program, self.dir, self.name = program, Path(directory), name
        self.client, self.peer = ports or (free_port(), free_port())
        self.members = members or f"{name}=http://127.0.0.1:{self.peer}"
        self.process = None

    @property
    def endpoint(self):
        return f"127.0.0.1:{self.client}"

    @property
    def pid(self):
        return self.process.pid

    def launch(self):
        client, peer = f"http://127.0.0.1:{self.client}", f"http://127.0.0.1:{self.peer}"
        self.dir.mkdir(parents=True, exist_ok=True)
        log = open(self.dir / "log", "ab")
        self.process = subprocess.Popen(
            [self.program, "--name", self.name, "--data-dir", str(self.dir / "data"),
             "--listen-client-urls", client, "--advertise-client-urls", client,
             "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
             "--initial-cluster", self.members, "--quota-backend-bytes", str(8 << 30)],
            stdout=log, stderr=log)

    def start(self):
        """Starts it; the seconds until its first answer to a linearizable read."""
        began = time.monotonic()
        self.launch()
        while not answers(self.endpoint):
            if self.process.poll() is not None or time.monotonic() - began > PATIENCE:
                raise SystemExit(f"{self.program} does not serve, see {self.dir / 'log'}")
            time.sleep(0.002)
        return time.monotonic() - began

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE)
            self.process = None

    def resident_bytes(self):
        return self.status_bytes("VmRSS")

    def forget_peak(self):
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_bytes(self):
        return self.status_bytes("VmHWM")

    def status_bytes(self, name):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(next(l for l in status.splitlines() if l.startswith(name)).split()[1])

    def disk_bytes(self):
        files = (f for f in (self.dir / "data").rglob("*") if f.is_file())
        return sum(f.stat().st_blocks * 512 for f in files)


def answers(endpoint):
    """Whether a read of nothing is answered: by HTTP, so that no process has to be started for it."""
    host, port = endpoint.split(":")
    body = b'{"key":"AA=="}'
    try:
        with socket.create_connection((host, int(port)), timeout=1) as s:
            s.settimeout(5)
            s.sendall(b"POST /v3/kv/range HTTP/1.1\r\nHost: " + endpoint.encode()
                      + b"\r\nContent-Type: application/json\r\nContent-Length: " + str(len(body)).encode()
                      + b"\r\nConnection: close\r\n\r\n" + body)
            return b" 200 " in s.makefile("rb").readline()
    except OSError:
        return False


class Table:
    def __init__(self, args, work):
        self.args, self.work, self.lines = args, work, []
        self.etcfs = str(args.bin / "etcfs")
        self.programs = {"etcfsd": str(args.bin / "etcfsd"), "etcd": args.etcd}

    def add(self, part, name, **figures):
        self.lines.append({"part": part, "name": name, **figures})
        print(json.dumps(self.lines[-1]), flush=True)

    def bench(self, *words):
        command = [self.etcfs, "bench", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    @contextlib.contextmanager
    def pair(self):
        servers = [Server(self.programs[side], tempfile.mkdtemp(dir=self.work, prefix=side)) for side in SIDES]
        try:
            for server in servers:
                server.start()
            yield servers
        finally:
            for server in servers:
                server.stop()
                shutil.rmtree(server.dir, ignore_errors=True)

    def compare(self, part, name, servers, words, others=SIDES[1], **more):
        a, b = servers
        words = ["compare", a.endpoint, b.endpoint, f"--rounds={self.args.rounds}",
                 f"--pid-a={a.pid}", f"--pid-b={b.pid}", *words]
        sides = {a.endpoint: "etcfsd", b.endpoint: others}
        for line in self.bench(*words):
            if line.get("endpoint") in sides:
                self.add(part, name, side=sides[line.pop("endpoint")], **more, **line)
            else:
                self.add(part, name, verdict=True, command=" ".join(words), **more, **line)

    def requests(self):
        with self.pair() as servers:
            for name, words in REQUESTS.items():
                self.compare("requests", name, servers, words)

    def floor(self):
        """What the library takes for a call or an event, without a server behind it."""
        server = Server(self.programs["etcfsd"], tempfile.mkdtemp(dir=self.work))
        floor = Server(str(self.args.bin / "floor"), self.work)
        floor.process = subprocess.Popen([floor.program, floor.endpoint])
        try:
            server.start()
            for name, words in [*((name, REQUESTS[name]) for name in ["range of 1 key", "put", "watch"]),
                                *MANY.items()]:
                self.compare("floor", name, [server, floor], words, others="floor")
        finally:
            server.stop()
            floor.stop()

    def answers(self):
        """The most memory that a server takes beyond what it had, while 8 clients read 10,000 keys at a time."""
        with self.pair() as servers:
            for server in servers:
                self.bench("load", f"--endpoints={server.endpoint}", f"--total={self.args.keys // 5}")
            for number in range(self.args.rounds):
                for side, server in list(zip(SIDES, servers))[:: 1 if number % 2 else -1]:
                    server.forget_peak()
                    before = server.resident_bytes()
                    line, = self.bench("range", "--large", f"--endpoints={server.endpoint}", "--clients=8",
                                       "--connections=8", "--total=400")
                    self.add("answers", "10k keys", side=side, added_bytes=server.peak_bytes() - before, **line)

    def clients(self):
        with self.pair() as servers:
            for clients in CLIENTS:
                words = ["--ops=put,range-l", f"--clients={clients}", f"--connections={min(clients, 100)}",
                         f"--total={min(5000 * clients, 100_000)}"]
                self.compare("clients", "put and range", servers, words, clients_asked=clients)

    def keys(self):
        keys = self.args.keys
        with self.pair() as servers:
            for side, server in zip(SIDES, servers):
                self.bench("load", f"--endpoints={server.endpoint}", f"--total={keys}")
                resident = server.resident_bytes()
                server.stop()
                disk = server.disk_bytes()
                starts = []
                for _ in range(self.args.rounds):
                    starts.append(server.start())
                    fresh = server.resident_bytes()
                    server.stop()
                server.start()
                self.add("keys", "after load", side=side, keys=keys, resident_bytes=resident,
                         disk_bytes=disk, start_seconds=starts, resident_bytes_after_start=fresh)

    def growth(self):
        """What a request costs as there is more of what it has nothing to do with."""
        with self.pair() as servers:
            for keys in (keys for keys in KEYS if keys <= 4 * self.args.keys):
                for server in servers:
                    self.bench("load", "--command-timeout=60s", f"--endpoints={server.endpoint}", f"--total={keys}")
                words = ["--ops=put,range-l", "--clients=256", "--connections=64", f"--keys={keys}",
                         "--total=50000"]
                self.compare("growth", "keys", servers, words, keys=keys)
        with self.pair() as servers:
            for watchers in WATCHERS:
                words = ["--ops=watch-keys", "--clients=8", "--connections=100", f"--watchers={watchers}",
                         "--total=20000"]
                self.compare("growth", "watchers", servers, words, watchers=watchers)

    def many(self):
        """Watches of a key each, and leases that are kept alive."""
        for name, words in MANY.items():
            with self.pair() as servers:
                self.compare("many", name, servers, words)

    def stalls(self):
        keys = self.args.keys // 5
        with self.pair() as servers:
            for server in servers:
                self.bench("load", f"--endpoints={server.endpoint}", f"--total={keys}")
            for name in ["nothing", "compaction", "defragmentation", "snapshot", IN_MEMORY]:
                for number in range(self.args.rounds):
                    for side, server in list(zip(SIDES, servers))[:: 1 if number % 2 else -1]:
                        self.stall(name, side, server)

    def stall(self, name, side, server):
        endpoint = f"--endpoints={server.endpoint}"
        # Who saves a snapshot writes and syncs it: on the servers' disk, and as from another machine.
        snapshot = Path("/dev/shm" if name == IN_MEMORY else self.work) / f"snapshot-{os.getpid()}.db"
        status = subprocess.run([self.etcfs, endpoint, "endpoint", "status", "-w", "json"],
                                capture_output=True, text=True, check=True)
        revision = json.loads(status.stdout)[0]["Status"]["header"]["revision"]
        save = ["snapshot", "save", str(snapshot)]
        work = {"nothing": None, "compaction": ["compaction", str(revision)], "defragmentation": ["defrag"],
                "snapshot": save, IN_MEMORY: save}[name]
        done = threading.Event()

        def repeat():
            while work and not done.wait(1):
                subprocess.run([self.etcfs, endpoint, *work], capture_output=True)
                snapshot.unlink(missing_ok=True)

        beside = threading.Thread(target=repeat)
        beside.start()
        try:
            line, = self.bench("put", endpoint, "--rate=2000", "--total=10000")
        finally:
            done.set()
            beside.join()
        self.add("stalls", name, side=side, **line)

    def cluster(self):
        for number in range(self.args.rounds):
            for side in SIDES[:: 1 if number % 2 else -1]:
                ports = [(free_port(), free_port()) for _ in range(3)]
                members = ",".join(f"m{n}=http://127.0.0.1:{peer}" for n, (_, peer) in enumerate(ports))
                directory = Path(tempfile.mkdtemp(dir=self.work, prefix=side))
                servers = [Server(self.programs[side], directory / f"m{n}", f"m{n}", p, members)
                           for n, p in enumerate(ports)]
                try:
                    for server in servers:
                        server.launch()
                    deadline = time.monotonic() + PATIENCE
                    while not all(answers(server.endpoint) for server in servers):
                        if time.monotonic() > deadline:
                            raise SystemExit(f"three of {side} do not serve, see {directory}")
                        time.sleep(0.05)
                    endpoints = ",".join(server.endpoint for server in servers)
                    line, = self.bench("put", f"--endpoints={endpoints}", "--clients=1000", "--connections=99",
                                       "--total=50000")
                    self.add("cluster", "put", side=side, **line)
                finally:
                    for server in servers:
                        server.stop()
                    shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def served(self):
        server = Server(self.programs["etcfsd"], tempfile.mkdtemp(dir=self.work, prefix="mount"))
        try:
            server.start()
            yield server
        finally:
            server.stop()
            shutil.rmtree(server.dir, ignore_errors=True)

    @contextlib.contextmanager
    def mounted(self, server):
        """A mount of all of its keys: where, and the process."""
        point = server.dir / "mnt"
        point.mkdir(exist_ok=True)
        mount = subprocess.Popen([str(self.args.bin / "mount-etcfs"), "-f", f"{server.endpoint}:/", str(point)],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + PATIENCE
            while not os.path.ismount(point):
                if mount.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("nothing can be mounted here")
                time.sleep(0.01)
            yield point, mount
        finally:
            mount.send_signal(signal.SIGTERM)
            mount.wait(PATIENCE)

    def mount(self):
        with self.served() as server, self.mounted(server) as (point, mount):
            words = ["fs", f"--endpoints={server.endpoint}", f"--rounds={self.args.rounds}",
                     f"--pid={mount.pid}", str(point)]
            for line in self.bench(*words):
                self.add("mount", line["op"], **line)

    def prefix(self):
        """All of 10,000 small keys, read by etcdctl and through a mount, for the first time and again."""
        with self.served() as server:
            self.bench("load", f"--endpoints={server.endpoint}", f"--total={SMALL_FILES}", f"--keys={SMALL_FILES}")
            for _ in range(self.args.rounds):
                took = timed("etcdctl", f"--endpoints={server.endpoint}", "get", "--prefix", "bench/")
                self.add("prefix", "etcdctl get --prefix", seconds=took)
                with self.mounted(server) as (point, _):
                    for name in ["grep -r, first", "grep -r, again"]:
                        took = timed("grep", "-r", "never there", str(point / "bench"), status=1)
                        self.add("prefix", name, seconds=took)


def timed(*command, status=0):
    """Seconds that a command takes."""
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    took = time.monotonic() - began
    if done.returncode != status:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return took


PARTS = ["floor", "requests", "clients", "answers", "keys", "growth", "many", "stalls", "cluster", "mount", "prefix"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", choices=[*PARTS, []])
    parser.add_argument("--etcd", required=True, help="etcd's program")
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release", help="where ours are")
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="where the data lies")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=1_000_000, help="of the large key space; stalls has a fifth")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    os.environ["ETCDCTL_API"] = "3"
    version = subprocess.run([args.etcd, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    measured = json.loads(args.out.read_text()) if args.out.exists() else {}
    for part in args.parts or PARTS:
        with tempfile.TemporaryDirectory(dir=args.dir, prefix="etcfs-bench-") as work:
            table = Table(args, Path(work))
            getattr(table, part)()
        measured[part] = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "commit": commit.stdout.strip(), "etcd": version, "kernel": platform.release(),
            "cpus": os.cpu_count(), "rounds": args.rounds, "lines": table.lines}
        args.out.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
