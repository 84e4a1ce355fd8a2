"""What `--json` prints is what its published schema says."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import toy

from audiosearch.cli import run
from audiosearch.errors import UsageError
from audiosearch.export.schema import NAMES, json_schema
from audiosearch.library import Models

DOCUMENTED = Path(__file__).resolve().parent.parent / "docs" / "schemas"
HAND = Models(toy.description, lambda name, **_: toy.HandEmbedder())


@pytest.mark.parametrize("name", list(NAMES))
def test_the_documented_schema_is_that_of_the_program(name: str):
    """Written anew by `python tests/test_json_schema.py`."""
    assert json.loads((DOCUMENTED / f"{name}.json").read_text(encoding="utf-8")) == json_schema(name)
    jsonschema.Draft202012Validator.check_schema(json_schema(name))


def test_what_is_printed_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setattr("audiosearch.library._installed_models", lambda: HAND)
    monkeypatch.setenv("AUDIOSEARCH_LIBRARY", str(tmp_path / "library"))
    sound = tmp_path / "hum.wav"
    toy.write_wav(sound, toy.tone(100, 3.0))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    for name, code, *argv in [
        ("ingest", 3, "ingest", str(tmp_path), "--json"),
        ("answer", 0, "query", "hum", "--instruct", "low", "--explain", "--json"),
        ("answer", 1, "query", "hum", "--filter", "tag:snow", "--json"),
        ("status", 0, "status", "--json"),
        ("sync", 3, "sync", "--json"),
        ("verify", 0, "verify", "--json"),
        ("info", 0, "info", str(sound), "--json"),
    ]:
        assert run(argv) == code, argv
        printed = json.loads(capfd.readouterr().out)
        jsonschema.validate(printed, json_schema(name))
        del printed["version"]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(printed, json_schema(name))


def test_a_name_that_there_is_not():
    with pytest.raises(UsageError, match="answer, status"):
        json_schema("nothing")


if __name__ == "__main__":
    DOCUMENTED.mkdir(exist_ok=True)
    for each in NAMES:
        (DOCUMENTED / f"{each}.json").write_text(json.dumps(json_schema(each), indent=2) + "\n", encoding="utf-8")
