"""Every kind of index against its contract; generations on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from index_contract import IndexContract, brute_force
from store_helpers import unit

from audiosearch.indexes import base, generations, gpu, spec, tune
from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.flat import FlatIndex
from audiosearch.indexes.gpu import TorchIndex
from audiosearch.indexes.hnsw import HnswIndex
from audiosearch.indexes.ivf import IvfIndex, IvfSq8Index
from audiosearch.indexes.pq import IvfPqIndex
from audiosearch.indexes.spec import Effort


class TestFlat(IndexContract):
    kind = FlatIndex


class TestFlatWide(IndexContract):
    """The dimension of alm2vec-mini, where FAISS takes other paths than for a small one."""

    kind = FlatIndex
    dim = 512


class TestFlatWithLargeIds(IndexContract):
    kind = FlatIndex
    first_id = 2**62 - 10_000


class TestHnsw(IndexContract):
    kind = HnswIndex
    exact = False
    effort = Effort(64, 256, 16)


class TestIvf(IndexContract):
    kind = IvfIndex
    exact = False
    effort = Effort(64, 64, 16)


class TestIvfWithLargeIds(TestIvf):
    first_id = 2**62 - 10_000


class TestIvfSq8(IndexContract):
    kind = IvfSq8Index
    exact = False
    effort = Effort(64, 64, 16)


class TestIvfPq(IndexContract):
    kind = IvfPqIndex
    exact = False
    effort = Effort(64, 64, 256)


class TestHnswWithLargeIds(TestHnsw):
    first_id = 2**62 - 10_000


class TestTorch(IndexContract):
    """The scan for a GPU, on the CPU."""

    kind = TorchIndex
    opens = "Kind.load(path, rows, 'cpu')"

    def made(self, sample, rows):
        return TorchIndex(self.dim, rows, "cpu")

    def load(self, path, rows):
        return TorchIndex.load(path, rows, "cpu")


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
    for change in (
        {"format": 99},
        {"kind": "other"},
        {"built": {"effort": {"depth": 3}}},
        {"built": 4},
        {"surprise": 1},
    ):
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
from audiosearch.indexes import base, generations, gpu, spec, tune
from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.flat import FlatIndex
from audiosearch.indexes.gpu import TorchIndex
from audiosearch.indexes.hnsw import HnswIndex
from audiosearch.indexes.ivf import IvfIndex, IvfSq8Index
from audiosearch.indexes.pq import IvfPqIndex
from audiosearch.indexes.spec import Effort
index = FlatIndex(24)
where = {{"write_index": faiss, "fsync": os, "rename": pathlib.Path}}["{at}"]
setattr(where, "{at}", lambda *_: os._exit(9))
generations.save(pathlib.Path(sys.argv[1]), index, space="space-one", commit_seq=2, commit_mark="")
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == 9
    assert [m.commit_seq for _, m in generations.manifests(tmp_path, "space-one")] == [1]
    saved(tmp_path, 10, 3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["gen-000001", "gen-000002"]


KINDS = {"flat": FlatIndex, **generations.APPROXIMATE}


@pytest.mark.parametrize("kind", generations.KINDS)
def test_a_generation_of_each_kind_comes_back_with_its_effort_and_measurement(tmp_path: Path, kind: str):
    ids, vectors = np.arange(400), unit(1, 400)
    index = generations.make(kind, 24, vectors, 400, lambda some: vectors[some])
    index.add(ids, vectors)
    measured = None
    if kind != "flat":
        measured = tune.Measured(Effort(7, 9, 33), {"text": 0.995, "audio": 1.0}, 0.5, True)
        index.effort = measured.effort
    built = generations.Built.of("a mark", kind, 400, 1.5, measured)
    generations.save(tmp_path, index, space="one", commit_seq=3, commit_mark="m", built=built)
    ((path, manifest),) = generations.manifests(tmp_path, "one")
    assert manifest.built == built and manifest.kind == kind
    again = generations.load(path, manifest, lambda some: vectors[some])
    assert type(again) is KINDS[kind]
    assert kind == "flat" or again.effort == Effort(7, 9, 33)
    for mine, its in zip(index.search(vectors[:5], 4), again.search(vectors[:5], 4), strict=True):
        np.testing.assert_array_equal(mine, its)
    # Without a source of rows it can be looked at.
    assert np.array_equal(generations.load(path, manifest).ids(), ids)
    # A manifest that names another kind than the file holds is not believed.
    other = "ivf" if kind != "ivf" else "hnsw"
    values = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**values, "kind": other}))
    assert generations.load(*generations.manifests(tmp_path, "one")[0]) is None


def test_a_manifest_of_before_there_were_kinds_is_a_flat_one(tmp_path: Path):
    path = saved(tmp_path, 10, 1)
    values = json.loads((path / "manifest.json").read_text())
    del values["kind"], values["built"]
    (path / "manifest.json").write_text(json.dumps(values))
    ((path, manifest),) = generations.manifests(tmp_path, "space-one")
    assert len(generations.load(path, manifest)) == 10


def clustered(seed: int, n: int, dim: int = 24) -> np.ndarray:
    """Unit rows around a few dozen centres."""
    random = np.random.default_rng(seed)
    rows = unit(0, 40, dim)[random.integers(40, size=n)] + 0.15 * random.standard_normal((n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", [HnswIndex, IvfIndex, IvfSq8Index, IvfPqIndex])
def test_tuning_finds_the_least_effort_that_is_enough(kind, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tune, "QUERIES", 60)
    monkeypatch.setattr(tune, "EXACT_ROWS", 0)
    monkeypatch.setattr(base, "EXACT_ROWS", 0)
    ids, vectors = np.arange(4000) + 5, clustered(1, 4000)
    index = kind.make(24, vectors[::2], 4000, lambda some: vectors[some - 5])
    index.add(ids, vectors)
    queries = {**tune.stand_ins(vectors), "own": clustered(2, 60)}
    assert set(queries) == {"near", "far", "own"} and np.allclose(np.linalg.norm(queries["far"], axis=1), 1)
    assert 0.35 < np.median(np.max(queries["far"] @ vectors.T, axis=1)) < 0.75
    judge = tune.Judge(queries, 4000)
    for first in range(0, 4000, 900):
        judge.see(ids[first : first + 900], vectors[first : first + 900])
    measured = tune.tune(index, judge, 0.85)
    assert index.effort == measured.effort
    assert set(measured.recall) == {f"{prefix}{name}" for name in queries for prefix in ("", "filtered ")}
    assert measured.reached and min(measured.recall.values()) >= 0.85
    # What it says is so: judged by brute force.
    _, true = brute_force(queries["own"], ids, vectors, 10)
    found = index.search(queries["own"], 10)[1]
    mean = np.mean([len(set(a) & set(b)) for a, b in zip(true, found, strict=True)]) / 10
    assert mean == pytest.approx(measured.recall["own"], abs=1e-9)
    index.effort = Effort(1, 1, 0)
    assert min(judge.recall(index).values()) < min(measured.recall.values()) or measured.effort.width == 1


@pytest.mark.parametrize("kind", [IvfIndex, IvfSq8Index])
def test_a_filter_that_leaves_what_is_unlike_the_query_keeps_recall(kind, monkeypatch: pytest.MonkeyPatch):
    """The lists nearest to the query are empty under it."""
    monkeypatch.setattr(base, "EXACT_ROWS", 0)
    ids, vectors, queries = np.arange(6000) + 5, clustered(1, 6000), clustered(2, 40)
    index = kind.make(24, vectors[::2], 6000, lambda some: vectors[some - 5])
    index.add(ids[:5000], vectors[:5000])
    index.effort = Effort(12, 12, 16)

    def recall(k: int = 10) -> float:
        found = []
        for query in queries:
            unlike = np.argsort(vectors[: len(index)] @ query)[: len(index) // 5]
            _, true = brute_force(query[None], ids[unlike], vectors[unlike], k)
            found.append(len(set(true[0]) & set(index.search(query[None], k, np.sort(ids[unlike]))[1][0])) / k)
        return float(np.mean(found))

    assert recall() == 1
    index.add(ids[5000:], vectors[5000:])  # and what it remembers of the lists follows
    assert recall() == 1
    monkeypatch.setattr(kind, "_left_out_nearby", ApproximateIndex._left_out_nearby)
    assert recall() < 0.6


def test_short_codes_are_looked_for_in_every_list_under_such_a_filter(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "EXACT_ROWS", 0)
    vectors, queries = clustered(1, 6000), clustered(2, 10)
    index = IvfPqIndex.make(24, vectors[::2], 6000, lambda some: vectors[some])
    index.add(np.arange(6000), vectors)
    for query in queries:
        unlike = np.sort(np.argsort(vectors @ query)[:1200])
        index.effort = Effort(12, 12, 64)
        found = index.search(query[None], 10, unlike)[1]
        index.effort = Effort(12, index.widest, 64)
        np.testing.assert_array_equal(found, index.search(query[None], 10, unlike)[1])


def test_the_judge_counts_equal_scores_as_found_and_copes_with_few_rows():
    vectors = np.repeat(unit(1, 1), 50, 0)
    index = IvfIndex.make(24, vectors, 50)
    index.add(np.arange(50), vectors)
    judge = tune.Judge({"same": unit(1, 1), "none": vectors[:0]}, 50)
    judge.see(np.arange(50), vectors)
    assert judge.recall(index) == {"same": 1.0}
    small = IvfIndex.make(24, unit(1, 4), 4)
    small.add(np.arange(4), unit(1, 4))
    judge = tune.Judge({"any": unit(2, 3)}, 4)
    judge.see(np.arange(4), unit(1, 4))
    assert judge.recall(small) == {"any": 1.0} and judge.share is None


def test_an_effort_that_is_not_worth_it_does_not_count_as_reached():
    """Directions without any structure: to find them a quarter of the lists is too few."""
    vectors = unit(1, 4000, 64)
    index = IvfIndex.make(64, vectors, 4000)
    index.add(np.arange(4000), vectors)
    judge = tune.Judge({"far": tune.stand_ins(vectors)["far"]}, 4000)
    judge.see(np.arange(4000), vectors)
    measured = tune.tune(index, judge)
    assert not measured.reached and measured.recall["far"] < 0.99


def test_kinds_by_number_of_vectors():
    assert spec.candidates(0) == spec.candidates(49_999) == ("flat",)
    for count in (50_000, 100_000, 1_000_000, 30_000_000):
        kinds = spec.candidates(count)
        assert kinds[-1] == "flat" and set(kinds) <= set(generations.KINDS) and len(kinds) > 1
    assert spec.lists(0, 0) == spec.lists(5, 1) == 1
    assert spec.lists(1_000_000, 10**6) == 4096 and spec.lists(1_000_000, 1000) == 100
    assert [spec.pq_parts(dim) for dim in (4, 24, 512, 1024, 17)] == [1, 3, 64, 128, 1]


def test_removed_vectors_wear_the_graph():
    index = HnswIndex.make(24, unit(1, 1), 100)
    index.add(np.arange(100), unit(1, 100))
    assert index.worn == 0
    index.remove(np.arange(30))
    index.remove(np.arange(30))
    assert index.worn == 0.3 and len(index) == 70


def test_codes_alone_are_no_index():
    with pytest.raises(ValueError, match="rows"):
        IvfPqIndex.make(24, unit(1, 300), 300)


def test_a_placed_copy_answers_and_follows(monkeypatch: pytest.MonkeyPatch):
    """No GPU here: the copy that FAISS would make on one is made in memory."""
    import faiss

    vectors = clustered(1, 600)
    index = IvfIndex.make(24, vectors, 600)
    index.add(np.arange(500), vectors[:500])
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert "no such GPU" in str(gpu.place(index)) and not index.is_placed
    expected = index.search(vectors[:20], 5)
    copies, asked = [], []

    class Copy:
        def __init__(self, inner):
            self.inner = faiss.clone_index(inner)

        def search(self, *arguments, **options):
            asked.append(1)
            return self.inner.search(*arguments, **options)

        def add_with_ids(self, *arguments):
            self.inner.add_with_ids(*arguments)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda _, n, inner: copies.append(Copy(inner)) or copies[-1])
    assert gpu.place(index) is None and index.is_placed
    for one, other in zip(expected, index.search(vectors[:20], 5), strict=True):
        np.testing.assert_array_equal(one, other)
    answered = len(asked)
    assert answered >= 20
    index.add(np.arange(500, 600), vectors[500:])
    assert index.search(vectors[550:551], 1)[1].tolist() == [[550]] and len(asked) > answered
    answered = len(asked)
    # A filter, and a depth that GPUs do not go to, are the index's own matter; a removal ends the loan.
    index.search(vectors[:1], 5, np.arange(9))
    monkeypatch.setattr(IvfIndex, "_placed_limit", lambda self: 10)
    index.search(vectors[:1], 11)
    assert len(asked) == answered
    index.remove(np.array([550]))
    assert not index.is_placed and index.search(vectors[550:551], 1)[1].tolist() != [[550]]

    def refuse(*_):
        raise RuntimeError("not this kind")

    monkeypatch.setattr(faiss, "index_cpu_to_gpu", refuse)
    assert "not this kind" in str(gpu.place(index)) and not index.is_placed


def test_the_torch_scan_is_exact_where_fp16_cannot_tell(tmp_path: Path):
    """Rows closer together than fp16's product resolves; more than the first candidates."""
    random = np.random.default_rng(0)
    vectors = unit(1, 1, 64) + 1e-4 * random.standard_normal((500, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    index = TorchIndex(64, lambda ids: vectors[ids], "cpu")
    index.add(np.arange(500), vectors)
    queries = unit(2, 5, 64)
    np.testing.assert_array_equal(index.search(queries, 10)[1], brute_force(queries, np.arange(500), vectors, 10)[1])
    assert gpu.has_room(10**12, 512, "cpu")
