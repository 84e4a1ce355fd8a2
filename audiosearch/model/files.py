"""Where a checkpoint lies and what its files say, read without torch or transformers.

A checkpoint is a directory in Hugging Face layout: `config.json`, `model.safetensors` (or shards with their index) and
`tokenizer.json`; a LoRA checkpoint has `adapter_config.json`, `adapter_model.safetensors` and, with a projection of its
own, `head.safetensors`, and names its base. Whatever is wrong with these files is a ModelError that says what to do.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from audiosearch.errors import ModelError

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLED_TYPES = "pytorch_model.bin", ("clap",)  # LAION's repositories hold nothing else
ADAPTER_CONFIG, ADAPTER_WEIGHTS, HEAD = "adapter_config.json", "adapter_model.safetensors", "head.safetensors"

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_HUB_PATTERNS = ["*.json", "*.safetensors", "README.md"]
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
# Published tensors that no embedding depends on.
UNUSED = re.compile(
    r"decoder\.lm_head\.weight|audio_encoder\.front_end\..*|audio_encoder\.init_bn\.num_batches_tracked"
)
_LOADABLE_DTYPES = ("F32", "F16", "BF16")
_SHOWN = 3
_ANCHOR = "audio_encoder.time_pos_embed"  # in every checkpoint, under no other name

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as a safetensors header states it; its bytes are `[start, start + n_bytes)` of `path`."""

    dtype: str  # "F32", "BF16", ...
    shape: tuple[int, ...]
    path: Path
    start: int
    n_bytes: int


def resolve(name: str | os.PathLike[str]) -> Path:
    """The directory of a model: a bundled name, a directory, or a hub id `owner/name[@revision]`.

    A hub id is looked up in the local cache first and fetched only when it is not there. Raises ModelError.
    """
    name = os.fspath(name)
    bundled = bundled_models()
    if name in bundled:
        return bundled[name]
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path.absolute()
    if name and path.exists():
        raise ModelError(f"{name} is a file; give the directory that holds it with its config.json")
    if _HUB_ID.fullmatch(name) and not name.startswith((".", "~")):
        return _from_hub(name)
    known = ", ".join(sorted(bundled)) or "none in this installation"
    raise ModelError(
        f"no model {name!r}: it is neither bundled ({known}) nor a directory; "
        "give one of these, or a Hugging Face id such as owner/name"
    )


def bundled_models() -> dict[str, Path]:
    """Models shipped inside the package, by name."""
    root = Path(str(resources.files("audiosearch.weights")))
    return {entry.name: entry for entry in root.iterdir() if (entry / CONFIG).is_file()}


def lasting_name(name: str, directory: Path) -> str:
    """What `name`, resolved to `directory`, is called from anywhere: of a directory the absolute path."""
    return str(directory) if Path(name).expanduser().is_dir() and name not in bundled_models() else name


def model_type(directory: Path) -> str | None:
    """What `config.json` says, None for an adapter without one. Raises ModelError."""
    if is_adapter(directory) and not (directory / CONFIG).is_file():
        return None
    return read_json(directory / CONFIG).get("model_type")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent} has no {path.name}; point --model at a checkpoint directory in Hugging Face layout"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check the file's permissions") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}); download or export the checkpoint again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object; download or export the checkpoint again")
    return value


def is_adapter(directory: Path) -> bool:
    return (directory / ADAPTER_CONFIG).is_file()


def adapter_base(directory: Path) -> Path:
    """The directory of an adapter's base model; a relative path is relative to the adapter. Raises ModelError."""
    base = read_json(directory / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{directory / ADAPTER_CONFIG} names no base model; add base_model_name_or_path")
    beside = directory / base
    try:
        found = beside.resolve() if beside.is_dir() else resolve(base)
    except ModelError as error:
        raise ModelError(f"the base model of the adapter {directory}: {error}") from error
    if is_adapter(found):
        raise ModelError(f"the adapter {directory} builds on another adapter, {found}; merge and save that one first")
    return found


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a full checkpoint. Raises ModelError if there is none or a shard is missing."""
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if not (directory / WEIGHTS_INDEX).is_file():
        other = [path.name for path in (*directory.glob("*.bin"), *directory.glob("*.pt"))]
        hint = f"; {other[0]} is a pickle, which is not read: convert it to safetensors" if other else ""
        raise ModelError(f"{directory} has no {WEIGHTS} and no {WEIGHTS_INDEX}{hint or '; download the model again'}")
    placed = read_json(directory / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(placed, dict) or not placed or any(Path(str(f)).name != f for f in placed.values()):
        raise ModelError(f"{directory / WEIGHTS_INDEX} has no usable weight_map; download the model again")
    shards = [directory / file for file in sorted(set(placed.values()))]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise ModelError(
            f"{directory} lacks {len(absent)} of {len(shards)} weight files, {absent[0]} first; download it again"
        )
    return shards


def stored_tensors(files: Iterable[Path]) -> dict[str, StoredTensor]:
    """Every tensor of these safetensors files, from their headers. Raises ModelError for a damaged file."""
    found: dict[str, StoredTensor] = {}
    for path in files:
        found.update(_read_header(path))
    return found


def wrapper_prefix(names: Iterable[str]) -> str:
    """What stands before the published names, such as `model.`; empty when they are bare or not there at all."""
    for name in names:
        if name.endswith(_ANCHOR) and name[: -len(_ANCHOR)][-1:] in ("", "."):
            return name[: -len(_ANCHOR)]
    return ""


def bare_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """The same tensors under the published names."""
    prefix = wrapper_prefix(tensors)
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def check_tensors(expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor], where: Path) -> None:
    """Raise ModelError, naming names, unless the stored tensors are exactly the expected names and shapes.

    Output layer, front-end buffers and the batch counter may be there or not: no embedding depends on them.
    """
    found = bare_names(stored)
    may_lack = {name for name in expected if UNUSED.fullmatch(name) and name != "decoder.lm_head.weight"}
    missing = sorted(expected.keys() - found.keys() - may_lack)
    unexpected = sorted(name for name in found.keys() - expected.keys() if not UNUSED.fullmatch(name))
    differing = [
        f"{name} {list(found[name].shape)} for {list(shape)}"
        for name, shape in sorted(expected.items())
        if name in found and found[name].shape != shape
    ]
    problems = [
        f"{title} {some(names)}"
        for title, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", differing))
        if names
    ]
    if problems:
        raise ModelError(
            f"the weights in {where} do not fit its {CONFIG}: {'; '.join(problems)}; "
            "use the configuration that belongs to these weights, or export the checkpoint again"
        )
    odd = sorted(name for name in expected if name in found and found[name].dtype not in _LOADABLE_DTYPES)
    odd = [f"{name} {found[name].dtype}" for name in odd if not UNUSED.fullmatch(name)]
    if odd:
        raise ModelError(
            f"the weights in {where} are stored in a type that is not read: {some(odd)}; "
            "use an fp32, fp16 or bf16 version of the model"
        )


def some(names: Iterable[str]) -> str:
    """The first few of them, and how many more there are."""
    names = list(names)
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _read_header(path: Path) -> dict[str, StoredTensor]:
    damaged = f"{path} is truncated or damaged; download or export the checkpoint again"
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, _MAX_HEADER_BYTES):
                raise ModelError(damaged)
            header = json.loads(file.read(length))
        tensors = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            shape = tuple(int(n) for n in entry["shape"])
            tensors[name] = StoredTensor(entry["dtype"], shape, path, 8 + length + start, end - start)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(damaged) from error
    if max((tensor.start + tensor.n_bytes for tensor in tensors.values()), default=8 + length) != size:
        raise ModelError(damaged)
    return tensors


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    repo, _, revision = name.partition("@")
    wanted: dict[str, Any] = {"repo_id": repo, "revision": revision or None, "allow_patterns": _HUB_PATTERNS}
    try:
        cached = Path(snapshot_download(**wanted, local_files_only=True))
        if _is_complete(cached):
            return cached
    except (HfHubHTTPError, HFValidationError, OSError, ValueError):
        pass  # not in the cache
    try:
        fetched = Path(snapshot_download(**wanted))
        if not _is_complete(fetched) and (fetched / CONFIG).is_file() and model_type(fetched) in PICKLED_TYPES:
            fetched = Path(snapshot_download(**{**wanted, "allow_patterns": [*_HUB_PATTERNS, PICKLE]}))
    except RepositoryNotFoundError as error:  # the hub says the same of a private or gated repository
        raise ModelError(
            f"no model {name!r}: not a directory here, and Hugging Face knows no such repository or does not show it "
            "to you; check the spelling, or log in with `hf auth login`"
        ) from error
    except Exception as error:  # httpx errors, timeouts, a full disk: huggingface_hub wraps only some of them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{name} is no directory here, not in the local cache, and could not be fetched ({reason}); "
            "connect to the network once, or download it elsewhere and give its directory instead"
        ) from error
    if not _is_complete(fetched):  # offline, the hub's client is content with part of a snapshot
        raise ModelError(
            f"{name} is not a complete checkpoint ({CONFIG}, safetensors weights, {TOKENIZER}), or only part of it is "
            "in the local cache; connect to the network once, or choose another model"
        )
    return fetched


def _is_complete(directory: Path) -> bool:
    """A cached snapshot can hold only what earlier calls asked for."""
    if is_adapter(directory):
        return (directory / ADAPTER_WEIGHTS).is_file()
    if not ((directory / CONFIG).is_file() and (directory / TOKENIZER).is_file()):
        return False
    if (directory / PICKLE).is_file() and model_type(directory) in PICKLED_TYPES:
        return True
    try:
        weight_files(directory)
    except ModelError:
        return False
    return True
