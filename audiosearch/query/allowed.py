"""What the catalogue says to a query: which vectors and files a filter leaves, and which files are called like it.

What a filter leaves is remembered while the catalogue stays as it is, for whoever asks again and again under one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from audiosearch.query.filters import Filter
    from audiosearch.store.fulltext import TextMatch
    from audiosearch.store.store import Store

_REMEMBERED = 8  # filters; of a million vectors each is 8 MB


class Allowed:
    """The filters of one library's queries. Any number of threads may use it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._ids: OrderedDict[tuple[str, int, object], NDArray[np.int64]] = OrderedDict()

    def state(self) -> object:
        """The catalogue's state, to be taken *before* the snapshot in which `vector_ids` reads: what is committed in
        between may be read under the older state, and is then looked up again; never the other way round."""
        return self._store.state()

    def vector_ids(self, filter_: Filter, space_id: int, state: object) -> NDArray[np.int64]:
        """Ids of the space's vectors that may be found, ascending; read-only."""
        from audiosearch.query import conditions

        key = str(filter_), space_id, state
        with self._lock:
            if key in self._ids:
                self._ids.move_to_end(key)
                return self._ids[key]
        with self._store.connected() as connection:
            ids = conditions.vector_ids(connection, filter_, space_id)
        ids.flags.writeable = False
        if state is not None:
            with self._lock:
                self._ids[key] = ids
                while len(self._ids) > _REMEMBERED:
                    self._ids.popitem(last=False)
        return ids

    def places(self, filter_: Filter, recording_ids: Collection[int]) -> set[tuple[str, str]]:
        """(root, path below it) of the files of those recordings that fit."""
        from audiosearch.query import conditions

        with self._store.connected() as connection:
            return conditions.places(connection, filter_, recording_ids)

    def named(self, words: str, filter_: Filter | None) -> list[TextMatch]:
        """The files whose names or metadata have any of the words, best first, of those that the filter leaves."""
        from audiosearch.query import conditions
        from audiosearch.store import fulltext

        condition = None if filter_ is None else conditions.file_condition(filter_)
        with self._store.connected() as connection:
            return fulltext.search(connection, words, condition=condition)

    def of_recordings(self, recording_ids: Sequence[int], space_id: int) -> NDArray[np.int64]:
        """Ids of the vectors of some recordings, ascending."""
        from audiosearch.query import conditions

        with self._store.connected() as connection:
            return conditions.vector_ids_of(connection, recording_ids, space_id)
