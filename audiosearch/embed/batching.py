"""Where a model runs, which items go through it together, and what happens when they do not fit."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from audiosearch.errors import ModelError, UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

DTYPES = ("float32", "bfloat16")
# What torch says when memory runs out, where it has no exception of its own: cuBLAS, MPS, the CPU allocator.
_OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|ALLOC_FAILED", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Placement:
    """Device and dtype of a model, chosen once, and the reason in words."""

    device: str
    dtype: str
    reason: str

    def __str__(self) -> str:
        return f"{self.device}, {self.dtype}: {self.reason}"


def choose_device(device: str | None = None, dtype: str | None = None) -> Placement:
    """Where to run: as told, else as `$AUDIOSEARCH_DEVICE` and `$AUDIOSEARCH_DTYPE` say, else CUDA when there is one.

    Raises:
        UsageError: a device or dtype that does not exist here.
    """
    import torch

    device = device or os.environ.get("AUDIOSEARCH_DEVICE") or None
    dtype = dtype or os.environ.get("AUDIOSEARCH_DTYPE") or None
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"unknown dtype {dtype!r}: use {' or '.join(DTYPES)}")
    if device is None:
        device, reason = _best_device(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    else:
        device, reason = _known_device(device), "as asked"
    if dtype is None:
        dtype = "float32"
        if device.startswith("cuda"):
            name = torch.cuda.get_device_name(device)
            with torch.cuda.device(device):
                has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
            dtype = "bfloat16" if has_bfloat16 else "float32"
            reason += f", {name}" + ("" if has_bfloat16 else ", which has no bfloat16")
    return Placement(device, dtype, reason)


def other_devices(device: str | None = None) -> tuple[str, ...]:
    """The CUDA devices beside the one that `choose_device` takes; none where the user said which one to use."""
    import torch

    if device or os.environ.get("AUDIOSEARCH_DEVICE") or not torch.cuda.is_available():
        return ()
    return tuple(f"cuda:{number}" for number in range(1, torch.cuda.device_count()))


def _best_device(cuda_devices: int) -> tuple[str, str]:
    import torch

    if cuda_devices:
        return "cuda:0", "a CUDA device was found" if cuda_devices == 1 else f"the first of {cuda_devices} CUDA devices"
    if torch.version.cuda is None:
        return "cpu", "this build of torch has no CUDA"
    return "cpu", "no CUDA device found"


def _known_device(name: str) -> str:
    """`name` with its number, when torch can run there."""
    import torch

    match = re.fullmatch(r"(cpu|mps)|cuda(?::(\d+))?", name.strip().lower())
    if not match:
        raise UsageError(f"unknown device {name!r}: use cpu, cuda, cuda:1 (any number) or mps")
    if match[1] == "cpu":
        return "cpu"
    if match[1] == "mps":
        if not torch.backends.mps.is_available():
            raise UsageError("no Apple GPU (mps) here: use --device cpu, or leave the choice to audiosearch")
        return "mps"
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not found:
        raise UsageError("no CUDA device found: use --device cpu, or leave the choice to audiosearch")
    number = int(match[2] or 0)
    if number >= found:
        raise UsageError(f"no device cuda:{number}: the last of {found} is cuda:{found - 1}")
    return f"cuda:{number}"


class TokenBudget:
    """How many padded tokens (rows x longest row) a batch may hold. Shrinks when memory runs out, and stays shrunk."""

    def __init__(self, tokens: int) -> None:
        assert tokens > 0, tokens
        self.tokens = tokens

    def rows(self, longest: int) -> int:
        """Rows of up to `longest` tokens that go into one batch, at least one."""
        return max(1, self.tokens // longest)


def windows(items: Iterable[Item], size: Callable[[Item], float], *, limit: float, count: int) -> Iterator[list[Item]]:
    """`items` in lists that end with `count` items or once their sizes sum up to `limit`."""
    window: list[Item] = []
    total = 0.0
    for item in items:
        window.append(item)
        total += size(item)
        if len(window) >= count or total >= limit:
            yield window
            window, total = [], 0.0
    if window:
        yield window


def run_with_backoff(
    lengths: Sequence[int], run: Callable[[list[int]], Result], budget: TokenBudget
) -> Iterator[tuple[list[int], Result]]:
    """Run all items in batches of similar length, longest first, so that memory runs out early or not at all.

    A batch that does not fit is halved, and `budget` remembers it for all batches that follow.

    Args:
        lengths: tokens of each item.
        run: computes a batch, given as indices into `lengths`.

    Yields:
        The indices of a batch and what `run` returned for it. Each index comes once; the caller restores the order.

    Raises:
        ModelError: not even a batch of one fits.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        batch = order[start : start + budget.rows(longest)]
        try:
            result = run(batch)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise ModelError(
                    f"out of memory on one item of {longest} tokens: use shorter windows (--window), another --device, "
                    "or a smaller --model"
                ) from error
            budget.tokens = longest * len(batch) // 2
        else:
            start += len(batch)
            yield batch, result
            continue
        # Outside the handler: until it ends, the error's traceback keeps the failed batch's tensors alive.
        _release_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is any of the ways in which memory runs out."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def _release_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
