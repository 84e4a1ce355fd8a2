"""What a filter says of numbers and dates -> bounds.

    duration:10        9.5 <= seconds < 10.5: what rounds to the number as written
    duration:5-30s     5 <= seconds <= 30; also 5..30s, 5.., ..30, >5, >=5, <30, <=30; ms, s, min, h, mm:ss, h:mm:ss
    date:2024-05       the whole month; date:2024-05..2024-07 to the end of July; date:>2024-05 from the 1st of June

Dates are text by the clock on the wall, as they are stored, and so are their bounds: "2024-05" <= "2024-05-03T05:30".
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Bounds:
    """From `low` to `high`, either of them None for no limit; an end belongs to it unless it is `open`."""

    low: float | str | None = None
    high: float | str | None = None
    low_open: bool = False
    high_open: bool = False


class _Point(NamedTuple):
    """One number or date as written: a stretch from `first` up to `stop`, and the number itself."""

    first: float | str
    stop: float | str
    value: float | None = None


_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_DURATION = re.compile(rf"({_NUMBER})(ms|sec|s|min|m|h)?", re.IGNORECASE)
_CLOCK = re.compile(rf"(?:([0-9]+):)?([0-9]+):({_NUMBER})")
_ONE_UNIT = re.compile(rf"({_NUMBER})(-|\.\.)({_NUMBER})([a-z]+)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_RATE = re.compile(rf"({_NUMBER})(k)?(?:hz)?", re.IGNORECASE)
_CHANNELS = {"mono": 1.0, "stereo": 2.0, "quad": 4.0, "5.1": 6.0, "7.1": 8.0}
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d))?)?)?)?)?", re.ASCII | re.IGNORECASE)
_AFTER_ALL = ":"  # sorts after every digit


def duration(text: str) -> Bounds | None:
    """Seconds; None if `text` is no duration or an empty range."""
    match = _ONE_UNIT.fullmatch(text.strip())
    if match is not None:  # "1-2min": the start's unit is the end's
        low, between, high, unit = match.groups()
        text = f"{low}{unit}{between}{high}{unit}"
    return _bounds(text, _duration, dash=True)


def sample_rate(text: str) -> Bounds | None:
    """Hz; None if `text` is no rate or an empty range."""
    return _bounds(text, _rate, dash=True)


def channels(text: str) -> Bounds | None:
    """How many; None if `text` does not say or is an empty range."""
    return _bounds(text, _channels, dash=True)


def date(text: str) -> Bounds | None:
    """ISO 8601 text; None if `text` is no date or an empty range."""
    return _bounds(text, _date, dash=False)


def _bounds(text: str, read: Callable[[str], _Point | None], *, dash: bool) -> Bounds | None:
    compared = re.fullmatch(r"\s*(>=|<=|>|<|=)\s*(\S+)\s*", text)
    if compared is not None:
        point = read(compared[2])
        return None if point is None else _compared(compared[1], point)
    start, between, end = text.strip().partition("..")
    if not between and dash:
        start, between, end = text.strip().partition("-")
        if between and not (start and end):
            return None
    if not between:
        point = read(start)
        return None if point is None else _compared("=", point)
    points = [read(each) for each in (start, end) if each]
    if not points or None in points:
        return None
    low = _compared(">=", points[0]) if start and points[0] else Bounds()
    high = _compared("<=", points[-1]) if end and points[-1] else Bounds()
    is_empty = bool(start and end) and low.low > high.high  # type: ignore[operator]
    return None if is_empty else Bounds(low.low, high.high, low.low_open, high.high_open)


def _compared(sign: str, point: _Point) -> Bounds:
    first, stop, value = point
    if sign == "=":
        return Bounds(first, stop, high_open=True) if first != stop else Bounds(value, value)
    if value is None:  # a date is a stretch of time: after May is from June on
        return {
            ">": Bounds(low=stop),
            ">=": Bounds(low=first),
            "<": Bounds(high=first, high_open=True),
            "<=": Bounds(high=stop, high_open=True),
        }[sign]
    is_low, is_open = ">" in sign, "=" not in sign
    return Bounds(low=value, low_open=is_open) if is_low else Bounds(high=value, high_open=is_open)


def _duration(text: str) -> _Point | None:
    if (clock := _CLOCK.fullmatch(text)) is not None:
        number, unit = clock[3], 1.0
        seconds = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(number)
    elif (match := _DURATION.fullmatch(text)) is not None:
        number, unit = match[1], _SECONDS[(match[2] or "").lower()]
        seconds = float(number) * unit
    else:
        return None
    half = 0.5 * unit * 10.0 ** -len(number.partition(".")[2])
    return _Point(seconds - half, seconds + half, seconds) if math.isfinite(seconds) else None


def _rate(text: str) -> _Point | None:
    match = _RATE.fullmatch(text)
    hertz = round(float(match[1]) * (1000 if match[2] else 1), 3) if match else math.inf
    return _Point(hertz, hertz, hertz) if math.isfinite(hertz) else None


def _channels(text: str) -> _Point | None:
    number = _CHANNELS.get(text.lower()) or (float(text) if re.fullmatch("[0-9]{1,4}", text) else None)
    return None if number is None else _Point(number, number, number)


def _date(text: str) -> _Point | None:
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    parts = [int(part) for part in match.groups() if part is not None]
    year, month, day, hour, minute, second = parts + [1, 1, 0, 0, 0][len(parts) - 1 :]
    try:
        start = datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    # As much of "2024-05-03T05:30:00" as was written.
    written = (4, 7, 10, 13, 16, 19)[len(parts) - 1]
    try:
        stop = _next(start, len(parts)).isoformat()[:written]
    except (OverflowError, ValueError):
        stop = _AFTER_ALL
    return _Point(start.isoformat()[:written], stop)


def _next(start: datetime, parts: int) -> datetime:
    """The beginning of the next year, month, day, hour, minute or second."""
    if parts == 1:
        return start.replace(year=start.year + 1)
    if parts == 2:
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start + (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))[parts - 3]
