"""Placement, windows, and batches that shrink when memory runs out."""

import weakref

import numpy as np
import pytest
import torch

from audiosearch.embed.batching import (
    Placement,
    TokenBudget,
    choose_device,
    is_out_of_memory,
    run_with_backoff,
    windows,
)
from audiosearch.errors import ModelError, UsageError


@pytest.fixture
def cuda(monkeypatch):
    """A stand-in for a machine with `devices` CUDA devices, with or without bfloat16."""

    def pretend(devices: int, *, bfloat16: bool = True) -> None:
        class Selected:
            def __init__(self, device):
                pass

            def __enter__(self):
                pass

            def __exit__(self, *error):
                pass

        monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Pretend {device}")
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16)
        monkeypatch.setattr(torch.cuda, "device", Selected)
        monkeypatch.delenv("AUDIOSEARCH_DEVICE", raising=False)
        monkeypatch.delenv("AUDIOSEARCH_DTYPE", raising=False)

    return pretend


def test_without_cuda_the_cpu_in_float32(cuda):
    cuda(0)
    placement = choose_device()
    assert (placement.device, placement.dtype) == ("cpu", "float32")
    assert "no CUDA" in str(placement)


def test_the_first_cuda_device_in_bfloat16(cuda):
    cuda(2)
    placement = choose_device()
    assert (placement.device, placement.dtype) == ("cuda:0", "bfloat16")
    assert str(placement) == "cuda:0, bfloat16: the first of 2 CUDA devices, Pretend cuda:0"


def test_float32_where_cuda_lacks_bfloat16(cuda):
    cuda(1, bfloat16=False)
    placement = choose_device()
    assert placement.dtype == "float32"
    assert "no bfloat16" in placement.reason


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [
        ("cpu", None, ("cpu", "float32")),
        ("CPU", "bfloat16", ("cpu", "bfloat16")),
        ("cuda", None, ("cuda:0", "bfloat16")),
        ("cuda:1", "float32", ("cuda:1", "float32")),
    ],
)
def test_as_asked(cuda, device, dtype, expected):
    cuda(2)
    placement = choose_device(device, dtype)
    assert (placement.device, placement.dtype) == expected
    assert placement.reason.startswith("as asked")


def test_environment_decides_when_nothing_was_asked(cuda, monkeypatch):
    cuda(1)
    monkeypatch.setenv("AUDIOSEARCH_DEVICE", "cpu")
    assert choose_device() == Placement("cpu", "float32", "as asked")
    assert choose_device("cuda:0").device == "cuda:0"


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "tpu", "mps:1", "cpu:3 or so"])
def test_unknown_device_is_refused(cuda, device):
    cuda(1)
    with pytest.raises(UsageError, match="unknown device"):
        choose_device(device)


@pytest.mark.parametrize(("devices", "device"), [(0, "cuda"), (1, "cuda:1")])
def test_device_that_is_not_there_is_refused(cuda, devices, device):
    cuda(devices)
    with pytest.raises(UsageError, match=r"no (CUDA )?device"):
        choose_device(device)


def test_unknown_dtype_is_refused():
    with pytest.raises(UsageError, match="float16"):
        choose_device("cpu", "float16")


def test_windows_end_by_count_or_by_size():
    sizes = [1.0] * 5 + [10.0, 1.0, 4.0, 6.0, 1.0]
    assert list(windows(sizes, lambda size: size, limit=10.0, count=4)) == [
        [1.0] * 4,
        [1.0, 10.0],
        [1.0, 4.0, 6.0],
        [1.0],
    ]


def test_windows_take_no_item_early():
    taken = []
    stream = windows((taken.append(i) or i for i in range(100)), lambda _: 1.0, limit=3.0, count=9)
    assert next(stream) == [0, 1, 2]
    assert taken == [0, 1, 2]


def test_batches_cover_every_item_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 200, 300).tolist()
    batches = [batch for batch, _ in run_with_backoff(lengths, lambda batch: None, TokenBudget(512))]
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 512
    used = sum(lengths) / sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert used > 0.95  # like lengths together: hardly any padding


def test_an_item_over_the_budget_goes_alone():
    batches = [batch for batch, _ in run_with_backoff([5, 100, 5], lambda batch: None, TokenBudget(20))]
    assert batches == [[1], [0, 2]]


class SmallMemory:
    """Raises `error` for more than `tokens` padded tokens."""

    def __init__(self, lengths, tokens, error):
        self.lengths, self.tokens, self.error = lengths, tokens, error
        self.refused, self.batches = 0, []

    def __call__(self, batch):
        padded = max(self.lengths[i] for i in batch) * len(batch)
        if padded > self.tokens:
            self.refused += 1
            raise self.error
        self.batches.append(batch)
        return [self.lengths[i] for i in batch]


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.1 GB)"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:20])
def test_out_of_memory_halves_the_batch_and_goes_on(error):
    lengths = np.random.default_rng(1).integers(10, 50, 200).tolist()
    run, budget = SmallMemory(lengths, 300, error), TokenBudget(4_000)
    results = {}
    for batch, values in run_with_backoff(lengths, run, budget):
        results.update(zip(batch, values, strict=True))
    assert [results[i] for i in range(200)] == lengths
    assert run.refused == 4  # 4000 -> 2000 -> 1000 -> 500 -> 250, and never again
    assert budget.tokens <= 300


def test_the_smaller_budget_is_remembered_by_the_next_call():
    lengths = [30] * 40
    run, budget = SmallMemory(lengths, 300, OUT_OF_MEMORY[0]), TokenBudget(1_200)
    list(run_with_backoff(lengths, run, budget))
    refused = run.refused
    assert refused
    list(run_with_backoff(lengths, run, budget))
    assert run.refused == refused


def test_one_item_that_does_not_fit_says_what_to_do():
    run = SmallMemory([10, 400, 10], 300, OUT_OF_MEMORY[0])
    with pytest.raises(ModelError, match=r"one item of 400 tokens.*--device"):
        list(run_with_backoff([10, 400, 10], run, TokenBudget(1_000)))


def test_the_failed_batch_is_released_before_the_next_try():
    class Big:
        pass

    alive = []

    def run(batch):
        assert not any(reference() for reference in alive), "the batch that failed is still in memory"
        held = Big()
        alive.append(weakref.ref(held))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    list(run_with_backoff([1] * 8, run, TokenBudget(8)))
    assert len(alive) == 3 + 8


def test_other_errors_pass_through():
    def run(batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(run_with_backoff([1, 2], run, TokenBudget(8)))
    assert not is_out_of_memory(ValueError("out of memory"))
