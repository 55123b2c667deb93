#!/usr/bin/env python3
"""Where the time of a process goes, by parts of the house: a table from perf's samples.

    apt-get install linux-perf
    cargo build --release -p etcfs-cli -p etcfs-server -p etcfs-fs
    tests/bench/where.py PID SECONDS [CPU_MICROSECONDS_PER_REQUEST]

Each sample counts for the innermost function that belongs to a part; what the
kernel and the allocator did for it is counted there, and told besides.
"""

import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = [
    ("snapshot of the log", r"etcfs_server::storage::snapshot"),
    ("image: sled", r"\bsled::|storage::(sled|fingerprint)|storage::image|^crossbeam_epoch"),
    ("log on disk", r"storage::wal|storage::disk"),
    ("apply: key index, rows, leases", r"etcfs_server::(apply|mvcc|lease)|raft::state_machine|raft::outcomes"),
    ("watch", r"etcfs_server::watch"),
    ("raft", r"openraft|etcfs_server::raft"),
    ("service and propose", r"etcfs_server::(service|propose|auth|metrics)"),
    ("HTTP/2 and gRPC", r"\b(h2|hyper|hyper_util|http|http_body_util|tonic|tower|prost)::|etcfs_server::net|etcfs_proto|tokio::net"),
    ("mount: nodes and map", r"etcfs_fs::(node|map|ops|lock|sync|echo|notify|virtual)"),
    ("mount: kernel's requests", r"etcfs_fs::kernel|\bfuser::"),
    ("mount: client", r"etcfs_fs::remote|etcfs_client"),
    ("tokio", r"\btokio(_util)?::(runtime|sync|task|time|util)"),
]
PARTS = [(name, re.compile(pattern)) for name, pattern in PARTS]
KERNEL = re.compile(r"\(\[kernel|\[vdso\]|\[unknown\]\)$")
ALLOCATOR = re.compile(r"^(_?mi_|malloc|cfree|free|calloc|realloc|_int_|unlink_chunk|posix_memalign|sys(malloc|trim))")


def samples(pid, seconds):
    """Stacks, each a list of (function, object) from the inside out."""
    with tempfile.TemporaryDirectory() as work:
        data = Path(work) / "perf.data"
        record = ["perf", "record", "-e", "cpu-clock", "-F", "1499", "-g", "--call-graph", "dwarf,16384",
                  "-p", pid, "-o", str(data), "--", "sleep", seconds]
        subprocess.run(record, check=True, capture_output=True)
        script = subprocess.Popen(["perf", "script", "-i", str(data), "--no-inline", "-F", "comm,ip,sym,dso"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        thread, stack = None, []
        for line in script.stdout:
            if not line.strip():
                if thread:
                    yield thread, stack
                thread, stack = None, []
            elif thread is None:
                thread = line.strip()
            else:
                stack.append(line.strip().split(" ", 1)[-1])


def part_of(stack):
    for frame in stack:
        for name, pattern in PARTS:
            if pattern.search(frame):
                return name
    return "else"


def main():
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    spent = float(sys.argv[3]) if len(sys.argv) == 4 else None
    parts, kernel, allocator = (collections.Counter() for _ in range(3))
    for _, stack in samples(sys.argv[1], sys.argv[2]):
        part = part_of(stack)
        parts[part] += 1
        kernel[part] += bool(stack and KERNEL.search(stack[0]))
        allocator[part] += bool(stack and ALLOCATOR.search(stack[0]))
    total = sum(parts.values()) or 1
    print(f"| part | share |{' us |' if spent else ''} of it kernel | of it allocator |")
    print(f"|---|---|{'---|' if spent else ''}---|---|")
    for part, count in parts.most_common():
        micros = f" {spent * count / total:.1f} |" if spent else ""
        print(f"| {part} | {100 * count / total:.0f} % |{micros} {100 * kernel[part] / count:.0f} % |"
              f" {100 * allocator[part] / count:.0f} % |")


if __name__ == "__main__":
    main()
