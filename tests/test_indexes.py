"""Every kind of index against its contract; generations on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_contract import IndexContract
from store_helpers import unit

from audiosearch.indexes import generations
from audiosearch.indexes.flat import FlatIndex


class TestFlat(IndexContract):
    kind = FlatIndex


class TestFlatWide(IndexContract):
    """The dimension of alm2vec-mini, where FAISS takes other paths than for a small one."""

    kind = FlatIndex
    dim = 512


def saved(directory: Path, count: int, commit_seq: int, space: str = "space-one") -> Path:
    index = FlatIndex(24)
    index.add(np.arange(count), unit(1, count))
    return generations.save(directory, index, space=space, commit_seq=commit_seq, commit_mark=f"mark {commit_seq}")


def test_the_newest_and_the_one_before_are_kept(tmp_path: Path):
    assert generations.manifests(tmp_path / "none", "space-one") == []
    for number in (1, 2, 3, 4):
        saved(tmp_path / "space", 10 * number, number)
    assert [path.name for path in sorted((tmp_path / "space").iterdir())] == ["gen-000003", "gen-000004"]
    found = generations.manifests(tmp_path / "space", "space-one")
    assert [(m.commit_seq, m.count, m.commit_mark) for _, m in found] == [(4, 40, "mark 4"), (3, 30, "mark 3")]
    for path, manifest in found:
        index = generations.load(path, manifest)
        assert index is not None and len(index) == manifest.count
        assert manifest.factory == "IDMap2,Flat" and manifest.engine.startswith("faiss ")


def test_a_foreign_generation_is_passed_over(tmp_path: Path):
    saved(tmp_path, 10, 1)
    saved(tmp_path, 20, 2, space="space-two")
    assert [m.commit_seq for _, m in generations.manifests(tmp_path, "space-one")] == [1]
    path = saved(tmp_path, 20, 3)
    for change in ({"format": 99}, {"factory": "IDMap2,Other"}, {"surprise": 1}):
        values = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**values, **change}))
        assert generations.manifests(tmp_path, "space-one") == []
        (path / "manifest.json").write_text(json.dumps(values))
    assert len(generations.manifests(tmp_path, "space-one")) == 1


@pytest.mark.parametrize("harm", ["no manifest", "half a manifest", "no file", "short file", "one bit", "wrong count"])
def test_a_corrupt_generation_is_passed_over(tmp_path: Path, harm: str):
    path = saved(tmp_path, 10, 1)
    manifest, file = path / "manifest.json", path / "index.faiss"
    content = bytearray(file.read_bytes())
    if harm == "no manifest":
        manifest.unlink()
    elif harm == "half a manifest":
        manifest.write_text(manifest.read_text()[:40])
    elif harm == "no file":
        file.unlink()
    elif harm == "short file":
        file.write_bytes(content[:-1])
    elif harm == "one bit":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    else:
        manifest.write_text(manifest.read_text().replace('"count": 10', '"count": 11'))
    assert [generations.load(*each) for each in generations.manifests(tmp_path, "space-one")] in ([], [None])
    assert saved(tmp_path, 10, 2).name == "gen-000002"
    assert len(generations.manifests(tmp_path, "space-one")) <= 2
    assert generations.load(*generations.manifests(tmp_path, "space-one")[0]) is not None


@pytest.mark.parametrize("at", ["write_index", "fsync", "rename"])
def test_a_crash_while_saving_leaves_the_old_one(tmp_path: Path, at: str):
    saved(tmp_path, 10, 1)
    code = f"""
import os, sys, numpy as np, pathlib, faiss
from audiosearch.indexes import generations
from audiosearch.indexes.flat import FlatIndex
index = FlatIndex(24)
where = {{"write_index": faiss, "fsync": os, "rename": pathlib.Path}}["{at}"]
setattr(where, "{at}", lambda *_: os._exit(9))
generations.save(pathlib.Path(sys.argv[1]), index, space="space-one", commit_seq=2, commit_mark="")
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == 9
    assert [m.commit_seq for _, m in generations.manifests(tmp_path, "space-one")] == [1]
    saved(tmp_path, 10, 3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["gen-000001", "gen-000002"]
