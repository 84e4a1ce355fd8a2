"""The front end: 16 kHz mono samples to the log-mel that MiDashengLM was trained on.

Constants and order of operations from MiDashengLM (`midashenglm.py` in vLLM, `Dasheng` of RicherMans): STFT of 512
with a periodic Hann window and hop 160, 64 HTK mel bins from 0 to 8,000 Hz, dB with a floor 120 dB below the item's own
peak.
All of it in fp32 whatever the model's dtype: half-precision waveforms have already lost the quiet part of the sound.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torchaudio.functional as taf
from torch import Tensor

SAMPLE_RATE = 16_000
N_FFT = 512
WIN_LENGTH = 512
HOP_LENGTH = 160
N_MELS = 64
F_MIN_HZ = 0.0
F_MAX_HZ = 8_000.0
TOP_DB = 120.0
AMIN = 1e-10

PATCH_FRAMES = 4  # mel frames that one encoder patch covers in time
SAMPLES_PER_PATCH = HOP_LENGTH * PATCH_FRAMES  # 640
# One projector group is 20 frames (3,040 samples); the reference implementation pads anything below 0.2 s up to it.
MIN_SAMPLES = 3_200


@lru_cache(maxsize=8)
def _window(device: torch.device) -> Tensor:
    return torch.hann_window(WIN_LENGTH, periodic=True, dtype=torch.float32, device=device)


@lru_cache(maxsize=8)
def _filterbank(device: torch.device) -> Tensor:
    """Mel filters, shape (257, 64). Made on use, never kept as module buffers: after `from_pretrained` a
    non-persistent buffer comes back as uninitialised memory."""
    fbanks = taf.melscale_fbanks(N_FFT // 2 + 1, F_MIN_HZ, F_MAX_HZ, N_MELS, SAMPLE_RATE, norm=None, mel_scale="htk")
    return fbanks.to(device)


def n_frames(n_samples: int) -> int:
    """Mel frames of `n_samples` samples (centred STFT)."""
    return 1 + max(n_samples, MIN_SAMPLES) // HOP_LENGTH


def n_patches(n_samples: int) -> int:
    """Patches the encoder computes: floor(frames / 4)."""
    return n_frames(n_samples) // PATCH_FRAMES


def n_valid_patches(n_samples: int) -> int:
    """Patches that may be attended to: floor(samples / 640), at times one fewer than `n_patches`."""
    return max(n_samples, MIN_SAMPLES) // SAMPLES_PER_PATCH


def log_mel(samples: Tensor) -> Tensor:
    """The log-mel of one item, computed on its own unpadded samples.

    Args:
        samples: mono, 16 kHz, shape (n,), any float dtype; shorter than `MIN_SAMPLES` is zero-padded on the right.

    Returns:
        float32, shape (64, 1 + n // 160), in dB, floored 120 dB below the item's maximum.
    """
    samples = samples.to(torch.float32)
    if samples.shape[-1] < MIN_SAMPLES:
        samples = torch.nn.functional.pad(samples, (0, MIN_SAMPLES - samples.shape[-1]))
    with torch.autocast(samples.device.type, enabled=False):
        power = taf.spectrogram(
            samples,
            pad=0,
            window=_window(samples.device),
            n_fft=N_FFT,
            hop_length=HOP_LENGTH,
            win_length=WIN_LENGTH,
            power=2.0,
            normalized=False,
        )
        mel = _filterbank(samples.device).T @ power
        return taf.amplitude_to_DB(mel, multiplier=10.0, amin=AMIN, db_multiplier=0.0, top_db=TOP_DB)
