"""Public data layouts to manifest rows, on tables of the published shape, and the check of rows on real files."""

from __future__ import annotations

import csv
import json
import unicodedata
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_media import sound, write

from audiosearch.errors import UsageError
from audiosearch.trainer.check import check_rows, summary
from audiosearch.trainer.converters import LAYOUTS, convert, read_mmau
from audiosearch.trainer.manifest import ManifestRow, read_manifest, write_manifest
from audiosearch.trainer.question_sets import split_options


def touch(folder, *names):
    """Empty media files: converters look at names only."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def write_csv(path, header, rows, *, encoding="utf-8"):
    with path.open("w", newline="", encoding=encoding) as out:
        writer = csv.writer(out)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_json(path, content):
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def test_layouts_are_those_that_recipes_may_name():
    published = {"audiocaps", "clotho", "audio_qa", "librisqa", "mmau"}
    assert set(LAYOUTS) == {"manifest", "labelled_clips", "labels", *published}


def test_an_unknown_layout_option_or_weight_is_named(tmp_path):
    with pytest.raises(UsageError, match="audiocapz: no such data layout; known are manifest, labelled_clips"):
        convert("audiocapz", tmp_path / "x.csv")
    with pytest.raises(UsageError, match=r"labelled_clips has no option 'tier'; it knows split, tiers, .*weight"):
        convert("labelled_clips", tmp_path / "x.csv", tier="A")
    with pytest.raises(UsageError, match="weight is 0"):
        convert("manifest", tmp_path / "x.jsonl", weight=0)


def test_weight_instruction_and_licence_of_a_whole_source(tmp_path):
    rows = [ManifestRow("a.wav", "a dog", weight=2.0, instruction="mine", licence="CC0"), ManifestRow("b.wav", "a cat")]
    write_manifest(rows, tmp_path / "m.jsonl")
    plain = convert("manifest", tmp_path / "m.jsonl")
    assert plain.rows == rows and plain.root == tmp_path
    done = convert("manifest", tmp_path / "m.jsonl", tmp_path / "x", weight=3, instruction="all", licence="CC BY")
    assert [(row.weight, row.instruction, row.licence) for row in done.rows] == [
        (6.0, "mine", "CC BY"),
        (3.0, "all", "CC BY"),
    ]
    assert done.root == tmp_path / "x"


# -- AudioCaps -------------------------------------------------------------------------------------------------------

AUDIOCAPS = ("audiocap_id", "youtube_id", "start_time", "caption")


def audiocaps_file(tmp_path, youtube_id, start, *names, audiocap_id=91139):
    """The file that is taken for one clip, or None."""
    folder = touch(tmp_path / "audio", "other-clip0_.wav", *names)
    rows = [(audiocap_id, youtube_id, start, "a dog"), (1, "other-clip0_", 5, "rain")]
    done = convert("audiocaps", write_csv(tmp_path / "train.csv", AUDIOCAPS, rows), folder)
    assert done.rows[-1].audio == "other-clip0_.wav"
    return done.rows[0].audio if len(done.rows) == 2 else None


@pytest.mark.parametrize(
    ("youtube_id", "name"),
    [
        ("r1nicOVtvkQ", "r1nicOVtvkQ.wav"),
        ("r1nicOVtvkQ", "Yr1nicOVtvkQ.wav"),
        ("r1nicOVtvkQ", "r1nicOVtvkQ_130.flac"),
        ("r1nicOVtvkQ", "r1nicOVtvkQ_130.0.flac"),
        ("r1nicOVtvkQ", "train/r1nicOVtvkQ_130_140.opus"),
        ("r1nicOVtvkQ", "Yr1nicOVtvkQ_130000_140000.M4A"),
        ("r1nicOVtvkQ", "91139.mp3"),
        ("-0_z12345_9", "-0_z12345_9.wav"),
        ("-0_z12345_9", "-0_z12345_9_130.wav"),
        ("_abc_130_40", "_abc_130_40.mp3"),
        ("_abc_130_40", "Y_abc_130_40_130_140.mp3"),
        ("YabcdefghiY", "YabcdefghiY.wav"),
    ],
)
def test_audiocaps_finds_a_clip_under_any_common_name(tmp_path, youtube_id, name):
    assert audiocaps_file(tmp_path, youtube_id, 130, name) == name


@pytest.mark.parametrize(
    ("youtube_id", "name"),
    [
        ("r1nicOVtvkQ", "r1nicOVtvkQ_30.wav"),  # another clip of the same film
        ("r1nicOVtvkQ", "R1nicOVtvkQ.wav"),  # ids differ in case
        ("r1nicOVtvkQ", "r1nicOVtvkQ.txt"),
        ("r1nicOVtvkQ", "._r1nicOVtvkQ.wav"),
        ("r1nicOVtvkQ", "xr1nicOVtvkQ.wav"),
        ("abcdefgh_30", "abcdefgh.wav"),
        ("abcdefgh_30", "abcdefgh_30_30_40_50.wav"),
    ],
)
def test_audiocaps_takes_no_other_clip_for_it(tmp_path, youtube_id, name):
    assert audiocaps_file(tmp_path, youtube_id, 130, name) is None


def test_audiocaps_prefers_the_plain_name_and_merges_captions(tmp_path):
    folder = touch(tmp_path / "audio", "id_a_20.wav", "id_a.wav", "1.wav", "b.wav")
    rows = [(n, "id_a", 20, f" caption {n}") for n in range(1, 6)] + [(6, "b", 0, ""), (7, "gone", 3, "x")]
    rows.insert(2, (8, "b", 0, "late"))
    done = convert("audiocaps", write_csv(tmp_path / "val.csv", AUDIOCAPS, rows), folder)
    assert [row.audio for row in done.rows] == ["id_a.wav", "b.wav"]
    assert done.rows[0].text == "caption 1" and done.rows[0].alternatives == tuple(f"caption {n}" for n in range(2, 6))
    assert done.rows[1].captions == ("late",)
    assert {row.source for row in done.rows} == {"AudioCaps"} and "academic" in done.rows[0].licence
    assert done.notes[0] == "AudioCaps: 2 of 3 clips found; missing gone"
    assert done.notes[1] == "AudioCaps: the table has 3 clips, the official val split 495"


def test_audiocaps_reads_what_is_published_and_refuses_what_is_not(tmp_path):
    folder = touch(tmp_path / "audio", "a.wav", "b.wav")
    table = tmp_path / "test.csv"
    table.write_bytes(
        b"\xef\xbb\xbfaudiocap_id,youtube_id,start_time,caption\r\n"
        b'1,a,20,"one, with a comma"\r\n2,b,5,first\rsecond\r\n'
    )
    assert [row.text for row in convert("audiocaps", table, folder).rows] == ["one, with a comma", "first second"]
    for content, words in [
        (b"id,caption\n1,x\n", r"missing columns audiocap_id, youtube_id, start_time; expected AudioCaps"),
        (b"audiocap_id,youtube_id,start_time,caption\n", "no rows"),
        (b"audiocap_id,youtube_id,start_time,caption\n1,a,5,one, two\n", r"test\.csv:2: the row is not 4 columns wide"),
        (b"audiocap_id,youtube_id,start_time,caption\n1,a,5\n", r"test\.csv:2: the row is not 4 columns wide"),
        (
            b'audiocap_id,youtube_id,start_time,caption\n1,a,5,"one\n2,b,6,two\n',
            r"test\.csv:2: not CSV \(unexpected end of data\)",
        ),
        (b"audiocap_id,youtube_id,start_time,caption\n1,a,soon,one\n", "row 1: start_time is 'soon'"),
        (b"audiocap_id,youtube_id,start_time,caption\n1,a,5,caf\xe9\n", "not UTF-8"),
    ]:
        table.write_bytes(content)
        with pytest.raises(UsageError, match=words):
            convert("audiocaps", table, folder)
    with pytest.raises(UsageError, match=r"none\.csv: no such file; expected AudioCaps"):
        convert("audiocaps", tmp_path / "none.csv", folder)


def test_none_of_the_sound_and_no_folder_are_errors(tmp_path):
    table = write_csv(tmp_path / "train.csv", AUDIOCAPS, [(n, f"id{n}", 0, "x") for n in range(5)])
    with pytest.raises(UsageError, match=r"none of its 5 clips is below .*audio \(first: id0, id1, id2 and 2 more\)"):
        convert("audiocaps", table, touch(tmp_path / "audio", "x.wav"))
    with pytest.raises(UsageError, match=r"gone: no such folder; it should hold the audio of .*train\.csv"):
        convert("audiocaps", table, tmp_path / "gone")


@given(
    ids=st.lists(st.text("ab_-0", min_size=11, max_size=11), min_size=1, max_size=6, unique=True),
    pattern=st.sampled_from(["{id}", "Y{id}", "{id}_{start}", "Y{id}_{start}_{end}", "{id}_{start}000_{end}000"]),
)
@settings(max_examples=60, deadline=None)
def test_audiocaps_ids_of_few_characters_are_never_mixed_up(ids, pattern, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ids")
    names = {name: pattern.format(id=name, start=30, end=40) + ".wav" for name in ids}
    touch(folder / "audio", *names.values())
    table = write_csv(folder / "t.csv", AUDIOCAPS, [(n, name, 30, "x") for n, name in enumerate(ids)])
    assert [row.audio for row in convert("audiocaps", table, folder / "audio").rows] == list(names.values())


# -- Clotho ----------------------------------------------------------------------------------------------------------

CLOTHO = ("file_name", *(f"caption_{n}" for n in range(1, 6)))
CLOTHO_NAMES = [
    "rain.wav",
    'it\'s a "test", or not.wav',
    "Café – naïve ünïcode.wav",
    " led by a space.wav",
    "two  gaps.wav",
]


@pytest.mark.parametrize("disk", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_clotho_finds_names_of_any_characters(tmp_path, listed, disk):
    folder = touch(tmp_path / "development", *(unicodedata.normalize(disk, name) for name in CLOTHO_NAMES))
    rows = [(unicodedata.normalize(listed, name).strip() + " ", *"abcde") for name in CLOTHO_NAMES]
    done = convert("clotho", write_csv(tmp_path / "clotho_captions_development.csv", CLOTHO, rows), folder)
    assert [row.audio for row in done.rows] == [unicodedata.normalize(disk, name) for name in CLOTHO_NAMES]
    assert all((row.text, row.alternatives) == ("a", ("b", "c", "d", "e")) for row in done.rows)
    assert all((folder / row.audio).is_file() for row in done.rows)


def test_clotho_looks_in_the_splits_folder_and_never_guesses(tmp_path):
    touch(tmp_path, "development/a.wav", "evaluation/a.wav", "one/b.wav", "two/b.wav", "evaluation/c.flac")
    rows = [(name, *"abcde") for name in ("a.wav", "b.wav", "c.wav", "d.wav")]
    done = convert("clotho", write_csv(tmp_path / "clotho_captions_evaluation.csv", CLOTHO, rows))
    assert [row.audio for row in done.rows] == ["evaluation/a.wav", "evaluation/c.flac"]
    assert done.notes == (
        "Clotho: 2 of 4 clips found; missing b.wav, d.wav",
        "Clotho: 1 names fit several files and count as missing, first b.wav",
        "Clotho: the table has 4 clips, the official evaluation split 1,045",
    )


def test_clotho_credits_come_from_its_metadata(tmp_path):
    touch(tmp_path / "audio", "a.wav", "é.wav")
    table = write_csv(tmp_path / "clotho_captions_validation.csv", CLOTHO, [("a.wav", *"abcde"), ("é.wav", *"abcde")])
    columns = ("file_name", "keywords", "sound_id", "sound_link", "start_end_samples", "manufacturer", "license")
    metadata = tmp_path / "clotho_metadata_validation.csv"
    line = ("é.wav", "k", 1, "l", "[0, 9]", "ann", "http://creativecommons.org/licenses/by/3.0/")
    write_csv(metadata, columns, [line], encoding="latin-1")
    first, second = convert("clotho", table, tmp_path / "audio").rows
    assert first.attribution == "" and first.licence.startswith("captions non-commercial")
    assert second.attribution == "ann via Freesound, Clotho" and second.licence.endswith("licenses/by/3.0/")
    metadata.write_text("file_name;license\n")
    done = convert("clotho", table, tmp_path / "audio")
    assert len(done.rows) == 2 and "licences and authors are unknown" in done.notes[-1]


# -- Audio-Flamingo style --------------------------------------------------------------------------------------------


def turn(human, gpt):
    return [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]


def test_audio_qa_rows_of_a_list(tmp_path):
    folder = touch(tmp_path / "audio", "a.wav", "set/b.wav")
    content = [
        {"id": "1", "sound": "a.wav", "conversations": turn("<sound>\nWhat is heard?", " a dog "), "mood": 1},
        {"id": "2", "sound": "/somewhere/else/set/b.wav", "duration": 3.0, "conversations": [
            *turn("Listen:  <sound>  who calls?", "a crow"),
            *turn("Where?", "in a wood"), {"from": "human", "value": "?"}]},
        {"id": "3", "sound": ["a.wav"], "conversations": turn("<sound-1>", "a dog barks twice")},
        {"id": "4", "sound": ["a.wav", "b.wav"], "conversations": turn("Which is louder?", "the first")},
        {"id": "5", "sound": "gone.wav", "conversations": turn("What?", "x")},
        {"id": "6", "sound": "a.wav", "conversations": turn("What?", " ")},
        {"id": "7", "conversations": turn("What?", "x"), "mood": 2},
    ]  # fmt: skip
    done = convert("audio_qa", write_json(tmp_path / "skills.json", content), folder)
    assert done.rows == [
        ManifestRow("a.wav", question="What is heard?", answer="a dog", source="skills"),
        ManifestRow("set/b.wav", question="Listen: who calls?", answer="a crow", source="skills"),
        ManifestRow("set/b.wav", question="Where?", answer="in a wood", source="skills"),
        ManifestRow("a.wav", "a dog barks twice", source="skills"),
    ]
    assert done.notes == (
        "skills: 3 of 4 rows' clips found; missing gone.wav",
        "skills: 3 rows left out: several sounds (1 rows), no answered question (1 rows), no sound (1 rows)",
        "skills: keys that are not used: mood (2 rows)",
    )


def test_audio_qa_as_a_mapping_as_lines_and_with_a_split_path(tmp_path):
    folder = touch(tmp_path / "audio", "train/a.wav", "test/a.wav")
    row = {"name": "a.wav", "prompt": "Who?", "output": "a cat", "audio_start": 20, "task": "AQA"}
    wanted = [ManifestRow("train/a.wav", question="Who?", answer="a cat", start_seconds=20.0, source="mine")]
    table = write_json(tmp_path / "x.json", {"data": {"0": row}, "split_path": "train", "total_num": 1})
    assert convert("audio_qa", table, folder, source="mine").rows == wanted
    spoken = {"audio": "train/a.wav", "question": "Who?", "answer": "a cat", "audio_start": 20.0}
    assert convert("audio_qa", write_json(table, {"k": spoken}), folder, source="mine").rows == wanted
    lines = tmp_path / "x.jsonl"
    lines.write_text(f"{json.dumps(spoken)}\n\n{json.dumps(spoken)}\r\n")
    assert convert("audio_qa", lines, folder, source="mine").rows == wanted * 2
    lines.write_text(f"{json.dumps(spoken)}\n" + "{")
    with pytest.raises(UsageError, match=r"x\.jsonl:2: not JSON .*expected Audio-Flamingo"):
        convert("audio_qa", lines, folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", r"x\.json: not JSON .*expected Audio-Flamingo style rows"),
        ("[]", "not a list of objects"),
        ("3", "not a list of objects"),
        ('[{"sound": "a.wav"}, 3]', "row 2 is not an object"),
        ('[{"path": "a.wav", "label": "dog"}]', r"no row can be used \(no sound \(1 rows\)\); expected"),
    ],
)
def test_what_is_not_question_answering_is_refused(tmp_path, content, words):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UsageError, match=words):
        convert("audio_qa", tmp_path / "x.json", touch(tmp_path / "audio", "a.wav"))


# -- LibriSQA --------------------------------------------------------------------------------------------------------


def test_librisqa_part_one_finds_flac_for_wav_wherever_the_root_is(tmp_path):
    touch(tmp_path / "LibriSpeech" / "test-clean" / "61" / "70968", "61-70968-0000.flac", "61-70968-0001.flac")
    line = {"question": "Who came?", "answer": "Robin.", "text": "ROBIN CAME", "duration": 4.9}
    path = "test-clean/61/70968/61-70968-000{}.wav"
    content = [{"speech_path": path.format(n), **line} for n in range(3)]
    table = write_json(tmp_path / "LibriSQA-PartI-test.json", content)
    for root in (tmp_path, tmp_path / "LibriSpeech", tmp_path / "LibriSpeech/test-clean/61/70968"):
        done = convert("librisqa", table, root)
        assert [(done.root / row.audio).name for row in done.rows] == ["61-70968-0000.flac", "61-70968-0001.flac"]
        assert all((done.root / row.audio).is_file() for row in done.rows)
        assert {(row.question, row.answer, row.text) for row in done.rows} == {("Who came?", "Robin.", "ROBIN CAME")}
        assert done.notes == (f"LibriSQA: 2 of 3 rows' recordings found; missing {path.format(2)}",)


@pytest.mark.parametrize("answer", ["B", "b.", "(B)", "B. In a wood", "in a wood"])
@pytest.mark.parametrize(
    "options",
    [
        " A. At sea B. In a wood C. At home D. Vitamin A. only",
        "\nA) At sea\nB) In a wood\nC) At home\nD) Nowhere",
        " (A) At sea; (B) In a wood; (C) At home; (D) Nowhere",
        " Options: A: At sea, B: In a wood, C: At home, D: Nowhere.",
        "A.At sea B.In a wood",
    ],
)
def test_librisqa_part_two_gives_the_text_of_the_right_option(tmp_path, options, answer):
    touch(tmp_path / "audio", "1.flac")
    line = {"speech_path": "x/1.wav", "answer": answer, "answer_and_analysis": f"{answer}, because"}
    content = [{**line, "question_and_option": "Where does Mr. A. Smith live?" + options}]
    (row,) = convert("librisqa", write_json(tmp_path / "part2.json", content), tmp_path / "audio").rows
    assert (row.question, row.answer, row.text) == ("Where does Mr. A. Smith live?", "In a wood", "")


def test_librisqa_options_that_cannot_be_read_are_counted_and_dropped_by_the_check(tmp_path):
    touch(tmp_path / "audio", "1.flac")
    asked = ["Where? A. At sea B. In a wood", "Where? A. At sea B. In a wood", "Where?"]
    content = [
        {"speech_path": "1.wav", "question_and_option": q, "answer": a} for q, a in zip(asked, "ADA", strict=True)
    ]
    done = convert("librisqa", write_json(tmp_path / "part2.json", content), tmp_path / "audio")
    assert [row.answer for row in done.rows] == ["At sea", "", ""]
    assert done.notes[1] == "LibriSQA: 2 of 3 rows have options or an answer that could not be read"
    reasons = [item.reason for item in check_rows(done.rows, done.root, max_seconds=9.0).dropped]
    assert reasons == ["unreadable", "empty-text", "empty-text"]
    with pytest.raises(UsageError, match="row 1 has no question"):
        convert(
            "librisqa", write_json(tmp_path / "p.json", [{"speech_path": "1.wav", "answer": "A"}]), tmp_path / "audio"
        )


words = st.text("abcdefgh ,'", min_size=1, max_size=12).map(lambda text: f"x{text}x")


@given(
    question=words.map(lambda text: text + "?"),
    options=st.lists(words, min_size=2, max_size=6),
    mark=st.sampled_from([" {}. ", "\n{}) ", " ({}) ", "\n{}: "]),
)
def test_options_come_apart_as_they_were_put_together(question, options, mark):
    letters = "ABCDEFGH"[: len(options)]
    asked = question + "".join(mark.format(letter) + text for letter, text in zip(letters, options, strict=True))
    assert split_options(asked) == (question, dict(zip(letters, options, strict=True)))


# -- MMAU ------------------------------------------------------------------------------------------------------------

MMAU_LINE = {
    "id": "3fe6",
    "audio_id": "./test-mini-audios/3fe6.wav",
    "question": "Who speaks?",
    "choices": ["Man", "Woman", "Child", "Robot"],
    "answer": "Man",
    "dataset": "AudioSet",
    "task": "sound",
    "split": "test-mini",
    "category": "Reasoning",
    "sub-category": "Acoustic Source Inference",
    "difficulty": "medium",
}


@pytest.mark.parametrize("root", [".", "test-mini-audios"])
def test_mmau_items_rows_and_version(tmp_path, root):
    touch(tmp_path, "test-mini-audios/3fe6.wav", "test-mini-audios/72fb.wav")
    lines = [
        MMAU_LINE,
        {**MMAU_LINE, "id": "72fb", "audio_id": "./test-mini-audios/72fb.wav", "answer": " woman", "task": "speech"},
        {**MMAU_LINE, "audio_id": "./test-mini-audios/gone.wav"},
    ]
    table = write_json(tmp_path / "mmau-test-mini.json", lines)
    notes = []
    first, second = read_mmau(table, tmp_path / root, notes)
    assert first.audio == str(tmp_path / "test-mini-audios" / "3fe6.wav")
    assert (first.id, first.question, first.choices, first.answer) == (
        "3fe6",
        "Who speaks?",
        (*MMAU_LINE["choices"],),
        "Man",
    )
    assert (first.task, first.difficulty, first.category) == ("sound", "medium", "Reasoning")
    assert (first.sub_category, first.dataset) == ("Acoustic Source Inference", "AudioSet")
    assert second.answer == "Woman"
    assert (
        notes[0].startswith("MMAU: 3 questions, rows have an `id` (a newer release); SHA-256 ") and len(notes[0]) > 120
    )
    assert notes[1] == "MMAU: 2 of 3 questions' clips found; missing ./test-mini-audios/gone.wav"
    done = convert("mmau", table, tmp_path / root)
    assert [(row.question, row.answer, row.group) for row in done.rows] == [
        ("Who speaks?", "Man", "sound"),
        ("Who speaks?", "Woman", "speech"),
    ]
    assert all((done.root / row.audio).is_file() for row in done.rows) and "is a test set" in done.notes[-1]


def test_mmau_without_ids_takes_the_file_name(tmp_path):
    touch(tmp_path, "3fe6.wav")
    line = {key: value for key, value in MMAU_LINE.items() if key != "id"}
    notes = []
    (item,) = read_mmau(write_json(tmp_path / "old.json", [line]), tmp_path, notes)
    assert item.id == "3fe6" and "no row has an `id`" in notes[0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"answer": "Nobody"}, "row 1: the answer 'Nobody' is not one of its choices"),
        ({"choices": "Man, Woman"}, "row 1: choices is not a list of texts"),
        ({"choices": ["Man"]}, "row 1: choices is not a list of texts"),
        ({"answer": None}, "row 1: the answer None is not one of its choices"),
    ],
)
def test_mmau_rows_that_cannot_be_scored_are_refused(tmp_path, change, match):
    with pytest.raises(UsageError, match=match):
        read_mmau(write_json(tmp_path / "m.json", [{**MMAU_LINE, **change}]), touch(tmp_path, "3fe6.wav"))
    withheld = {key: value for key, value in MMAU_LINE.items() if key != "answer"}
    with pytest.raises(UsageError, match="row 1 has no 'answer'; expected MMAU"):
        read_mmau(write_json(tmp_path / "m.json", [withheld]), tmp_path)


# -- the labelled collection -----------------------------------------------------------------------------------------


def test_labelled_clips_as_a_layout(tmp_path):
    columns = ("split", "tier", "file", "label", "class", "group", "caption", "caption2", "fold", "licence")
    rows = [
        ("train", "A", "a.wav", "dog", "animal", "animals", "a dog", "rex", "2", "CC0"),
        ("train", "B", "b.wav", "cat", "animal", "animals", "a cat", "", "", "CC BY-SA"),
        ("valid", "A", "c.wav", "cow", "animal", "animals", "a cow", "", "", "CC0"),
    ]
    table = write_csv(tmp_path / "manifest.csv", columns, rows, encoding="utf-8-sig")
    (row,) = convert("labelled_clips", table, environmental_weight=2.0).rows
    assert row == ManifestRow("a.wav", "a dog", label="dog", sound_class="animal", group="animals", licence="CC0",
                              weight=2.0, fold="2", alternatives=("rex",))  # fmt: skip
    both = convert("labelled_clips", table, tiers=["A", "B"], weight=0.5).rows
    assert [(row.audio, row.weight) for row in both] == [("a.wav", 0.5), ("b.wav", 0.5)]
    assert [row.audio for row in convert("labelled_clips", table, split="valid").rows] == ["c.wav"]
    with pytest.raises(UsageError, match="no rows of split 'test'"):
        convert("labelled_clips", table, split="test")
    with pytest.raises(UsageError, match="AUDIOSEARCH_DATA"):
        convert("labelled_clips", tmp_path / "none.csv")


def test_collections_and_folds_can_be_left_out(tmp_path):
    columns = ("split", "tier", "file", "label", "class", "group", "caption", "caption2", "fold", "licence")
    rows = [
        ("train", "A", f"{i}.wav", "dog", "animal", "animals", "a dog", "", fold, "CC0", repo)
        for i, (fold, repo) in enumerate([("4", "esc"), ("1", "esc"), ("", "foley"), ("", "music")])
    ]
    table = write_csv(tmp_path / "manifest.csv", (*columns, "source_repo"), rows)

    def files(**options):
        return [row.audio for row in convert("labelled_clips", table, **options).rows]

    assert files() == ["0.wav", "1.wav", "2.wav", "3.wav"]
    assert files(without=["fold 4", "foley"]) == ["1.wav", "3.wav"]
    assert files(only=["fold 4", "foley"]) == ["0.wav", "2.wav"]
    with pytest.raises(UsageError, match="no clips of folly; give a source_repo, or a fold as 'fold 4'"):
        files(without=["folly"])


def test_what_is_converted_can_be_kept_as_a_manifest(tmp_path):
    folder = touch(tmp_path / "audio", "a.wav", "it's – é.wav")
    rows = [("a.wav", *"abcde"), ("it's – é.wav", "a\u2028b", "", "c", "", "")]
    done = convert("clotho", write_csv(tmp_path / "clotho_captions_x.csv", CLOTHO, rows), folder)
    write_manifest(done.rows, folder / "manifest.jsonl")
    assert convert("manifest", folder / "manifest.jsonl").rows == done.rows == read_manifest(folder / "manifest.jsonl")


# -- check -----------------------------------------------------------------------------------------------------------


def write_wav(path, seconds, rate=8_000):
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes(np.full(round(seconds * rate), 1_000, dtype="<i2").tobytes())


@pytest.fixture
def clips(tmp_path):
    for name, seconds in (("short", 0.2), ("good", 2.0), ("edge", 3.05), ("long", 4.0)):
        write_wav(tmp_path / f"{name}.wav", seconds)
    (tmp_path / "text.wav").write_text("this is not a sound")
    (tmp_path / "empty.wav").touch()
    return tmp_path


def test_check_drops_each_row_for_its_reason_in_order(clips):
    rows = [
        ManifestRow("long.wav", "x"),
        ManifestRow("good.wav", "x"),
        ManifestRow("gone.wav", "x"),
        ManifestRow("good.wav", " "),
        ManifestRow("text.wav", "x"),
        ManifestRow("empty.wav", question="q", answer="a"),
        ManifestRow("short.wav", "x"),
        ManifestRow("long.wav", "x", start_seconds=1.5, end_seconds=99),
        ManifestRow("long.wav", "x", start_seconds=4.5),
        ManifestRow("edge.wav", "x"),
        ManifestRow(str(clips / "long.wav"), "x", end_seconds=1.0),
        ManifestRow("gone.wav", question="What?"),
    ]
    steps = []
    checked = check_rows(rows, clips, min_seconds=0.5, max_seconds=3.0, progress=lambda *done: steps.append(done))
    assert [(item.audio, item.reason) for item in checked.dropped] == [
        ("long.wav", "too-long"),
        ("gone.wav", "missing"),
        ("good.wav", "empty-text"),
        ("text.wav", "unreadable"),
        ("empty.wav", "unreadable"),
        ("short.wav", "too-short"),
        ("long.wav", "too-short"),
        ("gone.wav", "empty-text"),
    ]
    assert "starts at 4.5 s, the clip ends at 4.00 s" in checked.dropped[6].detail
    assert checked.rows[0] == rows[1] and checked.rows[1] == rows[7] and checked.rows[3] == rows[10]
    assert checked.seconds == pytest.approx([2.0, 2.5, 3.0, 1.0])
    # What an encoder padded is cut off, so that no span is longer than was asked for.
    assert checked.rows[2] == ManifestRow("edge.wav", "x", end_seconds=3.0)
    assert steps == [(n, 8) for n in range(1, 9)]
    assert summary(checked) == (
        "kept 4 of 12 rows; dropped 1 missing (gone.wav), 2 unreadable (text.wav, empty.wav), "
        "2 empty-text (good.wav, gone.wav), 1 too-long (long.wav), 2 too-short (short.wav, long.wav)"
    )


def test_check_opens_each_file_once(clips, monkeypatch):
    from audiosearch.trainer import check

    opened = []
    probe = check.probe
    monkeypatch.setattr(check, "probe", lambda path: opened.append(path) or probe(path))
    rows = [ManifestRow(name, text) for name in ("good.wav", "long.wav") for text in "abc"]
    checked = check_rows(rows, clips, max_seconds=9.0, workers=3)
    assert sorted(opened) == [str(clips / "good.wav"), str(clips / "long.wav")]
    assert checked.rows == rows and not checked.dropped and summary(checked) == "kept all 6 rows"


def test_check_counts_samples_where_the_container_gives_no_duration(tmp_path):
    write(tmp_path / "raw.flac", sound(1.5, 16_000), 16_000, codec="flac")
    content = bytearray((tmp_path / "raw.flac").read_bytes())
    # The total number of samples in STREAMINFO: 36 bits from the middle of byte 21 on; 0 means unknown.
    assert content[:4] == b"fLaC"
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "raw.flac").write_bytes(content)
    checked = check_rows([ManifestRow("raw.flac", "x")], tmp_path, max_seconds=2.0)
    assert checked.seconds == pytest.approx([1.5], abs=1e-3)


def test_the_summary_shortens_long_lists():
    from audiosearch.trainer.check import Checked, Dropped

    dropped = tuple(Dropped(f"{n}.wav", "missing", "") for n in range(1_200))
    text = summary(Checked([ManifestRow("a.wav", "x")] * 2_000, [1.0] * 2_000, dropped))
    assert text == "kept 2,000 of 3,200 rows; dropped 1,200 missing (0.wav, 1.wav and 1,198 more)"
