"""Sound and text to vectors. `load_embedder` opens a model; torch is imported only then."""

from __future__ import annotations

from audiosearch.config import wait_passively
from audiosearch.embed.base import AudioTextEmbedder

__all__ = ["AudioTextEmbedder", "load_embedder"]


def load_embedder(name_or_dir: str, *, device: str | None = None, dtype: str | None = None) -> AudioTextEmbedder:
    """The embedder of a model: a bundled name, a checkpoint directory, or a hub id.

    Args:
        name_or_dir: what `audiosearch.model.fingerprint.describe_model` understands.
        device: "cpu", "cuda", "cuda:1" or "mps"; None chooses and `placement` says why.
        dtype: "float32" or "bfloat16"; None takes what suits the device.

    Raises:
        ModelError: the model cannot be found or does not load.
        UsageError: no such device or dtype.
    """
    wait_passively()
    from audiosearch.embed.alm2vec import Alm2VecEmbedder

    return Alm2VecEmbedder.load(name_or_dir, device=device, dtype=dtype)
