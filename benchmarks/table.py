"""Tables of the benchmarks, and processes whose memory is measured."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, so that it can be pasted into a page."""
    print(f"\n{title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of ours / theirs, round by round, and its range."""
    quotients = [own / other for own, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(quotients):.2f} ({min(quotients):.2f} to {max(quotients):.2f})"


def in_new_process(module: str, *words: str) -> str:
    """The output of `python -m module words`, in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", module, *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def peak_megabytes(process: int | str | None = "self") -> float:
    """Peak resident memory of a process so far, in MB.

    From VmHWM: getrusage would count what the parent held when it started this process.
    """
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
