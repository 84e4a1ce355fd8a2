"""Dataclasses as what JSON can hold: the one form in which values leave the program."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

JSON_VERSION = 1


def fields_of(value: Any) -> dict[str, Any]:
    """A dataclass as a dict, ready for JSON; of `Metadata`, the fields are lists of values by name."""
    assert is_dataclass(value) and not isinstance(value, type)
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}


def _plain(value: Any) -> Any:
    if type(value).__name__ == "Metadata":  # not imported: `types` needs NumPy
        by_name: dict[str, list[str]] = {}
        for each in value.fields:
            by_name.setdefault(each.name, []).append(each.value)
        return {**fields_of(value), "fields": by_name}
    if is_dataclass(value):
        return fields_of(value)
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value


def decimal(value: float, digits: int = 6) -> str:
    """A number for other programs: no exponent, no zeros at the end."""
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def one_line(text: str) -> str:
    """Text without line breaks, tabs and other control characters: a space for each."""
    return "".join(char if char.isprintable() or "\udc80" <= char <= "\udcff" else " " for char in text)
