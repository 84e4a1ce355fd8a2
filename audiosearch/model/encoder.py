"""The Dasheng audio encoder: log-mel (B, 64, T) to features (B, floor(T / 4), D), 25 a second.

Tensor names equal the published MiDashengLM checkpoint's (`audio_encoder.*`). Time is cut into independent chunks of
252 patches (10.08 s), each starting at position 0 of the time table; the last chunk is shorter and not padded.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiosearch.features import HOP_LENGTH, MIN_SAMPLES, N_MELS, PATCH_FRAMES, SAMPLES_PER_PATCH
from audiosearch.model.spec import EncoderConfig


class Attention(nn.Module):
    """Bidirectional multi-head attention with a fused qkv projection (order q, k, v, then heads)."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, key_mask: Tensor | None) -> Tensor:
        batch, length, dim = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
        return self.proj(out.transpose(1, 2).reshape(batch, length, dim))


class Mlp(nn.Module):
    """Two linear layers with the exact (erf) GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.attn = Attention(config.embed_dim, config.num_heads)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.mlp = Mlp(config.embed_dim, int(config.embed_dim * config.mlp_ratio))

    def forward(self, x: Tensor, key_mask: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm1(x), key_mask)
        return x + self.mlp(self.norm2(x))


class PatchStem(nn.Module):
    """The published stem: one convolution whose kernel is all 64 mels by 4 frames."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = (N_MELS, PATCH_FRAMES)
        self.proj = nn.Conv2d(1, config.embed_dim, kernel_size=size, stride=size)

    def forward(self, mel: Tensor, frames: Tensor | None) -> Tensor:
        return self.proj(mel)


class MaskedGroupNorm(nn.GroupNorm):
    """GroupNorm whose statistics see only each item's own frames, so that an item does not depend on its batch."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return super().forward(x)
        batch, channels, height, width = x.shape
        wide = x if x.dtype == torch.float64 else x.float()  # half precision is too coarse for a variance
        grouped = wide.view(batch, self.num_groups, channels // self.num_groups * height, width)
        weight = mask.view(batch, 1, 1, width).to(wide.dtype)
        count = weight.sum(dim=-1, keepdim=True) * grouped.shape[2]
        mean = (grouped * weight).sum(dim=(2, 3), keepdim=True) / count
        centred = grouped - mean
        variance = (centred.square() * weight).sum(dim=(2, 3), keepdim=True) / count
        normed = (centred * torch.rsqrt(variance + self.eps)).view_as(x).to(x.dtype)
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


class ConvStem(nn.Module):
    """Four 3x3 convolutions: mel / 16, time / 4, then a linear layer. For small models that learn from little data.

    Padded frames are set back to zero after every layer: a convolution would otherwise carry what the bias made of the
    padding into the last real frames.
    """

    STRIDES = ((2, 2), (2, 2), (2, 1), (2, 1))  # (mel, time)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = (1, *config.stem_channels)
        assert len(config.stem_channels) == len(self.STRIDES), "the convolutional stem has four layers"
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], 3, stride=stride, padding=1, bias=False)
            for i, stride in enumerate(self.STRIDES)
        )
        self.norms = nn.ModuleList(MaskedGroupNorm(8, width) for width in config.stem_channels)
        self.proj = nn.Linear(config.stem_channels[-1] * N_MELS // 16, config.embed_dim)

    def forward(self, mel: Tensor, frames: Tensor | None) -> Tensor:
        x = mel
        for conv, norm, (_, time_stride) in zip(self.convs, self.norms, self.STRIDES, strict=True):
            x = conv(x)
            mask = None
            if frames is not None:
                frames = (frames - 1) // time_stride + 1
                mask = torch.arange(x.shape[-1], device=x.device) < frames[:, None]
            x = F.relu(norm(x, mask))
            if mask is not None:
                x = x * mask[:, None, None, :]
        x = x[..., : mel.shape[-1] // PATCH_FRAMES]
        x = self.proj(x.flatten(1, 2).transpose(1, 2))
        return x.transpose(1, 2).unsqueeze(2)


class AudioEncoder(nn.Module):
    """Stem, positional tables, transformer blocks, final norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.chunk_patches = config.target_length // PATCH_FRAMES
        self.init_bn = nn.BatchNorm2d(N_MELS, momentum=0.01)
        self.patch_embed = ConvStem(config) if config.stem == "conv" else PatchStem(config)
        self.time_pos_embed = nn.Parameter(torch.empty(1, dim, 1, self.chunk_patches))
        self.freq_pos_embed = nn.Parameter(torch.empty(1, dim, 1, 1))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        if not self.time_pos_embed.is_meta:  # there it would do nothing, but import torch's compiler: two seconds
            nn.init.normal_(self.time_pos_embed, std=0.02)
            nn.init.normal_(self.freq_pos_embed, std=0.02)

    def forward(self, mel: Tensor, n_samples: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Features of a right-padded batch.

        Args:
            mel: log-mel, shape (B, 64, T), float32.
            n_samples: true length of each item in samples, shape (B,); None means that nothing is padded.

        Returns:
            Features (B, floor(T / 4), D) and the patches that hold sound (B, floor(T / 4)), or None.
        """
        dtype = self.time_pos_embed.dtype
        x = self.init_bn(mel.to(dtype).unsqueeze(1).transpose(1, 2)).transpose(1, 2)
        frames = valid = own = None
        if n_samples is not None:
            n_samples = n_samples.to(x.device, non_blocking=True).clamp(min=MIN_SAMPLES)
            frames = 1 + n_samples // HOP_LENGTH
            # What batch norm made of the padding must not reach a convolution.
            x = x * (torch.arange(x.shape[-1], device=x.device) < frames[:, None])[:, None, None, :]
        x = self.patch_embed(x, frames)
        if n_samples is not None:
            index = torch.arange(x.shape[-1], device=x.device)
            valid = index < (n_samples // SAMPLES_PER_PATCH)[:, None]
            own = index < ((1 + n_samples // HOP_LENGTH) // PATCH_FRAMES)[:, None]
        features = [
            self._encode_chunk(x[..., start : start + self.chunk_patches], valid, own, start)
            for start in range(0, x.shape[-1], self.chunk_patches)
        ]
        return torch.cat(features, dim=1), valid

    def _encode_chunk(self, x: Tensor, valid: Tensor | None, own: Tensor | None, start: int) -> Tensor:
        x = x + self.time_pos_embed[..., : x.shape[-1]] + self.freq_pos_embed
        x = x.flatten(2).transpose(1, 2)
        key_mask = None
        if valid is not None and own is not None:
            # An item without a valid patch in this chunk would have no key to attend to and turn into NaN. Mostly its
            # rows are dropped later; but one last, incomplete patch may begin a chunk and complete an audio token (the
            # first such length is 20.19 s), so the item sees its own patches there, as it would outside the batch.
            keys, fallback = (mask[:, start : start + x.shape[1]] for mask in (valid, own))
            keys = torch.where(keys.any(dim=1, keepdim=True), keys, fallback)
            keys = keys | ~keys.any(dim=1, keepdim=True)
            key_mask = keys[:, None, None, :]
        for block in self.blocks:
            x = block(x, key_mask)
        return self.norm(x)
