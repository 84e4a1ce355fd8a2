"""A checkpoint's `config.json`, ours or MiDashengLM's, as the keyword arguments of `Alm2VecConfig`. No torch.

Missing keys take MiDashengLM-7B's values: transformers writes only what differs from a class's defaults, and those are
the 7B's. A key that would change the computation in a way that this implementation does not have is refused.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from audiosearch.errors import ModelError
from audiosearch.model import files
from audiosearch.model.spec import DOCUMENT_INSTRUCTION, QUERY_INSTRUCTION, EncoderConfig, PromptTemplate

MODEL_TYPES = ("alm2vec", "midashenglm")

# The published encoder's other keys, with the only value that is implemented.
_ENCODER_FIXED: dict[str, Any] = {
    "n_mels": 64,
    "n_fft": 512,
    "win_length": 512,
    "hop_length": 160,
    "sample_rate": 16_000,
    "f_min": 0,
    "f_max": 8_000,
    "center": True,
    "input_channels": 1,
    "patch_size": [64, 4],
    "patch_stride": [64, 4],
    "qkv_bias": True,
    "init_values": None,  # LayerScale
}
# Qwen2.5-Omni-7B's thinker text model.
_TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": 152_064,
    "hidden_size": 3_584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "rms_norm_eps": 1e-6,
}
_ROPE_THETA = 1_000_000.0


def read_settings(directory: Path) -> dict[str, Any]:
    """Everything of the model but its weights: plain JSON values under the names of `Alm2VecConfig`'s parameters.

    Of an adapter, the base's settings with the prompt, instructions and licence of the adapter's own `config.json`, if
    it has one, and the dimension of its own projection. Raises ModelError.
    """
    if not files.is_adapter(directory):
        path = directory / files.CONFIG
        return _settings(files.read_json(path), path)
    settings = read_settings(files.adapter_base(directory))
    own = directory / files.CONFIG
    if own.is_file():
        settings |= {key: value for key, value in _settings(files.read_json(own), own).items() if key in _OF_ADAPTER}
    head = adapter_head(directory)
    if head is not None:
        settings["projection_dim"] = head.shape[0]
    return settings


_OF_ADAPTER = ("prompt", "query_instruction", "document_instruction", "max_audio_seconds", "licence", "training")


def adapter_head(directory: Path) -> files.StoredTensor | None:
    """The adapter's own `projection.weight`, (dim, hidden), if it brings one. Raises ModelError."""
    path = directory / files.HEAD
    if not path.is_file():
        return None
    tensors = files.stored_tensors([path])
    if list(tensors) != ["projection.weight"] or len(tensors["projection.weight"].shape) != 2:
        raise ModelError(f"{path} must hold the matrix projection.weight alone, not {sorted(tensors)}; export it again")
    return tensors["projection.weight"]


def _settings(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    kind = raw.get("model_type")
    if kind not in MODEL_TYPES:
        raise ModelError(f"{path} is of model_type {kind!r}; choose a model of type {' or '.join(MODEL_TYPES)}")
    try:
        return {
            "audio_encoder_config": _encoder(raw.get("audio_encoder_config") or {}),
            "text_config": _text(raw.get("text_config") or {}),
            "prompt": _plain(PromptTemplate(**(raw.get("prompt") or {}))),
            "subsample_factor": _count(raw, "subsample_factor", 5),
            "projection_dim": None if raw.get("projection_dim") is None else _count(raw, "projection_dim", 0),
            # Without our own word for it the output layer is there to be left out: an embedding does not need it.
            "lm_head": bool(raw.get("lm_head", False)),
            "query_instruction": str(raw.get("query_instruction", QUERY_INSTRUCTION)),
            "document_instruction": str(raw.get("document_instruction", DOCUMENT_INSTRUCTION)),
            "max_audio_seconds": float(raw.get("max_audio_seconds", 30.0)),
            "licence": str(raw.get("licence", "unknown")),
            "training": dict(raw.get("training") or {}),
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: {error}; this version of audiosearch cannot open the model") from error


def _encoder(raw: dict[str, Any]) -> dict[str, Any]:
    for key, value in _ENCODER_FIXED.items():
        if key in raw and raw[key] != value:
            raise ValueError(f"audio_encoder_config.{key} is {raw[key]!r}, and only {value!r} is implemented")
    known = {key: raw[key] for key in (field.name for field in fields(EncoderConfig)) if key in raw}
    config = EncoderConfig(**known)
    for key in ("embed_dim", "depth", "num_heads", "target_length"):
        _count(known, key, 1)
    if config.stem not in ("patch", "conv") or (config.stem == "conv" and len(config.stem_channels) != 4):
        raise ValueError(f"stem {config.stem!r} with channels {list(config.stem_channels)} is not implemented")
    if config.embed_dim % config.num_heads or config.target_length < 4:
        raise ValueError(f"audio_encoder_config does not describe an encoder: {known}")
    return _plain(config)


def _text(raw: dict[str, Any]) -> dict[str, Any]:
    kind = str(raw.get("model_type", "qwen2"))
    if not kind.startswith("qwen2"):
        raise ValueError(f"the decoder is of type {kind!r}, and only Qwen2's is implemented")
    if raw.get("use_sliding_window"):
        raise ValueError("text_config.use_sliding_window is set, and only full attention is implemented")
    text = {key: raw.get(key, value) for key, value in _TEXT_DEFAULTS.items()}
    for key in text:
        if isinstance(_TEXT_DEFAULTS[key], int):
            _count(text, key, 0)
    if raw.get("head_dim") is not None:
        text["head_dim"] = _count(raw, "head_dim", 0)
    # M-RoPE is plain RoPE here: text and audio have 1-D positions, so that its three sections agree.
    rope = dict(raw.get("rope_parameters") or raw.get("rope_scaling") or {})
    kind = rope.pop("rope_type", None) or rope.pop("type", None) or "default"
    for key in ("type", "mrope_section", "mrope_interleaved"):
        rope.pop(key, None)
    theta = float(rope.pop("rope_theta", None) or raw.get("rope_theta") or _ROPE_THETA)
    text["rope_parameters"] = {"rope_type": "default" if kind == "mrope" else kind, "rope_theta": theta, **rope}
    text["tie_word_embeddings"] = False
    return text


def _count(raw: dict[str, Any], key: str, default: int) -> int:
    value = raw.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{key} must be a positive whole number, not {value!r}")
    return value


def _plain(value: Any) -> dict[str, Any]:
    return {key: list(item) if isinstance(item, tuple) else item for key, item in asdict(value).items()}
