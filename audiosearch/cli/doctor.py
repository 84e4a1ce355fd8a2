"""`audiosearch doctor`: is everything there, and if not, what to do."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

import click

from audiosearch.cli.common import Common, byte_size, common_options, count, fields_of, print_json, printable, styled
from audiosearch.config import DEFAULT_MODEL, Settings, load_settings
from audiosearch.errors import AudioSearchError, LibraryNotFound

State = Literal["ok", "warn", "fail"]
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
LITTLE_SPACE_BYTES = 2_000_000_000
REINSTALL = "install audiosearch again in a fresh virtual environment"
DECODERS = ("aac", "flac", "mp3float", "opus", "pcm_s16le", "vorbis")


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what to do unless it is fine."""

    name: str
    state: State
    detail: str
    next_step: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@common_options
def doctor(common: Common, as_json: bool) -> int:
    """Check the installation and say what to do about what is wrong.

    Exit code: 0 if nothing failed, else 2.
    """
    settings = load_settings(common.library, model=common.model, device=common.device)
    checks = [guarded(name, check, settings) for name, check in CHECKS.items()]
    if as_json:
        print_json({"checks": [fields_of(check) for check in checks]})
    else:
        for check in checks:
            state = styled(f"{check.state:4}", fg=COLOURS[check.state])
            click.echo(f"{state}  {check.name:12} {printable(check.detail)}")
            if check.next_step:
                click.echo(f"{'':18} -> {check.next_step}")
    return 2 if any(check.state == "fail" for check in checks) else 0


def guarded(name: str, check: Callable[[Settings], Check], settings: Settings) -> Check:
    """A check that breaks is a finding, not the end of the others."""
    try:
        return check(settings)
    except AudioSearchError as error:
        return Check(name, "fail", str(error))
    except Exception as error:
        return Check(name, "fail", f"{type(error).__name__}: {error}", REINSTALL)


def check_python(settings: Settings) -> Check:
    """3.10 to 3.13."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Check("python", "ok", f"{version} ({sys.executable})")
    return Check("python", "warn", f"{version} is not tested", "use Python 3.10 to 3.13")


def check_packages(settings: Settings) -> Check:
    """The compiled packages are there and can be imported, which a version number alone does not tell."""
    versions, broken = [], []
    for package in ("numpy", "sqlalchemy", "torch", "torchaudio", "transformers"):
        try:
            import_module(package)
            versions.append(f"{package} {metadata.version(package)}")
        except Exception as error:
            broken.append(f"{package}: {error}")
    if broken:
        return Check("packages", "fail", "; ".join(broken), REINSTALL)
    return Check("packages", "ok", ", ".join(versions))


def check_faiss(settings: Settings) -> Check:
    """Exactly one of the distributions that own the module `faiss`."""
    installed = []
    for name in ("faiss-cpu", "faiss-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed.append(f"{name} {metadata.version(name)}")
    if len(installed) > 1:
        return Check("faiss", "fail", f"{' and '.join(installed)} overwrite each other", "uninstall both, install one")
    import faiss

    gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return Check("faiss", "ok", f"{installed[0] if installed else 'faiss ' + faiss.__version__}, {count(gpus, 'GPU')}")


def check_media(settings: Settings) -> Check:
    """PyAV, its FFmpeg libraries, and that these know the common codecs."""
    import av
    import av.codec

    libraries = ", ".join(
        f"{name} {'.'.join(map(str, version))}"
        for name, version in sorted(av.library_versions.items())
        if name in ("libavcodec", "libavformat", "libswresample")
    )
    missing = sorted(set(DECODERS) - set(av.codec.codecs_available))
    detail = f"av {av.__version__} with {libraries}"
    if missing:
        return Check("media", "warn", f"{detail}; cannot decode {', '.join(missing)}", "install PyAV from its wheels")
    return Check("media", "ok", detail)


def check_library(settings: Settings) -> Check:
    """The library is there and opens."""
    from audiosearch.library import Library

    try:
        with Library.open(settings.library) as library:
            state = library.status()
    except LibraryNotFound:
        return Check("library", "warn", f"{settings.library} does not exist yet", "run `audiosearch ingest PATH`")
    detail = f"{state.directory}: {count(state.files, 'file')}, {count(state.chunks, 'chunk')}, {state.failed:,} failed"
    return Check("library", "ok", detail)


def check_disk(settings: Settings) -> Check:
    """Room for vectors and indexes where the library is or will be."""
    place = _nearest_existing(settings.library)
    free = shutil.disk_usage(place).free
    if free < LITTLE_SPACE_BYTES:
        return Check(
            "disk", "warn", f"only {byte_size(free)} free at {place}", "put the library elsewhere: --library DIR"
        )
    return Check("disk", "ok", f"{byte_size(free)} free at {place}")


def check_wal(settings: Settings) -> Check:
    """Readers beside a writer need SQLite's WAL, which some network file systems cannot do."""
    place = _nearest_existing(settings.library)
    try:
        with tempfile.TemporaryDirectory(prefix=".audiosearch-doctor-", dir=place) as folder:
            connection = sqlite3.connect(Path(folder) / "wal.db")
            with contextlib.closing(connection):
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                connection.execute("CREATE TABLE works (yes)")
    except OSError as error:
        return Check("sqlite", "warn", f"{place} cannot be written ({error.strerror})", "queries work, ingest does not")
    except sqlite3.Error as error:
        mode = str(error)
    if mode != "wal":
        next_step = "put the library on a local disk: --library DIR"
        return Check("sqlite", "fail", f"no write-ahead log at {place} ({mode})", next_step)
    return Check("sqlite", "ok", f"SQLite {sqlite3.sqlite_version} with write-ahead log at {place}")


def check_model(settings: Settings) -> Check:
    """The model is there; it is described, not loaded."""
    from audiosearch.model.fingerprint import describe_model

    model = describe_model(settings.model or DEFAULT_MODEL)
    return Check("model", "ok", f"{model.name}: {model.dim} dimensions, {model.licence} ({model.directory})")


def check_device(settings: Settings) -> Check:
    """Where the model would run, and why there."""
    from audiosearch.embed.batching import choose_device

    return Check("device", "ok", str(choose_device(settings.device, settings.dtype)))


def _nearest_existing(directory: str) -> str:
    path = Path(directory)
    return str(next(place for place in (path, *path.parents) if place.exists()))


CHECKS: dict[str, Callable[[Settings], Check]] = {
    "python": check_python,
    "packages": check_packages,
    "faiss": check_faiss,
    "media": check_media,
    "device": check_device,
    "model": check_model,
    "library": check_library,
    "disk": check_disk,
    "sqlite": check_wal,
}
