"""The JSON Schema of what `--json` prints, drawn from the dataclasses it is made of; `docs/schemas/` holds a copy.

Within a version fields may be added, so no schema forbids further ones; a field is never taken away, renamed or given
another meaning without a new version.
"""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from audiosearch.errors import UsageError
from audiosearch.export.values import JSON_VERSION

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
NAMES = {"answer": "Answer", "status": "Status", "ingest": "IngestSummary", "sync": "SyncSummary",
          "verify": "Verification", "info": "FileInfo"}  # fmt: skip


def json_schema(name: str) -> dict[str, Any]:
    """The schema (draft 2020-12) of an answer of `audiosearch`: answer (of `query`), status, ingest, sync, verify or
    info. Raises UsageError for another name."""
    from audiosearch import types as values

    if name not in NAMES:
        raise UsageError(f"no JSON of that name, {name!r}: choose one of {', '.join(NAMES)}")
    body = _of(getattr(values, NAMES[name]))
    if name == "info":
        body = {"type": "object", "properties": {"files": {"type": "array", "items": body}}, "required": ["files"]}
    body["properties"] = {"version": {"const": JSON_VERSION}, **body["properties"]}
    body["required"] = ["version", *body["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"audiosearch {name}", **body}


def _of(kind: Any) -> dict[str, Any]:
    """The schema of a type as `export.values` writes its values."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(each) for each in inner]}
    if origin in (tuple, list):
        if origin is tuple and inner[-1] is not Ellipsis:
            return {"type": "array", "prefixItems": [_of(each) for each in inner], "minItems": len(inner),
                    "maxItems": len(inner)}  # fmt: skip
        return {"type": "array", "items": _of(inner[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(inner[1])}
    if is_dataclass(kind):
        return _of_dataclass(kind)
    return {"type": _PLAIN[kind]}


def _of_dataclass(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    properties = {each.name: _of(hints[each.name]) for each in fields(kind)}
    if kind.__name__ == "Metadata":  # lists of values by name
        properties["fields"] = {"type": "object", "additionalProperties": {"type": "array", "items": _of(str)}}
    said = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return {"type": "object", "description": said, "properties": properties, "required": list(properties)}
