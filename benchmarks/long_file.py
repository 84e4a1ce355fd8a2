"""Memory and speed of ingesting one very long recording, and very many short ones: the peak must not grow.

    python benchmarks/long_file.py [--hours 4 10] [--files 5000 20000] [--format wav|flac] [--rate 16000]
                                   [--model NAME]

Writes a synthetic recording (no second like another) to the temporary directory, ingests it in a new process and prints
that process's peak resident memory, the largest decode process's, and how many times faster than real time it went;
then the same for folders of that many sounds of half a second. The vectors are computed by hand unless --model names a
model. Ten hours at 16 kHz take 1.2 GB of disk as WAV, 20,000 short files 0.3 GB. Exit code 1 if the longest recording's
peak is more than a tenth above the shortest one's, or the largest folder's above the smallest one's. Four hours, and
3,000 files, are about the least to compare with: an ingest of fewer than 2,000 vectors saves no index, and so does not
load FAISS. `--hours` or `--files` without a number leaves that part
out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

TESTS = str(Path(__file__).resolve().parent.parent / "tests")
BLOCK_SECONDS = 10
AIM_GROWTH = 1.1

INGEST = f"""
import json, multiprocessing, resource, sys
from audiosearch.library import Library

def peak(pid):
    # Not getrusage of children: on Linux a child inherits its parent's peak.
    try:
        lines = open(f"/proc/{{pid}}/status").read().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

def progress(_):
    global decoder
    decoder = max([decoder, *(peak(child.pid) for child in multiprocessing.active_children())])

decoder = 0
library, path, model = sys.argv[1:]
options = {{"model": model}}
if not model:
    sys.path.append({TESTS!r})
    import toy
    from audiosearch.library import Models
    options = {{"models": Models(lambda name: toy.description(), lambda name, **_: toy.HandEmbedder())}}
with Library.open(library, create=True, **options) as opened:
    summary = opened.ingest([path], progress=progress)
unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
print(json.dumps({{
    "parent": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    "child": decoder,
    "audio_seconds": summary.audio_seconds,
    "seconds": summary.elapsed_seconds,
    "chunks": summary.chunks_embedded,
    "failed": [failed.detail for failed in summary.failed],
    "device": summary.device,
}}))
"""


def sound(hours: float, rate: int) -> Iterator[np.ndarray]:
    """Blocks of 16-bit samples: a tone that wanders, in noise."""
    random = np.random.default_rng(0)
    time = np.arange(BLOCK_SECONDS * rate) / rate
    for _ in range(round(hours * 3600 / BLOCK_SECONDS)):
        tone = 0.4 * np.sin(2 * np.pi * random.uniform(60, 6000) * time)
        noise = random.standard_normal(len(time), dtype=np.float32) * random.uniform(0.001, 0.1)
        yield np.round(32767 * np.clip(tone + noise, -1, 1)).astype("<i2")


def write(path: Path, hours: float, rate: int) -> None:
    """The sound as a WAV or FLAC file, by the extension of `path`, never more than a block of it in memory."""
    if path.suffix == ".wav":
        with wave.open(str(path), "wb") as out:
            out.setparams((1, 2, rate, 0, "NONE", ""))
            for block in sound(hours, rate):
                out.writeframes(block.tobytes())
        return
    import av

    with av.open(str(path), "w") as out:
        stream = out.add_stream("flac", rate=rate, layout="mono", format="s16")
        for block in sound(hours, rate):
            frame = av.AudioFrame.from_ndarray(block[None], format="s16", layout="mono")
            frame.sample_rate = rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def write_short(folder: Path, files: int, rate: int) -> None:
    """`files` unlike sounds of half a second as WAV, a thousand in a folder."""
    random = np.random.default_rng(1)
    for number in range(files):
        home = folder / f"{number // 1000:03}"
        home.mkdir(parents=True, exist_ok=True)
        block = random.standard_normal(rate // 2, dtype=np.float32) * random.uniform(0.01, 0.1)
        with wave.open(str(home / f"{number}.wav"), "wb") as out:
            out.setparams((1, 2, rate, 0, "NONE", ""))
            out.writeframes(np.round(32767 * np.clip(block, -1, 1)).astype("<i2").tobytes())


def ingested(path: Path, place: str, model: str, seconds: float) -> dict[str, Any]:
    """What a new process reports of ingesting `path`, which holds so much sound."""
    command = [sys.executable, "-c", INGEST, str(Path(place, "library")), str(path), model]
    done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    if done["failed"] or abs(done["audio_seconds"] - seconds) > 1:
        raise SystemExit(f"not all of it was ingested: {done['audio_seconds']:.1f} s; {done['failed']}")
    return done


def row(name: str, done: dict[str, Any]) -> int:
    """Print a line; the peak of both processes in bytes."""
    print(
        f"{name:>14} {done['chunks']:7} {done['seconds']:8.1f} {done['audio_seconds'] / done['seconds']:7.0f} "
        f"{done['parent'] / 1e6:8.0f} {done['child'] / 1e6:8.0f}",
        flush=True,
    )
    return int(done["parent"] + done["child"])


def is_flat(what: str, peaks: dict[float, int]) -> bool:
    """Whether the largest case needed hardly more memory than the smallest; says so."""
    if not peaks:
        return True
    growth = peaks[max(peaks)] / peaks[min(peaks)]
    good = growth <= AIM_GROWTH
    print(
        f"{what}: peak of both processes, most over least: {growth:.2f}, aim {AIM_GROWTH}: {'ok' if good else 'MISSED'}"
    )
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="*", default=[4.0, 10.0])
    parser.add_argument("--files", type=int, nargs="*", default=[5_000, 20_000])
    parser.add_argument("--format", choices=("wav", "flac"), default="wav", help="of the long recording")
    parser.add_argument("--rate", type=int, default=16000, help="of the files, in Hz")
    parser.add_argument("--model", default="", help="name or directory; without it vectors are computed by hand")
    options = parser.parse_args()
    long: dict[float, int] = {}
    many: dict[float, int] = {}
    print(f"{'':>14} {'chunks':>7} {'seconds':>8} {'x real':>7} {'parent':>8} {'decoder':>8}   MB")
    for hours in sorted(options.hours):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, f"long.{options.format}")
            write(path, hours, options.rate)
            long[hours] = row(f"{hours:g} hours", ingested(path, place, options.model, hours * 3600))
    for files in sorted(options.files):
        with tempfile.TemporaryDirectory() as place:
            write_short(Path(place, "sound"), files, options.rate)
            done = ingested(Path(place, "sound"), place, options.model, files * 0.5)
            many[files] = row(f"{files:,} files", done)
    good = [is_flat("length", long), is_flat("number of files", many)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
