"""One GPU and the full-size model: how fast an ingest goes, how busy the GPU is, and what bf16 costs in exactness.

    python benchmarks/ingest_gpu.py [--hours 10] [--chunk-seconds 30 10] [--device cuda:0] [--peak-tflops 989]

MiDashengLM-7B's configuration with random weights in bf16, scaled so that activations keep their size as they do in a
trained model. For each chunk length, windows with a hop of the same length, of --hours of noise in ten-minute files:

    model     the chunks through the embedder alone, the next call begun before the last one is waited for
    ingest    `Library.ingest` of the files with that model, already loaded: decode, pipeline, store and index included

Printed are seconds of sound a second, the share of the ingest in which the model was busy (by the summary, and as the
model's own time over the ingest's), FLOP utilisation against --peak-tflops (operations as `audiosearch.trainer.costs`
counts them) and the least cosine of bf16 with fp32 rows. Aims on one H100: 2,500 x real time at 30 s, 1,500 at 10 s,
95 % busy, 50 % FLOP utilisation, cosine 0.999. Exit code 1 if one is missed. `--tiny` tries the script with a toy
model, on a CPU too, without aims. As of 2026-11 it has only been run with --tiny.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.config import wait_passively

TESTS = str(Path(__file__).resolve().parent.parent / "tests")
sys.path.append(TESTS)

RATE = 16_000
CALL_CHUNKS = 64
AIM_SPEEDS = {30.0: 2_500.0, 10.0: 1_500.0}  # x real time, by chunk length
AIM_BUSY, AIM_UTILISATION, AIM_COSINE = 0.95, 0.5, 0.999


def random_model(options: argparse.Namespace, dtype: Any) -> tuple[Any, Any]:
    """The model on its device, and prompts. Weights have variance 1 / fan-in, norms stay 1."""
    import tiny
    import torch

    from audiosearch.model.alm2vec import Alm2VecModel
    from audiosearch.model.config import midashenglm_7b
    from audiosearch.model.prompt import PromptEncoder

    config = tiny.tiny_config("patch") if options.tiny else midashenglm_7b()
    with tempfile.TemporaryDirectory() as place:
        tokenizer = Path(place, "tokenizer.json")
        tiny.make_tokenizer(tokenizer)  # a stand-in: the real one makes fewer tokens of the instruction
        prompts = PromptEncoder(config, tokenizer)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(options.device):
            model = Alm2VecModel(config, audio_token_id=prompts.audio_id)
    finally:
        torch.set_default_dtype(before)
    generator = torch.Generator(options.device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                fan_in = 1 if "embed_tokens" in name else weight[0].numel()
                weight.normal_(0.0, fan_in**-0.5, generator=generator)
            elif name.endswith("bias"):
                weight.normal_(0.0, 0.02, generator=generator)
        model.audio_encoder.init_bn.get_buffer("running_mean").copy_(torch.linspace(5.0, -25.0, 64))
        model.audio_encoder.init_bn.get_buffer("running_var").fill_(300.0)
    return model.eval(), prompts


def embedder_of(model: Any, prompts: Any, device: str, dtype: str) -> Any:
    from audiosearch.embed.alm2vec import Alm2VecEmbedder
    from audiosearch.embed.batching import Placement

    placement = Placement(device, dtype, "random weights")
    return Alm2VecEmbedder(model, prompts, placement, name="random", fingerprint="random", licence="none")


def flops_per_chunk(model: Any, prompts: Any, seconds: float) -> float:
    """Of one chunk in a full call, the shared instruction's part included."""
    from audiosearch.model.projector import n_audio_tokens
    from audiosearch.trainer.costs import Prompts, decoder_flops, encoder_flops

    config, samples = model.config, round(seconds * RATE)
    tokens = n_audio_tokens(samples, config.subsample_factor)
    prompt = prompts.encode(text=None, audio_tokens=tokens, instruction=None, task="document")
    shape = Prompts(CALL_CHUNKS, prompt.prefix_length, len(prompt.ids) - prompt.prefix_length)
    decoder = decoder_flops(config.text_config, shape, None).forward / CALL_CHUNKS
    return float(encoder_flops(config, samples).forward + decoder)


def noise(number: int, seconds: float) -> np.ndarray:
    """Noise under a slow swell, 16-bit."""
    n = round(seconds * RATE)
    swell = 0.2 + 0.15 * np.sin(2 * np.pi * np.arange(n, dtype=np.float32) / (RATE * (3 + number % 7)))
    loud = np.random.default_rng(number).standard_normal(n, dtype=np.float32) * swell.astype(np.float32)
    return np.round(32767 * np.clip(loud, -1, 1)).astype("<i2")


def write_files(folder: Path, hours: float) -> None:
    import wave

    folder.mkdir()
    left = hours * 3600
    for number in range(10**6):
        with wave.open(str(folder / f"{number:04}.wav"), "wb") as out:
            out.setparams((1, 2, RATE, 0, "NONE", ""))
            out.writeframes(noise(number, min(left, 600.0)).tobytes())
        left -= 600.0
        if left <= 0:
            return


def synchronise(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def time_model(embedder: Any, device: str, seconds: float, n_chunks: int) -> float:
    """Seconds that the embedder alone needs for the chunks, kept in memory, call after call."""

    def calls() -> Iterator[list[np.ndarray]]:
        clips = [(noise(n, seconds) / np.float32(32768)).astype(np.float32) for n in range(CALL_CHUNKS)]
        for first in range(0, n_chunks, CALL_CHUNKS):
            yield clips[: min(CALL_CHUNKS, n_chunks - first)]

    waiting = None
    synchronise(device)
    started = time.perf_counter()
    for clips in calls():
        before, waiting = waiting, embedder.begin_audio(clips)
        if before is not None:
            before()
    if waiting is not None:
        waiting()
    return time.perf_counter() - started


def time_ingest(embedder: Any, folder: Path, library: Path, seconds: float) -> Any:
    """The summary of an ingest with this embedder."""
    from audiosearch.library import Library, Models
    from audiosearch.types import ModelDescription

    described = ModelDescription(
        "random", "", embedder.fingerprint, embedder.dim, RATE, embedder.max_seconds, "", embedder.licence
    )
    models = Models(lambda name: described, lambda name, **_: embedder)
    with Library.open(library, create=True, models=models) as opened:
        return opened.ingest([folder], window_seconds=seconds, hop_seconds=seconds)


def least_cosines(model: Any, prompts: Any, options: argparse.Namespace) -> dict[float, float]:
    """Between fp32 rows and those of the same weights in bf16, by chunk length; leaves the model in bf16."""
    import torch

    clips = {
        seconds: [(noise(1000 + n, seconds) / np.float32(32768)).astype(np.float32) for n in range(16)]
        for seconds in options.chunk_seconds
    }
    exact = embedder_of(model, prompts, options.device, "float32")
    wide = {seconds: exact.embed_audio(sounds) for seconds, sounds in clips.items()}
    rounded = embedder_of(model.to(torch.bfloat16), prompts, options.device, "bfloat16")
    return {s: float((wide[s] * rounded.embed_audio(sounds)).sum(axis=1).min()) for s, sounds in clips.items()}


def measure(options: argparse.Namespace, seconds: float, embedder: Any, flops: float) -> dict[str, Any]:
    """The figures for one chunk length."""
    sound_seconds = options.hours * 3600
    n_chunks = max(1, round(sound_seconds / seconds))
    time_model(embedder, options.device, seconds, min(n_chunks, 2 * CALL_CHUNKS))  # kernels are chosen, memory touched
    alone = time_model(embedder, options.device, seconds, n_chunks)
    with tempfile.TemporaryDirectory() as place:
        write_files(Path(place, "sound"), options.hours)
        started = time.perf_counter()
        summary = time_ingest(embedder, Path(place, "sound"), Path(place, "library"), seconds)
        took = time.perf_counter() - started
    if summary.failed or abs(summary.audio_seconds - sound_seconds) > 1:
        raise SystemExit(f"not all of it was ingested: {summary}")
    peak = options.peak_tflops * 1e12
    return {
        "chunk_seconds": seconds,
        "chunks": summary.chunks_embedded,
        "model_x_real_time": round(sound_seconds / alone, 1),
        "ingest_x_real_time": round(sound_seconds / took, 1),
        "busy_by_summary": summary.stages.model,
        "busy_by_model_time": round(min(alone / took, 1.0), 4),
        "bottleneck": summary.bottleneck,
        "tflop_per_chunk": round(flops / 1e12, 4),
        "model_flop_utilisation": round(n_chunks * flops / alone / peak, 4),
        "ingest_flop_utilisation": round(summary.chunks_embedded * flops / took / peak, 4),
    }


def meets_aims(result: dict[str, Any], cosine: float) -> bool:
    fast = result["ingest_x_real_time"] >= AIM_SPEEDS.get(result["chunk_seconds"], 0.0)
    busy = result["busy_by_summary"] >= AIM_BUSY
    return bool(fast and busy and result["ingest_flop_utilisation"] >= AIM_UTILISATION and cosine >= AIM_COSINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=10.0)
    parser.add_argument("--chunk-seconds", type=float, nargs="+", default=[30.0, 10.0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--peak-tflops", type=float, default=989.0, help="dense bf16 peak of the GPU; H100 SXM: 989")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    wait_passively()
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device: this measures the full-size model on a GPU (--tiny --device cpu tries the script)",
              file=sys.stderr)  # fmt: skip
        return 2
    model, prompts = random_model(options, torch.float32)
    good, results, cosines = True, [], least_cosines(model, prompts, options)
    if options.device.startswith("cuda"):
        torch.cuda.empty_cache()
    embedder = embedder_of(model, prompts, options.device, "bfloat16")
    for seconds in options.chunk_seconds:
        result = measure(options, seconds, embedder, flops_per_chunk(model, prompts, seconds))
        result["least_cosine_bf16_fp32"] = round(cosines[seconds], 6)
        results.append(result)
        good &= meets_aims(result, cosines[seconds])
    where = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else options.device
    memory = torch.cuda.max_memory_allocated(options.device) / 2**30 if options.device.startswith("cuda") else None
    parameters = sum(weight.numel() for weight in model.parameters())
    print(
        json.dumps({"device": where, "parameters": parameters, "peak_memory_gib": memory, "results": results}, indent=2)
    )
    return 0 if good or options.tiny else 1


if __name__ == "__main__":
    sys.exit(main())
