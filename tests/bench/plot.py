#!/usr/bin/env python3
"""Draws what table.py has measured, ours and etcd's in one picture each.

    apt-get install python3-matplotlib
    tests/bench/plot.py FILE DIRECTORY
"""

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

SIDES = {"etcfsd": "C0", "etcd": "C1"}


def median(lines, figure):
    return statistics.median(line[figure] for line in lines)


def by(lines, **wanted):
    return [l for l in lines if not l.get("verdict") and all(l.get(k) == v for k, v in wanted.items())]


def curves(axes, lines, across, figure, **wanted):
    """A line for each side: the median, and as a band the smallest and the largest round."""
    for side, color in SIDES.items():
        found = by(lines, side=side, **wanted)
        xs = sorted({l[across] for l in found})
        rounds = [[l[figure] for l in found if l[across] == x] for x in xs]
        if xs:
            axes.plot(xs, [statistics.median(r) for r in rounds], "o-", color=color, label=side)
            axes.fill_between(xs, [min(r) for r in rounds], [max(r) for r in rounds], color=color, alpha=0.2)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(across.replace("_asked", ""))
    axes.legend()


def save(figure, directory, name):
    figure.tight_layout()
    figure.savefig(directory / f"{name}.png", dpi=120)
    plt.close(figure)
    print(directory / f"{name}.png")


def throughput(lines, directory):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for ax, op in zip(axes, ["put", "range-l"]):
        curves(ax, lines, "clients_asked", "ops_per_s", part="clients", op=op)
        ax.set_title(f"{op}: a second")
    save(figure, directory, "throughput")


def latency(lines, directory):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for ax, op in zip(axes, ["put", "range-l"]):
        for side, color in SIDES.items():
            for percentile, style in [("p50_us", "-"), ("p90_us", "--"), ("p99_us", ":")]:
                found = by(lines, part="clients", op=op, side=side)
                xs = sorted({l["clients_asked"] for l in found})
                ys = [median([l for l in found if l["clients_asked"] == x], percentile) / 1000 for x in xs]
                ax.plot(xs, ys, style, color=color, label=f"{side} {percentile[:3]}")
        ax.set(xscale="log", yscale="log", xlabel="clients", title=f"{op}: milliseconds")
        ax.legend()
    save(figure, directory, "latency")


def growth(lines, directory):
    figure, axes = plt.subplots(1, 3, figsize=(14, 4))
    for ax, across, op in zip(axes, ["keys", "keys", "watchers"], ["put", "range-l", "watch-keys"]):
        curves(ax, lines, across, "server_cpu_us_per_op", part="growth", op=op)
        ax.set_title(f"{op}: the server's CPU, microseconds")
    save(figure, directory, "growth")


def memory(lines, directory):
    found = {l["side"]: l for l in by(lines, part="keys")}
    figure, axes = plt.subplots(1, 3, figsize=(12, 4))
    figures = [("resident_bytes", "resident MB", 1e6), ("disk_bytes", "MB on disk", 1e6),
               ("start_seconds", "seconds to the first answer", 1)]
    for ax, (name, title, unit) in zip(axes, figures):
        for side, color in SIDES.items():
            value = found[side][name] if side in found else 0
            ax.bar(side, (statistics.median(value) if isinstance(value, list) else value) / unit, color=color)
        ax.set_title(title)
    save(figure, directory, "memory")


def stalls(lines, directory):
    figure, ax = plt.subplots(figsize=(9.5, 4))
    names = list(dict.fromkeys(line["name"] for line in by(lines, part="stalls")))
    for shift, (side, color) in zip([-0.2, 0.2], SIDES.items()):
        rounds = [[l["p99_us"] / 1000 for l in by(lines, part="stalls", name=n, side=side)] for n in names]
        heights = [statistics.median(r) for r in rounds]
        spread = [[h - min(r) for h, r in zip(heights, rounds)], [max(r) - h for h, r in zip(heights, rounds)]]
        ax.bar([at + shift for at in range(len(names))], heights, 0.4, yerr=spread, color=color, capsize=3, label=side)
    ax.set_xticks(range(len(names)), [f"beside {name}" for name in names])
    ax.set_yscale("log")
    ax.set_title("put at 2000 a second: milliseconds, 99th percentile")
    ax.legend()
    save(figure, directory, "stalls")


def mount(lines, directory):
    verdicts = [l for l in by(lines, part="mount") if l.get("over_floor")]
    figure, ax = plt.subplots(figsize=(9, 4))
    for at, line in enumerate(verdicts):
        ratio = line["over_floor"]
        spread = [[ratio["median"] - ratio["min"]], [ratio["max"] - ratio["median"]]]
        ax.bar(at, ratio["median"], yerr=spread, color="C0", capsize=3)
    ax.axhline(1, color="black", linewidth=0.8)
    ax.set_yscale("log")
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.set_xticks(range(len(verdicts)), [line["op"] for line in verdicts], rotation=30)
    ax.set_title("the mount's time over the floor's")
    save(figure, directory, "mount")


def main():
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    measured, directory = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    lines = [line for part in measured.values() for line in part["lines"]]
    directory.mkdir(parents=True, exist_ok=True)
    for needs, draw in [("clients", throughput), ("clients", latency), ("growth", growth), ("keys", memory),
                        ("stalls", stalls), ("mount", mount)]:
        if needs in measured:
            draw(lines, directory)


if __name__ == "__main__":
    main()
