"""The projector between encoder and decoder: five neighbouring features become one audio token, 5 a second."""

from __future__ import annotations

from torch import Tensor, nn

from audiosearch.features import n_patches


class AudioProjector(nn.Module):
    """AudioProjectorSubsample of MiDashengLM: concatenate `factor` features, Linear, GELU, Linear, all with bias."""

    def __init__(self, encoder_dim: int, decoder_dim: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.net = nn.Sequential(
            nn.Linear(encoder_dim * factor, decoder_dim), nn.GELU(), nn.Linear(decoder_dim, decoder_dim)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, t, D) to tokens (B, t // factor, H); trailing features that fill no group are dropped."""
        batch, length, dim = features.shape
        groups = length // self.factor
        return self.net(features[:, : groups * self.factor].reshape(batch, groups, dim * self.factor))


def n_audio_tokens(n_samples: int, factor: int = 5) -> int:
    """Audio tokens of `n_samples` samples: floor(floor(frames / 4) / factor), at least one."""
    return max(1, n_patches(n_samples) // factor)
