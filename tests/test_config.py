"""Settings: which place wins, and what is said about a value that cannot be meant."""

import ctypes
import ctypes.util
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from audiosearch.config import Settings, library_directory, load_settings
from audiosearch.errors import UsageError


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text('model = "from-file"\nwindow_seconds = 4\nrerank = 7\n')
    return tmp_path


def test_defaults(tmp_path: Path):
    assert load_settings(tmp_path, environ={}) == Settings(library=str(tmp_path))


def test_flag_over_environment_over_file_over_default(library: Path):
    environ = {"AUDIOSEARCH_MODEL": "from-env", "AUDIOSEARCH_RERANK_SECONDS": "0.5", "AUDIOSEARCH_DEVICE": ""}
    settings = load_settings(library, environ=environ, model=None, rerank=9)
    assert settings.model == "from-env"
    assert settings.window_seconds == 4.0
    assert isinstance(settings.window_seconds, float)
    assert settings.rerank == 9
    assert settings.rerank_seconds == 0.5
    assert settings.device is None
    assert load_settings(library, environ=environ, model="from-flag").model == "from-flag"
    assert load_settings(library, environ={}).model == "from-file"


def test_where_the_library_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert library_directory("here", {"AUDIOSEARCH_LIBRARY": "there"}) == str(Path("here").absolute())
    assert library_directory(None, {"AUDIOSEARCH_LIBRARY": "there"}) == str(Path("there").absolute())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert library_directory("~/x", {}) == str(tmp_path / "x")
    if sys.platform == "linux":
        assert library_directory(None, {}) == str(tmp_path / ".local/share/audiosearch")


@pytest.mark.parametrize(
    ("toml", "named"),
    [
        ('modle = "x"', "modle"),
        ('library = "/elsewhere"', "library"),
        ("model = 3", "model"),
        ('model = ""', "model"),
        ('rerank = "many"', "rerank"),
        ("rerank = 1.5", "rerank"),
        ("rerank = -1", "rerank"),
        ("workers = 0", "workers"),
        ("workers = true", "workers"),
        ("window_seconds = nan", "window_seconds"),
        ("hop_seconds = inf", "hop_seconds"),
        ("[model]\nname = 1", "model"),
        ("model = ", "config.toml"),
    ],
)
def test_a_wrong_file_is_refused_naming_key_and_file(tmp_path: Path, toml: str, named: str):
    (tmp_path / "config.toml").write_text(toml)
    with pytest.raises(UsageError) as refused:
        load_settings(tmp_path, environ={})
    assert named in str(refused.value)
    assert str(tmp_path / "config.toml") in str(refused.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path):
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"config\.toml"):
        load_settings(tmp_path, environ={})


def test_a_wrong_variable_or_flag_is_refused_by_its_name(tmp_path: Path):
    with pytest.raises(UsageError, match=r"\$AUDIOSEARCH_WORKERS"):
        load_settings(tmp_path, environ={"AUDIOSEARCH_WORKERS": "two"})
    with pytest.raises(UsageError, match="--rerank-seconds"):
        load_settings(tmp_path, environ={}, rerank_seconds=-1.0)


def test_zero_switches_re_embedding_off(tmp_path: Path):
    assert load_settings(tmp_path, environ={"AUDIOSEARCH_RERANK": "0"}).rerank == 0


GLIBC = ctypes.util.find_library("c") == "libc.so.6" and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc, whose allocator this is about")
def test_freed_memory_is_kept_and_not_cleared_again():
    """Page faults of the same work, in processes of their own, with and without."""
    work = (
        "import resource, sys\n"
        "from audiosearch.config import keep_freed_memory\n"
        "keep_freed_memory() if sys.argv[1:] else None\n"
        "for size in range(64_000_000, 64_000_040):\n"
        "    b'x' * size\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)\n"
    )
    command = [sys.executable, "-c", work]
    usual, kept = (int(subprocess.check_output([*command, *more])) for more in ([], ["keep"]))
    assert usual - kept > 0.7 * 39 * 64_000_000 / resource.getpagesize()
