"""Times ``pgfleet --help`` and ``pgfleet check`` of the example: benchmarks/cli_startup.py [ROUNDS], without writing a
page (``script/prove startup`` does)."""

from __future__ import annotations

import statistics
import sys

from pgfleet.prove.runs.startup import WITHIN, measure

if __name__ == "__main__":
    slow = False
    for name, seconds in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 10).items():
        median = statistics.median(seconds)
        slow |= median > WITHIN
        low, high = min(seconds) * 1000, max(seconds) * 1000
        print(f"{name:16} median {median * 1000:4.0f} ms   min {low:4.0f}   max {high:4.0f}")
    raise SystemExit(6 if slow else 0)
