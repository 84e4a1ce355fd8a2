"""The worked example of docs/library.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import toy

from audiosearch.library import Models

DOCS = Path(__file__).resolve().parent.parent / "docs" / "library.md"


def test_the_worked_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hand = Models(toy.description, lambda name, **_: toy.HandEmbedder())
    monkeypatch.setattr("audiosearch.library._installed_models", lambda: hand)
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for number, frequency in enumerate((100, 3000, 7000)):
        toy.write_wav(sounds / f"{number}.wav", toy.tone(frequency, 3.0 + 9 * number))
    (sounds / "broken.wav").write_bytes(b"RIFF")
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(code, str(DOCS), "exec"), namespace)
    pane = namespace["SearchPane"](str(tmp_path / "library"))
    shown: list[tuple[int, int, str]] = []
    pane.add_folder(str(sounds), lambda *state: shown.append(state))
    assert shown and pane.message.startswith("3 files added, 1 cannot be read") and "broken.wav" in pane.message
    hits = pane.search("hum", by_file=True)
    assert next(Path(hit.path).name for hit in hits) == "0.wav" and pane.message == "3 hits"
    assert pane.search('hum + "') == () and "expected a closing" in pane.message
    assert [hit.id for hit in pane.scroll("hum")] == [hit.id for hit in pane.search("hum")]
    assert hits[0].id not in [hit.id for hit in pane.more_like(hits[0])]
    strip = pane.heat_strip(hits[-1], "hiss", 20)
    assert len(strip) == 20 and min(strip) > -1
    pane.thumbs(hits[0], True, "deep")
    assert [each.tag for each in pane.library.labels()] == ["deep"]
    pane.close()
