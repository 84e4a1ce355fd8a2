"""Precision of training on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from audiosearch.trainer.compute import Float32Attention


def test_attention_in_bfloat16_training_is_computed_in_float32():
    """Its gradient is float32's to the last bit, but for the rounding of what goes in and comes out."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 50, 16).bfloat16().requires_grad_() for _ in range(3))
    exact = [t.detach().float().requires_grad_() for t in (q, k, v)]
    weight = torch.randn(2, 4, 50, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16), Float32Attention():
        out = F.scaled_dot_product_attention(q, k, value=v)
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    wanted = F.scaled_dot_product_attention(*exact)
    assert out.dtype == torch.bfloat16 and torch.equal(out, wanted.bfloat16())
    assert product.dtype == torch.bfloat16  # the rest is as autocast has it
    (out * weight).sum().backward()
    (wanted * weight.float()).sum().backward()
    for half, full in zip((q, k, v), exact, strict=True):
        assert torch.equal(half.grad, full.grad.bfloat16())


def test_the_queries_may_come_by_name():
    q, k, v = torch.randn(3, 1, 1, 5, 8).bfloat16()
    with Float32Attention():
        out = F.scaled_dot_product_attention(query=q, key=k, value=v)
    assert torch.equal(out, F.scaled_dot_product_attention(q.float(), k.float(), v.float()).bfloat16())
