"""What is asked, checked before anything is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from audiosearch.errors import UsageError
from audiosearch.query.confidence import AUDIO, AUDIO_QUERY, JOINT_QUERY, TEXT, Kind
from audiosearch.query.filters import Filter, parse_filter
from audiosearch.query.fusion import Words
from audiosearch.query.grammar import Expression, Text, parse_query


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for. The same values, and the same names, as the options of `audiosearch query`.

    `text` is a query string (docs/query.md) or one already parsed; `audio` with `start_seconds` and `end_seconds` is an
    example sound, or a span of it. Both together are one joint input to the model: then `text` is a plain text.
    `filter` says which files may be searched. Of the settings None means: as set for the library.

    Raises UsageError, of which QuerySyntaxError says where in a string the mistake is.
    """

    text: str | Expression | None = None
    audio: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    instruction: str | None = None
    filter: str | Filter | None = None
    k: int = 10
    by: Literal["moment", "file"] = "moment"  # `file`: at most one hit a recording, its best moment
    merge_gap_seconds: float = 0.0  # moments this close together are one
    names: Words = "auto"  # files called like the text: `auto` those with all words of it, `any`, or `off`
    learn: str | None = None  # search with what was labelled about this tag, too
    refine: bool = False  # hear the hits again in short windows, for where the sound begins and ends
    rerank: int | None = None  # candidates heard again under an instruction that has no space; 0: none
    budget_seconds: float | None = None  # time for that, and as much for `refine`
    min_confidence: float | None = None  # hits below are left out
    explain: bool = False  # the answer tells its candidates, their scores and what they cost
    expression: Expression | None = field(init=False, repr=False)  # `text`, parsed
    conditions: Filter | None = field(init=False, repr=False)  # `filter`, parsed

    def __post_init__(self) -> None:
        object.__setattr__(self, "expression", self._parsed_text())
        object.__setattr__(self, "conditions", self._parsed_filter())
        if self.expression is None and self.audio is None:
            raise UsageError("nothing to search for: give a text, an example sound (--audio FILE), or both")
        if self.audio is not None and self.expression is not None and self.words is None:
            raise UsageError(
                "with --audio the text is one plain text, heard together with the sound: "
                "to add or leave out sounds, write them into the query instead (TEXT + FILE - TEXT)"
            )
        if self.instruction is not None and not self.instruction.strip():
            raise UsageError("the instruction is empty: leave it out to search without one")
        if self.k < 1:
            raise UsageError(f"the number of hits must be at least 1, not {self.k}")
        if self.by not in ("moment", "file"):
            raise UsageError(f"hits are by moment or by file, not by {self.by}")
        if not 0 <= self.merge_gap_seconds < float("inf"):
            raise UsageError(f"the gap that moments are merged over is 0 s or longer, not {self.merge_gap_seconds:g}")
        if (self.rerank or 0) < 0 or (self.budget_seconds or 0) < 0:
            raise UsageError("neither the number of candidates heard again nor the time for it can be negative")
        if self.names not in ("auto", "any", "off"):
            raise UsageError(f"names count with auto, any or off, not with {self.names}")
        if self.learn is not None and not self.learn.strip():
            raise UsageError("the tag to learn from is empty")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"a confidence is between 0 and 1, not {self.min_confidence:g}")
        if self.audio is None and (self.start_seconds is not None or self.end_seconds is not None):
            raise UsageError("a start or end needs an example sound to apply to (--audio FILE)")
        start, end = self.start_seconds or 0.0, self.end_seconds
        if start < 0 or (end is not None and not end > start):
            raise UsageError(f"the example's span {start:g}-{end if end is not None else ''} s is empty or negative")

    @property
    def words(self) -> str | None:
        """The text, if it is a single one."""
        terms = self.expression.terms if self.expression else ()
        return terms[0].words if len(terms) == 1 and isinstance(terms[0], Text) else None

    @property
    def wanted_words(self) -> str:
        """All words that are asked for, to be looked for in names."""
        terms = self.expression.terms if self.expression else ()
        return " ".join(term.words for term in terms if isinstance(term, Text) and term.weight > 0)

    @property
    def kind(self) -> Kind:
        """What it asks for is made of; scores of different kinds are not on one scale. What is left out has no part in
        it: scores stay on the scale of what is wanted (`aim`)."""
        terms = [term for term in self.expression.terms if term.weight > 0] if self.expression else []
        if self.audio is not None:
            return JOINT_QUERY if terms else AUDIO_QUERY
        weights = [term.weight if len(terms) > 1 else 1.0 for term in terms]
        return tuple(
            (weight, TEXT if isinstance(term, Text) else AUDIO) for weight, term in zip(weights, terms, strict=True)
        )

    def __str__(self) -> str:
        parts = [str(self.expression)] if self.expression else []
        if self.audio is not None:
            span = ""
            if self.start_seconds is not None or self.end_seconds is not None:
                end = "" if self.end_seconds is None else f"{self.end_seconds:g}"
                span = f"@{self.start_seconds or 0:g}-{end}"
            parts.append(self.audio + span)
        return " + ".join(parts)

    def _parsed_text(self) -> Expression | None:
        if self.text is None or isinstance(self.text, Expression):
            return self.text
        if not self.text.strip():
            if self.audio is None:
                raise UsageError("nothing to search for: give a text, an example sound (--audio FILE), or both")
            raise UsageError("the text of the query is empty: leave it out to search by the example sound alone")
        return parse_query(self.text)

    def _parsed_filter(self) -> Filter | None:
        return parse_filter(self.filter) if isinstance(self.filter, str) else self.filter
