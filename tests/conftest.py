"""Fixtures for every test module. Heavy imports stay inside them: tests of light modules must start fast."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from audiosearch.config import wait_passively

wait_passively()  # before any test imports torch; subprocesses inherit it


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a seeded two-layer ALM2Vec (convolutional stem, 24 dimensions). Do not change it."""
    from tiny import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_patch_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the published patch stem."""
    from tiny import make_tiny_checkpoint

    return make_tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny-patch", stem="patch")


@pytest.fixture(scope="session", autouse=True)
def _away_from_the_sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run from an empty folder: `python -c` in a test would otherwise import the source folder of the repository root,
    which lacks the side packages, instead of what is installed."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)
