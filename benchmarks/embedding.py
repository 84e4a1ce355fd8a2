"""Speed of the embedder: clips and seconds of audio a second, and what batching and the shared prefix bring.

    python benchmarks/embedding.py [--model NAME] [--device D] [--dtype T] [--seconds 5 10 30] [--clips 64] [--rounds 3]

The sound is noise: no weight looks at what it hears to decide how much to compute. The variants of a row run in turn,
each `rounds` times after a warm-up, and the best time of each counts, so that a busy machine spoils a ratio least.
`batched` is the time of a batch of one over the batched time; `prefix` the plain path's over the shared prefix's (under
a long instruction, as `query --instruct` has). `padded` is how much slower clips of mixed lengths are, for each second
of sound, than clips of one length. Above 1 is a gain in the first two and a loss in the third.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from audiosearch.config import DEFAULT_MODEL
from audiosearch.embed.alm2vec import Alm2VecEmbedder
from audiosearch.types import Samples

INSTRUCTION = (
    "Attend to the place in which the sound was recorded, how large it is, what its walls are made of and how far away "
    "the source is, and leave aside what the source itself may be. Where was this recorded?"
)


def noise(seconds: list[float], rate: int) -> list[Samples]:
    random = np.random.default_rng(0)
    return [random.standard_normal(round(rate * s), dtype=np.float32) * np.float32(0.1) for s in seconds]


def best_times(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The best wall time in seconds of each variant, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds + 1):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    return {name: min(taken[1:]) for name, taken in times.items()}  # the first round warms up


def measure(embedder: Alm2VecEmbedder, seconds: float, clips: int, rounds: int) -> str:
    """One row of the table."""
    rate = embedder.sample_rate
    sound = noise([seconds] * clips, rate)
    few = sound[: max(4, clips // 4)]
    mixed_seconds = np.random.default_rng(1).uniform(0.3 * seconds, seconds, len(few)).tolist()
    mixed = noise(mixed_seconds, rate)

    def with_prefix(shared: bool) -> None:
        embedder.shared_prefix = shared
        embedder.embed_audio(few, instruction=INSTRUCTION, task="query")
        embedder.shared_prefix = True

    taken = best_times(
        {
            "all": lambda: embedder.embed_audio(sound),
            "few": lambda: embedder.embed_audio(few),
            "alone": lambda: [embedder.embed_audio([clip]) for clip in few],
            "mixed": lambda: embedder.embed_audio(mixed),
            "shared": lambda: with_prefix(True),
            "plain": lambda: with_prefix(False),
        },
        rounds,
    )
    of_one_length = taken["few"] / (seconds * len(few))
    return (
        f"{seconds:9g} {clips / taken['all']:9.1f} {clips * seconds / taken['all']:10.0f} "
        f"{taken['alone'] / taken['few']:9.2f} {taken['plain'] / taken['shared']:9.2f} "
        f"{taken['mixed'] / sum(mixed_seconds) / of_one_length:9.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the embedder.")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 10.0, 30.0])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    embedder = Alm2VecEmbedder.load(options.model, device=options.device, dtype=options.dtype)

    import torch

    print(
        f"{embedder.name} on {embedder.placement}; {torch.get_num_threads()} threads, {embedder.budget.tokens} tokens"
    )
    print(f"{'seconds':>9} {'clips/s':>9} {'audio s/s':>10} {'batched':>9} {'prefix':>9} {'padded':>9}")
    for seconds in options.seconds:
        # As much sound in each row: 64 clips of 5 s, 10 of 30 s.
        clips = max(8, round(options.clips * options.seconds[0] / seconds))
        print(measure(embedder, seconds, clips, options.rounds), flush=True)


if __name__ == "__main__":
    main()
