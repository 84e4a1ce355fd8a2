"""The query language: what each string means, what is refused and where, and that what is written is read again."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiosearch.cli import run
from audiosearch.errors import QuerySyntaxError, UsageError
from audiosearch.query.grammar import (
    MAX_CHARACTERS,
    MAX_TERMS,
    Expression,
    HitRef,
    Sound,
    Term,
    Text,
    parse_query,
    parse_span,
    seconds_of,
)


@pytest.mark.parametrize(
    "sentence",
    [
        "rain on a tin roof",
        "  a well-known song, don't stop -  ",
        "rock-and-roll / half-time",
        "a C++ programmer typing",
        "at -5 degrees, +3 tomorrow",
        "an em -- dash",
        'a 5" nail',
        "hit: the drum, file: closed",
        "call me@home",
        "the 3 * 4 grid",
        "rain (heavy) [loud] & wind?",
        "a\\b",
        "bell +",
        "Фоновый шум - ",
        "犬の鳴き声",
        "U.S. wav files",
    ],
)
def test_a_sentence_is_one_text(sentence: str):
    assert parse_query(sentence) == Expression((Text(sentence.strip()),))
    assert str(parse_query(sentence)) == sentence.strip()


@pytest.mark.parametrize(
    ("source", "terms"),
    [
        ('"rain"', (Text("rain"),)),
        ("rain + wind", (Text("rain"), Text("wind"))),
        ("rain -music", (Text("rain"), Text("music", -1.0))),
        ("rain on a roof -loud music + far away", (Text("rain on a roof"), Text("loud music", -1.0), Text("far away"))),
        ('- "music" + rain', (Text("music", -1.0), Text("rain"))),
        ("+ rain", (Text("rain"),)),
        ('2*"rain"', (Text("rain", 2.0),)),
        ('"rain"*0.5 - .5*"wind"', (Text("rain", 0.5), Text("wind", -0.5))),
        ("2*rain on a roof -0.25*wind", (Text("rain on a roof", 2.0), Text("wind", -0.25))),
        ("rain on a roof*3", (Text("rain on a roof", 3.0),)),
        ('"a"+"b"-"c"', (Text("a"), Text("b"), Text("c", -1.0))),
        ('"a - b * 2 hit:ab12"', (Text("a - b * 2 hit:ab12"),)),
        (r'"say \"hi\" \\ \n"', (Text('say "hi" \\ \\n'),)),
        ("ref.wav", (Sound("ref.wav"),)),
        ("dir/REF.Wav@12.5-18", (Sound("dir/REF.Wav", 12.5, 18.0),)),
        ("me@home/a@b.mp3@1:05-1:00:09.5*2", (Sound("me@home/a@b.mp3", 65.0, 3609.5, 2.0),)),
        ("movie.mkv@3-", (Sound("movie.mkv", 3.0, None),)),
        ("/no/extension@1-2", (Sound("/no/extension", 1.0, 2.0),)),
        ("~/x + ../y - ./z", (Sound("~/x"), Sound("../y"), Sound("./z", weight=-1.0))),
        ("file:take@1-2", (Sound("take", 1.0, 2.0),)),
        ('file:"my dir/take@1-2"@3-4', (Sound("my dir/take@1-2", 3.0, 4.0),)),
        ('2*file:"a.wav"-"b"', (Sound("a.wav", weight=2.0), Text("b", -1.0))),
        ("hit:AB12", (HitRef("ab12"),)),
        ("0.5*hit:0123456789ab@1:00-1:30", (HitRef("0123456789ab", 60.0, 90.0, 0.5),)),
        (
            '"rain on a roof" + ref.wav@12.5-18 + hit:ab12 - "music"',
            (Text("rain on a roof"), Sound("ref.wav", 12.5, 18.0), HitRef("ab12"), Text("music", -1.0)),
        ),
    ],
)
def test_what_a_query_means(source: str, terms: tuple[Term, ...]):
    assert parse_query(source) == Expression(terms)
    assert parse_query(str(Expression(terms))) == Expression(terms)
    assert parse_query(f" \n{source}\t").terms == terms


@pytest.mark.parametrize(
    ("source", "position", "expected"),
    [
        ("", 0, "words"),
        ("   ", 3, "words"),
        ("-", 0, "words"),
        ("- + -", 2, "words"),
        ("rain - - wind", 7, "words"),
        ("rain + -wind", 7, "words"),
        ("2*-rain", 2, "words"),
        ('"rain" -', 7, "+ or -"),
        ('"rain', 0, 'closing "'),
        ('rain + "wi', 7, 'closing "'),
        ('"" + rain', 1, "words between"),
        ('"rain" "wind"', 7, "+ or - before"),
        ('a man says "hello"', 11, '\\"'),
        ("ref.wav rain", 8, "+ or - before"),
        ("rain ref.wav", 5, "+ or - before"),
        ("rain hit:ab12", 5, "+ or - before"),
        ('"rain"wind', 6, "a space"),
        ("hit:ab12,", 4, "4 to 12"),
        ("hit:xyz", 4, "4 to 12"),
        ("hit:abc", 4, "4 to 12"),
        ("hit:ab12@5", 8, "a span"),
        ("ref.wav@", 7, "a span"),
        ("ref.wav@soon", 7, "a span"),
        ("x + ref.wav@18-12.5", 15, "after the span's start"),
        ("ref.wav@2-2", 10, "after the span's start"),
        ("ref.wav@1-" + "9" * 400, 10, "after the span's start"),
        ("ref.wav@1-2x", 11, "a space"),
        ('"rain"@1-2', 6, "a space"),
        ('"rain"*', 6, "a weight such as"),
        ('"rain"*2x', 6, "a weight such as"),
        ('"rain"*0', 7, "above 0"),
        ("0*rain", 0, "above 0"),
        ("9" * 400 + "*rain", 0, "above 0"),
        ('2*"rain"*3', 8, "one weight"),
        ("2*rain*3", 6, "one weight"),
        ('- "rain" -wind', 0, "not left out"),
        ('file:""', 6, "name of a file"),
        ('"rain \udcff"', 6, "UTF-8"),
        ("rain \udcff", 5, "UTF-8"),
        ("a" * (MAX_CHARACTERS + 1), MAX_CHARACTERS, "at most"),
        (" + ".join(["a"] * (MAX_TERMS + 1)), 4 * MAX_TERMS - 2, "at most"),
    ],
)
def test_what_is_refused_and_where(source: str, position: int, expected: str):
    with pytest.raises(QuerySyntaxError) as caught:
        parse_query(source)
    assert caught.value.position == position
    assert expected in caught.value.expected


def test_a_file_name_may_be_anything():
    for name in (
        "a b.wav",
        'say "hi".wav',
        "\udcff\udcfe.wav",
        "2*x.wav",
        "-x.wav",
        "x",
        "犬 1-2",
        "a\\b.wav",
        "hit:ab12",
        '"',
    ):
        sound = Expression((Sound(name, 1.5, None, 2.0), Text("x", -0.125)))
        assert parse_query(str(sound)) == sound


def names() -> st.SearchStrategy[str]:
    """Anything a file system allows, and often what could be taken for something else."""
    parts = st.sampled_from(
        ["a", "b c", ".wav", "@1-2", "*2", "-", " ", '"', "\\", "/", "hit:", "file:", "é", "\udcff"]
    )
    return st.one_of(
        st.lists(parts, min_size=1, max_size=6).map("".join),
        st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=12),
    )


def texts() -> st.SearchStrategy[str]:
    parts = st.sampled_from(["rain", " ", "-", " - ", "+x", '"', "\\", "ref.wav", "hit:ab12", "2*", "*0.5", "\n", "雨"])
    return st.one_of(
        st.lists(parts, min_size=1, max_size=8).map("".join), st.text(st.characters(codec="utf-8"), max_size=20)
    ).filter(lambda text: text.strip())


weights = st.floats(min_value=1e-9, max_value=1e12, allow_nan=False)
seconds = st.floats(min_value=0, max_value=1e7)
spans = st.one_of(
    st.just((None, None)),
    st.tuples(seconds, st.none()),
    st.tuples(seconds, seconds).filter(lambda span: span[0] < span[1]),
)


def terms() -> st.SearchStrategy[Term]:
    hit_ids = st.text("0123456789abcdef", min_size=4, max_size=12)
    signed = st.builds(lambda weight, sign: weight * sign, st.one_of(st.just(1.0), weights), st.sampled_from([1, -1]))
    make: Callable[..., Term] = lambda what, name, span, weight: what(name, *span, weight)  # noqa: E731
    return st.one_of(
        st.builds(Text, texts(), signed),
        st.builds(make, st.just(Sound), names(), spans, signed),
        st.builds(make, st.just(HitRef), hit_ids, spans, signed),
    )


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.lists(terms(), min_size=1, max_size=5).filter(lambda some: any(term.weight > 0 for term in some)))
def test_what_is_written_is_read_again(some: list[Term]):
    expression = Expression(tuple(some))
    assert parse_query(str(expression)) == expression


def test_a_thousand_malformed_strings_are_read_or_refused_with_a_position():
    """Valid queries with pieces dropped, doubled, swapped and thrown in between."""
    draw = random.Random(8)
    pieces = [
        *(
            '"',
            "rain",
            " ",
            " + ",
            " - ",
            "-",
            "+",
            "*",
            "2*",
            "*0.5",
            "ref.wav",
            "@12.5-18",
            "@",
            "hit:",
            "ab12",
            "file:",
        ),
        *("\\", "(", ",", "1:05", "\0", "\udcff", "/", "~/", "..", "😀", "\u3000", "\n", "0", "."),
    ]
    valid = '"rain on a roof" + 2*ref.wav@12.5-18 + hit:ab12@1- - "music"*0.5 - file:"a b.wav"'
    read = refused = 0
    for number in range(1000):
        if number % 2:
            text = "".join(draw.choices(pieces, k=draw.randint(1, 14)))
        else:
            chars = list(valid)
            for _ in range(draw.randint(1, 4)):
                at = draw.randrange(len(chars))
                chars[at : at + draw.randint(0, 3)] = draw.choice(pieces) if draw.random() < 0.6 else ""
            text = "".join(chars)
        try:
            expression = parse_query(text)
        except QuerySyntaxError as error:
            refused += 1
            assert 0 <= error.position <= len(text)
            assert error.expected
            line, caret = error.drawing.split("\n")
            assert caret.strip() == "^"
            assert line.isprintable() or "\udcff" in text
            continue
        read += 1
        assert parse_query(str(expression)) == expression, text
        assert any(term.weight > 0 for term in expression.terms)
    assert read + refused == 1000
    assert min(read, refused) > 150


def test_the_drawing_points_at_the_mistake():
    def drawing(source: str) -> str:
        with pytest.raises(QuerySyntaxError) as caught:
            parse_query(source)
        return caught.value.drawing

    assert drawing('"rain" wind') == '"rain" wind\n       ^'
    assert drawing('"雨" wind') == '"雨" wind\n     ^'  # two columns wide
    assert drawing('"e\u0301\t" x') == '"e\u0301 " x\n     ^'
    long = drawing(f'"{"a" * 200}" b{"c" * 100}')
    line, caret = long.split("\n")
    assert line.startswith("...a") and line.endswith("c...") and len(line) < 90
    assert line[len(caret) - 1] == "b"


def test_the_error_is_a_usage_error_that_travels():
    with pytest.raises(UsageError, match=r"expected a closing \" for this one at character 3") as caught:
        parse_query('a "b'.replace("a ", "- "))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.what, again.source, again.position) == ("query", '- "b', 2)
    assert str(again) == str(caught.value)


def test_the_command_line_draws_the_mistake(capsys: pytest.CaptureFixture[str]):
    assert run(["query", "--audio", "ref.wav@2-1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("audiosearch: the query cannot be read: expected an end after")
    assert lines[1:] == ["  ref.wav@2-1", "            ^"]


def test_spans_alone():
    assert parse_span("ref.wav@1:05-") == ("ref.wav", 65.0, None)
    assert parse_span("a@1-2@3-4") == ("a@1-2", 3.0, 4.0)
    assert parse_span("take@5") == ("take@5", None, None)
    assert [seconds_of(text) for text in ("90.5", "1:30.5", "0:01:30.5")] == [90.5] * 3
