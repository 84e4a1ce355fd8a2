"""`reindex` by the library and by the command line: never the model, never the sound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from store_helpers import DIM, spec, unit, whole

from audiosearch.cli import reindex as command
from audiosearch.cli import run
from audiosearch.errors import LibraryLocked, UsageError
from audiosearch.indexes import generations
from audiosearch.library import INDEX_KINDS, Library, Models
from audiosearch.store.store import Store


def no_model(*_: object, **__: object):
    raise AssertionError("a model was asked for")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with Store.create(tmp_path / "library") as store:
        root = store.add_root("/data")
        for name, n in (("space-one", 300), ("space-two", 20)):
            space = store.add_space(spec(name))
            store.commit(space.id, whole(root, name, list(unit(1, n))))
    monkeypatch.setattr("audiosearch.library._installed_models", lambda: Models(no_model, no_model))
    with Library.open(tmp_path / "library") as opened:
        yield opened


def newest(library: Library, space: str) -> generations.Manifest:
    return generations.manifests(Path(library.directory, "indexes", space), space)[0][1]


def test_every_space_or_one(library: Library):
    assert [(each.space, each.kind, each.vectors) for each in library.reindex()] == [
        ("space-one", "flat", 300),
        ("space-two", "flat", 20),
    ]
    steps = []
    (built,) = library.reindex("hnsw", space="space-one", queries={"text": unit(5, 9)}, progress=steps.append)
    assert built.kind == "hnsw" and built.recall["text"] >= 0.9 and steps
    assert newest(library, "space-one").built.recall == built.recall
    assert newest(library, "space-two").kind == "flat"


def test_what_cannot_be_is_refused_before_anything_is_built(library: Library):
    with pytest.raises(UsageError, match="ivf-pq"):
        library.reindex("annoy")
    with pytest.raises(UsageError, match=f"{DIM} dim"):
        library.reindex(queries={"text": np.ones((2, DIM + 1), np.float32)})
    with pytest.raises(UsageError):
        library.reindex(space="no such space")
    with Store.open(library.directory, write=True), pytest.raises(LibraryLocked):
        library.reindex()
    assert not Path(library.directory, "indexes").exists()


def test_the_command(library: Library, capsys: pytest.CaptureFixture[str]):
    assert command.KINDS == INDEX_KINDS == ("auto", *generations.KINDS)
    where = ["--library", library.directory]
    assert run(["reindex", *where, "--kind", "ivf", "--space", "space-one", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (built,) = said["indexes"]
    assert said["version"] == 1 and built["factory"].startswith("IVF") and built["effort"]["width"] >= 1
    assert set(built["recall"]) == {"near", "far"}
    assert run(["reindex", *where]) == 0
    out = capsys.readouterr().out
    assert "flat (IDMap2,Flat), 300 vectors" in out and "20 vectors" in out
    assert run(["reindex", *where, "--kind", "nonsense"]) == 2
    assert run(["reindex", *where, "--space", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err
