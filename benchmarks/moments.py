"""How well the ends of a sound are found in long recordings: short events at known places, asked for by name.

    python benchmarks/moments.py [--model NAME_OR_DIR] [--data DIR] [--recordings N] [--seconds S] [--split valid|train]
                                 [--top N] [--quick] [--json FILE]

ESC-50 clips of the labelled collection in $AUDIOSEARCH_DATA (default: `shared/data` beside the checkout) are put into
backgrounds of ten minutes (benchmarks/quality/inserted.py). Each event is a query: its label. The first answer counts,
by its overlap (intersection over union) with the event.

    grids     windows of 2.5, 5 and 10 s, each half a window after the other: the best window, and windows merged into
              moments; the best of these six is what refinement is compared with
    refined   moments of the 10 s windows, listened to again: `ends` keeps their order, `ends and rank` is what
              `audiosearch query --refine` does
    scopes    the recording of the event alone; all recordings at once, where any event of the label counts

`valid` clips judge. Constants are tuned on --split train. Exit code 0 if the aims are reached, 1 if not, 2 without data
or a model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from quality import data, inserted
from quality.inserted import Event, Recording

from audiosearch.audio import SAMPLE_RATE
from audiosearch.chunk import plan
from audiosearch.config import DEFAULT_MODEL
from audiosearch.embed.base import AudioTextEmbedder
from audiosearch.errors import AudioSearchError
from audiosearch.query.candidates import DEPTH
from audiosearch.query.moments import Moment, ScoredChunk, find_moments
from audiosearch.query.refine import refine
from audiosearch.types import Samples, Vectors

NO_DATA = 2
SEED = 20_261_123
GRIDS = (2.5, 5.0, 10.0)  # seconds; the hop is half of it
STORED = 10.0  # the grid that a library has
AIMS = {0.5: 0.5, 0.7: 0.3}  # overlap -> recall of the first answer
LEAD = 0.10  # over the best grid, at an overlap of 0.7
DRAWS = 2_000
QUICK = {"recordings": 3, "seconds": 240.0}

Overlaps = NDArray[np.float64]  # of the first answer, one a query


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to answer: share of first answers that touch an event, and that overlap it by 0.5 and 0.7; the mean."""

    name: str
    scope: str
    queries: int
    touched: float
    at_50: float
    at_70: float
    mean_overlap: float

    @classmethod
    def of(cls, name: str, scope: str, overlaps: Overlaps) -> Arm:
        """Its figures."""
        shares = [float(np.mean(overlaps >= least)) for least in AIMS]
        return cls(name, scope, len(overlaps), float(np.mean(overlaps > 0)), *shares, float(np.mean(overlaps)))


@dataclass(frozen=True, slots=True)
class Heard:
    """Recordings with their sound and, by window length, the (start, end) in seconds and vector of every window."""

    recordings: Sequence[Recording]
    sounds: dict[int, Samples]
    windows: dict[tuple[int, float], tuple[NDArray[np.float64], Vectors]]
    embedder: AudioTextEmbedder
    known: dict[bytes, NDArray[np.float32]]  # vectors of what was heard again: queries share most of it

    def chunks(self, number: int, window: float, target: NDArray[np.float32]) -> list[ScoredChunk]:
        """Every window of a recording, scored."""
        spans, vectors = self.windows[number, window]
        return [
            ScoredChunk(i, number, b"%06d" % number, float(start), float(end), float(score), (("", f"{number:06d}"),))
            for i, ((start, end), score) in enumerate(zip(spans, vectors @ target, strict=True))
        ]

    def read_span(self, path: str, start_seconds: float, end_seconds: float | None = None) -> Samples:
        """As `audiosearch.audio.read_span`, of the recording whose number `path` is."""
        end = None if end_seconds is None else round(end_seconds * SAMPLE_RATE)
        return self.sounds[int(path)][round(start_seconds * SAMPLE_RATE) : end]

    def embed(self, sounds: Sequence[Samples]) -> Vectors:
        """Each sound once."""
        names = [hashlib.blake2b(np.ascontiguousarray(sound).data, digest_size=16).digest() for sound in sounds]
        new = {name: sound for name, sound in zip(names, sounds, strict=True) if name not in self.known}
        if new:
            self.known.update(zip(new, self.embedder.embed_audio(list(new.values())), strict=True))
        return np.stack([self.known[name] for name in names])

    def refined(self, moments: Sequence[Moment], target: NDArray[np.float32], top: int) -> list[Moment]:
        """As a query does it, however long it takes."""
        done = refine(
            moments,
            self.embed,
            self.read_span,
            lambda vectors: vectors @ target,
            sample_rate=SAMPLE_RATE,
            top=top,
            budget_seconds=float("inf"),
        )
        return list(done.moments)


def hear(recordings: Sequence[Recording], embedder: AudioTextEmbedder) -> Heard:
    """Render and embed. Raises AudioSearchError for a clip that cannot be read."""
    sounds, windows = {}, {}
    started = time.perf_counter()
    for recording in recordings:
        sound = sounds[recording.number] = inserted.render(recording)
        for window in GRIDS:
            spans = plan(len(sound), window_seconds=window, hop_seconds=window / 2)
            vectors = embedder.embed_audio(sound[first:last] for first, last in spans)
            windows[recording.number, window] = np.array(spans) / SAMPLE_RATE, vectors
        say(f"recording {recording.number + 1} of {len(recordings)}: {time.perf_counter() - started:.0f} s")
    return Heard(recordings, sounds, windows, embedder, {})


def arms(heard: Heard, top: int) -> tuple[list[Arm], dict[str, Overlaps]]:
    """Every way in both scopes, and the overlaps of the queries in one recording, by the way's name."""
    labels = inserted.by_label(heard.recordings)
    targets = dict(zip(labels, heard.embedder.embed_text(labels), strict=True))
    alone: dict[str, list[float]] = {}
    everywhere: dict[str, list[float]] = {}
    for done, (label, events) in enumerate(labels.items(), start=1):
        all_chunks: dict[float, list[ScoredChunk]] = {window: [] for window in GRIDS}
        for recording in heard.recordings:
            chunks = {window: heard.chunks(recording.number, window, targets[label]) for window in GRIDS}
            for window in GRIDS:
                all_chunks[window] += chunks[window]
            for number, event in events:
                if number == recording.number:
                    _judge(alone, heard, chunks, targets[label], [(number, event)], top)
        _judge(everywhere, heard, all_chunks, targets[label], events, top)
        say(f"query {done} of {len(labels)}")
    found = {name: np.array(overlaps) for name, overlaps in alone.items()}
    table = [Arm.of(name, "its recording", overlaps) for name, overlaps in found.items()]
    return table + [Arm.of(name, "all recordings", np.array(each)) for name, each in everywhere.items()], found


def _judge(
    into: dict[str, list[float]],
    heard: Heard,
    chunks: dict[float, list[ScoredChunk]],
    target: NDArray[np.float32],
    events: Sequence[tuple[int, Event]],
    top: int,
) -> None:
    """Add the overlap of each way's first answer with the best of `events`, (recording, event)."""

    def add(name: str, number: int, span: tuple[float, float]) -> None:
        of_recording = [event for recording, event in events if recording == number]
        into.setdefault(name, []).append(inserted.best_overlap(span, of_recording))

    for window in GRIDS:
        candidates = sorted(chunks[window], key=lambda chunk: chunk.rank_key)[:DEPTH]  # as many as a query looks at
        best = candidates[0]
        add(f"grid {window:g} s", best.recording_id, (best.start_seconds, best.end_seconds))
        moments = find_moments(candidates)
        _add_first(add, f"grid {window:g} s, merged", moments)
        if window == STORED:
            _add_first(add, "refined: ends", heard.refined(moments[:1], target, 1))
            _add_first(add, "refined: ends and rank", heard.refined(moments, target, top))


def _add_first(add: Callable[[str, int, tuple[float, float]], None], name: str, moments: Sequence[Moment]) -> None:
    add(name, moments[0].peak.recording_id, (moments[0].start_seconds, moments[0].end_seconds))


def lead(found: dict[str, Overlaps], least: float = 0.7) -> tuple[str, float, float, float]:
    """The best grid, by how much refinement is ahead of it, and the 95 % interval of that (paired bootstrap)."""
    grid = max((name for name in found if name.startswith("grid")), key=lambda name: np.mean(found[name] >= least))
    ahead = (found["refined: ends and rank"] >= least).astype(float) - (found[grid] >= least)
    rng = np.random.default_rng(SEED)
    means = [float(rng.choice(ahead, len(ahead)).mean()) for _ in range(DRAWS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return grid, float(ahead.mean()), float(low), float(high)


def table_of(found: Sequence[Arm]) -> str:
    """As Markdown."""
    lines = [
        "| in | way | queries | touches it | R@1, 0.5 | R@1, 0.7 | mean overlap |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in found:
        figures = " | ".join(f"{share:.3f}" for share in (each.touched, each.at_50, each.at_70, each.mean_overlap))
        lines.append(f"| {each.scope} | {each.name} | {each.queries} | {figures} |")
    return "\n".join(lines)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME_OR_DIR")
    parser.add_argument("--device")
    parser.add_argument("--data", metavar="DIR", help="the folder that holds manifest.csv")
    parser.add_argument("--split", choices=("valid", "train"), default="valid")
    parser.add_argument("--recordings", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=inserted.RECORDING_SECONDS, help="of each recording")
    parser.add_argument("--top", type=int, default=10, help="so many moments are listened to again")
    parser.add_argument("--quick", action="store_true", help="three recordings of four minutes: a look, no figure")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    if options.quick:
        vars(options).update(QUICK)
    return options


def main() -> int:
    options = options_of()
    folder = data.data_folder(options.data)
    if not (folder / "manifest.csv").is_file():
        say(f"skipped: {folder} has no manifest.csv: name the folder in AUDIOSEARCH_DATA or --data")
        return NO_DATA
    clips = [clip for clip in data.read_clips(folder) if clip.split == options.split]
    started = time.perf_counter()
    try:
        from audiosearch.embed import load_embedder

        embedder = load_embedder(options.model, device=options.device)
        if embedder.sample_rate != SAMPLE_RATE:
            say(f"moments: {options.model} hears {embedder.sample_rate} Hz, the benchmark renders {SAMPLE_RATE}")
            return NO_DATA
        drawn = inserted.draw(clips, options.recordings, seed=SEED, seconds=options.seconds)
        found, overlaps = arms(hear(drawn, embedder), options.top)
    except AudioSearchError as error:
        say(f"moments: {error}")
        return NO_DATA
    return report(options, embedder.fingerprint, found, overlaps, time.perf_counter() - started)


def report(
    options: argparse.Namespace, fingerprint: str, found: Sequence[Arm], overlaps: dict[str, Overlaps], seconds: float
) -> int:
    """Print, write what was asked for, and say whether the aims are reached: the exit code."""
    grid, ahead, low, high = lead(overlaps)
    refined = next(each for each in found if each.name == "refined: ends and rank")
    reached = refined.at_50 >= AIMS[0.5] and refined.at_70 >= AIMS[0.7] and ahead >= LEAD
    print(f"{Path(options.model).name}, {options.split}, {options.recordings} x {options.seconds:g} s\n")
    print(table_of(found))
    print(
        f"\nrefined: {refined.at_50:.3f} (aim {AIMS[0.5]:g}) and {refined.at_70:.3f} (aim {AIMS[0.7]:g}), "
        f"{100 * ahead:+.1f} points [{100 * low:.1f}, {100 * high:.1f}] at 0.7 beside {grid} (aim {100 * LEAD:+.0f}): "
        f"{'reached' if reached else 'MISSED'}; {seconds:.0f} s"
    )
    if options.json:
        content = {
            "model": options.model,
            "fingerprint": fingerprint,
            "split": options.split,
            "recordings": options.recordings,
            "seconds_each": options.seconds,
            "arms": [asdict(each) for each in found],
            "best_grid": grid,
            "lead_at_70": [ahead, low, high],
            "reached": reached,
        }
        Path(options.json).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
