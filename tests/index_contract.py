"""What every kind of index owes, judged by brute force in NumPy. A test module makes a class of it for each kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from store_helpers import unit

from audiosearch.indexes import base
from audiosearch.indexes.base import VectorIndex


def brute_force(queries: np.ndarray, ids: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The true answer: scores in float64, ordered by score as float32, then by id."""
    scores, found = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    for row, query in enumerate(queries):
        exact = np.array([np.dot(v, query) for v in vectors.astype(np.float64)]).astype(np.float32)
        order = sorted(range(len(ids)), key=lambda i: (-exact[i], ids[i]))[:k]
        scores[row, : len(order)], found[row, : len(order)] = exact[order], ids[order]
    return scores, found


class Shelf:
    """Full rows by id, as the shards keep them for kinds that hold codes; rows of removed ids stay."""

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}

    def put(self, ids: np.ndarray, vectors: np.ndarray) -> None:
        self.rows.update(zip(ids.tolist(), vectors, strict=True))

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        return np.array([self.rows[id_] for id_ in ids.tolist()], np.float32).reshape(len(ids), -1)


class IndexContract:
    """Subclass with `kind`; set `exact` to False for kinds that may miss some. An index is made by `made`."""

    kind: ClassVar[type[Any]]
    exact: ClassVar[bool] = True
    dim: ClassVar[int] = 24
    first_id: ClassVar[int] = 0
    effort: ClassVar[Any] = None  # for a kind that may miss some
    opens: ClassVar[str] = "Kind.load(path, rows)"  # how another process opens it

    def made(self, sample: np.ndarray, rows: Shelf) -> VectorIndex:
        """An empty index for about as many vectors as the sample has."""
        if self.exact:
            return self.kind(self.dim)
        index = self.kind.make(self.dim, sample, len(sample), rows)
        index.effort = self.effort
        return index

    def load(self, path: Path, rows: Shelf) -> VectorIndex:
        index = self.kind.load(path, rows)
        if not self.exact:
            index.effort = self.effort
        return index

    def empty(self, sample: np.ndarray) -> VectorIndex:
        """As `made`; what is added to it is on its shelf too."""
        shelf = Shelf()
        index = self.made(sample, shelf)
        added = index.add

        def add(ids: np.ndarray, vectors: np.ndarray) -> None:
            shelf.put(ids, vectors)
            added(ids, vectors)

        index.add = add  # type: ignore[method-assign]
        index.shelf = shelf  # type: ignore[attr-defined]
        return index

    def make(self, ids: np.ndarray, vectors: np.ndarray) -> VectorIndex:
        index = self.empty(vectors)
        index.add(ids + self.first_id, vectors)
        return index

    def check(self, index: VectorIndex, ids: np.ndarray, vectors: np.ndarray, k: int, queries: np.ndarray) -> None:
        scores, found = index.search(queries, k)
        found[found >= 0] -= self.first_id
        assert scores.shape == found.shape == (len(queries), k)
        assert scores.dtype == np.float32 and found.dtype == np.int64
        true_scores, true_ids = brute_force(queries, ids, vectors, k)
        if self.exact:
            np.testing.assert_array_equal(found, true_ids)
            np.testing.assert_allclose(scores, true_scores, atol=1e-7)
            return
        # As many as there are, in order, none twice, each with its true score, and most of the best.
        assert np.array_equal(np.isneginf(scores), np.isneginf(true_scores))
        by_id = {int(id_): vector for id_, vector in zip(ids, vectors, strict=True)}
        hits = 0
        for row, query in enumerate(queries):
            here = found[row][found[row] >= 0]
            assert len(set(here.tolist())) == len(here) == min(k, len(ids))
            kept = np.array([by_id[int(id_)] for id_ in here], np.float32).reshape(len(here), self.dim)
            np.testing.assert_allclose(scores[row][: len(here)], kept @ query, atol=1e-6)
            pairs = list(zip((-scores[row][: len(here)]).tolist(), here.tolist(), strict=True))
            assert pairs == sorted(pairs)
            hits += np.count_nonzero(scores[row] >= true_scores[row, min(k, len(ids)) - 1] - 1e-6)
        assert hits >= 0.8 * min(k, len(ids)) * len(queries)

    def test_finds_the_best(self):
        ids, vectors = np.random.default_rng(1).permutation(5000)[:900], unit(1, 900, self.dim)
        index = self.make(ids, vectors)
        assert len(index) == 900
        for k in (1, 10, 200):
            self.check(index, ids, vectors, k, unit(2, 30, self.dim))

    def test_empty_and_small(self):
        index = self.empty(unit(3, 40, self.dim)[:0])
        assert len(index) == 0 and index.ids().tolist() == []
        scores, found = index.search(unit(1, 2, self.dim), 3)
        assert found.tolist() == [[-1] * 3] * 2 and np.all(scores == -np.inf)
        index.add(np.array([7, 3]), unit(1, 2, self.dim))
        scores, found = index.search(unit(2, 1, self.dim), 5)
        assert sorted(found[0, :2]) == [3, 7] and found[0, 2:].tolist() == [-1] * 3
        assert np.all(np.isfinite(scores[0, :2])) and np.all(scores[0, 2:] == -np.inf)
        assert index.search(unit(2, 0, self.dim), 5)[1].shape == (0, 5)
        assert index.search(unit(2, 1, self.dim), 5, np.empty(0, np.int64))[1].tolist() == [[-1] * 5]
        assert index.search(unit(2, 1, self.dim), 5, np.array([7, 8]))[1].tolist() == [[7, -1, -1, -1, -1]]

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
        assert self.first_id == 0 or self.make(np.arange(3), vectors[:3]).ids().tolist() == [
            self.first_id + i for i in range(3)
        ]
        index, there = self.make(np.arange(200), vectors[:200]), set(range(200))
        for _ in range(4):
            gone = rng.permutation(sorted(there))[:60]
            index.remove(np.concatenate([gone, [9999]]) + self.first_id)
            there -= set(gone.tolist())
            new = np.array(sorted(set(range(400)) - there))[-50:]
            index.add(new + self.first_id, vectors[new])
            there |= set(new.tolist())
            ids = np.array(sorted(there))
            assert len(index) == len(ids)
            np.testing.assert_array_equal(index.ids(), ids + self.first_id)
            held = index.vectors(ids[::7] + self.first_id)
            assert np.all(np.sum(held * vectors[ids[::7]], axis=1) / np.linalg.norm(held, axis=1) > 1 - index.rounding)
            self.check(index, ids, vectors[ids], 30, queries)
        index.remove(ids + self.first_id)
        assert len(index) == 0 and index.search(queries, 2)[1].tolist() == [[-1, -1]] * 5
        index.remove(np.array([], np.int64))

    @pytest.mark.parametrize("share", [0.0, 0.004, 0.1, 1.0])
    def test_only_allowed_ids_as_if_alone(self, share: float):
        """So few are scanned, by every kind; whatever else is allowed that is not there."""
        ids, vectors, queries = np.arange(500) * 3, unit(1, 500, self.dim), unit(2, 8, self.dim)
        index = self.make(ids, vectors)
        some = np.sort(np.random.default_rng(4).permutation(500)[: int(500 * share)])
        index.remove(ids[some[:1]] + self.first_id)
        allowed = np.concatenate([ids[some], [1], ids[some[-1:]]]) + self.first_id
        scores, found = index.search(queries, 10, allowed)
        found[found >= 0] -= self.first_id
        true_scores, true_ids = brute_force(queries, ids[some[1:]], vectors[some[1:]], 10)
        np.testing.assert_array_equal(found, true_ids)
        np.testing.assert_allclose(scores, true_scores, atol=1e-7)

    @pytest.mark.parametrize("share", [0.08, 0.5, 1.0])
    def test_a_wide_filter(self, share: float, monkeypatch: pytest.MonkeyPatch):
        """So many that the index's own search has to leave out the others."""
        monkeypatch.setattr(base, "EXACT_ROWS", 0)
        ids, vectors, queries = np.arange(900) * 3, unit(1, 900, self.dim), unit(2, 8, self.dim)
        index = self.make(ids, vectors)
        some = np.sort(np.random.default_rng(4).permutation(900)[: int(900 * share)])
        index.remove(ids[some[:5]] + self.first_id)
        kept = some[5:]
        for k in (10, 300, 1000):
            scores, found = index.search(queries, k, ids[some] + self.first_id)
            true_scores, true_ids = brute_force(queries, ids[kept], vectors[kept], k)
            if self.exact:
                np.testing.assert_array_equal(np.where(found < 0, found, found - self.first_id), true_ids)
            assert np.array_equal(np.isneginf(scores), np.isneginf(true_scores))
            assert set(found.ravel().tolist()) <= {-1, *(ids[kept] + self.first_id).tolist()}
            assert (
                np.mean(scores >= true_scores[:, min(k, len(kept)) - 1 :][:, :1] - 1e-6) >= 0.8 * min(k, len(kept)) / k
            )

    def test_saved_and_loaded_in_another_process(self, tmp_path: Path):
        ids, vectors, queries = np.arange(300) * 2, unit(1, 300, self.dim), unit(2, 4, self.dim)
        index = self.make(ids, vectors)
        index.remove(ids[:20] + self.first_id)
        index.save(tmp_path / "index")
        np.savez(tmp_path / "given.npz", queries=queries, ids=ids + self.first_id, vectors=vectors)
        code = (
            f"import sys, numpy as np\nfrom {self.kind.__module__} import {self.kind.__name__} as Kind\n"
            "from audiosearch.indexes.spec import Effort\n"
            "from pathlib import Path\nhere = Path(sys.argv[1])\ngiven = np.load(here / 'given.npz')\n"
            "rows = lambda some: given['vectors'][np.searchsorted(given['ids'], some)]\n"
            f"path = here / 'index'\nindex = {self.opens}\n"
            f"index.effort = {self.effort!r}\n"
            "scores, ids = index.search(given['queries'], 12)\n"
            "np.savez(here / 'found.npz', scores=scores, ids=ids, n=len(index), dim=index.dim)\n"
        )
        subprocess.run([sys.executable, "-c", code, tmp_path], check=True)
        found = np.load(tmp_path / "found.npz")
        assert (found["n"], found["dim"]) == (280, self.dim)
        scores, expected = index.search(queries, 12)
        np.testing.assert_array_equal(found["ids"], expected)
        np.testing.assert_array_equal(found["scores"], scores)
        # And it can be worked on.
        loaded = self.load(tmp_path / "index", index.shelf)  # type: ignore[attr-defined]
        assert loaded.factory == index.factory
        loaded.remove(ids[20:40] + self.first_id)
        loaded.add(ids[:10] + self.first_id, vectors[:10])
        kept = np.r_[0:10, 40:300]
        self.check(loaded, ids[kept], vectors[kept], 10, queries)

    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
    def test_a_file_that_is_not_whole_is_refused(self, tmp_path: Path, keep: float):
        path = tmp_path / "index"
        self.make(np.arange(50), unit(1, 50, self.dim)).save(path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
        with pytest.raises(ValueError, match="index"):
            self.load(path, Shelf())
