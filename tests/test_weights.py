"""Checkpoints: what is saved is what loads, and what does not fit is refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_tiny_checkpoint, tiny_config, tiny_model
from torch import Tensor

from audiosearch.errors import ModelError
from audiosearch.features import log_mel
from audiosearch.model import weights
from audiosearch.model.alm2vec import Alm2VecModel
from audiosearch.model.assembly import ModelInputs
from audiosearch.model.config import midashenglm_7b
from audiosearch.model.projector import n_audio_tokens
from audiosearch.model.prompt import PromptEncoder

# One program for this process and a new one: mel and embedding of a fixed sound, without and with a masked last patch.
PROBE = """
import sys
import numpy as np, torch
from audiosearch.features import log_mel
from audiosearch.model import weights
from audiosearch.model.assembly import ModelInputs
from audiosearch.model.projector import n_audio_tokens

def probe(directory, dtype):
    model, prompts = weights.load(directory, dtype)
    out = {}
    for n in (16_000, 179_999):
        samples = torch.from_numpy(np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32))
        ids = torch.tensor([prompts.encode(text=None, audio_tokens=n_audio_tokens(n)).ids])
        mel = log_mel(samples)
        with torch.inference_mode():
            inputs = ModelInputs(ids, torch.tensor([ids.shape[1]]), mel[None], torch.tensor([n]))
            out[f"mel {n}"], out[f"embedding {n}"] = mel.numpy(), model(inputs).numpy()
    out["inv_freq"] = model.decoder.model.rotary_emb.inv_freq.float().numpy()
    return out

def run(fp32, bf16):
    parts = {"fp32": probe(fp32, torch.float32), "bf16": probe(bf16, torch.bfloat16)}
    return {f"{part} {name}": array for part, arrays in parts.items() for name, array in arrays.items()}
"""


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def embedding(model: Alm2VecModel, prompts: PromptEncoder, seconds: float = 1.0) -> Tensor:
    n = round(seconds * 16_000)
    samples = torch.from_numpy(np.random.default_rng(n).normal(0, 0.1, n).astype(np.float32))
    ids = torch.tensor([prompts.encode(text=None, audio_tokens=n_audio_tokens(n)).ids])
    with torch.inference_mode():
        return model(ModelInputs(ids, torch.tensor([ids.shape[1]]), log_mel(samples)[None], torch.tensor([n])))[0]


def edit_config(checkpoint: Path, **changes: Any) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(checkpoint: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    state = load_file(checkpoint / "model.safetensors")
    save_file(change(state), checkpoint / "model.safetensors", metadata={"format": "pt"})


class TestRoundTrip:
    @pytest.mark.slow
    def test_in_a_new_process(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        bf16 = make_tiny_checkpoint(tmp_path / "bf16", dtype=torch.bfloat16)
        program = f"{PROBE}\nnp.savez(sys.argv[3], **run(*sys.argv[1:3]))"
        command = [sys.executable, "-c", program, str(tiny_checkpoint), str(bf16), str(tmp_path / "out.npz")]
        subprocess.run(command, check=True, timeout=280, cwd=tmp_path)
        theirs = np.load(tmp_path / "out.npz")
        namespace: dict[str, Any] = {}
        exec(PROBE, namespace)
        ours = namespace["run"](tiny_checkpoint, bf16)
        assert set(theirs.files) == set(ours)
        for name, array in ours.items():
            np.testing.assert_array_equal(theirs[name], array, err_msg=name)
        # And both equal the model that was never saved.
        never_saved = tiny_model(tiny_config())
        never_saved.audio_token_id = 3
        prompts = weights.load(tiny_checkpoint)[1]
        assert np.array_equal(embedding(never_saved, prompts).numpy(), theirs["fp32 embedding 16000"][0])
        inv_freq = 1.0 / 10_000.0 ** (np.arange(0, 12, 2) / 12)
        np.testing.assert_allclose(theirs["fp32 inv_freq"], inv_freq, rtol=1e-6)
        assert (theirs["bf16 embedding 16000"] * theirs["fp32 embedding 16000"]).sum() > 0.999

    @pytest.mark.parametrize("stem", ["conv", "patch"])
    def test_every_tensor(self, stem: Any, request: pytest.FixtureRequest) -> None:
        directory = request.getfixturevalue("tiny_checkpoint" if stem == "conv" else "tiny_patch_checkpoint")
        model, _ = weights.load(directory)
        expected = tiny_model(tiny_config(stem)).state_dict()
        assert model.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
        assert not model.training and model.audio_token_id == 3

    @pytest.mark.parametrize("on_disk", [torch.float16, torch.bfloat16, torch.float32])
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_dtypes(self, on_disk: torch.dtype, dtype: torch.dtype, tmp_path: Path) -> None:
        directory = make_tiny_checkpoint(tmp_path / "model", dtype=on_disk)
        stored = load_file(directory / "model.safetensors")
        floating = {name: tensor for name, tensor in stored.items() if tensor.is_floating_point()}
        assert {tensor.dtype for tensor in floating.values()} == {on_disk} and len(stored) - len(floating) == 1
        assert json.loads((directory / "config.json").read_text())["dtype"] == str(on_disk).removeprefix("torch.")
        model, _ = weights.load(directory, dtype)
        assert {p.dtype for p in model.parameters()} == {dtype}
        state = model.state_dict()
        assert all(torch.equal(state[name], tensor.to(dtype)) for name, tensor in floating.items())

    @pytest.mark.parametrize("prefix", ["", "model.", "alm2vec.", "base_model.model."])
    def test_shards_and_wrapper_prefixes(self, tiny_checkpoint: Path, tmp_path: Path, prefix: str) -> None:
        directory = tmp_path / "model"
        model, prompts = weights.load(tiny_checkpoint)
        weights.save(model, directory, tokenizer_file=tiny_checkpoint / "tokenizer.json", max_shard_size="100KB")
        shards = sorted(directory.glob("model-*.safetensors"))
        assert len(shards) > 2 and not (directory / "model.safetensors").exists()
        for shard in shards:
            state = {f"{prefix}{name}": tensor for name, tensor in load_file(shard).items()}
            save_file(state, shard, metadata={"format": "pt"})
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        index["weight_map"] = {f"{prefix}{name}": file for name, file in index["weight_map"].items()}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        again, _ = weights.load(directory)
        assert torch.equal(embedding(again, prompts), embedding(model, prompts))

    def test_the_configuration(self, tmp_path: Path) -> None:
        template = {"audio_first": False, "eos": ["<|im_end|>", "<|endoftext|>"]}
        changes: dict[str, Any] = {"training": {"steps": 7}, "document_instruction": "Describe it.", "prompt": template}
        config = tiny_config(**changes)
        make_tiny_checkpoint(tmp_path / "m", **changes)
        raw = json.loads((tmp_path / "m" / "config.json").read_text())
        assert raw["model_type"] == "alm2vec" and raw["embedding_dim"] == 24 and raw["licence"] == "Apache-2.0"
        again = weights.read_config(tmp_path / "m")
        assert (again.encoder, again.template, again.training) == (config.encoder, config.template, config.training)
        assert again.document_instruction == "Describe it." and again.embedding_dim == 24
        for key in ("hidden_size", "num_key_value_heads", "rms_norm_eps", "rope_parameters", "vocab_size"):
            assert getattr(again.text_config, key) == getattr(config.text_config, key)

    def test_saving_over_a_checkpoint_keeps_its_card_alone(self, checkpoint: Path) -> None:
        model, prompts = weights.load(checkpoint)
        tokenizer = checkpoint / "tokenizer.json"
        (checkpoint / "README.md").write_text("card")
        weights.save(model, checkpoint, tokenizer_file=tokenizer, max_shard_size="100KB")
        assert not (checkpoint / "model.safetensors").exists()
        weights.save(model, checkpoint, tokenizer_file=tokenizer)
        names = {path.name for path in checkpoint.iterdir()}
        assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.json"}
        assert [path.name for path in checkpoint.parent.iterdir()] == ["model"]
        assert torch.equal(embedding(*weights.load(checkpoint)), embedding(model, prompts))

    def test_a_failed_save_leaves_the_old_checkpoint(self, checkpoint: Path) -> None:
        model, prompts = weights.load(checkpoint)
        before = embedding(model, prompts)
        with torch.no_grad():
            model.projection.weight.zero_()  # type: ignore[union-attr]
        with pytest.raises(FileNotFoundError):
            weights.save(model, checkpoint, tokenizer_file=checkpoint / "nothing.json")
        assert [path.name for path in checkpoint.parent.iterdir()] == ["model"]
        assert torch.equal(embedding(*weights.load(checkpoint)), before)


class TestTolerated:
    def test_what_no_embedding_depends_on(self, checkpoint: Path) -> None:
        def published(state: dict[str, Tensor]) -> dict[str, Tensor]:
            state["decoder.lm_head.weight"] = torch.zeros(384, 48)
            state["audio_encoder.front_end.0.mel_scale.fb"] = torch.zeros(257, 64)
            state["audio_encoder.front_end.0.spectrogram.window"] = torch.zeros(512)
            del state["audio_encoder.init_bn.num_batches_tracked"]
            return state

        before = embedding(*weights.load(checkpoint))
        edit_tensors(checkpoint, published)
        model, prompts = weights.load(checkpoint)
        assert torch.equal(embedding(model, prompts), before)
        assert model.audio_encoder.init_bn.num_batches_tracked == 0

    def test_output_layer_when_configured(self, tmp_path: Path) -> None:
        directory = make_tiny_checkpoint(tmp_path / "model", lm_head=True)
        model, _ = weights.load(directory)
        assert model.decoder.lm_head is not None and model.decoder.lm_head.weight.std() > 0.1
        edit_tensors(directory, lambda s: {k: v for k, v in s.items() if "lm_head" not in k})
        with pytest.raises(ModelError, match=r"missing decoder\.lm_head\.weight"):
            weights.load(directory)

    def test_midashenglm_configuration(self, tiny_patch_checkpoint: Path, tmp_path: Path) -> None:
        directory = Path(shutil.copytree(tiny_patch_checkpoint, tmp_path / "model"))
        raw = json.loads((directory / "config.json").read_text())
        published = {
            "model_type": "midashenglm",
            "architectures": ["MiDashengLMModel"],
            "audio_encoder_config": {
                "model_type": "midashenglm_dasheng_encoder",
                **{key: raw["audio_encoder_config"][key] for key in ("embed_dim", "depth", "num_heads")},
                **{"patch_size": [64, 4], "f_max": 8000.0, "center": True, "init_values": None, "target_length": 1008},
            },
            "text_config": {
                **{key: raw["text_config"][key] for key in ("hidden_size", "intermediate_size", "vocab_size")},
                **{key: raw["text_config"][key] for key in ("num_attention_heads", "num_key_value_heads")},
                **{"model_type": "qwen2_5_omni_text", "num_hidden_layers": 2, "rope_theta": 10_000.0},
                "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
            },
            "subsample_factor": 5,
            "audio_token_id": 151646,
        }
        (directory / "config.json").write_text(json.dumps(published))
        edit_tensors(directory, lambda s: {k: v for k, v in s.items() if k != "projection.weight"})
        model, prompts = weights.load(directory)
        assert model.projection is None and model.config.embedding_dim == 48
        reference = tiny_model(tiny_config("patch"))
        reference.audio_token_id, reference.projection = 3, None
        assert torch.equal(embedding(model, prompts), embedding(reference, prompts))

    def test_keys_left_out_are_the_7bs(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"model_type": "midashenglm"}')
        config, published = weights.read_config(tmp_path), midashenglm_7b()
        assert config.encoder == published.encoder
        ours, theirs = config.text_config.to_dict(), published.text_config.to_dict()
        assert ours == theirs


class TestRefused:
    def refusal(self, directory: Path) -> str:
        with pytest.raises(ModelError) as caught:
            weights.load(directory)
        message = str(caught.value)
        assert "\n" not in message and str(directory) in message
        return message

    def test_missing_unexpected_and_misshaped_tensors(self, checkpoint: Path) -> None:
        def spoil(state: dict[str, Tensor]) -> dict[str, Tensor]:
            for name in ("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias"):
                del state[f"decoder.model.layers.1.self_attn.{name}"]
            state["vision.weight"] = torch.zeros(3)
            state["projection.weight"] = torch.zeros(5, 48)
            return state

        edit_tensors(checkpoint, spoil)
        message = self.refusal(checkpoint)
        assert "missing decoder.model.layers.1.self_attn.k_proj.bias, " in message and " and 1 more" in message
        assert "unexpected vision.weight" in message
        assert "of another shape projection.weight [5, 48] for [24, 48]" in message

    def test_a_configuration_of_another_size(self, checkpoint: Path) -> None:
        raw = json.loads((checkpoint / "config.json").read_text())
        edit_config(checkpoint, audio_encoder_config={**raw["audio_encoder_config"], "depth": 3})
        assert "missing audio_encoder.blocks.2.attn.proj.bias" in self.refusal(checkpoint)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"model_type": "bert"}, "model_type 'bert'; choose a model of type alm2vec or midashenglm"),
            ({"model_type": None}, "model_type None"),
            ({"text_config": {"model_type": "qwen3"}}, "the decoder is of type 'qwen3'"),
            ({"text_config": {"hidden_size": "big"}}, "hidden_size must be a positive whole number, not 'big'"),
            ({"text_config": {"hidden_size": 50, "num_attention_heads": 28}}, "do not fit"),
            ({"text_config": []}, "missing"),
            ({"text_config": 7}, "cannot open the model"),
            ({"audio_encoder_config": {"init_values": 0.1}}, "init_values is 0.1, and only None is implemented"),
            ({"audio_encoder_config": {"n_mels": 128}}, "n_mels is 128"),
            ({"audio_encoder_config": {"embed_dim": 30}}, "does not describe an encoder"),
            ({"audio_encoder_config": {"stem": "conv"}}, "stem 'conv' with channels"),
            ({"prompt": {"colour": "red"}}, "colour"),
            ({"projection_dim": 0}, "projection_dim must be a positive whole number"),
        ],
    )
    def test_configurations(self, checkpoint: Path, changes: dict[str, Any], words: str) -> None:
        edit_config(checkpoint, **changes)
        assert words in self.refusal(checkpoint)

    def test_files_that_are_not_there(self, checkpoint: Path) -> None:
        for name, words in (
            ("tokenizer.json", "has no tokenizer.json; copy"),
            ("model.safetensors", "has no model.safetensors and no model.safetensors.index.json"),
            ("config.json", "has no config.json; point --model at"),
        ):
            (checkpoint / name).unlink()
            assert words in self.refusal(checkpoint)

    def test_pickles_are_not_read(self, checkpoint: Path) -> None:
        (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
        assert "pytorch_model.bin is a pickle, which is not read: convert it to safetensors" in self.refusal(checkpoint)

    @pytest.mark.parametrize("keep", [0, 5, 100, -1])
    def test_truncated_weights(self, checkpoint: Path, keep: int) -> None:
        path = checkpoint / "model.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        assert "model.safetensors is truncated or damaged; download or export" in self.refusal(checkpoint)

    def test_garbage(self, checkpoint: Path) -> None:
        (checkpoint / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(5_000))
        assert "truncated or damaged" in self.refusal(checkpoint)
        (checkpoint / "config.json").write_text("{nonsense")
        assert "config.json is not valid JSON" in self.refusal(checkpoint)
        (checkpoint / "config.json").write_text("[1]")
        assert "does not hold a JSON object" in self.refusal(checkpoint)

    def test_a_lost_shard(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        model, _ = weights.load(tiny_checkpoint)
        tokenizer = tiny_checkpoint / "tokenizer.json"
        weights.save(model, tmp_path / "m", tokenizer_file=tokenizer, max_shard_size="100KB")
        shards = sorted((tmp_path / "m").glob("model-*.safetensors"))
        shards[1].unlink()
        words = f"lacks 1 of {len(shards)} weight files, {shards[1].name} first; download it again"
        assert words in self.refusal(tmp_path / "m")

    def test_a_type_that_is_not_read(self, checkpoint: Path) -> None:
        name = "decoder.model.layers.0.mlp.up_proj.weight"
        edit_tensors(checkpoint, lambda s: s | {name: s[name].to(torch.float8_e4m3fn)})
        assert f"in a type that is not read: {name} F8_E4M3; use an fp32, fp16 or bf16" in self.refusal(checkpoint)

    def test_the_tokenizer_of_a_larger_model(self, checkpoint: Path) -> None:
        data = json.loads((checkpoint / "tokenizer.json").read_text())
        first = data["added_tokens"][0]
        data["added_tokens"] += [
            {**first, "id": n, "content": f"<|{n}|>"} for n in range(len(data["model"]["vocab"]), 385)
        ]
        (checkpoint / "tokenizer.json").write_text(json.dumps(data))
        assert "has token 384 and the model only 384 rows" in self.refusal(checkpoint)


class TestResolve:
    def test_directory(self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tiny_checkpoint.parent)
        assert weights.resolve("tiny") == weights.resolve(tiny_checkpoint) == tiny_checkpoint

    def test_bundled_name(self, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("audiosearch.model.files.bundled_models", lambda: {"some-mini": tiny_checkpoint})
        assert weights.resolve("some-mini") == tiny_checkpoint
        with pytest.raises(ModelError, match=r"no model 'other': it is neither bundled \(some-mini\) nor a directory"):
            weights.resolve("other")

    def test_a_file_is_not_a_model(self, tiny_checkpoint: Path) -> None:
        with pytest.raises(ModelError, match="is a file; give the directory"):
            weights.resolve(tiny_checkpoint / "model.safetensors")

    def test_hub_id(self, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match=r"owner/tiny is no directory here, .* connect to the network once, or"):
            weights.resolve("owner/tiny")
        revision = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "models--owner--tiny"
        snapshot = Path(shutil.copytree(tiny_checkpoint, repository / "snapshots" / revision))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(revision)
        assert weights.resolve("owner/tiny") == weights.resolve(f"owner/tiny@{revision}") == snapshot
        # A snapshot without its weights is not a model: it would have to be fetched.
        (snapshot / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="connect to the network once"):
            weights.resolve("owner/tiny")


class TestLora:
    @pytest.fixture
    def adapter(self, tiny_checkpoint: Path, tmp_path: Path) -> tuple[Path, Tensor]:
        """An adapter with a projection and words of its own, and its embedding before it was saved."""
        model, prompts = weights.load(tiny_checkpoint)
        model.config.document_instruction = prompts.config.document_instruction = "Describe it."
        adapted = weights.add_lora(model, rank=4, alpha=8)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for name, p in adapted.named_parameters():
                if p.requires_grad:
                    p.copy_(torch.randn(p.shape, generator=generator) * (0.1 if "lora" in name else 1.0))
        adapted.eval()
        weights.save_adapter(adapted, tmp_path / "adapter", base=str(tiny_checkpoint))
        return tmp_path / "adapter", embedding(adapted.get_base_model(), prompts)

    def test_files(self, adapter: tuple[Path, Tensor]) -> None:
        names = {path.name for path in adapter[0].iterdir()}
        assert names == {"adapter_config.json", "adapter_model.safetensors", "head.safetensors", "config.json"}

    def test_loads_and_merges(self, adapter: tuple[Path, Tensor], tiny_checkpoint: Path) -> None:
        model, prompts = weights.load(adapter[0])
        assert type(model) is Alm2VecModel and not any("lora" in name for name in model.state_dict())
        assert prompts.config.document_instruction == model.config.document_instruction == "Describe it."
        merged = embedding(model, prompts)
        torch.testing.assert_close(merged, adapter[1], rtol=0, atol=1e-5)
        base = embedding(*weights.load(tiny_checkpoint))
        assert (merged @ base).item() < 0.99

    def test_a_merged_model_is_a_checkpoint(self, adapter: tuple[Path, Tensor], tmp_path: Path) -> None:
        model, prompts = weights.load(adapter[0])
        tokenizer = tmp_path / "tokenizer.json"
        prompts.tokenizer.save(str(tokenizer))
        weights.save(model, tmp_path / "merged", tokenizer_file=tokenizer)
        assert torch.equal(embedding(*weights.load(tmp_path / "merged")), embedding(model, prompts))

    def test_a_projection_of_another_size(self, adapter: tuple[Path, Tensor]) -> None:
        save_file({"projection.weight": torch.randn(7, 48)}, adapter[0] / "head.safetensors")
        model, prompts = weights.load(adapter[0])
        assert embedding(model, prompts).shape == (7,) and model.config.embedding_dim == 7

    def test_base_beside_the_adapter(self, adapter: tuple[Path, Tensor], tiny_checkpoint: Path) -> None:
        shutil.copytree(tiny_checkpoint, adapter[0].parent / "base")
        config = adapter[0] / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "../base"}))
        torch.testing.assert_close(embedding(*weights.load(adapter[0])), adapter[1], rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"base_model_name_or_path": None}, "names no base model"),
            ({"base_model_name_or_path": "/no/such"}, "the base model of the adapter .* no model '/no/such'"),
            ({"target_modules": ["q_proj"]}, "does not fit its adapter_config.json or its base"),
            ({"r": 5}, "does not load onto its base"),
            ({"peft_type": "NONSENSE"}, "does not load onto its base"),
        ],
    )
    def test_refused(self, adapter: tuple[Path, Tensor], changes: dict[str, Any], words: str) -> None:
        config = adapter[0] / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))
        with pytest.raises(ModelError, match=words) as caught:
            weights.load(adapter[0])
        assert "\n" not in str(caught.value)

    def test_lost_weights(self, adapter: tuple[Path, Tensor]) -> None:
        (adapter[0] / "adapter_model.safetensors").unlink()
        with pytest.raises(ModelError, match=r"has adapter_config.json but no adapter_model.safetensors"):
            weights.load(adapter[0])

    def test_only_what_was_asked_for_is_trained(self, tiny_checkpoint: Path) -> None:
        model, _ = weights.load(tiny_checkpoint)
        adapted = weights.add_lora(model, rank=4)
        trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
        lora = {name for name in trained if ".lora_" in name}
        assert len(lora) == 2 * 2 * 3 and trained - lora == {"base_model.model.projection.weight"}

    def test_a_target_that_matches_nothing(self, tiny_checkpoint: Path) -> None:
        model, _ = weights.load(tiny_checkpoint)
        with pytest.raises(ModelError, match="no linear layer of the model is called query_proj"):
            weights.add_lora(model, targets=("q_proj", "query_proj"))
