"""audiosearch: find the moment you mean in a folder of sound.

The public surface is what ``__all__`` lists. Nothing heavy is imported until it is used, so that ``import audiosearch``
and ``audiosearch --help`` stay instant.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AudioSearchError",
    "Hit",
    "IngestSummary",
    "Library",
    "Moment",
    "Query",
    "Status",
    "__version__",
]

_HOME = {
    "Answer": "audiosearch.types",
    "AudioSearchError": "audiosearch.errors",
    "Hit": "audiosearch.types",
    "IngestSummary": "audiosearch.types",
    "Library": "audiosearch.library",
    "Moment": "audiosearch.types",
    "Query": "audiosearch.query.request",
    "Status": "audiosearch.types",
}

if TYPE_CHECKING:
    from audiosearch.errors import AudioSearchError
    from audiosearch.library import Library
    from audiosearch.query.request import Query
    from audiosearch.types import Answer, Hit, IngestSummary, Moment, Status


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
