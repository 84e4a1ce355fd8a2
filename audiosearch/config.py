"""Settings of one library: built-in defaults < `config.toml` in the library < environment < flags.

`Settings` lists what can be set. A key of `config.toml` is the field's name, an environment variable the same in
capitals after `AUDIOSEARCH_`. Where the library is comes first (flag, `AUDIOSEARCH_LIBRARY`, else the platform's user
data directory), because the file lies in it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from audiosearch.errors import UsageError

DEFAULT_MODEL = "alm2vec-mini"
CONFIG_NAME = "config.toml"
PREFIX = "AUDIOSEARCH_"


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading one file may cost before it is given up; the rest of an ingest goes on.

    A setting is called like the field, after `file_`.
    """

    stall_seconds: float = 120.0  # without progress
    # Altogether: stall_seconds, and a second for every so many seconds of sound and MB of file.
    min_speed: float = 1.0
    memory_mb: int = 1024  # of its decode process, beyond what that has when it starts
    max_hours: float = 240.0  # of sound
    # Of sound, beyond the first ten minutes; the leanest codecs take about ten bytes a second.
    max_seconds_per_byte: float = 1.0


_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Settings:
    """What steers one library. None means "not said": the library's default space, the hardware or the constant named
    beside the field decides."""

    library: str  # directory
    model: str | None = None  # bundled name, directory or hub id; None: the default space's, else DEFAULT_MODEL
    device: str | None = None  # "cpu", "cuda", "cuda:1"; None: the best one found
    dtype: str | None = None  # "float32", "bfloat16"; None: what suits the device
    window_seconds: float | None = None  # None: the default space's, else chunk.WINDOW_SECONDS
    hop_seconds: float | None = None  # None: the default space's, else chunk.HOP_SECONDS
    workers: int | None = None  # decode processes; None: by the number of cores
    index_device: str | None = None  # "cuda", "cuda:1": search there; None: on the CPU
    rerank: int = 50  # candidates re-embedded under an instruction that has no space of its own
    rerank_seconds: float = 2.0  # time for that
    file_stall_seconds: float = _LIMITS.stall_seconds  # these: see Limits
    file_min_speed: float = _LIMITS.min_speed
    file_memory_mb: int = _LIMITS.memory_mb
    file_max_hours: float = _LIMITS.max_hours
    file_max_seconds_per_byte: float = _LIMITS.max_seconds_per_byte

    @property
    def limits(self) -> Limits:
        """What reading one file may cost."""
        return Limits(
            stall_seconds=self.file_stall_seconds,
            min_speed=self.file_min_speed,
            memory_mb=self.file_memory_mb,
            max_hours=self.file_max_hours,
            max_seconds_per_byte=self.file_max_seconds_per_byte,
        )


# Annotations are strings here, so the accepted types are spelled once more: TOML gives int where a float is meant.
_TYPES: dict[str, type] = {
    "model": str,
    "device": str,
    "dtype": str,
    "window_seconds": float,
    "hop_seconds": float,
    "workers": int,
    "index_device": str,
    "rerank": int,
    "rerank_seconds": float,
    "file_stall_seconds": float,
    "file_min_speed": float,
    "file_memory_mb": int,
    "file_max_hours": float,
    "file_max_seconds_per_byte": float,
}
_MAY_BE_ZERO = frozenset({"rerank", "rerank_seconds"})


def library_directory(flag: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> str:
    """The absolute directory of the library: `flag`, else $AUDIOSEARCH_LIBRARY, else the user data directory."""
    environ = os.environ if environ is None else environ
    chosen = os.fspath(flag) if flag else environ.get(PREFIX + "LIBRARY")
    if not chosen:
        import platformdirs

        chosen = platformdirs.user_data_dir("audiosearch", appauthor=False)
    return str(Path(chosen).expanduser().absolute())


def load_settings(
    library: str | os.PathLike[str] | None = None, *, environ: Mapping[str, str] | None = None, **flags: Any
) -> Settings:
    """Settings for the library at `library` (or where the environment or the platform puts it).

    `flags` are fields of Settings; those that are None were not given. Raises UsageError for an unknown key, a value of
    the wrong type or range, or a `config.toml` that does not parse; the message names the key and where it was said.
    """
    environ = os.environ if environ is None else environ
    directory = library_directory(library, environ)
    path = Path(directory) / CONFIG_NAME
    chosen: dict[str, Any] = {}
    for key, value in _read_toml(path).items():
        chosen[key] = _checked(key, value, f"{key} in {path}")
    for key in _TYPES:
        text = environ.get(PREFIX + key.upper())
        if text:  # an empty variable counts as not set, as shells make it hard to unset one for one command
            chosen[key] = _checked(key, _parsed(text, _TYPES[key]), f"${PREFIX}{key.upper()}")
    for key, value in flags.items():
        if value is not None:
            chosen[key] = _checked(key, value, f"--{key.replace('_', '-')}")
    return Settings(library=directory, **chosen)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from error


def _parsed(text: str, kind: type) -> Any:
    """`text` from the environment as `kind`, or as it was: `_checked` then says what is wrong with it."""
    try:
        return kind(text)
    except ValueError:
        return text


def _checked(key: str, value: Any, where: str) -> Any:
    if key not in _TYPES:
        known = ", ".join(field.name for field in fields(Settings) if field.name in _TYPES)
        raise UsageError(f"unknown setting {where}; known are {known}")
    kind: type[Any] = _TYPES[key]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        meant = {str: "a text", int: "a whole number", float: "a number"}[kind]
        raise UsageError(f"{where} must be {meant}, not {value!r}")
    if kind is not str:
        if not value >= 0 or value == float("inf") or (value == 0 and key not in _MAY_BE_ZERO):  # `not >=`: NaN too
            raise UsageError(f"{where} must be above 0, not {value!r}")
    elif not value.strip():
        raise UsageError(f"{where} must not be empty")
    return value


def keep_freed_memory() -> None:
    """Let the allocator keep what a program frees instead of handing it back and having the kernel clear it again: a
    step of `mini` met 700,000 page faults. For programs that use their memory over and over, such as training.

    Does nothing but where the C library is glibc. Before torch is imported, so that its large tensors get huge pages.
    """
    import ctypes
    from contextlib import suppress

    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt  # the numbers of its parameters are from glibc's malloc.h
        mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own, which would be unmapped when freed
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: never hand back
        mallopt(-2, 1 << 28)  # M_TOP_PAD: ask for 256 MB more than is needed


def wait_passively() -> None:
    """Let OpenMP's threads sleep between parallel regions, unless the environment says otherwise.

    By default they spin. Beside decode processes, or on a virtual machine, a spinning thread takes the core that the
    next one needs: alm2vec-mini on two cores took 44 to 190 ms a clip instead of 14 (docs/log.md). OpenMP reads the
    variable when torch is imported, so this comes before; afterwards it has no effect.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
