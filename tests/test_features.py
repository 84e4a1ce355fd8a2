"""The front end, judged by an independent computation with scipy in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
import scipy.signal
import torch

from audiosearch import features
from audiosearch.model.projector import n_audio_tokens


def reference_filters() -> np.ndarray:
    """64 triangles between points that are equally spaced on the HTK mel scale, shape (257, 64)."""
    top = 2595.0 * np.log10(1.0 + 8000.0 / 700.0)
    points = 700.0 * (10.0 ** (np.linspace(0.0, top, 66) / 2595.0) - 1.0)
    bins = np.linspace(0.0, 8000.0, 257)
    filters = np.zeros((257, 64))
    for k in range(64):
        low, centre, high = points[k : k + 3]
        filters[:, k] = np.maximum(0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    return filters


def reference_log_mel(samples: np.ndarray) -> np.ndarray:
    samples = np.pad(samples.astype(np.float64), (0, max(0, 3200 - len(samples))))
    padded = np.pad(samples, 256, mode="reflect")
    window = scipy.signal.get_window("hann", 512, fftbins=True)
    frames = np.lib.stride_tricks.sliding_window_view(padded, 512)[::160]
    power = np.abs(scipy.fft.rfft(frames * window, axis=1)) ** 2
    decibels = 10.0 * np.log10(np.maximum(power @ reference_filters(), 1e-10)).T
    return np.maximum(decibels, decibels.max() - 120.0)


def sounds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 40_123).astype(np.float32)
    t = np.arange(16_000) / 16_000
    return {
        "noise": noise,
        "tone in noise": (0.5 * np.sin(2 * np.pi * 440 * t) + 0.03 * noise[:16_000]).astype(np.float32),
        "chirp in noise": (scipy.signal.chirp(t, 50, 1, 7_900) * 0.3 + 0.03 * noise[:16_000]).astype(np.float32),
        "fades to silence": (noise * np.exp(-np.linspace(0, 12, len(noise)))).astype(np.float32),
        "shorter than the model takes": noise[:800],
        "digital silence": np.zeros(16_000, np.float32),
    }


@pytest.mark.parametrize("name", sounds())
def test_mel_equals_an_independent_computation(name: str) -> None:
    samples = sounds()[name]
    ours = features.log_mel(torch.from_numpy(samples)).numpy()
    reference = reference_log_mel(samples)
    assert ours.dtype == np.float32 and ours.shape == reference.shape == (64, features.n_frames(len(samples)))
    np.testing.assert_allclose(ours, reference, rtol=0, atol=5e-3)  # dB; float32 rounding of the quietest bins
    assert np.abs(ours - reference).mean() < 5e-5


def test_filterbank_is_the_published_one() -> None:
    filters = features._filterbank(torch.device("cpu")).numpy()
    np.testing.assert_allclose(filters, reference_filters(), atol=2e-5)
    assert filters.shape == (257, 64) and filters.any(axis=0).all()
    assert filters.sum() == pytest.approx(250.195, abs=5e-4)
    assert np.flatnonzero(filters[:, 0]).tolist() == [1] and filters[1, 0] == pytest.approx(0.8756, abs=5e-5)


def test_floor_is_120_db_below_the_items_own_peak() -> None:
    burst = torch.zeros(16_000)
    burst[:4_000] = torch.sin(torch.arange(4_000) * 0.4)
    mel = features.log_mel(burst)
    assert mel.max() > 35.0 and mel.min() == mel.max() - 120.0
    quiet = features.log_mel(burst * 1e-3)
    assert quiet.max() == pytest.approx(mel.max().item() - 60.0, abs=1e-3)
    assert quiet.min() == -100.0  # amin: 1e-10 of power


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_mel_is_float32_whatever_comes_in(dtype: torch.dtype) -> None:
    samples = torch.from_numpy(sounds()["noise"]).to(dtype)
    assert torch.equal(features.log_mel(samples), features.log_mel(samples.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(features.log_mel(samples), features.log_mel(samples.float()))


def test_frames_patches_and_mask() -> None:
    for n in range(features.MIN_SAMPLES, features.MIN_SAMPLES + 4_000, 7):
        frames = 1 + n // 160
        assert features.n_frames(n) == frames
        assert features.n_patches(n) == frames // 4
        assert features.n_valid_patches(n) == n // 640
        # An incomplete last patch is computed and not attended to.
        assert features.n_patches(n) - features.n_valid_patches(n) == (n % 640 >= 480)
    # The published example, 3199 samples, is padded to the shortest input first.
    assert (1 + 3199 // 160) // 4 == 5 and 3199 // 640 == 4
    assert [f(3199) for f in (features.n_frames, features.n_patches, features.n_valid_patches)] == [21, 5, 5]
    assert [f(3839) for f in (features.n_frames, features.n_patches, features.n_valid_patches)] == [24, 6, 5]


def test_audio_token_count() -> None:
    seconds = {0.05: 1, 0.2: 1, 1: 5, 10: 50, 15: 75, 30: 150}
    assert {s: n_audio_tokens(round(s * 16_000)) for s in seconds} == seconds
    for n in range(3_200, 500_000, 997):
        assert n_audio_tokens(n) == ((1 + n // 160) // 4) // 5
    assert [n_audio_tokens(n) for n in (0, 1, 3_039, 3_040, 3_199)] == [1] * 5
    assert n_audio_tokens(16_000, factor=1) == 25
