"""What every kind of index owes, judged by brute force in NumPy. A test module makes a class of it for each kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from store_helpers import unit

from audiosearch.indexes.base import VectorIndex


def brute_force(queries: np.ndarray, ids: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The true answer: scores in float64, ordered by score as float32, then by id."""
    scores, found = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    for row, query in enumerate(queries):
        exact = np.array([np.dot(v, query) for v in vectors.astype(np.float64)]).astype(np.float32)
        order = sorted(range(len(ids)), key=lambda i: (-exact[i], ids[i]))[:k]
        scores[row, : len(order)], found[row, : len(order)] = exact[order], ids[order]
    return scores, found


class IndexContract:
    """Subclass with `kind`; set `exact` to False for kinds that may miss some."""

    kind: ClassVar[type]
    exact: ClassVar[bool] = True
    dim: ClassVar[int] = 24

    def make(self, ids: np.ndarray, vectors: np.ndarray) -> VectorIndex:
        index = self.kind(self.dim)
        index.add(ids, vectors)
        return index

    def check(self, index: VectorIndex, ids: np.ndarray, vectors: np.ndarray, k: int, queries: np.ndarray) -> None:
        scores, found = index.search(queries, k)
        assert scores.shape == found.shape == (len(queries), k)
        assert scores.dtype == np.float32 and found.dtype == np.int64
        true_scores, true_ids = brute_force(queries, ids, vectors, k)
        if self.exact:
            np.testing.assert_array_equal(found, true_ids)
            np.testing.assert_allclose(scores, true_scores, atol=1e-7)
            return
        hits = [len(set(a) & set(b)) for a, b in zip(found, true_ids, strict=True)]
        assert np.mean(hits) >= 0.8 * min(k, len(ids))

    def test_finds_the_best(self):
        ids, vectors = np.random.default_rng(1).permutation(5000)[:900], unit(1, 900, self.dim)
        index = self.make(ids, vectors)
        assert len(index) == 900
        for k in (1, 10, 200):
            self.check(index, ids, vectors, k, unit(2, 30, self.dim))

    def test_empty_and_small(self):
        index = self.kind(self.dim)
        scores, found = index.search(unit(1, 2, self.dim), 3)
        assert found.tolist() == [[-1] * 3] * 2 and np.all(scores == -np.inf)
        index.add(np.array([7, 3]), unit(1, 2, self.dim))
        scores, found = index.search(unit(2, 1, self.dim), 5)
        assert sorted(found[0, :2]) == [3, 7] and found[0, 2:].tolist() == [-1] * 3
        assert np.all(np.isfinite(scores[0, :2])) and np.all(scores[0, 2:] == -np.inf)

    def test_equal_scores_are_ordered_by_id(self):
        # Sixty copies of one vector, more than any margin, and a best and a worst one.
        vectors = np.repeat(unit(1, 1, self.dim), 62, 0)
        vectors[[10, 20]] = unit(5, 2, self.dim)
        ids = np.random.default_rng(2).permutation(1000)[:62]
        index = self.make(ids, vectors)
        for k in (1, 5, 30, 62):
            self.check(index, ids, vectors, k, np.concatenate([vectors[:1], vectors[[10, 20]], unit(6, 3, self.dim)]))

    def test_an_answer_does_not_depend_on_the_batch(self):
        ids, vectors = np.arange(700), unit(1, 700, self.dim)
        vectors[300:400] = vectors[:100]
        index, queries = self.make(ids, vectors), unit(2, 64, self.dim)
        scores, found = index.search(queries, 20)
        for row in (0, 13, 63):
            alone_scores, alone = index.search(queries[row : row + 1], 20)
            np.testing.assert_array_equal(alone[0], found[row])
            np.testing.assert_array_equal(alone_scores[0], scores[row])

    def test_adding_and_removing_show_at_once(self):
        rng = np.random.default_rng(3)
        vectors, queries = unit(1, 400, self.dim), unit(2, 5, self.dim)
        index, there = self.make(np.arange(200), vectors[:200]), set(range(200))
        for _ in range(4):
            gone = rng.permutation(sorted(there))[:60]
            index.remove(np.concatenate([gone, [9999]]))
            there -= set(gone.tolist())
            new = np.array(sorted(set(range(400)) - there))[-50:]
            index.add(new, vectors[new])
            there |= set(new.tolist())
            ids = np.array(sorted(there))
            assert len(index) == len(ids)
            self.check(index, ids, vectors[ids], 30, queries)
        index.remove(ids)
        assert len(index) == 0 and index.search(queries, 2)[1].tolist() == [[-1, -1]] * 5
        index.remove(np.array([], np.int64))

    @pytest.mark.parametrize("share", [0.0, 0.004, 0.1, 1.0])
    def test_only_allowed_ids_as_if_alone(self, share: float):
        ids, vectors, queries = np.arange(500) * 3, unit(1, 500, self.dim), unit(2, 8, self.dim)
        index = self.make(ids, vectors)
        some = np.sort(np.random.default_rng(4).permutation(500)[: int(500 * share)])
        scores, found = index.search(queries, 10, np.concatenate([ids[some], [1]]))
        true_scores, true_ids = brute_force(queries, ids[some], vectors[some], 10)
        np.testing.assert_array_equal(found, true_ids)
        np.testing.assert_allclose(scores, true_scores, atol=1e-7)

    def test_saved_and_loaded_in_another_process(self, tmp_path: Path):
        ids, vectors, queries = np.arange(300) * 2, unit(1, 300, self.dim), unit(2, 4, self.dim)
        index = self.make(ids, vectors)
        index.remove(ids[:20])
        index.save(tmp_path / "index")
        np.save(tmp_path / "queries.npy", queries)
        code = (
            f"import sys, numpy as np\nfrom {self.kind.__module__} import {self.kind.__name__} as Kind\n"
            "from pathlib import Path\nhere = Path(sys.argv[1])\nindex = Kind.load(here / 'index')\n"
            "scores, ids = index.search(np.load(here / 'queries.npy'), 12)\n"
            "np.savez(here / 'found.npz', scores=scores, ids=ids, n=len(index), dim=index.dim)\n"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
        found = np.load(tmp_path / "found.npz")
        assert (found["n"], found["dim"]) == (280, self.dim)
        scores, expected = index.search(queries, 12)
        np.testing.assert_array_equal(found["ids"], expected)
        np.testing.assert_array_equal(found["scores"], scores)
        # And it can be worked on.
        loaded = self.kind.load(tmp_path / "index")
        loaded.remove(ids[20:40])
        loaded.add(ids[:10], vectors[:10])
        kept = np.r_[0:10, 40:300]
        self.check(loaded, ids[kept], vectors[kept], 10, queries)

    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
    def test_a_file_that_is_not_whole_is_refused(self, tmp_path: Path, keep: float):
        path = tmp_path / "index"
        self.make(np.arange(50), unit(1, 50, self.dim)).save(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
        with pytest.raises(ValueError, match="index"):
            self.kind.load(path)
