"""One step's gradient from micro-batches, though the loss looks at the whole batch (GradCache, arXiv 2101.06983).

    pass one   micro-batch --model--> embeddings --gather--> whole batch --loss--> d loss / d embeddings
    pass two   micro-batch --model again, same random state--> embeddings . their gradient --> parameters

Without the cache pass one keeps its graphs and there is no pass two: the same gradient, memory for the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from audiosearch.errors import UsageError

if TYPE_CHECKING:
    from audiosearch.model.assembly import ModelInputs

Loss = Callable[[Mapping[str, Tensor]], tuple[Tensor, dict[str, float]]]


@dataclass(slots=True)
class MicroBatch:
    """Items of one side of the batch that go through the model together; `rows` are their places on that side."""

    side: str
    rows: Tensor  # (b,) int64
    inputs: ModelInputs
    prefix: Tensor | None = None  # (P,) ids of the instruction that all of them share


def gradient_step(
    batches: Sequence[MicroBatch],
    encode: Callable[[MicroBatch], Tensor],
    loss_of: Loss,
    *,
    cached: bool,
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    own: slice | None = None,
) -> tuple[Tensor, dict[str, float], dict[str, Tensor]]:
    """Add one step's gradient to the parameters' `.grad`.

    Args:
        batches: every item of this process's share, each side's rows 0..n-1 once.
        encode: a micro-batch to its embeddings (b, D), with gradient when gradients are enabled.
        loss_of: the whole batch's embeddings, (B, D) a side, to the loss and what to report. Its own parameters (tau)
            get their full gradient in every process.
        cached: two passes (GradCache); else one that keeps every graph.
        gather: this process's embeddings (B / processes, D) to the whole batch's, in the order of processes.
        own: the rows of the whole batch that are this process's; None for all.

    Returns:
        The loss (detached), the report, and the whole batch's embeddings (detached). The parameters' gradients are
        this process's part: their sum over processes is the gradient of the whole batch's loss.
    """
    states: list[_RandomState] = []
    parts: list[Tensor] = []
    for batch in batches:
        if cached:
            states.append(_RandomState.capture(batch.inputs.ids.device))
        with torch.no_grad() if cached else nullcontext():
            parts.append(encode(batch))
    whole = {
        side: gather(rows).requires_grad_()
        for side, rows in _joined(batches, [part.detach() for part in parts]).items()
    }
    loss, report = loss_of(whole)
    if not torch.isfinite(loss):  # whoever calls says so; nothing has been added to any gradient
        return loss.detach(), report, {side: rows.detach() for side, rows in whole.items()}
    loss.backward()
    for i, batch in enumerate(batches):
        gradient = whole[batch.side].grad
        if gradient is None:
            continue
        mine = gradient[own or slice(None)][batch.rows]
        if cached:
            with states[i].replayed():
                encode(batch).backward(mine)
        else:
            parts[i].backward(mine)
    return loss.detach(), report, {side: rows.detach() for side, rows in whole.items()}


def refuse_batch_statistics(model: nn.Module) -> None:
    """Raise UsageError if a layer of the model normalises over the batch: a micro-batch would not be what the whole
    batch is, and the second pass not what the first was."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None or module.running_var is None
        ):
            raise UsageError(
                f"{name} ({type(module).__name__}) looks across the batch, which grad_cache cannot split: "
                "freeze it in eval mode, or train with grad_cache: false"
            )


def _joined(batches: Sequence[MicroBatch], parts: Sequence[Tensor]) -> dict[str, Tensor]:
    """The embeddings of each side, every item at its own row."""
    sides: dict[str, Tensor] = {}
    for side in dict.fromkeys(batch.side for batch in batches):
        found = [(batch.rows, part) for batch, part in zip(batches, parts, strict=True) if batch.side == side]
        rows = torch.cat([rows for rows, _ in found])
        values = torch.cat([part for _, part in found])
        out = values.new_empty(values.shape)
        out[rows.to(values.device)] = values
        sides[side] = out
    return sides


@dataclass(slots=True)
class _RandomState:
    """The generators' state before a micro-batch, so that dropout drops the same in its second pass."""

    cpu: Tensor
    device: torch.device
    cuda: Tensor | None

    @classmethod
    def capture(cls, device: torch.device) -> _RandomState:
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.get_rng_state(), device, cuda)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[self.device] if self.cuda is not None else []):
            torch.set_rng_state(self.cpu)
            if self.cuda is not None:
                torch.cuda.set_rng_state(self.cuda, self.device)
            yield
