"""What a file's name says by two conventions: sound libraries' (UCS) and recorders' (date and time).

    CatID(-UserCategory)_(VendorCategory-)FXName_CreatorID_SourceID(_UserData)     the Universal Category System
    24F31901_20230714_053000.WAV   230714-053000.wav   2023-07-14 at 05.30.00      AudioMoth, Song Meter, Zoom, phones

Nothing is read: a renamed file's fields are computed anew from its new name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import PurePath

from audiosearch.types import Field, Metadata

SOURCE = "name"

# A category's abbreviation in capitals, then its subcategory's: DOORWood, UIClick, AERORadio. The list itself is not
# bundled: nobody states under which terms it may be passed on.
_CAT_ID = re.compile(r"[A-Z]{2,5}[A-Z][a-z]{2,7}")

_DATE = r"(?P<year>(?:19|20)\d\d)(?P<a>[-_.]?)(?P<month>\d\d)(?P=a)(?P<day>\d\d)"
_TIME = r"(?P<hour>\d\d)(?P<b>[-_.:h]?)(?P<minute>\d\d)(?P<c>[-_.:m]?)(?P<second>\d\d)"
_ZONE = r"(?P<zone>Z|[+-]\d\d:?\d\d)?"
_MOMENTS = (
    re.compile(rf"(?<!\d){_DATE}(?:[T _-]+| at ){_TIME}{_ZONE}(?!\d)"),
    # Zoom and other hand-held recorders: a year of two digits, only with both parts whole.
    re.compile(
        r"(?<!\d)(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)[-_](?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?!\d)"
    ),
)
# A day alone: only in forms that are hardly anything else; messengers write `AUD-20230714-WA0001`.
_DAYS = (
    re.compile(r"(?<!\d)(?P<year>(?:19|20)\d\d)([-_.])(?P<month>\d\d)\2(?P<day>\d\d)(?!\d)"),
    re.compile(r"(?:PTT|AUD)-(?P<year>20\d\d)(?P<month>\d\d)(?P<day>\d\d)-WA\d"),
)
# The first AudioMoths: seconds since 1970 as eight hexadecimal digits. Between the device's first year and 2033.
_HEX_SECONDS = re.compile(r"(?=.*[A-F])[5-7][0-9A-F]{7}")
_HEX_FROM, _HEX_TO = 0x56000000, 0x77000000
_MOMENT = re.compile(
    r"(\d{4})[-:/_. ](\d\d)[-:/_. ](\d\d)"
    r"(?:[T ]+(\d\d)[-:.](\d\d)[-:.](\d\d)(?:[.,]\d+)?\s*(Z|UTC|[+-]\d\d:?\d\d)?)?"
)
_UNSET = frozenset({"1904-01-01", "1970-01-01"})  # where QuickTime and Unix begin to count


def with_name(metadata: Metadata, path: str) -> Metadata:
    """The same metadata with what the path's last part says instead of what an earlier name said.

    What the file itself says comes first: a name adds fields, and a date only where there is none.
    """
    inside = tuple(field for field in metadata.fields if field.source != SOURCE)
    said = {(field.name, field.value) for field in inside}
    added = tuple(field for field in name_fields(path) if (field.name, field.value) not in said)
    metadata = replace(metadata, fields=inside + added)
    if metadata.recorded_at is None or metadata.recorded_at_source == SOURCE:
        found = name_moment(path)
        metadata = replace(metadata, recorded_at=found, recorded_at_source=SOURCE if found else None)
    return metadata


def name_fields(path: str) -> tuple[Field, ...]:
    """The UCS fields of a path's last part; none if it is not named by that system."""
    blocks = PurePath(path).stem.split("_")
    cat_id, _, user_category = blocks[0].partition("-")
    if len(blocks) < 4 or not _CAT_ID.fullmatch(cat_id):
        return ()
    vendor_category, dash, fx_name = blocks[1].partition("-")
    if not dash:
        vendor_category, fx_name = "", blocks[1]
    found = {
        "cat_id": cat_id,
        "user_category": user_category,
        "vendor_category": vendor_category,
        "fx_name": fx_name,
        "creator_id": blocks[2],
        "source_id": blocks[3],
        "user_data": "_".join(blocks[4:]),
    }
    values = {name: clean(value) for name, value in found.items()}
    return tuple(Field(name, value, SOURCE) for name, value in values.items() if value)


def name_moment(path: str) -> str | None:
    """When the recording began, by a recorder's way of naming: ISO 8601, with an offset where the name has one."""
    stem = PurePath(path).stem
    if _HEX_SECONDS.fullmatch(stem) and _HEX_FROM <= int(stem, 16) < _HEX_TO:
        return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=int(stem, 16))).isoformat()
    for pattern in _MOMENTS:
        for match in pattern.finditer(stem):
            parts = match.groupdict()
            year = parts["year"] if len(parts["year"]) == 4 else "20" + parts["year"]
            text = f"{year}-{parts['month']}-{parts['day']}T{parts['hour']}:{parts['minute']}:{parts['second']}"
            if (found := moment(text + (parts.get("zone") or ""))) is not None:
                return found
    for pattern in _DAYS:
        for match in pattern.finditer(stem):
            if (found := moment(f"{match['year']}-{match['month']}-{match['day']}")) is not None:
                return found
    return None


def moment(text: str) -> str | None:
    """A date, or date and time, as ISO 8601 with whole seconds: `2023-07-14`, `2023-07-14T05:30:00`, `...+02:00`.

    None for anything else, and for what no clock ever showed (a recorder whose clock was never set says 0000-00-00).
    """
    match = _MOMENT.fullmatch(text.strip())
    if match is None or match[1] < "1900":
        return None
    day, zone = "-".join(match.group(1, 2, 3)), match[7] or ""
    if day in _UNSET:
        return None
    if zone in ("Z", "UTC"):
        zone = "+00:00"
    elif zone and ":" not in zone:
        zone = zone[:3] + ":" + zone[3:]
    found = day if match[4] is None else f"{day}T{':'.join(match.group(4, 5, 6))}{zone}"
    try:
        datetime.fromisoformat(found)
    except ValueError:
        return None
    return found


def clean(value: str, limit: int = 4000) -> str:
    """Text that a database and a screen can hold: without control characters, lone surrogates and blank ends."""
    text = value[: 2 * limit].encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    kept = (" " if char.isspace() and char not in "\n\t" else char for char in text)
    return "".join(char for char in kept if char.isprintable() or char in "\n\t").strip()[:limit]
