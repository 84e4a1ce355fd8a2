"""Memory and speed of ingesting one very long recording: the peak must not grow with its length.

    python benchmarks/long_file.py [--hours 4 10] [--format wav|flac] [--rate 16000] [--model NAME]

Writes a synthetic recording (no second like another) to the temporary directory, ingests it in a new process and prints
that process's peak resident memory, the decode process's, and how many times faster than real time it went. The
vectors are computed by hand unless --model names a model. Ten hours at 16 kHz take 1.2 GB of disk as WAV. Exit code 1
if the longest recording's peak is more than a tenth above the shortest one's. Four hours are about the least to compare
with: an ingest of fewer than 2,000 vectors saves no index, and so does not load FAISS.
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

import numpy as np

TESTS = str(Path(__file__).resolve().parent.parent / "tests")
BLOCK_SECONDS = 10

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[4.0, 10.0])
    parser.add_argument("--format", choices=("wav", "flac"), default="wav")
    parser.add_argument("--rate", type=int, default=16000, help="of the file, in Hz")
    parser.add_argument("--model", default="", help="name or directory; without it vectors are computed by hand")
    options = parser.parse_args()
    peaks: dict[float, int] = {}
    print(f"{'hours':>6} {'file':>8} {'chunks':>7} {'seconds':>8} {'x real':>7} {'parent':>8} {'decoder':>8}   MB")
    for hours in sorted(options.hours):
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, f"long.{options.format}")
            write(path, hours, options.rate)
            command = [sys.executable, "-c", INGEST, str(Path(place, "library")), str(path), options.model]
            done = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            size = path.stat().st_size
        if done["failed"] or abs(done["audio_seconds"] - hours * 3600) > 1:
            print(f"not all of it was ingested: {done['audio_seconds']:.1f} s; {done['failed']}")
            return 1
        peaks[hours] = done["parent"] + done["child"]
        print(
            f"{hours:6g} {size / 1e6:8.0f} {done['chunks']:7} {done['seconds']:8.1f} "
            f"{done['audio_seconds'] / done['seconds']:7.0f} {done['parent'] / 1e6:8.0f} {done['child'] / 1e6:8.0f}"
        )
    print(f"model: {done['device']}")
    growth = peaks[max(peaks)] / peaks[min(peaks)]
    print(
        f"peak of both processes, longest over shortest: {growth:.2f}, aim 1.10: {'ok' if growth <= 1.1 else 'MISSED'}"
    )
    return 0 if growth <= 1.1 else 1


if __name__ == "__main__":
    sys.exit(main())
