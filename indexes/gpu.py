"""A GPU for searching: an exact scan of fp16 rows in torch, and FAISS's own indexes placed on it.

`TorchIndex` holds a space's rows as they are in the shards, two bytes a dimension: a GPU with 80 GB has room for 70
million of 512. `place` lends a trained index to the GPU for searches without a filter; the index itself stays where
it is, for filters, removal, full rows and saving.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from audiosearch.indexes.approximate import ApproximateIndex
from audiosearch.indexes.base import Ids, Rows, RowSource, VectorIndex, is_few, scan, settle, those_in

_BLOCK = 1 << 20  # rows of one product
_ROUNDING = 4e-3  # of an inner product of unit vectors in fp16: inputs, sum and result, twice over
_GROWTH = 1.5


class TorchIndex:
    """Every row on one device, compared with every query. Exact: candidates are scored again by full rows."""

    kind: ClassVar[str] = "torch"
    rounding: ClassVar[float] = 1e-2
    needs_rows: ClassVar[bool] = True
    factory = "torch,fp16"

    def __init__(self, dim: int, rows: RowSource, device: str = "cuda") -> None:
        import torch

        self.dim, self.device = dim, device
        self._rows_of = rows
        self._matrix = torch.empty((0, dim), dtype=torch.float16, device=device)
        self._held = np.empty(0, np.int64)  # the id of each row of the matrix
        self._sorted: Ids | None = None

    def __len__(self) -> int:
        return len(self._held)

    def add(self, ids: Ids, vectors: Rows) -> None:
        """Add vectors [n, dim] under new ids [n]."""
        import torch

        first, count = len(self), len(self) + len(ids)
        if count > len(self._matrix):
            larger = torch.empty((max(count, int(_GROWTH * first)), self.dim), dtype=torch.float16, device=self.device)
            larger[:first] = self._matrix[:first]
            self._matrix = larger
        self._matrix[first:count] = torch.from_numpy(np.ascontiguousarray(vectors, np.float16)).to(self.device)
        self._held, self._sorted = np.concatenate([self._held, np.asarray(ids, np.int64)]), None

    def remove(self, ids: Ids) -> None:
        """Take ids out: the last rows fill the gaps."""
        import torch

        gone = np.isin(self._held, ids)
        left = len(self) - int(np.count_nonzero(gone))
        gaps, fillers = np.flatnonzero(gone[:left]), left + np.flatnonzero(~gone[left:])
        on_device = [torch.from_numpy(places).to(self.device) for places in (gaps, fillers)]
        self._matrix[on_device[0]] = self._matrix[on_device[1]]
        self._held[gaps] = self._held[fillers]
        self._held, self._sorted = self._held[:left], None

    def search(self, queries: Rows, k: int, allowed: Ids | None = None) -> tuple[Rows, Ids]:
        """The best k for each of queries [q, dim]: scores [q, k] and ids [q, k]."""
        import torch

        queries, places = np.ascontiguousarray(queries, np.float32), None
        if allowed is not None:
            allowed = those_in(allowed, self.ids())
            if is_few(len(allowed), len(self)):
                return scan(queries, allowed, self._rows_of, k)
            places = torch.from_numpy(np.isin(self._held, allowed)).to(self.device)
        total = len(self) if allowed is None else len(allowed)
        return settle(lambda q, n: self._rough(q, n, places), queries, k, total, self._rows_of, _ROUNDING)

    def ids(self) -> Ids:
        """Every id, ascending."""
        if self._sorted is None:
            self._sorted = np.sort(self._held)
        return self._sorted

    def vectors(self, ids: Ids) -> Rows:
        """Rows [n, dim] by id, in fp16's precision."""
        import torch

        order = np.argsort(self._held)
        places = torch.from_numpy(order[np.searchsorted(self._held[order], ids)]).to(self.device)
        return np.asarray(self._matrix[places].float().cpu().numpy(), np.float32)

    def save(self, path: Path) -> None:
        """Write ids and rows as one file."""
        rows = self._matrix[: len(self)].cpu().numpy()
        with path.open("wb") as file:
            np.savez(file, ids=self._held, rows=rows)

    @classmethod
    def load(cls, path: Path, rows: RowSource | None = None, device: str = "cuda") -> TorchIndex:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is not whole, or there is no source of rows.
        """
        import zipfile

        if rows is None:
            raise ValueError(f"an index of kind {cls.kind} needs a source of rows")
        try:
            with np.load(path) as kept:
                ids, stored = kept["ids"], kept["rows"]
        except (OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not an index of kind {cls.kind}: {error}") from error
        loaded = cls(stored.shape[1], rows, device)
        loaded.add(ids, stored)
        return loaded

    def _rough(self, queries: Rows, k: int, places: Any) -> tuple[Rows, Ids]:
        """Scores and ids [q, k] in fp16's precision, among the rows at `places` (a mask)."""
        import torch

        asked = torch.from_numpy(queries).to(self.device, torch.float16)
        scores: Any = torch.empty((len(queries), 0), device=self.device)
        rows: Any = torch.empty((len(queries), 0), dtype=torch.int64, device=self.device)
        for first in range(0, len(self), _BLOCK):
            last = min(first + _BLOCK, len(self))
            block = (asked @ self._matrix[first:last].T).float()
            if places is not None:
                block.masked_fill_(~places[first:last], -torch.inf)
            top = torch.topk(block, min(k, last - first))
            scores = torch.cat([scores, top.values], 1)
            rows = torch.cat([rows, top.indices + first], 1)
            top = torch.topk(scores, min(k, scores.shape[1]))
            scores, rows = top.values, torch.gather(rows, 1, top.indices)
        found = np.where(np.isneginf(scores.cpu().numpy()), -1, self._held[rows.cpu().numpy()])
        return scores.cpu().numpy(), found


def has_room(count: int, dim: int, device: str) -> bool:
    """Whether half of what is free on a CUDA device holds so many fp16 rows; another device is taken at its word."""
    import torch

    if not device.startswith("cuda"):
        return True
    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return 2 * count * dim <= free // 2


def lend(index: VectorIndex, device: str) -> None:
    """Place an index on a CUDA device if its kind can be, and it is not there already."""
    if isinstance(index, ApproximateIndex) and device.startswith("cuda") and not index.is_placed:
        place(index, int(device.partition(":")[2] or 0))


def place(index: ApproximateIndex, number: int = 0) -> str | None:
    """Lend the index to GPU `number` for unfiltered searches; returns why not, if it was not.

    FAISS has no graph search on a GPU, and one built for the CPU sees none.
    """
    import faiss

    if faiss.get_num_gpus() <= number:
        return "FAISS sees no such GPU"

    def lend(inner: Any) -> Any:
        resources = faiss.StandardGpuResources()
        placed: Any = faiss.index_cpu_to_gpu(resources, number, inner)
        placed.resources = resources  # it points to them
        return placed

    try:
        index.place(lend)
    except RuntimeError as error:
        return f"FAISS cannot place it there ({str(error).splitlines()[0]})"
    return None
