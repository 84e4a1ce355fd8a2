"""Find where a sound begins and ends: listen again to the best moments, in windows much shorter than the chunks.

    moment       |------------------------|          found by chunks of ten seconds
    heard    |--------------------------------|      with MARGIN_SECONDS on both sides, in windows of WINDOW_SECONDS
    scores                 _____
             _____________|     |_____________       high where the sound is
    refined               |-----|                    the span that explains the scores best

A window's score is taken to be a level, where the sound is not, plus a step times the share of the window that it fills
(to the power of `FULLNESS`: what is there is heard well before it fills the window). Least squares give level and step
of every span in closed form; the span that leaves least unexplained is chosen (a matched filter of unknown length). In
what it leaves, a second sound of about that strength is looked for in the same way, so one moment can become several.
If no span stands out, because the sound goes on all the time, the moment keeps its span. Of a moment that is long
already, only the beginning and the end are heard.

A refined moment's score is the mean score of the windows in its span, and **refined ones rank first, by that score**: a
bark of a second is a tenth of its chunk and all of its window. Its peak, and the peak's score, stay as they were; its
id is that of the new span. Moments that turn out to be of the same sound become one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import AudioSearchError
from audiosearch.query.moments import Moment, without_overlaps
from audiosearch.types import Samples, Vectors

WINDOW_SECONDS, HOP_SECONDS = 2.0, 0.5
MARGIN_SECONDS = 5.0  # half a chunk: a sound at the end of the best chunk goes on in the next
GRID_SECONDS = 0.25  # of the ends
SHORTEST_SECONDS = 0.5
LONG_SECONDS = 40.0  # of a longer moment only the ends are heard
INNER_SECONDS = 10.0  # how much of it at each end
FULLNESS = 0.6
LEAST_EXPLAINED = 0.4  # of the scores' variance, or the ends are noise
LEAST_STEP = 0.4  # of the score inside, or the sound goes on outside: a lasting one keeps the span it was found with
ANOTHER = 0.6  # a second sound's step is at least this share of the first one's
APART_SECONDS = 1.0  # else it is the same sound
MOST_SOUNDS = 4  # in one moment
_LEAST_WINDOWS = 4

Spans = NDArray[np.float64]  # (n, 2), seconds
Floats = NDArray[np.float64]
ReadSpan = Callable[[str, float, "float | None"], Samples]  # at the model's rate


@dataclass(frozen=True, slots=True)
class Refined:
    """The moments, best first; of the first `top` given, how many were heard again, could not be read (or are silent),
    and were left out for want of time."""

    moments: tuple[Moment, ...]
    refined: int
    unreadable: int
    left_out: int


def refine(
    moments: Sequence[Moment],
    embed: Callable[[list[Samples]], Vectors],
    read_span: ReadSpan,
    score: Callable[[Vectors], NDArray[np.float32]],
    *,
    sample_rate: int,
    top: int,
    budget_seconds: float,
    merge_gap_seconds: float = 0.0,
    cancelled: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> Refined:
    """`moments` (best first), of which the first `top` have new spans and ranks as far as `budget_seconds` go. Sounds
    in one moment that are up to `merge_gap_seconds` apart stay one.

    `embed` maps n sounds at `sample_rate` (Hz) to unit rows [n, dim], as the chunks were embedded, and `score` these to
    scores [n]. At least one moment is tried unless the budget is 0. Errors of `embed` pass through; a moment of
    which no file can be read is counted and stays as it is, and so do the rest from when it is `cancelled`.
    """
    started = clock()
    found: list[Moment] = []
    kept: list[Moment] = []
    refined = unreadable = position = 0
    slowest = 0.0
    tried = list(moments[:top]) if budget_seconds > 0 else []
    for moment in tried:
        before = clock()
        if cancelled() or (position and before - started + slowest > budget_seconds):
            break
        position += 1
        sounds = _refined(moment, embed, read_span, score, sample_rate, merge_gap_seconds)
        slowest = max(slowest, clock() - before)
        unreadable += not sounds
        refined += bool(sounds)
        found += sounds
        kept += [] if sounds else [moment]
    left_out = len(moments[:top]) - position
    found.sort(key=lambda moment: (-round(moment.score, 6), moment.peak.rank_key, moment.start_seconds))
    return Refined(tuple(without_overlaps([*found, *kept, *moments[position:]])), refined, unreadable, left_out)


def fit_sounds(windows: Spans, scores: Floats, candidates: Spans) -> list[tuple[int, float]]:
    """Which of the spans `candidates` [m, 2] hold the sounds that `scores` [n] of `windows` [n, 2] show: (row of
    `candidates`, step of the score) of each, the one that explains most first. Empty if nothing stands out."""
    shares = _shares(windows, candidates) ** FULLNESS
    means = shares.mean(axis=1)
    shares -= means[:, None]
    power = np.einsum("mn,mn->m", shares, shares)
    left = scores - scores.mean()
    to_explain = float(left @ left)
    possible = power > 1e-9
    found: list[tuple[int, float]] = []
    while len(found) < MOST_SOUNDS and possible.any():
        along = np.where(possible, np.maximum(shares @ left, 0.0), 0.0)
        explained = along**2 / np.maximum(power, 1e-9)
        best = int(np.argmax(explained))
        step = float(along[best] / max(power[best], 1e-9))
        if found:
            stands_out = step >= ANOTHER * found[0][1]
        else:
            inside = float(scores.mean()) + step * (1.0 - means[best])
            stands_out = explained[best] >= LEAST_EXPLAINED * to_explain > 0 and step >= LEAST_STEP * inside
        if not stands_out:
            break
        found.append((best, step))
        left = left - step * shares[best]
        start, end = candidates[best]
        possible &= (candidates[:, 1] <= start - APART_SECONDS) | (candidates[:, 0] >= end + APART_SECONDS)
    return found


def _refined(
    moment: Moment,
    embed: Callable[[list[Samples]], Vectors],
    read_span: ReadSpan,
    score: Callable[[Vectors], NDArray[np.float32]],
    sample_rate: int,
    merge_gap_seconds: float,
) -> list[Moment]:
    """The sounds in `moment`, in time order; itself with its score if none stands out; none if it cannot be heard."""
    start, end = moment.start_seconds, moment.end_seconds
    is_long = end - start > LONG_SECONDS
    outer = max(0.0, start - MARGIN_SECONDS), end + MARGIN_SECONDS
    stretches = [(outer[0], start + INNER_SECONDS), (end - INNER_SECONDS, outer[1])] if is_long else [outer]
    heard = _hear(moment, stretches, read_span, sample_rate)
    if heard is None:
        return []
    windows, sounds, last = heard
    scores = _scores(sounds, embed, score)
    if scores is None:
        return []
    starts = np.arange(outer[0], stretches[0][1] if is_long else last, GRID_SECONDS)
    ends = np.arange(last, stretches[-1][0], -GRID_SECONDS)
    candidates = np.stack(np.meshgrid(starts, ends, indexing="ij"), axis=-1).reshape(-1, 2)
    middle = candidates.mean(axis=1)
    # A sound in the margin is another moment's.
    mine = (np.diff(candidates)[:, 0] >= SHORTEST_SECONDS) & (middle >= start) & (middle <= end)
    candidates = candidates[mine]
    can_tell = len(windows) >= _LEAST_WINDOWS and len(candidates)
    found = fit_sounds(windows, scores, candidates) if can_tell else []
    spans = _joined([candidates[row] for row, _ in found], merge_gap_seconds) or [(start, end)]
    return [_moved(moment, span, windows, scores) for span in spans]


def _joined(spans: Sequence[NDArray[np.float64]], gap_seconds: float) -> list[tuple[float, float]]:
    """Disjoint `spans` in time order, those up to `gap_seconds` apart as one."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted((round(float(start), 6), round(float(end), 6)) for start, end in spans):
        if joined and start <= joined[-1][1] + gap_seconds:
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _hear(
    moment: Moment, stretches: Sequence[tuple[float, float]], read_span: ReadSpan, sample_rate: int
) -> tuple[Spans, list[Samples], float] | None:
    """Windows over `stretches`, their sound, and where that ends: from the first file of the recording that can be
    read, or None."""
    for root, path in moment.peak.paths:
        windows: list[tuple[float, float]] = []
        sounds: list[Samples] = []
        try:
            for start, end in stretches:
                samples = read_span(str(Path(root, path)), start, end)
                size = min(round(WINDOW_SECONDS * sample_rate), len(samples))
                for first in range(0, len(samples) - size + 1, round(HOP_SECONDS * sample_rate)) if size else ():
                    sounds.append(samples[first : first + size])
                    windows.append((start + first / sample_rate, start + (first + size) / sample_rate))
                last = start + len(samples) / sample_rate
        except (AudioSearchError, OSError):  # gone, broken, or shorter than it was
            continue
        if windows:
            return np.array(windows), sounds, last
    return None


def _scores(
    sounds: Sequence[Samples],
    embed: Callable[[list[Samples]], Vectors],
    score: Callable[[Vectors], NDArray[np.float32]],
) -> Floats | None:
    """Of each window (n,); of digital silence, which has no vector, the lowest, but not above 0; None if all is."""
    audible = np.array([bool(np.any(each)) for each in sounds])
    if not audible.any():
        return None
    scores = np.empty(len(sounds))
    heard = [each for each, is_audible in zip(sounds, audible, strict=True) if is_audible]
    scores[audible] = score(np.asarray(embed(heard)))
    scores[~audible] = min(0.0, scores[audible].min())
    return scores


def _shares(windows: Spans, candidates: Spans) -> Floats:
    """How much of each window lies in each candidate, (m, n) in [0, 1]."""
    shared = np.minimum(windows[:, 1], candidates[:, 1:]) - np.maximum(windows[:, 0], candidates[:, :1])
    shares: Floats = np.maximum(shared, 0.0) / (windows[:, 1] - windows[:, 0])
    return shares


def _moved(moment: Moment, span: tuple[float, float], windows: Spans, scores: Floats) -> Moment:
    """The moment with another span; its score is that of the windows by how much of them lies in it, squared."""
    weights = _shares(windows, np.array([span]))[0] ** 2
    curve = tuple((float(start), float(end), float(score)) for (start, end), score in zip(windows, scores, strict=True))
    score = float(np.average(scores, weights=weights))
    return replace(moment, start_seconds=span[0], end_seconds=span[1], curve=curve, refined_score=score)
