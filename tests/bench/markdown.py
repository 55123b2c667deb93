#!/usr/bin/env python3
"""Prints the tables of server/docs/performance.md from what table.py has measured.

    tests/bench/markdown.py FILE
"""

import json
import statistics
import sys
from pathlib import Path


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def head(*cells):
    print()
    row(*cells)
    print("|" + "---|" * len(cells))


def number(value):
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def spread(values):
    return f"{number(statistics.median(values))} ({number(min(values))}-{number(max(values))})"


def ratio(told):
    return f"{told['median']:.2f} ({told['min']:.2f}-{told['max']:.2f})"


def micros(value):
    return f"{value / 1000:.1f} ms" if value >= 10_000 else f"{value:.0f} us" if value >= 10 else f"{value:.1f} us"


def verdicts(lines):
    return [line for line in lines if line.get("verdict")]


def of(lines, side, **wanted):
    return [l for l in lines if l.get("side") == side and all(l.get(k) == v for k, v in wanted.items())]


def ratios(lines):
    head("etcfsd / " + next(line["side"] for line in lines if line.get("side") not in ("etcfsd", None)), "per second", "p50", "p99", "server CPU per request", "peak RSS")
    for line in verdicts(lines):
        row(f"{line['name']}: {line['op']}", ratio(line["ops_per_s_ratio"]), f"{line['p50_ratio']['median']:.2f}",
            f"{line['p99_ratio']['median']:.2f}", ratio(line["server_cpu_ratio"]),
            f"{line['server_rss_ratio']['median']:.2f}")


def costs(lines):
    sides = list(dict.fromkeys(line["side"] for line in lines if "side" in line))
    sides.sort(key=lambda side: side != "etcfsd")
    head("", *(f"{side}: {what}" for side in sides for what in ["per second", "CPU", "p99", "RSS"]))
    for line in verdicts(lines):
        cells = []
        for side in sides:
            found = of(lines, side, name=line["name"], op=line["op"])
            median = lambda figure: statistics.median(l[figure] for l in found)
            cells += [number(median("ops_per_s")), micros(median("server_cpu_us_per_op")),
                      micros(median("p99_us")), f"{median('server_rss_bytes') / 1e6:.0f} MB"]
        row(f"{line['name']}: {line['op']}", *cells)


def growth(lines):
    for across in ["keys", "watchers"]:
        steps = sorted({line[across] for line in lines if across in line})
        head("server CPU per request", *(f"{step:,} {across}" for step in steps), "largest / smallest")
        for op in dict.fromkeys(line["op"] for line in lines if across in line):
            for side in ["etcfsd", "etcd"]:
                found = [[l["server_cpu_us_per_op"] for l in of(lines, side, op=op, **{across: step})] for step in steps]
                medians = [statistics.median(rounds) for rounds in found if rounds]
                row(f"{op}, {side}", *(micros(median) for median in medians), f"{max(medians) / min(medians):.2f}")


def keys(lines):
    head("", "etcfsd", "etcd", "ratio")
    ours, theirs = of(lines, "etcfsd")[0], of(lines, "etcd")[0]
    for name, figure, unit in [("resident, MB", "resident_bytes", 1e6), ("resident after a start, MB", "resident_bytes_after_start", 1e6),
                               ("on disk, MB", "disk_bytes", 1e6), ("seconds to the first answer", "start_seconds", 1)]:
        values = [line[figure] for line in (ours, theirs)]
        values = [[v / unit for v in value] if isinstance(value, list) else [value / unit] for value in values]
        one, other = map(statistics.median, values)
        row(name, *(spread(v) if len(v) > 1 else number(v[0]) for v in values), f"{one / other:.2f}")


def stalls(lines):
    head("put p99 at 2000 a second beside", "etcfsd, ms", "etcd, ms", "ratio")
    for name in dict.fromkeys(line["name"] for line in lines):
        values = [[l["p99_us"] / 1000 for l in of(lines, side, name=name)] for side in ["etcfsd", "etcd"]]
        one, other = map(statistics.median, values)
        row(name, *map(spread, values), f"{one / other:.2f}")


def cluster(lines):
    head("", "etcfsd", "etcd", "ratio")
    values = [[l["ops_per_s"] for l in of(lines, side)] for side in ["etcfsd", "etcd"]]
    pairs = [one / other for one, other in zip(*values)]
    row("puts a second", *map(spread, values), spread(pairs))


def answers(lines):
    head("", "etcfsd", "etcd", "ratio")
    values = [[l["added_bytes"] / 1e6 for l in of(lines, side)] for side in ["etcfsd", "etcd"]]
    one, other = map(statistics.median, values)
    row("peak memory added, MB", *map(spread, values), f"{one / other:.2f}")


def prefix(lines):
    head("10,000 keys of 256 bytes", "ms")
    for name in dict.fromkeys(line["name"] for line in lines):
        row(name, spread([l["seconds"] * 1000 for l in lines if l["name"] == name]))


def mount(lines):
    head("", "mount p50", "floor p50", "ratio")
    for line in lines:
        if line.get("over_floor"):
            row(line["op"], micros(line["mount_p50_us"]), micros(line["floor_p50_us"]), ratio(line["over_floor"]))
        elif "mount_p50_us" in line:
            row(line["op"], f"{micros(line['mount_p50_us'])}, p99 {micros(line['mount_p99_us'])}", "", "")
        elif "side" not in line:
            print(f"\n{json.dumps(line)}")


PARTS = {"floor": [ratios, costs], "requests": [ratios, costs], "answers": [answers], "many": [ratios, costs], "growth": [growth], "keys": [keys], "stalls": [stalls],
         "cluster": [cluster], "mount": [mount], "prefix": [prefix]}


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    measured = json.loads(Path(sys.argv[1]).read_text())
    for part, tables in PARTS.items():
        if part in measured:
            print(f"\n## {part}: {measured[part]['date']}, {measured[part]['commit']}, {measured[part]['etcd']}")
            for table in tables:
                table(measured[part]["lines"])


if __name__ == "__main__":
    main()
