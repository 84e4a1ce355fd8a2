"""The dry run's arithmetic against torch's operation counter, against what autograd saves, against the loop's own step,
and docs/training.md against both the program and the recipe's keys."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import torch
from gradient_helpers import make_batch, make_run
from tiny import make_tiny_checkpoint, tiny_config, tiny_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config

from audiosearch.cli import run as audiosearch
from audiosearch.errors import UsageError
from audiosearch.model import weights
from audiosearch.model.files import bundled_models
from audiosearch.model.prompt import PromptEncoder
from audiosearch.trainer import costs
from audiosearch.trainer.adapters import recompute_activations
from audiosearch.trainer.costs import Adapters, Flops, Prompts
from audiosearch.trainer.estimate import UTILISATION, Estimate, estimate, report
from audiosearch.trainer.recipe import Recipe, bundled_recipes, find_recipe, load_recipe

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "training.md"
# midashenglm.md 5.3: encoder, projector, decoder without its output layer.
BASE_7B = 630_333_568 + 35_789_824 + 7_615_616_512 - 544_997_376
LORA_7B = 6_881_280
TEXT = Qwen2Config(
    vocab_size=384,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
)
PREFIX, ROWS, BODY = 9, 3, 31


def reckoned(name: str, *overrides: str, world_size: int = 1) -> Estimate:
    path = find_recipe(name)
    return estimate(load_recipe(path, overrides), beside=path.parent, world_size=world_size)


def hours(found: Estimate, device: str = "H100", world_size: int = 1) -> float:
    return next(item.hours for item in found.hours if item.device.startswith(device) and item.world_size == world_size)


# --- a tiny decoder and encoder, run ---


def tiny(dtype: torch.dtype, dropout: float | None, *, stem: Any = "patch") -> tuple[Any, Adapters | None]:
    """A model with LoRA on a frozen rest, or, with `dropout` None, one of which all is trained."""
    model = tiny_model(tiny_config(stem, text_config=TEXT)).to(dtype).requires_grad_(dropout is None)
    inputs: list[tuple[str, int]] = []
    count = 0
    if dropout is not None:
        weights.add_lora(model, dropout=dropout)
        for name, parameter in model.named_parameters():
            layer, found, _ = name.partition(".lora_A.")
            inputs += [(layer.rpartition(".")[0], parameter.shape[1])] if found else []
            if ".lora_" in name:
                parameter.data = parameter.data.float()
                count += parameter.numel()
    model.train()
    model.projection.requires_grad_(False)
    model.audio_encoder.init_bn.eval().requires_grad_(False)
    return model, None if dropout is None else Adapters(tuple(inputs), count, 16, dropout)


def decode(model: Any, prompts: Prompts) -> torch.Tensor:
    """The decoder over a micro-batch, its shared instruction run once."""
    ids = torch.arange(6, 6 + prompts.body + (0 if prompts.shared else prompts.prefix)).expand(prompts.rows, -1)
    autocast = model.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
        prefix = model.decoder.prefix(torch.arange(prompts.prefix)) if prompts.shared else None
        out: torch.Tensor = model.decoder(model.decoder.embed(ids), prefix)
    return out


def counted(run: Any) -> int:
    """Operations that torch counts. Plain attention, since of the CPU's fused kernel it counts none."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def saved_bytes(model: Any, run: Any) -> int:
    """Bytes of the storages that autograd saves, the model's own left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)


TRAINED = [
    pytest.param(torch.bfloat16, 0.0, id="lora-bf16"),
    pytest.param(torch.bfloat16, 0.1, id="lora-bf16-dropout"),
    pytest.param(torch.float32, 0.0, id="lora-fp32"),
    pytest.param(torch.float32, 0.1, id="lora-fp32-dropout"),
    pytest.param(torch.float32, None, id="all-fp32"),
]


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "shared-prefix"])
@pytest.mark.parametrize(("dtype", "dropout"), TRAINED)
def test_the_decoder_s_bytes_are_those_that_autograd_saves(dtype: torch.dtype, dropout: float | None, shared: bool):
    model, adapters = tiny(dtype, dropout)
    prompts = Prompts(ROWS, PREFIX, BODY, shared)
    found = saved_bytes(model, lambda: decode(model, prompts))
    itemsize = torch.finfo(dtype).bits // 8
    # On a CPU dropout keeps its mask as floats.
    assert costs.decoder_bytes(TEXT, prompts, adapters, itemsize=itemsize, mask_itemsize=4) == pytest.approx(
        found, rel=0.01
    )


@pytest.mark.parametrize(("dtype", "dropout"), TRAINED)
def test_with_checkpointing_only_the_layers_inputs_stay(dtype: torch.dtype, dropout: float | None):
    model, adapters = tiny(dtype, dropout)
    recompute_activations(model)
    prompts = Prompts(ROWS, PREFIX, BODY, shared=False)
    found = saved_bytes(model, lambda: decode(model, prompts))
    sizes: dict[str, Any] = {"itemsize": torch.finfo(dtype).bits // 8, "mask_itemsize": 4}
    without = costs.decoder_bytes(TEXT, prompts, adapters, **sizes)
    with_it = costs.decoder_bytes(TEXT, prompts, adapters, **sizes, checkpointing=True)
    # What is reckoned beyond these is one layer at a time, a third of this model.
    assert with_it - found == pytest.approx(without / 3, rel=0.1)


@pytest.mark.parametrize("shared", [False, True], ids=["whole", "shared-prefix"])
@pytest.mark.parametrize(("dtype", "dropout"), TRAINED)
def test_the_decoder_s_operations_are_those_that_torch_counts(dtype: torch.dtype, dropout: float | None, shared: bool):
    model, adapters = tiny(dtype, dropout)
    prompts = Prompts(ROWS, PREFIX, BODY, shared)
    forward = counted(lambda: decode(model, prompts))
    both = counted(lambda: decode(model, prompts).float().sum().backward())
    flops = costs.decoder_flops(TEXT, prompts, adapters)
    assert flops.forward == pytest.approx(forward, rel=0.001)
    # Plain attention goes back in twice its forward, the fused kernel in 2.5 times. Of the first of three layers the
    # input needs no gradient: a few percent here, one in four hundred of the 7B.
    backward = flops.frozen + 2 * flops.trained + 2 * flops.attention
    assert both - forward <= backward <= 1.1 * (both - forward)
    assert flops.backward - backward == pytest.approx(0.5 * flops.attention)


@pytest.mark.parametrize("seconds", [2, 3.123, 15])
@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_the_encoder_s_operations_and_bytes(stem: str, seconds: float):
    model, _ = tiny(torch.float32, None, stem=stem)
    samples = int(seconds * 16_000) // 640 * 640
    mel, lengths = torch.randn(2, 64, 1 + samples // 160), torch.tensor([samples, samples])
    found = counted(lambda: model.audio_tokens(mel, lengths))
    assert 2 * costs.encoder_flops(model.config, samples).forward == pytest.approx(found, rel=0.001)
    kept = saved_bytes(model, lambda: model.audio_tokens(mel, lengths))
    assert costs.encoder_bytes(model.config, 2, samples) == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize("grad_cache", [False, True])
def test_a_step_of_the_loop_computes_what_is_counted(tmp_path: Path, grad_cache: bool):
    run = make_run(tmp_path, dropout=0.1, grad_cache=grad_cache)
    batch = make_batch(run)
    stage = run.recipe.stages[0]
    objective = run.setup.objective(stage, run.temperature, run.device)
    found = counted(lambda: run.compute.gradient(batch, objective, stage.micro_batch_size))

    from audiosearch.trainer.batch import micro_batches

    text, head = run.model.config.text_config, run.setup.trainable.head
    names = [name for name, _ in run.model.named_parameters() if ".lora_A." in name]
    adapters = Adapters(tuple((name, 0) for name in names), run.setup.trainable.lora, 4, 0.1)
    decoder, encoder = Flops(), 0.0
    for part in micro_batches(batch, stage.micro_batch_size, run.setup.prompts.pad_id, shared_prefix=True):
        rows, body = part.inputs.ids.shape
        shared = part.prefix is not None
        prompts = Prompts(rows, len(part.prefix) if part.prefix is not None else 0, body, shared)
        decoder += costs.decoder_flops(text, prompts, adapters) + Flops(trained=2.0 * head * rows)
        if part.inputs.mel is not None:
            padded = (part.inputs.mel.shape[2] - 1) * 160
            encoder += costs.encoder_flops(run.model.config, padded).forward * part.inputs.mel.shape[0]
    backward = decoder.frozen + 2 * decoder.trained + 2 * decoder.attention
    total = encoder + decoder.forward * (2 if grad_cache else 1) + backward
    # Two layers, of which the first needs less in backward; and the loss itself, which is not counted.
    assert total == pytest.approx(found, rel=0.12)


def test_prompt_lengths_are_near_those_of_a_real_tokenizer():
    directory = bundled_models()["alm2vec-mini"]
    config = weights.read_config(directory)
    prompts = PromptEncoder(config, directory / "tokenizer.json")
    words = "a dog barks in the rain"
    n_words = len(prompts.tokenizer.encode(words).ids)
    shape = costs.prompt_shape(config, 80_000, n_words)
    assert shape.audio_tokens == 25
    sound = prompts.encode(text=words, audio_tokens=25, task="query")
    text = prompts.encode(text=words, audio_tokens=0)
    assert sum(shape.sound) == pytest.approx(len(sound.ids), abs=5)
    assert sum(shape.text) == pytest.approx(len(text.ids), abs=5)
    # What the template adds to the words is exact; only the instruction is guessed at.
    assert shape.text[1] - n_words == pytest.approx(len(text.ids) - text.prefix_length - n_words, abs=1)


# --- recipes ---


def test_the_7b_s_parameters_are_the_published_ones():
    for name in ("alm2vec-pretrain", "alm2vec-finetune"):
        parameters = reckoned(name).parameters
        assert (parameters.lora, parameters.tau, parameters.head, parameters.other) == (LORA_7B, 1, 0, 0)
        assert parameters.trainable == LORA_7B + 1
        assert parameters.total - parameters.lora == BASE_7B == 7_736_742_528


def test_the_7b_s_estimate_is_the_arithmetic_of_the_document():
    """Worked out by hand, as docs/training.md shows it."""
    found = reckoned("alm2vec-pretrain")
    stage = found.stages[0]
    assert (stage.steps, stage.audio_tokens_per_step, stage.audio_tokens) == (4_000, 256 * 75, 4_000 * 256 * 75)
    assert stage.text_tokens_per_step == 256 * (38 + 113 - 75 + 12 + 36)
    positions = 16 * (38 + 16 * 113 + 12 + 16 * 36)
    per_position = 2 * 28 * 3_584 * (2 * 3_584 + 2 * 512 + 3 * 18_944)
    attended = 16 * (38**2 + 16 * 113 * 151 + 12**2 + 16 * 36 * 48)
    forward = positions * (per_position + 2 * LORA_7B) + attended * 28 * 4 * 3_584
    assert stage.step_flops.forward == stage.step_flops.first_pass == pytest.approx(forward, rel=1e-9)
    assert stage.step_flops.backward == pytest.approx(
        positions * (per_position + 4 * LORA_7B) + 2.5 * attended * 28 * 4 * 3_584, rel=1e-9
    )
    assert stage.step_flops.recomputed == 0
    assert stage.step_flops.encoder / 256 == pytest.approx(0.4904e12, rel=1e-3)
    total = stage.step_flops.total * 4_000 + stage.beside_flops
    assert hours(found) == pytest.approx(total / (989e12 * UTILISATION) / 3_600)
    assert hours(found, "A100") == pytest.approx(hours(found) * 989 / 312)
    assert stage.memory.weights == 2 * BASE_7B
    assert stage.memory.trained == 16 * (LORA_7B + 1)
    assert stage.memory.activations == pytest.approx(28 * 208_219 * 1_846, rel=0.005)
    assert stage.memory.audio_tokens == 256 * 75 * 3_584 * 2
    parts = [getattr(stage.memory, item.name) for item in fields(stage.memory)]
    assert parts[-1] == sum(parts[:-1]) == found.memory_bytes


def test_what_the_knobs_of_memory_do():
    plain = reckoned("alm2vec-pretrain").stages[0]
    larger = reckoned("alm2vec-pretrain", "stages.0.batch_size=4096").stages[0]
    assert larger.memory.activations == plain.memory.activations  # GradCache: the micro-batch decides
    assert larger.step_flops.total == pytest.approx(16 * plain.step_flops.total)
    uncached = reckoned("alm2vec-pretrain", "grad_cache=false").stages[0]
    assert uncached.step_flops.first_pass == 0
    assert uncached.memory.activations > 20 * plain.memory.activations
    recomputed = reckoned("alm2vec-pretrain", "gradient_checkpointing=true").stages[0]
    assert recomputed.memory.activations < 0.1 * plain.memory.activations
    assert recomputed.step_flops.recomputed == recomputed.step_flops.forward > 1.2 * plain.step_flops.forward
    eight = reckoned("alm2vec-pretrain", world_size=8)
    assert eight.stages[0].pairs_per_gpu == 32
    assert eight.stages[0].step_flops.total == pytest.approx(plain.step_flops.total / 8)
    assert eight.stages[0].flops == pytest.approx(plain.flops)
    assert hours(eight, world_size=8) == pytest.approx(hours(eight) / 8)


def test_a_model_from_nothing_is_reckoned_too():
    found = reckoned("mini")
    parameters = found.parameters
    assert parameters.lora == 0 and parameters.head == 512 * 256
    assert (
        parameters.total - parameters.trainable == 128 - 1
    )  # batch norm's scale and shift are frozen; tau is beside it
    text, *heard = found.stages
    assert (text.audio_tokens, text.seconds, {stage.seconds for stage in heard}) == (0, 0, {5})
    for audio in heard:
        assert audio.step_flops.encoder == 0 and audio.step_flops.backward > 1.9 * audio.step_flops.forward
    assert hours(found) == pytest.approx(sum(stage.hours[0].hours for stage in found.stages))
    assert "lower bound of the time" in report(found)


def test_a_new_head_and_mining_are_counted():
    plain = reckoned("adapt").stages[0]
    mined = reckoned("adapt", "hard_negatives={share: 0.2, every_steps: 100, rows: 1000}").stages[0]
    assert plain.beside_flops == 0 < mined.beside_flops
    assert reckoned("alm2vec-pretrain", "projection_dim=512").parameters.head == 512 * 3_584


def test_a_directory_is_read_from_its_config_alone(tmp_path: Path):
    directory = make_tiny_checkpoint(tmp_path / "base")
    (directory / "model.safetensors").unlink()
    assert reckoned("adapt", f"base={directory}").parameters.total < 200_000


@pytest.mark.parametrize(
    ("name", "overrides", "world_size", "words"),
    [
        ("adapt", ["base=someone/something"], 1, "base someone/something is neither bundled, nor a directory"),
        ("adapt", ["base=no/such/folder"], 1, "nor in the local Hugging Face cache, and a dry run fetches nothing"),
        ("adapt", ["base=$NO_SUCH_VARIABLE"], 1, "set the environment variable NO_SUCH_VARIABLE"),
        ("adapt", ["lora.targets=[qkv]"], 1, "audio_encoder.blocks.0.attn.qkv is not in the decoder"),
        ("adapt", ["lora.expected_parameters=5"], 1, "lora.expected_parameters is 5"),
        ("adapt", [], 3, "stages.0.batch_size is 64: not a multiple of 3 processes"),
    ],
)
def test_what_cannot_be_reckoned_is_said(name: str, overrides: list[str], world_size: int, words: str):
    with pytest.raises(UsageError, match=re.escape(words)):
        reckoned(name, *overrides, world_size=world_size)


def test_stage_two_is_reckoned_before_stage_one_is_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("ALM2VEC_PT", raising=False)
    assert "reckoned as MiDashengLM-7B" in reckoned("alm2vec-finetune").base
    monkeypatch.setenv("ALM2VEC_PT", "cara-ai/ALM2Vec-PT")
    assert reckoned("alm2vec-finetune").base.startswith("cara-ai/ALM2Vec-PT")


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]):
    assert audiosearch(["train", "alm2vec-pretrain", "--dry-run", "--world-size", "8"]) == 0
    printed = capsys.readouterr().out
    for words in ("6,881,280", "7,743,623,808", "4,000 steps", "8 x H100", "32 pairs each", "76,800,000"):
        assert words in printed
    assert audiosearch(["train", "adapt", "--dry-run", "--json"]) == 0
    as_json = json.loads(capsys.readouterr().out)
    assert as_json == {"version": 1, **json.loads(json.dumps(asdict(reckoned("adapt"))))}


# --- docs/training.md ---


def keys_of(kind: Any, prefix: str = "") -> dict[str, str]:
    """Every key below `kind`, as the document writes it, and its default."""
    hints = get_type_hints(kind)
    found = {}
    for item in fields(kind):
        hint = hints[item.name]
        if isinstance(hint, UnionType):
            hint = next(part for part in get_args(hint) if part is not type(None))
        inner = get_args(hint)[0] if get_origin(hint) is list else hint
        nested = is_dataclass(inner)
        if not (nested and item.default is MISSING and item.default_factory is MISSING and get_origin(hint) is None):
            found[f"{prefix}{item.name}"] = default_of(item)
        if nested:
            found |= keys_of(inner, f"{prefix}{item.name}.")
    return found


def default_of(item: Field[Any]) -> str:
    if item.default is MISSING and item.default_factory is MISSING:
        return "required"
    value = item.default if item.default is not MISSING else item.default_factory()  # type: ignore[misc]
    if is_dataclass(value):
        return "section"
    if value is None or value == "":
        return "none" if value is None else "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def section(title: str) -> list[list[str]]:
    """The cells of the table rows under a heading, without the table's head."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    rows = [line.strip("|").split("|") for line in found[1].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def test_every_key_of_a_recipe_is_documented_with_its_default():
    documented = {key.strip("`"): default for key, default, *_ in section("What each knob does")}
    assert documented == keys_of(Recipe)


def test_every_variable_that_a_recipe_reads_is_documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in bundled_recipes():
        for variable in re.findall(r"\$([A-Z][A-Z0-9_]*)", find_recipe(name).read_text(encoding="utf-8")):
            assert re.search(rf"\b{variable}\b", text), f"{name} reads ${variable}"


def test_the_documented_estimate_is_what_the_program_prints():
    """All but the line of the base, which depends on what this machine has."""
    blocks = re.findall(r"(?:^(?: {4}.*)?\n)+", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    shown = next(block for block in blocks if "an estimate, nothing was run" in block)
    printed = [line.rstrip() for line in report(reckoned("alm2vec-pretrain")).splitlines()]
    lines = [line.removeprefix("    ").rstrip() for line in shown.strip("\n").splitlines()]
    assert [line for line in lines if not line.startswith("base:")] == [
        line for line in printed if not line.startswith("base:")
    ]


def test_the_documented_costs_of_the_knobs_are_what_the_program_says():
    rows = section("What the knobs cost on the 7B")
    assert len(rows) > 5
    for changed, *figures in rows:
        words = re.findall(r"`([^`]+)`", changed)
        name = words.pop(0) if words and words[0] in bundled_recipes() else "alm2vec-pretrain"
        one, eight = (reckoned(name, *words, world_size=n) for n in (1, 8))
        expected = [f"{found.memory_bytes / 2**30:.1f}" for found in (one, eight)]
        expected += [f"{hours(one):.2f}", f"{hours(eight, world_size=8):.2f}"]
        assert figures == expected, changed
