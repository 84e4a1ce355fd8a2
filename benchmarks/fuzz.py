"""Thousands of mutated media files through a real ingest: no crash, no hang, no growth, every one accounted for.

    python benchmarks/fuzz.py [--files 2000] [--seed 0] [--stall 10] [--memory-mb 512] [--keep DIR] [--json]

Good files of every format of `tests/hostile_media.py` are mutated (bit flips, truncations, spliced headers, hostile
sizes, ...; the same for a seed every time), and to them come files made by hand: decompression bombs, no channels,
absurd rates, 10,000 streams, a named pipe, a device. All go through `Library.ingest` with a model computed by hand.
It must be so that

- the ingest ends, and every file is indexed or in the ledger, with a cause that is known and never a bug of ours;
- no file takes longer than its limits allow, and no decode process more memory;
- the memory of this process and of the decoders does not grow with the number of files: the highest of the last
  quarter against the second quarter, with 15 % and 20 MB of slack;
- a good file after all that is indexed as if nothing had been, and a second ingest reads nothing that failed for good.

Exit code 1 if one of these is not so. Needs Linux (memory is read from /proc).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import hostile_media
import numpy as np
import toy

from audiosearch.library import Library, Models
from audiosearch.types import FailedFile, IngestProgress

GROWTH, GROWTH_MB = 1.15, 20.0
BY_HAND = 10  # files of `by_hand`, without the pipe and the device, which are no files


def by_hand(folder: Path) -> None:
    """Hostile files that no mutation would find."""
    tone = (np.sin(np.arange(32000) * 0.1) * 9000).astype("<i2").tobytes()
    hostile_media.flac_bomb(folder / "bomb.flac", 300)
    hostile_media.many_streams(folder / "streams.mkv", 10_000)
    hostile_media.wav(folder / "channels0.wav", tone, channels=0)
    hostile_media.wav(folder / "channels128.wav", tone, channels=128)
    hostile_media.wav(folder / "rate0.wav", tone, rate=0)
    hostile_media.wav(folder / "rate1.wav", tone, rate=1)
    hostile_media.wav(folder / "rate-max.wav", tone, rate=2**31 - 1)
    hostile_media.wav(folder / "size-max.wav", tone, data_size=2**32 - 1)
    hostile_media.wav(folder / "nan.wav", np.full(16000, np.nan, "<f4").tobytes(), bits=32, tag=3)
    hostile_media.wav(folder / "infinite.wav", np.full(16000, np.inf, "<f4").tobytes(), bits=32, tag=3)
    os.mkfifo(folder / "pipe.wav")
    (folder / "device.wav").symlink_to("/dev/zero")


class Memory(threading.Thread):
    """Looks at this process and its children ten times a second, as long as it is entered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.files_done = 0
        self.samples: list[tuple[int, float, float]] = []  # files done, MB of this process, MB of the largest child
        self._over = threading.Event()

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def __call__(self, progress: IngestProgress) -> None:
        self.files_done = progress.files_done

    def run(self) -> None:
        while not self._over.wait(0.1):
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            largest = max((_resident_mb(pid) for pid in children), default=0.0)
            self.samples.append((self.files_done, _resident_mb("self"), largest))

    def quarters(self, column: int, files: int) -> tuple[float, float]:
        """Highest MB of the second and of the last quarter of the files."""
        second = [s[column] for s in self.samples if files // 4 <= s[0] < files // 2]
        last = [s[column] for s in self.samples if files * 3 // 4 <= s[0] < files]  # the index comes after the last one
        return max(second, default=0.0), max(last, default=0.0)


def _resident_mb(pid: str) -> float:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def judge(mutants: Path, hostile: Path, library: Path, arguments: argparse.Namespace) -> dict:
    """Run everything; the figures, with what is wrong under "wrong"."""
    models = Models(lambda _: toy.description(), lambda _, **__: toy.HandEmbedder())
    limits = {"file_stall_seconds": arguments.stall, "file_memory_mb": arguments.memory_mb}
    with Library.open(library, create=True, models=models, **limits) as opened:
        started = time.perf_counter()
        with Memory() as memory:
            summaries = [opened.ingest([mutants], workers=arguments.workers, progress=memory)]
        seconds = time.perf_counter() - started
        with Memory() as worst:
            summaries.append(opened.ingest([hostile], workers=arguments.workers))
        failures = opened.failures()
        indexed = opened.status().files
        toy.write_wav(mutants / "zz-good.wav", toy.tone(440, 3))
        again = opened.ingest([mutants, hostile], workers=arguments.workers)
    seen = sum(summary.files_seen for summary in summaries)
    wrong = []
    if seen != arguments.files + BY_HAND:
        wrong.append(f"{seen} of {arguments.files + BY_HAND} files were seen")
    if indexed + len(failures) != seen or indexed != sum(summary.files_indexed for summary in summaries):
        wrong.append(f"{seen} seen, but {indexed} indexed and {len(failures)} in the ledger")
    # A signal is FFmpeg's doing; an exception that nobody foresaw is ours.
    wrong += [_line(each) for each in failures if each.cause == "crashed" and " by SIG" not in each.detail]
    tried_again = {each.path for each in failures if each.will_retry}
    cured = len(tried_again - {each.path for each in again.failed})
    if again.files_indexed != 1 + cured:
        wrong.append(f"the last ingest indexed {again.files_indexed} files, not the new good one alone")
    grown = {name: memory.quarters(column, arguments.files) for name, column in (("here", 1), ("decoder", 2))}
    for name, (before, after) in grown.items():
        if after > before * GROWTH + GROWTH_MB:
            wrong.append(f"memory {name} grew from {before:.0f} to {after:.0f} MB")
    highest = max(largest for _, _, largest in (*memory.samples, *worst.samples))
    if highest > arguments.memory_mb + 100:  # what a decoder has before it reads a file
        wrong.append(f"a decode process took {highest:.0f} MB")
    return {
        "files": seen,
        "indexed": indexed,
        "failed": len(failures),
        "causes": dict(Counter(failure.cause for failure in failures).most_common()),
        "limits": [_line(failure) for failure in failures if failure.cause in ("too-slow", "too-large")],
        "crashes": [_line(failure) for failure in failures if failure.cause == "crashed"],
        "tried_again": len(tried_again),
        "warnings": sum(len(summary.warnings) for summary in summaries),
        "seconds": round(seconds, 1),
        "files_per_second": round(arguments.files / seconds, 1),
        "memory_mb": {name: [round(each) for each in pair] for name, pair in grown.items()},
        "highest_decoder_mb": round(highest),
        "wrong": wrong,
    }


def _line(failure: FailedFile) -> str:
    return f"{Path(failure.path).name}: {failure.cause}: {failure.detail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stall", type=float, default=10.0, help="seconds without progress")
    parser.add_argument("--memory-mb", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", metavar="DIR", help="leave the files there")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(arguments.keep or temporary)
        seeds, folder, hostile = home / "seeds", home / "mutants", home / "hostile"
        for each in (seeds, folder, hostile):
            each.mkdir(parents=True)
        good, missing = hostile_media.make_seeds(seeds)
        hostile_media.mutants(good, folder, arguments.files, arguments.seed)
        by_hand(hostile)
        figures = {**judge(folder, hostile, home / "library", arguments), "formats": len(good), "not_written": missing}
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, value in figures.items():
            for line in value if isinstance(value, list) and name != "not_written" else [value]:
                print(f"{name:18} {line}")
    sys.exit(1 if figures["wrong"] else 0)


if __name__ == "__main__":
    main()
