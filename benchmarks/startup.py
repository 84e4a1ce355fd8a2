"""What a command costs before it does anything: `--help` and `status` beside a bare start of the same Python.

    python benchmarks/startup.py [--runs 15] [--library DIR]

Times are medians of whole processes, in turns with the bare start, so that a busy machine slows all; the processor time
beside them tells a slow program from a busy machine. Without --library an empty one is made. Exit code 1 if an aim is
missed: `--help` at most 150 ms over a bare start, `status` under 600 ms.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

AIMS_MS = {"help over bare": 150.0, "status": 600.0}
RUN = "import sys; from audiosearch.cli import run; sys.exit(run(sys.argv[1:]))"


def milliseconds(command: list[str]) -> tuple[float, float]:
    """Wall and processor time of one process."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = 1000 * (time.perf_counter() - started)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return took, 1000 * (usage.ru_utime + usage.ru_stime)


def measure(library: str, runs: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of each run of each command, after one that fills the file cache."""
    commands = {
        "bare": [sys.executable, "-c", "pass"],
        "help": [sys.executable, "-c", RUN, "--help"],
        "status": [sys.executable, "-c", RUN, "--library", library, "status"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, command in commands.items():
            took = milliseconds(command)
            if turn:
                times[name].append(took)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--library", help="measure `status` on this library")
    options = parser.parse_args()
    os.environ.pop("AUDIOSEARCH_LIBRARY", None)
    with tempfile.TemporaryDirectory() as folder:
        library = options.library
        if library is None:
            from audiosearch import Library

            library = os.path.join(folder, "library")  # noqa: PTH118
            Library.open(library, create=True).close()
        times = measure(library, options.runs)
    median = {name: statistics.median(wall for wall, _ in values) for name, values in times.items()}
    print(f"{'':8} {'median':>8} {'worst':>8} {'cpu':>8} {'x bare':>7}   ms, {options.runs} runs")
    for name, values in times.items():
        worst, cpu = max(wall for wall, _ in values), statistics.median(cpu for _, cpu in values)
        print(f"{name:8} {median[name]:8.0f} {worst:8.0f} {cpu:8.0f} {median[name] / median['bare']:7.1f}")
    found = {"help over bare": median["help"] - median["bare"], "status": median["status"]}
    for name, aim in AIMS_MS.items():
        print(f"{name}: {found[name]:.0f} ms, aim {aim:.0f} ms: {'ok' if found[name] <= aim else 'MISSED'}")
    return 0 if all(found[name] <= aim for name, aim in AIMS_MS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
