"""The live index equals the store at every moment, however it got there."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from index_contract import brute_force
from store_helpers import DIM, chunks, file_record, key, spec, unit, whole

from audiosearch import index_cache
from audiosearch.errors import LibraryError
from audiosearch.indexes import base, generations, tune
from audiosearch.indexes import spec as kinds
from audiosearch.indexes.flat import FlatIndex
from audiosearch.store.records import CommitBatch
from audiosearch.store.store import Store


@pytest.fixture
def store(tmp_path: Path):
    with Store.create(tmp_path / "library") as made:
        made.add_space(spec())
        made.add_root("/data")
        yield made


def check(live: index_cache.LiveIndex, store: Store, k: int = 15) -> None:
    """The index answers as brute force over what the store has."""
    changes = store.changes_since(live.space.id, 0)
    vectors = store.vectors_at(live.space.id, changes.shards, changes.rows)
    queries = unit(99, 6)
    scores, ids = live.search(queries, k)
    true_scores, true_ids = brute_force(queries, changes.added_ids, vectors, k)
    np.testing.assert_array_equal(ids, true_ids)
    np.testing.assert_allclose(scores, true_scores, atol=1e-7)
    assert len(live) == len(changes.added_ids) and live.seq == store.max_seq(live.space.id)


def add(store: Store, name: str, n: int, seed: int, path: str | None = None) -> None:
    store.commit(1, whole(1, name, list(unit(seed, n)), path=path))


def test_it_follows_commits_and_deletions(store: Store):
    live = index_cache.open_index(store, store.default_space())
    check(live, store)
    assert not live.refresh()
    add(store, "rain", 20, 1, path="a.wav")
    assert len(live) == 0 and live.refresh() and not live.refresh()
    check(live, store)
    add(store, "wind", 30, 2, path="a.wav")  # replaces it
    assert live.refresh()
    check(live, store)
    assert live.search(unit(1, 1), 60)[1].max() == 50
    # Added and deleted between two looks; and a sound that comes back under new ids.
    add(store, "sea", 5, 3, path="b.wav")
    store.commit(1, CommitBatch(files=[file_record(1, "b.wav", "wind")]))
    store.commit(1, whole(1, "rain", [None] * 20, path="c.wav"))
    assert live.refresh()
    check(live, store, k=80)


def test_another_space_does_not_show(store: Store):
    store.add_space(spec("space-two"))
    add(store, "rain", 4, 1)
    live = index_cache.open_index(store, store.default_space())
    assert len(live) == 4
    store.commit(2, whole(1, "rain", list(unit(2, 4))))
    assert not live.refresh()
    check(live, store)


def test_a_generation_is_caught_up(store: Store):
    add(store, "rain", 20, 1, path="a.wav")
    add(store, "wind", 20, 2)
    assert index_cache.save_generation(store, store.default_space(), force=True)
    add(store, "sea", 20, 3, path="a.wav")
    with Store.open(store.directory) as reader:
        before = sorted(reader.directory.rglob("*"))
        check(index_cache.open_index(reader, reader.default_space()), reader)
        assert sorted(reader.directory.rglob("*")) == before
    # It was the generation that was used, not the shards alone.
    read = []
    original = store.vectors_at
    store.vectors_at = lambda space, shards, rows: read.append(len(rows)) or original(space, shards, rows)
    assert len(index_cache.open_index(store, store.default_space())) == 40
    assert read == [20]


def test_a_generation_is_saved_when_it_is_worth_it(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index_cache, "_WORTH_SAVING", 10)
    space = store.default_space()
    assert not index_cache.save_generation(store, space)
    add(store, "rain", 9, 1)
    assert not index_cache.save_generation(store, space)
    add(store, "wind", 200, 2)
    assert index_cache.save_generation(store, space) and not index_cache.save_generation(store, space)
    add(store, "sea", 19, 3)  # under a tenth
    assert not index_cache.save_generation(store, space)
    add(store, "fire", 2, 4)
    assert index_cache.save_generation(store, space)
    assert [m.count for _, m in generations.manifests(store.directory / "indexes/space-one", "space-one")] == [230, 209]


@pytest.mark.parametrize("harm", ["flipped", "gone", "other dimension"])
def test_a_bad_cache_is_rebuilt_silently(store: Store, harm: str):
    add(store, "rain", 30, 1)
    index_cache.save_generation(store, store.default_space(), force=True)
    path = store.directory / "indexes/space-one/gen-000001"
    if harm == "flipped":
        content = bytearray((path / "index.faiss").read_bytes())
        content[-9] ^= 0x40
        (path / "index.faiss").write_bytes(content)
    elif harm == "gone":
        shutil.rmtree(store.directory / "indexes")
    else:
        shutil.rmtree(path)
        wide = FlatIndex(DIM + 1)
        generations.save(path.parent, wide, space="space-one", commit_seq=1, commit_mark=store.commit_mark(1, 1))
    check(index_cache.open_index(store, store.default_space()), store)


def test_a_generation_of_another_history_is_not_used(store: Store, tmp_path: Path):
    """The library was restored from an older backup and used on, but its index folder was not."""
    add(store, "rain", 10, 1)
    store.close()
    shutil.copytree(store.directory, tmp_path / "backup")
    with Store.open(store.directory, write=True) as again:
        add(again, "wind", 10, 2)
        index_cache.save_generation(again, again.default_space(), force=True)
    shutil.copytree(store.directory / "indexes", tmp_path / "backup/indexes")
    with Store.open(tmp_path / "backup", write=True) as restored:
        check(index_cache.open_index(restored, restored.default_space()), restored)  # from the future
        add(restored, "sea", 10, 3)
        check(index_cache.open_index(restored, restored.default_space()), restored)  # as many, of the same number


def test_an_error_while_catching_up_leaves_no_half(store: Store, monkeypatch: pytest.MonkeyPatch):
    add(store, "rain", 10, 1, path="a.wav")
    live = index_cache.open_index(store, store.default_space())
    check(live, store)
    add(store, "wind", 10, 2, path="a.wav")
    monkeypatch.setattr(index_cache, "BLOCK", 4)
    original, calls = store.vectors_at, []

    def fail_once(space, shards, rows):
        calls.append(1)
        if len(calls) == 2:
            raise LibraryError("a shard cannot be read")
        return original(space, shards, rows)

    monkeypatch.setattr(store, "vectors_at", fail_once)
    with pytest.raises(LibraryError):
        live.refresh()
    check(live, store)


def test_threads_search_while_it_grows(store: Store):
    live = index_cache.open_index(store, store.default_space())
    vectors, errors, stop = unit(1, 200), [], threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                live.refresh()
                ids = live.search(vectors[:5], 10)[1]
                assert np.all(np.sort(ids[ids >= 0]) > 0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for each in threads:
        each.start()
    for first in range(0, 200, 10):
        store.commit(1, whole(1, f"r{first}", list(vectors[first : first + 10])))
    stop.set()
    for each in threads:
        each.join()
    live.refresh()
    assert not errors
    check(live, store)
    # Every vector is its own nearest neighbour.
    assert live.search(vectors, 1)[1][:, 0].tolist() == list(range(1, 201))


def test_faiss_comes_with_the_first_search(store: Store):
    add(store, "rain", 3, 1)
    code = (
        "import sys, numpy as np\nfrom audiosearch.store.store import Store\n"
        "from audiosearch.index_cache import open_index\n"
        "with Store.open(sys.argv[1]) as store:\n"
        "    live = open_index(store, store.default_space())\n"
        "    assert 'faiss' not in sys.modules\n"
        f"    live.search(np.eye(1, {DIM}, dtype=np.float32), 1)\n"
        "    assert 'faiss' in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, store.directory], check=True)


def test_equal_sounds_are_ordered_by_id(store: Store):
    add(store, "rain", 3, 1)
    for name in ("copy one", "copy two"):
        shared = [each.__class__(key(name), each.start_seconds, each.end_seconds, key("sound", "rain", i), False)
                  for i, each in enumerate(chunks(name, [None] * 3))]  # fmt: skip
        batch = whole(1, name, [])
        store.commit(1, CommitBatch(batch.recordings, shared, batch.finished, batch.files))
    live = index_cache.open_index(store, store.default_space())
    scores, ids = live.search(unit(1, 3)[1:2], 3)
    assert ids.tolist() == [[2, 5, 8]] and len(set(scores[0].tolist())) == 1
    check(live, store)


@pytest.fixture
def _few_questions(monkeypatch: pytest.MonkeyPatch):
    """Measured roughly, and quickly."""
    monkeypatch.setattr(tune, "QUERIES", 15)


def clustered(seed: int, n: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = unit(0, 12)[random.integers(12, size=n)] + 0.1 * random.standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def roughly(live: index_cache.LiveIndex, store: Store, k: int = 10) -> None:
    """The index is of what the store has, finds most of the best, with their true scores."""
    changes = store.changes_since(live.space.id, 0)
    vectors = store.vectors_at(live.space.id, changes.shards, changes.rows)
    queries = clustered(99, 20)
    scores, ids = live.search(queries, k)
    true_scores, _ = brute_force(queries, changes.added_ids, vectors, k)
    assert len(live) == len(changes.added_ids) and live.seq == store.max_seq(live.space.id)
    assert set(ids.ravel().tolist()) <= set(changes.added_ids.tolist())
    assert np.mean(scores >= true_scores[:, -1:] - 1e-6) >= 0.9


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf", "ivf-sq8", "ivf-pq"])
@pytest.mark.usefixtures("_few_questions")
def test_a_rebuilt_index_of_each_kind_goes_on_living(store: Store, kind: str):
    store.commit(1, whole(1, "a", list(clustered(1, 600)), path="a.wav"))
    live = index_cache.open_index(store, store.default_space())
    check(live, store)
    steps = []
    built = index_cache.rebuild(
        store, store.default_space(), kind, queries={"own": clustered(2, 30)}, progress=steps.append
    )
    assert (built.kind, built.vectors, built.space) == (kind, 600, "space-one")
    assert steps[-1].total in (0, 600) and f"filling {kind}" in {step.step for step in steps}
    assert kind == "flat" or (set(built.recall) == {"near", "far", "own"} and built.effort["width"] >= 1)
    # The running reader goes over to it with the next question, and both it and a new one follow what comes.
    live.refresh()
    assert type(live._index).__name__.lower().startswith(kind.replace("-", ""))
    roughly(live, store)
    store.commit(1, whole(1, "b", list(clustered(3, 200)), path="a.wav"))  # replaces it
    store.commit(1, whole(1, "c", list(clustered(4, 200)), path="c.wav"))
    assert live.refresh()
    roughly(live, store)
    roughly(index_cache.open_index(store, store.default_space()), store)
    # What the writer saves from now on is of that kind, as it was built.
    assert index_cache.save_generation(store, store.default_space(), force=True)
    newest = generations.manifests(store.directory / "indexes/space-one", "space-one")[0][1]
    if kind != "hnsw":  # of which too much was removed: it was built again
        assert newest.built.mark == live.built.mark
    assert (newest.kind, newest.count, newest.built.wanted) == (kind, 400, kind)
    assert not index_cache.check(store).bad


@pytest.mark.usefixtures("_few_questions")
def test_a_worn_graph_is_built_again(store: Store):
    store.commit(1, whole(1, "a", list(clustered(1, 60)), path="a.wav"))
    store.commit(1, whole(1, "b", list(clustered(2, 60)), path="b.wav"))
    index_cache.rebuild(store, store.default_space(), "hnsw")
    before = index_cache.open_index(store, store.default_space())
    assert len(before) == 120 and not before.worn
    store.commit(1, whole(1, "c", list(clustered(3, 9)), path="a.wav"))
    before.refresh()
    assert before.worn
    assert index_cache.save_generation(store, store.default_space(), force=True)
    after = index_cache.open_index(store, store.default_space())
    assert len(after) == 69 and not after.worn and after.built.mark != before.built.mark


@pytest.mark.usefixtures("_few_questions")
def test_auto_takes_the_kind_that_suits_and_keeps_what_it_measured(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kinds, "FLAT_ROWS", 500)
    monkeypatch.setattr(tune, "_WORTH", 1.0)  # whatever it takes
    monkeypatch.setattr(index_cache, "_WORTH_SAVING", 10)
    add(store, "few", 100, 1)
    assert index_cache.rebuild(store, store.default_space()).kind == "flat"
    store.commit(1, whole(1, "a", list(clustered(1, 900))))
    assert index_cache.save_generation(store, store.default_space())  # grown out of the flat one
    directory = store.directory / "indexes/space-one"
    first = generations.manifests(directory, "space-one")[0][1]
    assert first.kind == "ivf" and first.factory.startswith("IVF") and first.built.trained_on == 1000
    assert min(first.built.recall.values()) >= 0.99 and first.built.effort["width"] >= 1
    # A little more is added to what was trained; twice as much is trained again.
    store.commit(1, whole(1, "b", list(clustered(2, 300))))
    assert index_cache.save_generation(store, store.default_space())
    assert generations.manifests(directory, "space-one")[0][1].built == first.built
    store.commit(1, whole(1, "c", list(clustered(3, 700))))
    assert index_cache.save_generation(store, store.default_space())
    assert generations.manifests(directory, "space-one")[0][1].built.trained_on == 2000


@pytest.mark.usefixtures("_few_questions")
def test_auto_ends_with_the_exact_kind_where_no_other_finds_enough(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Directions without structure, of which an index by parts finds no tenth without looking everywhere."""
    monkeypatch.setattr(kinds, "FLAT_ROWS", 500)
    add(store, "noise", 900, 1)
    built = index_cache.rebuild(store, store.default_space())
    assert (built.kind, built.recall, built.effort) == ("flat", {}, None)
    assert not index_cache.save_generation(store, store.default_space())
    with pytest.raises(ValueError, match="ivf-pq"):
        index_cache.rebuild(store, store.default_space(), "annoy")


@pytest.mark.usefixtures("_few_questions")
def test_an_empty_space_can_be_indexed(store: Store):
    for kind in ("auto", "ivf-pq", "hnsw"):
        assert index_cache.rebuild(store, store.default_space(), kind).vectors == 0
        live = index_cache.open_index(store, store.default_space())
        assert live.search(unit(1, 1), 3)[1].tolist() == [[-1] * 3]


@pytest.mark.usefixtures("_few_questions")
def test_readers_go_on_while_generations_are_swapped(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "EXACT_ROWS", 0)
    vectors = clustered(1, 400)
    store.commit(1, whole(1, "a", list(vectors)))
    stored = store.vectors(1, np.arange(1, 401))
    live = index_cache.open_index(store, store.default_space())
    live.refresh()
    errors, stop, asked = [], threading.Event(), []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            while not stop.is_set():
                with store.snapshot():
                    live.refresh()
                    which = int(random.integers(400))
                    scores, ids = live.search(stored[which : which + 1], 3)
                    assert ids[0, 0] == which + 1 or scores[0, 0] > 0.999999
                    asked.append(which)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(3)]
    for each in threads:
        each.start()
    marks = set()
    for kind in ("ivf", "hnsw", "flat", "ivf-sq8"):
        index_cache.rebuild(store, store.default_space(), kind)
        live.refresh()
        marks.add(live.built.mark)
    stop.set()
    for each in threads:
        each.join()
    assert not errors and asked
    live.refresh()
    assert live.built.wanted == "ivf-sq8" and len(marks) > 1


def test_on_a_device_the_shards_are_scanned(store: Store):
    add(store, "rain", 30, 1, path="a.wav")
    live = index_cache.LiveIndex(store, store.default_space(), device="cpu")
    check(live, store)
    add(store, "wind", 30, 2, path="a.wav")
    add(store, "sea", 30, 3)
    assert live.refresh()
    check(live, store)
    assert type(live._index).__name__ == "TorchIndex"
