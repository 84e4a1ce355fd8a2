"""A small checkpoint opens without transformers, and gives the embeddings that transformers' decoder gives."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_tiny_checkpoint

from audiosearch.embed.alm2vec import Alm2VecEmbedder
from audiosearch.embed.batching import Placement
from audiosearch.errors import ModelError
from audiosearch.model import standalone, weights

SECONDS = (0.05, 0.5, 2.0, 2.0, 4.3, 10.2, 21.0)


def embedder(opened: tuple, dtype: str = "float32", *, shared_prefix: bool = True) -> Alm2VecEmbedder:
    model, prompts = opened
    placement = Placement("cpu", dtype, "tests")
    names = {"name": "tiny", "fingerprint": "f", "licence": "l"}
    return Alm2VecEmbedder(model, prompts, placement, shared_prefix=shared_prefix, **names)


def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [(0.1 * rng.standard_normal(int(s * 16_000))).astype(np.float32) for s in SECONDS]


def everything(embedder: Alm2VecEmbedder) -> np.ndarray:
    """Rows of every kind of item, alone and in batches, with and without an instruction."""
    sounds = clips()
    return np.concatenate(
        [
            embedder.embed_text(["rain"]),
            embedder.embed_text(["rain", "a dog barks and a much longer sentence goes on behind it", ""]),
            embedder.embed_text(["rain", "wind"], instruction="what is far away?"),
            embedder.embed_audio(sounds),
            embedder.embed_audio(sounds, instruction="what is in the background?"),
            embedder.embed_audio_text([(sound, f"and {i} birds") for i, sound in enumerate(sounds)]),
        ]
    )


@pytest.mark.parametrize("stem", ["conv", "patch"])
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_the_rows_equal_transformers(tmp_path, stem, shared_prefix):
    make_tiny_checkpoint(tmp_path / "m", stem=stem)
    assert standalone.can_open(tmp_path / "m")
    ours = everything(embedder(standalone.load(tmp_path / "m"), shared_prefix=shared_prefix))
    theirs = everything(embedder(weights.load(tmp_path / "m"), shared_prefix=shared_prefix))
    assert np.abs(ours - theirs).max() < 1e-6
    assert len(np.unique(theirs.round(3), axis=0)) == len(theirs) - 1, "all differ but `rain` alone and in a batch"


def test_the_bundled_model_equals_transformers():
    from audiosearch.model.files import bundled_models

    directory = bundled_models()["alm2vec-mini"]
    ours, theirs = everything(embedder(standalone.load(directory))), everything(embedder(weights.load(directory)))
    assert np.abs(ours - theirs).max() < 1e-5


def test_bfloat16_is_as_near_as_bfloat16_can_be(tmp_path):
    make_tiny_checkpoint(tmp_path / "m")
    ours = everything(embedder(standalone.load(tmp_path / "m", torch.bfloat16), "bfloat16"))
    theirs = everything(embedder(weights.load(tmp_path / "m", torch.bfloat16), "bfloat16"))
    exact = everything(embedder(weights.load(tmp_path / "m")))
    assert (ours * exact).sum(axis=1).min() > (theirs * exact).sum(axis=1).min() - 0.005


def test_names_behind_a_wrapper_are_found(tmp_path):
    make_tiny_checkpoint(tmp_path / "m")
    before = everything(embedder(standalone.load(tmp_path / "m")))
    path = tmp_path / "m" / "model.safetensors"
    save_file({f"model.{name}": tensor for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    assert np.array_equal(everything(embedder(standalone.load(tmp_path / "m"))), before)


def test_weights_that_do_not_fit_are_named(tmp_path):
    make_tiny_checkpoint(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    state = load_file(path)
    state["decoder.model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    del state["decoder.model.norm.weight"]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing decoder\.model\.norm\.weight; of another shape .*up_proj.*\[3, 3\]"):
        standalone.load(tmp_path / "m")


def test_what_needs_transformers_is_left_to_it(tmp_path, monkeypatch):
    make_tiny_checkpoint(tmp_path / "m")
    monkeypatch.setattr(standalone, "LARGEST_BYTES", 1_000)
    assert not standalone.can_open(tmp_path / "m"), "too large"
    monkeypatch.undo()
    config = (tmp_path / "m" / "config.json").read_text()
    for old, new in (('"rope_type": "default"', '"rope_type": "yarn"'), ('"silu"', '"gelu"')):
        assert old in config
        shutil.copytree(tmp_path / "m", tmp_path / new[-5:-1])
        (tmp_path / new[-5:-1] / "config.json").write_text(config.replace(old, new))
        assert not standalone.can_open(tmp_path / new[-5:-1]), new


def test_a_query_imports_no_transformers(tmp_path: Path):
    code = (
        "import sys\n"
        "from audiosearch.embed import load_embedder\n"
        "embedder = load_embedder('alm2vec-mini', device='cpu')\n"
        "assert embedder.embed_text(['rain']).shape == (1, 512)\n"
        "print([name for name in ('transformers', 'torch._dynamo', 'scipy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
