"""The query language through the public face: terms, filters, earlier hits, one file, threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy

from audiosearch import Hit, Library, Moment, Query
from audiosearch.errors import QuerySyntaxError, UsageError
from audiosearch.library import Models

HAND = Models(toy.description, lambda name, **_: toy.HandEmbedder())
LOW, HIGH, HISS = 100.0, 3000.0, 7000.0


def layer(seconds: float, *frequencies: float) -> np.ndarray:
    return sum((toy.tone(each, seconds, level=0.2) for each in frequencies), np.zeros(int(seconds * 16000), np.float32))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    (folder / "field").mkdir()
    toy.write_wav(folder / "low.wav", layer(3.0, LOW))
    toy.write_wav(folder / "low and high.wav", layer(3.0, LOW, HIGH))
    toy.write_wav(folder / "high.wav", layer(4.0, HIGH))
    toy.write_wav(folder / "field/hiss.wav", layer(6.0, HISS))
    toy.write_wav(folder / "field/long.wav", np.concatenate([layer(22, LOW), layer(11, HIGH), layer(22, HISS)]))
    return folder


@pytest.fixture
def library(sounds: Path, tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library", create=True, models=HAND) as library:
        library.ingest([sounds], workers=1)
        yield library


def names(hits: tuple[Hit, ...]) -> list[str]:
    return [Path(hit.path).name for hit in hits]


def test_terms_are_added_and_left_out(library: Library):
    short = "-path:field"
    assert names(library.query("hum", filter=short, k=2).hits) == ["low.wav", "low and high.wav"]
    assert names(library.query("hum + whistle", filter=short, k=1).hits) == ["low and high.wav"]
    assert names(library.query("hum - whistle", filter=short).hits)[0] == "low.wav"
    assert names(library.query("hum - whistle", filter=short).hits)[-1] == "high.wav"
    heavy, light = (library.query(f'"hum" + {weight}*"whistle"', filter=short).hits[0] for weight in (9, 0.1))
    assert (names((heavy,)), names((light,))) == (["high.wav"], ["low.wav"])
    with pytest.raises(UsageError, match="cancel each other out"):
        library.query("hum - hum")
    with pytest.raises(QuerySyntaxError) as error:
        library.query('hum + "whistle')
    assert error.value.position == 6


def test_sounds_are_terms_too(library: Library, sounds: Path, tmp_path: Path):
    toy.write_wav(tmp_path / "example.wav", np.concatenate([layer(5, HISS), layer(5, LOW)]))
    first = library.query(f"{tmp_path}/example.wav@0-5", filter="-path:field/long.wav", k=1)
    assert names(first.hits) == ["hiss.wav"]
    second = library.query(f"{tmp_path}/example.wav@5- - hiss", filter="-path:field/long.wav", k=1)
    assert names(second.hits) == ["low.wav"]
    with pytest.raises(UsageError, match="heard together"):
        library.query("hum + whistle", audio=sounds / "low.wav")


def test_an_earlier_hit_is_an_example(library: Library, sounds: Path):
    (hit,) = library.query("hiss", k=1, filter="path:field/hiss.wav").hits
    again = library.query(f"hit:{hit.id[:6]}", k=1)
    assert (again.hits[0].path, again.hits[0].score) == (hit.path, pytest.approx(1.0, abs=1e-5))
    other = library.similar(hit.id[:5], k=1)
    assert names(other.hits) == ["long.wav"] and other.hits[0].end_seconds > 35
    without = library.query(f"hiss - hit:{hit.id}", filter="path:field/hiss.wav, path:*low.wav", names="off")
    assert names(without.hits)[-1] == "hiss.wav"
    (long,) = library.query("hum", k=1, filter="path:field/long.wav").hits
    assert names(library.query(f"hit:{long.id}@22-32", k=1, by="file", filter="-path:field").hits) == ["high.wav"]
    with pytest.raises(UsageError, match="no hit 0000 was shown"):
        library.query("hit:0000")
    elsewhere = sounds.with_name("elsewhere")
    sounds.rename(elsewhere)
    try:
        offline = library.query(f"hit:{hit.id}", k=1)
        assert offline.hits[0].path == hit.path
        assert "searched by its stored vector" in offline.notes[0]
        with pytest.raises(UsageError, match="cannot be read"):
            library.query(f"hit:{hit.id}", k=1, instruction="low")
    finally:
        elsewhere.rename(sounds)


def test_a_filter_shows_the_file_that_fits_and_follows_the_library(library: Library, sounds: Path, tmp_path: Path):
    for _ in range(2):  # the second time as remembered
        assert names(library.query("hum", filter="name:low*").hits) == ["low.wav", "low and high.wav"]
    copies = tmp_path / "copies"
    copies.mkdir()
    (copies / "low twin.wav").write_bytes((sounds / "low.wav").read_bytes())
    (copies / "low new.wav").write_bytes((sounds / "high.wav").read_bytes())
    with Library.open(library.directory, models=HAND) as writer:
        assert writer.ingest([copies], workers=1).recordings_shared == 2
    assert sorted(names(library.query("hum", filter="name:low*").hits)) == [
        "low and high.wav", "low new.wav", "low.wav",
    ]  # fmt: skip
    assert names(library.query("hum", filter="name:twin").hits) == ["low twin.wav"]
    nothing = library.query("hum", filter="tag:snow")
    assert nothing.hits == () and nothing.notes == ("no sound in the library fits the filter tag:snow",)
    library.label(library.query("hum", k=1, filter="name:twin").hits[0], True, "deep")
    assert "low twin.wav" in names(library.query("hum", filter="label:deep name:twin").hits)


def test_hits_by_file_merged_gaps_and_all_of_them(library: Library, sounds: Path):
    only = "path:field/long.wav"
    assert len(library.query("noise", filter=only).hits) > 1
    assert len(library.query("noise", filter=only, by="file").hits) == 1
    assert len(library.query("noise", filter=only, merge_gap_seconds=60.0).hits) <= len(
        library.query("noise", filter=only).hits
    )
    everything = library.query("noise", k=100).hits
    assert list(library.iterate("noise", k=2)) == list(everything)
    moments = library.moments(sounds / "field/long.wav", "hiss")
    assert all(isinstance(each, Moment) for each in moments)
    assert [each.start_seconds for each in moments] == sorted(each.start_seconds for each in moments)
    best = max(moments, key=lambda each: each.score)
    assert best.start_seconds >= 30 and best.end_seconds == 55
    curve = library.curve(sounds / "field/long.wav", "hiss")
    assert (curve[0][0], curve[-1][1]) == (0.0, 55.0)
    assert max(curve, key=lambda each: each[2])[0] >= 35
    with pytest.raises(UsageError, match="is not in this library"):
        library.moments(sounds / "absent.wav", "hiss")


def test_refined_hits_have_the_ends_of_the_sound(library: Library):
    chunk = library.query("whistle", filter="path:field/long.wav", k=1).hits[0]
    (hit,) = library.query("whistle", filter="path:field/long.wav", k=1, refine=True, budget_seconds=600).hits
    assert hit.id != chunk.id
    assert (hit.start_seconds, hit.end_seconds) == (pytest.approx(22, abs=1), pytest.approx(33, abs=1))
    (same,) = library.query("whistle", filter="path:field/long.wav", k=1, refine=True, budget_seconds=0).hits
    assert same == chunk


def test_names_count_beside_the_sound(library: Library, sounds: Path):
    answer = library.query("low and high", k=5)
    first = answer.hits[0]
    assert (Path(first.path).name, first.matched) == ("low and high.wav", ("sound", "name: low high"))
    off = library.query("low and high", k=5, names="off")
    assert all(each.matched == ("sound",) for each in off.hits)
    whistle = library.query("whistle - hiss", names="off", k=10).hits
    assert whistle == library.query("whistle - hiss", k=10).hits, "nothing is called so: the sound decides"
    hiss = library.query("field rumble", names="any", k=10).hits
    assert any("folder: field" in each.matched for each in hiss)
    copy = sounds / "a thunderstorm over the bay.wav"
    copy.write_bytes((sounds / "high.wav").read_bytes())
    try:
        with Library.open(library.directory, models=HAND) as writer:
            writer.ingest([sounds], workers=1)
        (hit,) = library.query("thunderstorm", k=1).hits
        assert (hit.path, hit.matched) == (str(copy), ("sound", "name: thunderstorm"))
        heard = library.query("thunderstorm", k=1, instruction="low", budget_seconds=600).hits
        assert heard[0].matched == ("sound",), "under an instruction the sound alone is judged"
    finally:
        copy.unlink()
    (kept,) = library.query("low and high", k=1, min_confidence=1.0).hits
    assert kept == first, "a name is a reason of its own"


def test_labels_move_the_search(library: Library):
    hits = {Path(hit.path).name: hit for hit in library.query("noise", by="file", k=10).hits}
    before = [Path(hit.path).name for hit in library.query("noise", by="file", k=10).hits]
    library.label(hits["high.wav"], True, "target")
    library.label(hits["hiss.wav"], False, "target")
    after = [Path(hit.path).name for hit in library.query("noise", by="file", k=10, learn="target").hits]
    assert after.index("high.wav") <= before.index("high.wav") and after.index("hiss.wav") > after.index("high.wav")
    assert [Path(hit.path).name for hit in library.query("noise", by="file", k=10).hits] == before
    assert "nothing in this space was labelled about 'snow'" in library.query("noise", learn="snow").notes[0]


def test_what_scores_are_worth(library: Library, sounds: Path):
    (hit,) = library.query("hum", k=1).hits
    assert hit.confidence is not None and hit.false_alarm_rate is not None and hit.percentile is not None
    assert 0.99 < hit.confidence <= 1 and hit.confidence == pytest.approx(1 - hit.false_alarm_rate)
    ranked = library.query("hum", k=10).hits
    assert [each.confidence for each in ranked] == sorted((each.confidence for each in ranked), reverse=True)  # type: ignore[type-var]
    for asked in ({"text": "hum - whistle"}, {"audio": sounds / "low.wav"}, {"text": "hum", "instruction": "low"}):
        assert library.query(**asked, k=1, budget_seconds=600).hits[0].confidence is not None
    weak = library.query("something unheard of", k=1).hits[0].confidence
    assert weak is not None and weak < hit.confidence
    none = library.query("something unheard of", min_confidence=(weak + hit.confidence) / 2)
    assert none.hits == () and "the best hit has a confidence of" in none.notes[0]
    least = ranked[len(ranked) // 2].confidence
    expected = tuple(each for each in ranked if each.confidence >= least)
    some = library.query("hum", k=10, min_confidence=least)
    assert some.hits == expected
    (Path(library.directory) / "indexes" / some.space / "background.npz").unlink()
    with Library.open(library.directory, models=HAND) as reader:
        assert reader.query("hum", k=1).hits[0].confidence is None
        assert reader.query("hum", k=10, min_confidence=least).hits == expected


def test_what_explain_tells(library: Library):
    answer = library.query("hum", k=2, instruction="high", filter="-path:field", explain=True)
    assert answer.explanation is not None and answer.filter == "-path:field"
    told = answer.explanation
    assert (told.allowed, told.index, told.model) == (3, "Flat", "hand") or told.index
    assert [each.path for each in told.candidates[:2]] == [hit.path for hit in answer.hits]
    assert all(each.reread_score is not None for each in told.candidates)
    assert told.candidates[0].hit == answer.hits[0].id
    assert {"embed the query", "search", "filter", "hear again"} <= told.seconds.keys()
    assert library.query("hum", instruction="high", rerank=0, k=1).reread == 0
    stopped = library.query("hum", instruction="high", k=1, cancelled=lambda: True)
    assert stopped.reread == 0 and stopped.not_reread and stopped.hits


def test_a_query_is_a_value(library: Library):
    query = Query("hum", filter="-path:field", k=1)
    assert library.query(query) == library.query("hum", filter="-path:field", k=1)
    assert len(library.query(query, k=2).hits) == 2
    assert (str(query), query.kind) == ("hum", ((1.0, "text"),))


def test_many_threads_get_the_answers_of_one(library: Library, sounds: Path):
    """Each asks everything, in another order, and all at once; the first use loads index and model."""
    asked = [
        {"text": "hum"}, {"text": "hum - whistle", "filter": "-path:field"}, {"audio": os.fspath(sounds / "high.wav")},
        {"text": "hiss", "instruction": "high", "budget_seconds": 600.0}, {"text": "noise", "by": "file"},
    ]  # fmt: skip
    with Library.open(library.directory, models=HAND) as alone:
        expected = [alone.query(**each).hits for each in asked]
    found: list[list[tuple[Hit, ...]]] = [[] for _ in range(8)]

    def ask(number: int) -> None:
        for step in range(len(asked)):
            found[number].append(library.query(**asked[(number + step) % len(asked)]).hits)

    with Library.open(library.directory, models=HAND) as library:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number, hits in enumerate(found):
        assert hits == [expected[(number + step) % len(asked)] for step in range(len(asked))]
