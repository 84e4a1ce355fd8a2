"""Exports, each read back by a reader that is not ours or that follows the format's own description."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import toy

from audiosearch.cli import cli, run
from audiosearch.errors import UsageError
from audiosearch.export import FORMATS, render
from audiosearch.library import Library, Models
from audiosearch.types import Answer, Field, Hit, Marker, Metadata

PATHS = (
    "/sounds/rain.wav",
    '/sounds/a, "b"; c.wav',
    "/sounds/Über 犬 100%20.flac",
    os.fsdecode(b"/sounds/\xff\xfe.wav"),
    "/sounds/line\nbreak\tand tab.wav",
    "/sounds/ends in a space.wav ",
    "/sounds/a://b.wav",
    "/sounds/rain.wav",
)
SPANS = ((0.0, 10.0), (1 / 3, 2.5), (5.0, 15.0), (0.1, 0.30000000000000004), (3600.0, 3601.25), (1e-7, 1.0), (7.0, 8.0),
         (12.5, 18.0))  # fmt: skip
SAID = Metadata(
    (Field("keyword", "rain", "tag"), Field("keyword", "roof", "ixml")),
    (Marker(1.0),),
    "2024-05-03T05:30:00",
    "bext",
    7,
)


def answer(paths: tuple[str, ...] = PATHS, query: str = '"rain, \\"heavy\\"" - =wind') -> Answer:
    hits = tuple(
        Hit(f"{n:012x}", path, "/sounds", n, *SPANS[n], 0.7 - n / 30, metadata=SAID if n == 0 else None)
        for n, path in enumerate(paths)
    )
    return Answer(query, hits, "space-one", notes=("a note",))


HAND = Models(toy.description, lambda name, **_: toy.HandEmbedder())
EMPTY = Answer("nothing", (), "space-one")


def test_json_is_what_the_json_option_prints():
    read = json.loads(render(answer(), "json").decode("ascii"))
    assert read["version"] == 1
    assert read["query"] == answer().query
    assert [hit["path"] for hit in read["hits"]] == list(PATHS)
    assert [(hit["start_seconds"], hit["end_seconds"]) for hit in read["hits"]] == list(SPANS)
    assert read["hits"][0]["metadata"]["fields"] == {"keyword": ["rain", "roof"]}
    assert read["hits"][1]["confidence"] is None
    assert json.loads(render(EMPTY, "json"))["hits"] == []


def test_ndjson_is_an_object_a_line():
    lines = render(answer(), "ndjson").decode("ascii").splitlines()
    whole = json.loads(render(answer(), "json"))
    assert len(lines) == len(PATHS)
    for rank, line in enumerate(lines, 1):
        assert json.loads(line) == {"version": 1, "query": answer().query, "rank": rank, **whole["hits"][rank - 1]}
    assert render(EMPTY, "ndjson") == b""


def test_csv_survives_a_round_trip():
    content = render(answer(), "csv").decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(content, newline=""), strict=True))
    assert [row["path"] for row in rows] == list(PATHS)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(PATHS) + 1))
    assert [(float(row["start_seconds"]), float(row["end_seconds"])) for row in rows] == list(SPANS)
    assert [float(row["score"]) for row in rows] == [hit.score for hit in answer().hits]
    assert {row["query"] for row in rows} == {answer().query}
    assert {row["confidence"] for row in rows} == {""}
    assert [row["recorded_at"] for row in rows][:2] == ["2024-05-03T05:30:00", ""]
    assert all(not isinstance(value, list) and value is not None for row in rows for value in row.values())
    assert content.endswith("\r\n")
    assert len(list(csv.reader(io.StringIO(render(EMPTY, "csv").decode())))) == 1


def m3u_entries(content: bytes) -> list[dict[str, str]]:
    """As players read it: options and EXTINF belong to the next line that is no comment; with a scheme it is a URI."""
    lines = content.decode("utf-8").splitlines()
    assert lines.pop(0) == "#EXTM3U"
    entries: list[dict[str, str]] = []
    entry: dict[str, str] = {}
    for line in lines:
        if line.startswith("#EXTVLCOPT:"):
            name, _, value = line.removeprefix("#EXTVLCOPT:").partition("=")
            entry[name] = value
        elif line.startswith("#EXTINF:"):
            entry["length"], _, entry["title"] = line.removeprefix("#EXTINF:").partition(",")
        elif line.strip() and not line.startswith("#"):
            is_uri = re.match("[a-z]+://", line)
            entry["path"] = os.fsdecode(unquote_to_bytes(line.removeprefix("file://"))) if is_uri else line.strip()
            entries.append(entry)
            entry = {}
    assert not entry
    return entries


def test_a_playlist_names_files_and_spans():
    entries = m3u_entries(render(answer(), "m3u"))
    assert [entry["path"] for entry in entries] == list(PATHS)
    for entry, (start, end) in zip(entries, SPANS, strict=True):
        assert float(entry["start-time"]) == pytest.approx(start, abs=1e-6)
        assert float(entry["stop-time"]) == pytest.approx(end, abs=1e-6)
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)?", entry["start-time"])  # no exponent
        assert int(entry["length"]) == max(1, round(end - start))
    assert entries[0]["title"] == "rain.wav (0-10 s)"
    assert m3u_entries(render(EMPTY, "m3u")) == []
    plain = render(answer(PATHS[:1]), "m3u").decode()
    assert plain.splitlines()[-1] == PATHS[0]  # not a URI: some players know paths only


def test_audacity_labels_of_one_file_and_of_several():
    one = [hit for hit in answer().hits if hit.path == PATHS[0]]
    content = render(Answer("rain\ton", tuple(reversed(one)), "space-one"), "audacity").decode()
    # Audacity: start TAB end TAB text; a line that begins with a backslash would be a band of frequencies.
    rows = [line.split("\t") for line in content.splitlines()]
    assert [(float(start), float(end)) for start, end, _ in rows] == [(0.0, 10.0), (12.5, 18.0)]
    assert [text for _, _, text in rows] == ["rain on (0.700)", "rain on (0.467)"]
    several = render(answer(), "audacity").decode("utf-8", "surrogateescape").split("\n")
    assert several.pop() == ""
    assert len(several) == len(PATHS)
    assert all(line.count("\t") == 2 and line.split("\t")[2].startswith("/sounds/") for line in several)
    assert render(EMPTY, "audacity") == b""


def test_a_raven_table_has_the_columns_that_raven_wants():
    content = render(answer(), "raven").decode("utf-8", "surrogateescape")
    rows = list(csv.DictReader(io.StringIO(content), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == len(PATHS)
    for number, (row, path, (start, end)) in enumerate(zip(rows, PATHS, SPANS, strict=True), 1):
        assert int(row["Selection"]) == number
        assert float(row["Begin Time (s)"]) == float(row["File Offset (s)"]) == pytest.approx(start, abs=1e-6)
        assert float(row["End Time (s)"]) == pytest.approx(end, abs=1e-6)
        assert float(row["Low Freq (Hz)"]) < float(row["High Freq (Hz)"])
        assert row["Begin Path"] == path.replace("\n", " ").replace("\t", " ")
        assert row["Begin File"] == row["Begin Path"].rpartition("/")[2]
        assert (row["View"], row["Channel"]) == ("Spectrogram 1", "1")
        assert None not in row.values()
    assert content.count("\n") == len(PATHS) + 1
    assert len(render(EMPTY, "raven").splitlines()) == 1


def test_an_unknown_format_is_answered_with_those_there_are():
    with pytest.raises(UsageError, match="json, ndjson, csv, m3u, audacity, raven"):
        render(EMPTY, "edl")


@pytest.fixture(scope="module")
def hummed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of two sounds, made by the hand-computed model. Read only."""
    folder = tmp_path_factory.mktemp("exports")
    (folder / "sounds").mkdir()
    toy.write_wav(folder / "sounds" / "hum.wav", toy.tone(110.0, 3.0))
    toy.write_wav(folder / "sounds" / "whistle.wav", toy.tone(3000.0, 3.0))
    with Library.open(folder / "library", create=True, models=HAND) as library:
        library.ingest([folder / "sounds"])
    return folder


@pytest.fixture
def command(hummed: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("audiosearch.library._installed_models", lambda: HAND)
    return ["query", "--library", str(hummed / "library"), "a low hum", "-k", "1"]


@pytest.mark.parametrize("name", list(FORMATS))
def test_the_command_line_writes_each_format(
    name: str, command: list[str], hummed: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
):
    out = tmp_path / f"hits{FORMATS[name].extensions[0]}"
    assert run([*command, "--format", name]) == 0
    printed = capfdbinary.readouterr().out
    assert str(hummed / "sounds" / "hum.wav").encode() in printed or name == "audacity"
    assert run([*command, "--format", name, "--out", str(out)]) == 0
    assert capfdbinary.readouterr().out == b""
    assert out.read_bytes() == printed
    assert run([*command, "--format", name, "--out", str(out)]) == 0  # its own kind of file is replaced
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name]


def test_json_by_either_name_is_the_same(command: list[str], capsys: pytest.CaptureFixture[str]):
    assert run([*command, "--json"]) == 0
    printed = capsys.readouterr().out
    assert run([*command, "--format", "json"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--out", "{}/x.csv"], "say with --format"),
        (["--json", "--format", "csv"], "contradict"),
        (["--format", "csv", "--out", "{}/rain.wav"], "is not replaced"),
        (["--format", "edl"], "edl"),
        (["--format", "csv", "--out", "{}/no/such/folder.csv"], "No such file"),
    ],
)
def test_a_slip_costs_nothing(
    more: list[str], complaint: str, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    precious = tmp_path / "rain.wav"
    precious.write_bytes(b"a recording")
    assert run([*command, *(each.format(tmp_path) for each in more)]) == 2
    assert complaint in capsys.readouterr().err
    assert precious.read_bytes() == b"a recording"
    assert list(tmp_path.iterdir()) == [precious]


def test_the_formats_are_those_of_the_command():
    option = next(each for each in cli.get_command(None, "query").params if each.name == "form")  # type: ignore
    assert list(option.type.choices) == list(FORMATS)
