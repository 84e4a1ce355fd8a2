"""Test media, synthesised: numpy makes the sound, PyAV writes the file. No binary assets."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def sound(seconds: float, rate: int = 44100, channels: int = 1, seed: int = 0) -> NDArray[np.float64]:
    """Noise under a slow swell, a chirp and clicks, different in each channel; shape (channels, n), |x| < 0.9.

    Band-limited to 0.35 of the rate (at most 7 kHz), so that no two resamplers differ by their cut-off alone.
    """
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    t = np.arange(n) / rate
    limit = min(0.35 * rate, 7000)
    rows = []
    for channel in range(channels):
        spectrum = np.fft.rfft(rng.standard_normal(n))
        spectrum[np.fft.rfftfreq(n, 1 / rate) > limit] = 0
        noise = np.fft.irfft(spectrum, n)
        chirp = np.sin(2 * np.pi * (200 + 100 * channel) * t * (1 + 0.2 * t / max(seconds, 1e-9)))
        row = 0.3 * noise * (0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * t + channel)) + 0.4 * chirp
        rows.append(0.85 * row / np.abs(row).max())
    return np.array(rows)


def write(
    path: str | Path,
    samples: NDArray[Any],
    rate: int = 44100,
    *,
    codec: str = "pcm_s16le",
    container: str | None = None,
    layout: str | None = None,
    video: bool = False,
    tags: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    bit_rate: int | None = None,
) -> Path:
    """Write `samples` (channels, n) in [-1, 1] and return the path. `video`: with a small moving picture in front."""
    path = Path(path)
    layout = layout or LAYOUTS[len(samples)]
    with av.open(str(path), "w", format=container, options=options or {}) as out:
        out.metadata.update(tags or {})
        picture = _add_picture(out) if video else None
        stream: Any = out.add_stream(codec, rate=rate, layout=layout, options=codec_options or {})
        if bit_rate:
            stream.bit_rate = bit_rate
        if picture is not None:
            _write_picture(out, picture, samples.shape[1] / rate)
        stream.codec_context.open(strict=False)
        resampler = av.AudioResampler(stream.format, layout, rate, stream.codec_context.frame_size or 4096)
        interleaved = np.ascontiguousarray(samples.T, np.float64).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="dbl", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def write_silent_video(path: str | Path, seconds: float = 1.0) -> Path:
    """A film without a sound track."""
    with av.open(str(path), "w") as out:
        _write_picture(out, _add_picture(out), seconds)
    return Path(path)


def _add_picture(out: Any) -> Any:
    stream = out.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    return stream


def _write_picture(out: Any, stream: Any, seconds: float) -> None:
    for i in range(max(1, round(seconds * 10))):
        picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), (i * 7) % 256, np.uint8), format="rgb24")
        picture = picture.reformat(format="yuv420p")
        picture.pts, picture.time_base = i, Fraction(1, 10)
        out.mux(stream.encode(picture))
    out.mux(stream.encode(None))


def ffmpeg_program() -> str | None:
    """The ffmpeg program that judges our decoding, or None."""
    try:
        import imageio_ffmpeg
    except ImportError:
        return None
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return None


def ffmpeg_decode(program: str, path: str | Path, channels: int) -> NDArray[np.float32]:
    """The first audio stream as 16 kHz mono: the mean of the channels, then resampled, by the ffmpeg program."""
    mean = "pan=mono|c0=" + "+".join(f"{1 / channels:.9g}*c{i}" for i in range(channels))
    filters = "aformat=sample_fmts=fltp," + (mean + "," if channels > 1 else "") + "aresample=16000"
    command = [program, "-v", "error", "-nostdin", "-i", str(path), "-map", "0:a:0", "-af", filters]
    done = subprocess.run([*command, "-f", "f32le", "-"], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.float32)
