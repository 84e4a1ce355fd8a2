"""The network: published sizes without weights, and equality with independent computations on small ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import dasheng_reference
import numpy as np
import pytest
import torch
from tiny import make_tokenizer, tiny_config, tiny_model
from torch import Tensor, nn
from transformers import Qwen2ForCausalLM

from audiosearch.features import MIN_SAMPLES, log_mel, n_patches
from audiosearch.model.alm2vec import Alm2VecModel
from audiosearch.model.assembly import ModelInputs
from audiosearch.model.config import alm2vec_mini, midashenglm_7b
from audiosearch.model.encoder import AudioEncoder
from audiosearch.model.projector import n_audio_tokens
from audiosearch.model.prompt import PromptEncoder
from audiosearch.model.weights import add_lora, build_meta

AUDIO_LORA = ("attn.qkv", "attn.proj", "net.0", "net.2")
STEMS = ("conv", "patch")
# Seconds; among them the shortest, one that is not a whole number of patches, and both sides of an encoder chunk.
LENGTHS = (0.05, 0.2, 0.239, 1.0, 3.33, 10.0, 10.08, 10.1, 12.5, 20.16, 20.195, 30.0)


def published_names() -> dict[str, tuple[int, ...]]:
    """The 738 tensors of MiDashengLM-7B."""
    names: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int, bias: bool = False) -> None:
        names[f"{name}.weight"] = shape
        if bias:
            names[f"{name}.bias"] = shape[:1]

    encoder = "audio_encoder"
    add(f"{encoder}.init_bn", 64, bias=True)
    names |= {f"{encoder}.init_bn.running_mean": (64,), f"{encoder}.init_bn.running_var": (64,)}
    names[f"{encoder}.init_bn.num_batches_tracked"] = ()
    add(f"{encoder}.patch_embed.proj", 1280, 1, 64, 4, bias=True)
    names |= {f"{encoder}.time_pos_embed": (1, 1280, 1, 252), f"{encoder}.freq_pos_embed": (1, 1280, 1, 1)}
    for n in range(32):
        block = f"{encoder}.blocks.{n}"
        for norm in ("norm1", "norm2"):
            add(f"{block}.{norm}", 1280, bias=True)
        add(f"{block}.attn.qkv", 3840, 1280, bias=True)
        add(f"{block}.attn.proj", 1280, 1280, bias=True)
        add(f"{block}.mlp.fc1", 5120, 1280, bias=True)
        add(f"{block}.mlp.fc2", 1280, 5120, bias=True)
    add(f"{encoder}.norm", 1280, bias=True)
    add("audio_projector.net.0", 3584, 6400, bias=True)
    add("audio_projector.net.2", 3584, 3584, bias=True)
    add("decoder.model.embed_tokens", 152064, 3584)
    for n in range(28):
        layer = f"decoder.model.layers.{n}"
        add(f"{layer}.self_attn.q_proj", 3584, 3584, bias=True)
        add(f"{layer}.self_attn.k_proj", 512, 3584, bias=True)
        add(f"{layer}.self_attn.v_proj", 512, 3584, bias=True)
        add(f"{layer}.self_attn.o_proj", 3584, 3584)
        add(f"{layer}.mlp.gate_proj", 18944, 3584)
        add(f"{layer}.mlp.up_proj", 18944, 3584)
        add(f"{layer}.mlp.down_proj", 3584, 18944)
        add(f"{layer}.input_layernorm", 3584)
        add(f"{layer}.post_attention_layernorm", 3584)
    add("decoder.model.norm", 3584)
    add("decoder.lm_head", 152064, 3584)
    return names


def n_parameters(module: nn.Module, *, trainable: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)


class TestPublishedSizes:
    def test_tensor_names_and_shapes(self) -> None:
        state = build_meta(midashenglm_7b(lm_head=True)).state_dict()
        expected = published_names()
        assert len(expected) == 738
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected
        of = [sum(name.startswith(part) for name in state) for part in ("audio_encoder", "audio_projector", "decoder")]
        assert of == [395, 4, 339]

    def test_parameter_totals(self) -> None:
        model = build_meta(midashenglm_7b(lm_head=True))
        assert n_parameters(model.audio_encoder) == 630_333_568
        assert n_parameters(model.audio_encoder.blocks[0]) == 19_677_440
        assert n_parameters(model.audio_projector) == 35_789_824
        assert n_parameters(model.decoder) == 7_615_616_512
        assert n_parameters(model.decoder.model.layers[0]) == 233_057_792
        assert n_parameters(model) == 8_281_739_904

    def test_embedding_needs_no_output_layer(self) -> None:
        model = build_meta(midashenglm_7b())
        assert n_parameters(model) == 8_281_739_904 - 544_997_376
        assert model.projection is None and model.config.embedding_dim == 3584

    def test_lora_of_the_fine_tuning_toolkit(self) -> None:
        model = build_meta(midashenglm_7b(lm_head=True))
        adapted = add_lora(model, rank=32, targets=(*AUDIO_LORA, "gate_proj", "up_proj", "down_proj"))
        assert n_parameters(adapted, trainable=True) == 68_968_448
        assert n_parameters(adapted) == 8_350_708_352

    def test_lora_of_the_language_model(self) -> None:
        adapted = add_lora(build_meta(midashenglm_7b()), rank=16)
        assert n_parameters(adapted, trainable=True) == 6_881_280
        trainable = {name for name, p in adapted.named_parameters() if p.requires_grad}
        assert all(re.search(r"decoder\.model\.layers\.\d+\.self_attn\.[qkv]_proj\.lora_", name) for name in trainable)

    def test_no_buffer_is_left_to_chance(self) -> None:
        # A non-persistent buffer comes back as uninitialised memory after from_pretrained; only those of the rotary
        # embedding, which transformers restores, may exist.
        model = build_meta(alm2vec_mini(8_192))
        unsaved = {name for name, _ in model.named_buffers()} - set(model.state_dict())
        assert unsaved == {"decoder.model.rotary_emb.inv_freq", "decoder.model.rotary_emb.original_inv_freq"}


@pytest.fixture(scope="module", params=STEMS)
def model(request: pytest.FixtureRequest) -> Alm2VecModel:
    return tiny_model(tiny_config(request.param), seed=3)


@pytest.fixture(scope="module")
def patch_model() -> Alm2VecModel:
    return tiny_model(tiny_config("patch"), seed=3)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    make_tokenizer(path)
    return PromptEncoder(tiny_config(), path)


def sound(seconds: float, seed: int = 0) -> Tensor:
    """Coloured noise with a loud and a quiet half."""
    rng = np.random.default_rng([seed, round(seconds * 1000)])
    noise = rng.normal(0, 0.1, round(seconds * 16_000)).astype(np.float32)
    noise[: len(noise) // 2] = np.cumsum(noise[: len(noise) // 2]) * 0.1
    return torch.from_numpy(noise)


def collate(
    prompts: PromptEncoder, items: Sequence[Tensor | str], prefix_length: int = 0, **prompt: Any
) -> ModelInputs:
    rendered, mels, samples = [], [], []
    for item in items:
        if isinstance(item, str):
            rendered.append(prompts.encode(text=item, audio_tokens=0, **prompt).ids)
        else:
            rendered.append(prompts.encode(text=None, audio_tokens=n_audio_tokens(len(item)), **prompt).ids)
            mels.append(log_mel(item).T)
            samples.append(max(len(item), MIN_SAMPLES))
    rows = [torch.tensor(ids[prefix_length:]) for ids in rendered]
    return ModelInputs(
        nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=prompts.pad_id),
        torch.tensor([len(row) for row in rows]),
        nn.utils.rnn.pad_sequence(mels, batch_first=True).transpose(1, 2) if mels else None,
        torch.tensor(samples) if mels else None,
    )


def embed(model: Alm2VecModel, inputs: ModelInputs, prefix: Any = None) -> Tensor:
    model.audio_token_id = 3  # make_tokenizer puts the special tokens first
    with torch.inference_mode():
        return model(inputs, prefix)


class TestEncoder:
    # 20.195 s has a chunk whose only patch is masked, where the published attention has no key to attend to.
    @pytest.mark.parametrize("seconds", [seconds for seconds in LENGTHS if seconds != 20.195])
    def test_equals_the_description(self, patch_model: Alm2VecModel, seconds: float) -> None:
        samples = sound(seconds)
        n = max(len(samples), MIN_SAMPLES)
        mel, config = log_mel(samples), patch_model.config.encoder
        with torch.no_grad():
            ours, _ = patch_model.audio_encoder(mel[None], torch.tensor([n]))
            tokens = patch_model.audio_projector(ours)[0]
        state = patch_model.state_dict()
        reference = dasheng_reference.encode(mel, n, state, depth=config.depth, heads=config.num_heads)
        assert ours.shape == (1, n_patches(n), 32)
        torch.testing.assert_close(ours[0].double(), reference, rtol=0, atol=2e-5)
        reference_tokens = dasheng_reference.project(reference, state)
        assert len(tokens) == n_audio_tokens(n)
        torch.testing.assert_close(tokens.double(), reference_tokens, rtol=0, atol=5e-5)

    def test_long_sound_goes_through_several_chunks(self, model: Alm2VecModel) -> None:
        encoder = model.audio_encoder
        lengths: list[int] = []
        hook = encoder.blocks[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
        mel = log_mel(sound(25.0))
        with torch.no_grad():
            whole, _ = encoder(mel[None], None)
        hook.remove()
        assert lengths == [252, 252, 625 - 504] and whole.shape[1] == 625

    def test_chunks_are_independent(self, patch_model: Alm2VecModel) -> None:
        encoder = patch_model.audio_encoder
        mel = log_mel(sound(25.0))
        with torch.no_grad():
            whole, _ = encoder(mel[None], None)
            parts = [encoder(part[None], None)[0] for part in mel[:, :2500].split(1008, dim=1)]
        torch.testing.assert_close(whole, torch.cat(parts, dim=1), rtol=0, atol=1e-5)

    def test_exactly_one_chunk_up_to_1008_frames(self, model: Alm2VecModel) -> None:
        for frames, calls in ((1008, 1), (1011, 1), (1012, 2)):
            seen: list[int] = []
            hook = model.audio_encoder.blocks[0].register_forward_pre_hook(lambda _, a, s=seen: s.append(a[0].shape[1]))
            with torch.no_grad():
                model.audio_encoder(torch.zeros(1, 64, frames), None)
            hook.remove()
            assert len(seen) == calls

    def test_incomplete_last_patch_is_not_attended_to(self, patch_model: Alm2VecModel) -> None:
        def features(n: int, last: float) -> Tensor:
            mel = torch.full((1, 64, 24), -20.0)
            mel[..., 20:] = last
            with torch.no_grad():
                return patch_model.audio_encoder(mel, torch.tensor([n]))[0][0, :5]

        # 3839 samples: 24 frames, 6 patches, floor(3839 / 640) = 5 of them valid; one more sample makes it 6.
        assert torch.equal(features(3839, 0.0), features(3839, 30.0))
        assert not torch.allclose(features(3840, 0.0), features(3840, 30.0), atol=1e-3)

    def test_a_chunk_without_sound_is_not_nan(self, model: Alm2VecModel) -> None:
        mel = nn.functional.pad(log_mel(sound(1.0)), (0, 2400))
        mel = torch.stack([mel, log_mel(sound(25.0))])
        with torch.no_grad():
            features, valid = model.audio_encoder(mel, torch.tensor([16_000, 400_000]))
        assert valid is not None and valid.sum(1).tolist() == [25, 625]
        assert torch.isfinite(features).all()

    def test_a_last_patch_that_begins_a_chunk(self, model: Alm2VecModel, prompts: PromptEncoder) -> None:
        # 20.19 s: the 505th patch is incomplete, alone in its chunk, and completes the 101st audio token.
        samples = sound(20.195)
        assert n_patches(len(samples)) == 505 and len(samples) // 640 == 504 and n_audio_tokens(len(samples)) == 101
        alone = embed(model, collate(prompts, [samples]))
        batch = embed(model, collate(prompts, [samples, sound(30.0)]))
        assert torch.isfinite(alone).all()
        assert (alone[0] * batch[0]).sum() >= 1 - 1e-5

    def test_published_batch_norm_is_over_mel_bins(self) -> None:
        encoder = AudioEncoder(tiny_config("patch").encoder).eval()
        assert encoder.init_bn.num_features == 64
        assert encoder.init_bn.eps == 1e-5 and encoder.init_bn.momentum == 0.01
        assert encoder.norm.eps == encoder.blocks[0].norm1.eps == 1e-6


class TestBatches:
    def test_an_item_is_itself_in_any_batch(self, model: Alm2VecModel, prompts: PromptEncoder) -> None:
        items = [sound(seconds) for seconds in LENGTHS]
        batch = embed(model, collate(prompts, items))
        alone = torch.cat([embed(model, collate(prompts, [item])) for item in items])
        cosines = (batch * alone).sum(dim=1)
        assert batch.shape == (len(LENGTHS), 24) and torch.isfinite(batch).all()
        assert cosines.min() >= 1 - 1e-5, cosines
        # The bound means something: two items differ by far more.
        assert (batch @ batch.T - torch.eye(len(items))).max() < 1 - 1e-4

    def test_text_and_audio_in_one_batch(self, model: Alm2VecModel, prompts: PromptEncoder) -> None:
        items: list[Tensor | str] = [
            "a dog barks",
            sound(12.5),
            "a low hum and a high whistle behind the wind",
            sound(1.0),
        ]
        batch = embed(model, collate(prompts, items))
        alone = torch.cat([embed(model, collate(prompts, [item])) for item in items])
        assert (batch * alone).sum(dim=1).min() >= 1 - 1e-5
        np.testing.assert_allclose(torch.linalg.vector_norm(batch, dim=1).numpy(), 1.0, atol=1e-6)

    def test_equal_lengths_need_no_mask(self, model: Alm2VecModel, prompts: PromptEncoder) -> None:
        items = [sound(3.0, seed) for seed in range(3)]
        batch = embed(model, collate(prompts, items))
        mixed = embed(model, collate(prompts, [*items, sound(5.0)]))[:3]
        assert (batch * mixed).sum(dim=1).min() >= 1 - 1e-5

    def test_shared_prefix_over_successive_batches(self, model: Alm2VecModel, prompts: PromptEncoder) -> None:
        question = {"instruction": "how loud is it?"}
        first = prompts.encode(text=None, audio_tokens=1, **question)
        ids = torch.tensor(first.ids[: first.prefix_length])
        with torch.inference_mode():
            prefix = model.decoder.prefix(ids)
        # Of different sizes, and the first once more: a cache that grew in place would tell.
        batches = [[1.0, 0.3, 12.5], [3.3], [0.2, 2.0, 5.0, 10.5, 1.7], [1.0, 0.3, 12.5]]
        for lengths in batches:
            items = [sound(seconds) for seconds in lengths]
            plain = embed(model, collate(prompts, items, **question))
            shared = embed(model, collate(prompts, items, len(ids), **question), prefix)
            assert (plain * shared).sum(dim=1).min() >= 1 - 1e-6
            torch.testing.assert_close(plain, shared, rtol=0, atol=2e-5)

    def test_bf16_stays_close(self, prompts: PromptEncoder) -> None:
        items = [sound(seconds) for seconds in (0.2, 3.33, 12.5)]
        full = embed(tiny_model(tiny_config(), seed=3), collate(prompts, items))
        half = embed(tiny_model(tiny_config(), seed=3).to(torch.bfloat16), collate(prompts, items))
        assert half.dtype == torch.float32
        assert (full * half).sum(dim=1).min() >= 0.999

    def test_gradients_reach_every_part(self, model: Alm2VecModel, prompts: PromptEncoder) -> None:
        model.zero_grad()
        model.audio_token_id = 3
        out = model(collate(prompts, [sound(1.0), "a dog barks"]))
        (out[0] - out[1]).square().sum().backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
        model.zero_grad()
        assert not without


class TestDecoder:
    def test_equals_qwen2_for_causal_lm(self, patch_model: Alm2VecModel) -> None:
        config = patch_model.config.text_config
        reference = Qwen2ForCausalLM(config).eval()
        reference.load_state_dict(
            {name.removeprefix("decoder."): t for name, t in patch_model.state_dict().items() if "decoder." in name}
            | {"lm_head.weight": torch.zeros(config.vocab_size, config.hidden_size)}
        )
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(6, 300, (3, 40), generator=generator)
        lengths = [40, 17, 1]
        mask = (torch.arange(40) < torch.tensor(lengths)[:, None]).long()
        with torch.inference_mode():
            ours = patch_model.decoder(patch_model.decoder.embed(ids))
            theirs = reference(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
        for row, length in enumerate(lengths):
            torch.testing.assert_close(ours[row, :length], theirs[row, :length], rtol=0, atol=1e-5)

    def test_the_embedding_is_the_state_at_the_last_token(
        self, patch_model: Alm2VecModel, prompts: PromptEncoder
    ) -> None:
        inputs = collate(prompts, ["a dog barks", "a"])
        with torch.inference_mode():
            hidden = patch_model.decoder(patch_model.decoder.embed(inputs.ids))
            for row, length in enumerate(inputs.lengths.tolist()):
                assert inputs.ids[row, length - 1] == prompts.pad_id  # <|endoftext|>, the final EOS
                state = patch_model.projection(hidden[row, length - 1])  # type: ignore[misc]
                expected = state / state.square().sum().sqrt()
                torch.testing.assert_close(embed(patch_model, inputs)[row], expected, rtol=0, atol=1e-6)

    def test_audio_tokens_take_the_placeholders_in_order(
        self, patch_model: Alm2VecModel, prompts: PromptEncoder
    ) -> None:
        inputs = collate(prompts, [sound(1.0), "a dog", sound(2.0)])
        assert inputs.mel is not None and inputs.n_samples is not None
        seen: list[Tensor] = []
        hook = patch_model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        embed(patch_model, inputs)
        hook.remove()
        with torch.inference_mode():
            words = patch_model.decoder.embed(inputs.ids)
            for row, seconds in ((0, 1.0), (2, 2.0)):
                features, _ = patch_model.audio_encoder(log_mel(sound(seconds))[None], None)
                slots = inputs.ids[row] == 3
                expected = patch_model.audio_projector(features)[0]
                torch.testing.assert_close(seen[0][row, slots], expected, rtol=0, atol=1e-5)
                assert torch.equal(seen[0][row, ~slots], words[row, ~slots])
        assert torch.equal(seen[0][1], words[1])
