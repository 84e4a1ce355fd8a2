"""Checkpoints in and out: verify, load, save, and the same for LoRA adapters. See `files` for the layout.

    directory ── headers ──> compare names and shapes with a model on the meta device ──> from_pretrained
                                     └── ModelError that names what does not fit

Nothing is read before the comparison, because `from_pretrained` fills what is missing with random values.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from audiosearch.errors import ModelError
from audiosearch.model import files, published
from audiosearch.model.alm2vec import Alm2VecModel
from audiosearch.model.assembly import aligned
from audiosearch.model.config import Alm2VecConfig
from audiosearch.model.files import resolve
from audiosearch.model.fingerprint import adapter_files, describe_model
from audiosearch.model.prompt import PromptEncoder

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["add_lora", "build_meta", "load", "read_config", "resolve", "save", "save_adapter"]

# Language model only: the audio encoder has no layers of these names, and stays as it was trained.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj")


def read_config(directory: str | Path) -> Alm2VecConfig:
    """The configuration in a checkpoint of ours or of MiDashengLM. Raises ModelError."""
    return Alm2VecConfig(**published.read_settings(Path(directory)))


def build_meta(config: Alm2VecConfig) -> Alm2VecModel:
    """The model without memory for its weights. Raises ModelError if the dimensions do not go together."""
    try:
        with torch.device("meta"):
            return Alm2VecModel(config)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise ModelError(f"the configuration does not describe a model ({error}); check config.json") from error


def load(
    directory: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> tuple[Alm2VecModel, PromptEncoder]:
    """The model of a checkpoint directory, in eval mode, and its prompt encoder.

    The weights may be fp32, fp16 or bf16 on disk, in one file or in shards, under the published names or behind a
    wrapper prefix. A LoRA adapter is merged into its base. Raises ModelError, one line that says what to do next.
    """
    directory = Path(directory)
    if files.is_adapter(directory):
        return _load_adapter(directory, dtype, device)
    config = read_config(directory)
    stored = files.stored_tensors(files.weight_files(directory))
    expected = {name: tuple(tensor.shape) for name, tensor in build_meta(config).state_dict().items()}
    files.check_tensors(expected, stored, directory)
    prompt = PromptEncoder.of_checkpoint(config, directory)
    prefix = files.wrapper_prefix(stored)
    placed = torch.device(device)
    try:
        with quietly():
            model = Alm2VecModel.from_pretrained(
                directory,
                config=config,
                dtype=dtype,
                key_mapping={f"^{prefix.replace('.', chr(92) + '.')}": ""} if prefix else None,
                # Straight onto the accelerator: 33 GB need not pass through this machine's memory first.
                device_map=None if placed.type == "cpu" else {"": placed},
                local_files_only=True,
                use_safetensors=True,
            )
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise ModelError(
                f"{directory} does not fit into the memory of {placed}; use bfloat16 or the CPU"
            ) from error
        raise ModelError(f"{directory} does not load ({_first_line(error)}); download or export it again") from error
    model.audio_token_id = prompt.audio_id
    return aligned(model).eval(), prompt


def save(
    model: Alm2VecModel,
    directory: str | Path,
    *,
    tokenizer_file: str | Path,
    dtype: torch.dtype | None = None,
    max_shard_size: int | str = "5GB",
) -> None:
    """Write a checkpoint: `config.json`, `model.safetensors` or shards with their index, `tokenizer.json`.

    It is written beside `directory` and then renamed, so that a half-written checkpoint never stands there. Other files
    of an older checkpoint (a model card) stay; its weights do not. `dtype` converts what is floating point.
    """
    with _replacing(Path(directory)) as aside:
        state = {
            name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
            for name, tensor in model.state_dict().items()
        }
        with quietly():
            model.save_pretrained(aside, state_dict=state, max_shard_size=max_shard_size)
        if dtype is not None:
            written = json.loads((aside / files.CONFIG).read_text(encoding="utf-8"))
            written["dtype"] = str(dtype).removeprefix("torch.")
            (aside / files.CONFIG).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        shutil.copyfile(tokenizer_file, aside / files.TOKENIZER)


def add_lora(
    model: Alm2VecModel,
    *,
    rank: int = 16,
    alpha: int = 32,
    dropout: float = 0.05,
    targets: Sequence[str] = LORA_TARGETS,
) -> PeftModel:
    """The model with trainable low-rank adapters on every linear layer whose name ends in one of `targets`.

    All else is frozen but the projection, if there is one. A target that matches nothing is refused: half a pattern
    would train half a recipe without a word. Raises ModelError.
    """
    from peft import LoraConfig, get_peft_model

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in linear):
            raise ModelError(f"no linear layer of the model is called {target}; name layers such as q_proj or attn.qkv")
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(targets), bias="none")
    on_meta = next(model.parameters()).is_meta
    with quietly():
        adapted = get_peft_model(model, config, low_cpu_mem_usage=on_meta)
    if model.projection is not None:
        model.projection.requires_grad_(True)
    return adapted


def save_adapter(adapted: PeftModel, directory: str | Path, *, base: str) -> None:
    """Write a LoRA checkpoint: adapter, projection and settings. `base` is what `resolve` understands, or a path
    relative to `directory`."""
    model = adapted.get_base_model()
    assert isinstance(model, Alm2VecModel)
    with _replacing(Path(directory)) as aside:
        for config in adapted.peft_config.values():
            config.base_model_name_or_path = base
        adapted.save_pretrained(str(aside), save_embedding_layers=False)
        (aside / "README.md").unlink(missing_ok=True)  # peft's empty card
        if model.projection is not None:
            weight = model.projection.weight.detach().cpu().contiguous()
            save_file({"projection.weight": weight}, aside / files.HEAD, metadata={"format": "pt"})
        model.config.save_pretrained(aside)


def _load_adapter(
    directory: Path, dtype: torch.dtype, device: str | torch.device
) -> tuple[Alm2VecModel, PromptEncoder]:
    from peft import PeftModel
    from peft.utils import get_peft_model_state_dict

    base = files.adapter_base(directory)
    found = {name: tensor.shape for name, tensor in files.stored_tensors(adapter_files(directory)[:1]).items()}
    head = published.adapter_head(directory)
    model, prompt = load(base, dtype=dtype, device=device)
    if head is not None and head.shape[1] != model.config.text_config.hidden_size:
        raise ModelError(f"the projection in {directory} takes {head.shape[1]} dimensions; its base {base} has others")
    try:
        with quietly():
            adapted = PeftModel.from_pretrained(model, str(directory), autocast_adapter_dtype=False)
            expected = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(adapted).items()}
            if found != expected:
                differing = sorted(dict(found.items() ^ expected.items()))
                raise ModelError(
                    f"the adapter in {directory} does not fit its {files.ADAPTER_CONFIG} or its base {base}: "
                    f"{files.some(differing)}; export the adapter again"
                )
            merged = adapted.merge_and_unload(safe_merge=True)
    except (OSError, SafetensorError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(
            f"the adapter in {directory} does not load onto its base {base} ({_first_line(error)}); export it again"
        ) from error
    assert isinstance(merged, Alm2VecModel)
    settings = published.read_settings(directory)
    _same_base(settings["training"].get("base_fingerprint"), base, directory)
    config = Alm2VecConfig(**settings)
    if head is not None:
        weight = load_file(head.path)["projection.weight"].to(device, dtype)
        merged.projection = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=device, dtype=dtype)
        merged.projection.weight.data.copy_(weight)
    for name in ("projection_dim", "template", "query_instruction", "document_instruction", "max_audio_seconds"):
        setattr(merged.config, name, getattr(config, name))
    merged.config.licence, merged.config.training = config.licence, config.training
    if (directory / files.TOKENIZER).is_file():
        prompt = PromptEncoder.of_checkpoint(merged.config, directory)
    else:
        prompt = PromptEncoder.of_checkpoint(merged.config, base)
    merged.audio_token_id = prompt.audio_id
    return merged.eval().requires_grad_(False), prompt


def _same_base(trained_on: str | None, base: Path, directory: Path) -> None:
    """Raise ModelError if an adapter says that it was trained on another base than the one that is there now."""
    if trained_on and describe_model(base).fingerprint != trained_on:
        raise ModelError(
            f"the adapter {directory} was trained on a base of fingerprint {trained_on[:12]}, and {base} is another "
            "model: put the right one there, or use the merged checkpoint"
        )


@contextlib.contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """A new directory beside `directory` that takes its place on success, with what it does not replace moved over."""
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".new", dir=directory.parent))
    try:
        yield aside
        aside.chmod(0o755)  # mkdtemp's is for the owner alone, and so are safetensors' files
        for file in aside.glob("*.safetensors"):
            file.chmod(0o644)
        if directory.exists():
            old = aside.with_suffix(".old")
            for entry in directory.iterdir():
                if not (entry.suffix == ".safetensors" or entry.name.endswith(".index.json")):
                    with contextlib.suppress(FileExistsError):
                        _copy_missing(entry, aside / entry.name)
            directory.rename(old)
            aside.rename(directory)
            shutil.rmtree(old)
        else:
            aside.rename(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy_missing(entry: Path, target: Path) -> None:
    if target.exists():
        return
    if entry.is_dir():
        shutil.copytree(entry, target)
    else:
        shutil.copy2(entry, target)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' bar, load report and advice, which are on standard error and say less than our checks."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
