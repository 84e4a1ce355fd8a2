"""The seam between models and everything else.

Beyond its signatures an embedder owes:

- **Unit rows.** float32, shape (n, dim), length one; never NaN. What a row means is fixed by `fingerprint`.
- **Order.** Row i belongs to item i of the input, whatever order the items were computed in.
- **Independence.** An item's row does not depend on what else is in the call: cosine >= 1 - 1e-5 with the row of a call
  that holds the item alone (float32).
- **Any iterable.** Items are taken in bounded windows, so a generator over hours of sound needs no hours of memory.
  Without items the result has shape (0, dim).
- **Instructions.** `instruction` is the user's own; None means the model's default for `task`. Stored sound is embedded
  as a `document`, plain text too; a question about sound is a `query`.
- **One caller at a time.** An embedder is used by one thread at a time, not necessarily always the same one.

Raises `ValueError`, naming the item's index, for a clip that is not one-dimensional, floating-point, finite and
non-empty; `UsageError` for an item that is longer than the model takes (nothing is cut off in silence: callers chunk);
`ModelError` when not even one item fits in memory; `RuntimeError` when the model computes what is not a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from audiosearch.types import Samples, Task, Vectors


@runtime_checkable
class AudioTextEmbedder(Protocol):
    """Sound, text, or both to comparable vectors; see the module's docstring for what is owed."""

    @property
    def dim(self) -> int:
        """Width of a row."""
        ...

    @property
    def sample_rate(self) -> int:
        """Hz of every clip that goes in."""
        ...

    @property
    def max_seconds(self) -> float:
        """The longest clip that goes in."""
        ...

    @property
    def fingerprint(self) -> str:
        """What makes vectors comparable: equal fingerprints, equal meaning."""
        ...

    @property
    def licence(self) -> str:
        """The licence of the weights, the stricter one where two are claimed."""
        ...

    @property
    def placement(self) -> str:
        """Device, dtype and why: "cpu, float32: no CUDA device found"."""
        ...

    def embed_audio(
        self, clips: Iterable[Samples], *, instruction: str | None = None, task: Task = "document"
    ) -> Vectors:
        """Rows (n, dim) of n mono clips at `sample_rate`, each of its own length."""
        ...

    def embed_text(self, texts: Iterable[str], *, instruction: str | None = None, task: Task = "document") -> Vectors:
        """Rows (n, dim) of n texts."""
        ...

    def embed_audio_text(
        self, pairs: Iterable[tuple[Samples, str]], *, instruction: str | None = None, task: Task = "query"
    ) -> Vectors:
        """Rows (n, dim) of n items that are a clip and a text together."""
        ...


class ComputesBeside(Protocol):
    """What an embedder has beside the above if its device can compute while the caller goes on."""

    @property
    def computes_beside(self) -> bool:
        """Whether that is so where the model was placed. If not, `begin_audio` returns when everything is computed."""
        ...

    def begin_audio(
        self, clips: Iterable[Samples], *, instruction: str | None = None, task: Task = "document"
    ) -> Callable[[], Vectors]:
        """Start what `embed_audio` does. Calling what is returned, once, waits for the rows and returns them.

        Another call may be begun before; the rows of the first do not wait for the second.
        """
        ...
