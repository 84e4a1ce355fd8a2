"""The losses alone, against the formulas written out; tau; the schedule. Through the model: test_gradcache.py."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from audiosearch.trainer.schedule import warmup_cosine


def reference_loss(queries: np.ndarray, documents: np.ndarray, tau: float, dropped: np.ndarray) -> float:
    """Eqs. 1-3 written out in float64, one pair at a time."""
    total = 0.0
    for a, b, skip in ((queries, documents, dropped), (documents, queries, dropped.T)):
        for i in range(len(a)):
            terms = [math.exp(float(a[i] @ b[j]) / tau) for j in range(len(b)) if j == i or not skip[i, j]]
            total -= math.log(math.exp(float(a[i] @ b[i]) / tau) / sum(terms)) / len(a)
    return total


def unit(seed: int, n: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_contrastive_loss_equals_the_reference_with_masks():
    import torch

    from audiosearch.trainer.losses import contrastive

    queries, documents = unit(1, 12, 6), unit(2, 12, 6)
    same = np.eye(12, dtype=bool)  # a pair is the same as itself, and still its own positive
    same[2, 5] = same[5, 2] = True
    tensors = torch.from_numpy(queries), torch.from_numpy(documents), torch.tensor(0.5, dtype=torch.float64)
    result = contrastive(*tensors, same=torch.from_numpy(same))
    assert result.loss.item() == pytest.approx(reference_loss(queries, documents, 0.5, same), rel=1e-9)
    assert result.masked_share == pytest.approx(2 / 132)
    assert result.accuracy == pytest.approx(
        np.mean(
            [np.where(same[i] & (np.arange(12) != i), -2, queries[i] @ documents.T).argmax() == i for i in range(12)]
        )
    )
    assert contrastive(*tensors).loss.item() != pytest.approx(result.loss.item(), rel=1e-6)


def test_a_threshold_leaves_out_both_directions():
    import torch

    from audiosearch.trainer.losses import contrastive

    queries, documents = unit(3, 10, 4), unit(4, 10, 4)
    above = (queries @ documents.T > 0.5) & ~np.eye(10, dtype=bool)
    tensors = torch.from_numpy(queries), torch.from_numpy(documents), torch.tensor(0.1, dtype=torch.float64)
    result = contrastive(*tensors, false_negative_threshold=0.5)
    assert above.any()
    assert result.loss.item() == pytest.approx(reference_loss(queries, documents, 0.1, above), rel=1e-9)
    assert result.masked_share == pytest.approx(above.sum() / 90)


def test_a_negative_above_the_margin_is_left_out_in_its_own_direction_only():
    import torch

    from audiosearch.trainer.losses import contrastive

    documents = torch.eye(3, dtype=torch.float64)
    queries = torch.tensor([[0.2, 0.98, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    result = contrastive(queries, documents, torch.tensor(1.0, dtype=torch.float64), false_negative_margin=0.1)
    cosine = queries.numpy()
    rows = [-math.log(math.exp(0.2) / (math.exp(0.2) + math.exp(0.0)))]
    rows += [-math.log(math.exp(1) / np.exp(cosine[i]).sum()) for i in (1, 2)]
    columns = [-math.log(math.exp(cosine[j, j]) / np.exp(cosine[:, j]).sum()) for j in range(3)]
    assert result.loss.item() == pytest.approx(np.mean(rows) + np.mean(columns), rel=1e-9)


def test_a_pair_known_to_differ_is_a_negative_however_near():
    """A scene under two questions: where neither is heeded, the other's answer is as near as the right one."""
    import torch

    from audiosearch.trainer.losses import Temperature, contrastive
    from audiosearch.trainer.objectives import PairObjective
    from audiosearch.trainer.recipe import LossRecipe

    documents = torch.eye(4)
    queries = torch.tensor([[0.9, 0.4, 0.1, 0.0], [0.95, 0.3, 0.0, 0.0], [0.0, 0.9, 0.3, 0.0], [0.1, 0.0, 0.0, 1.0]])
    scene = torch.tensor([7, 7, 8, 9])
    rules = {"false_negative_margin": 0.1, "false_negative_threshold": 0.8}
    found = contrastive(queries, documents, torch.tensor(0.5), different=scene[:, None] == scene, **rules)
    dropped = np.zeros((4, 4), dtype=bool)
    dropped[2, 1] = True  # of another scene: taken for a false negative; [1, 0] of the same one is not
    expected = reference_loss(queries.double().numpy(), np.eye(4), 0.5, dropped)
    assert found.loss.item() == pytest.approx(expected, rel=1e-5)
    assert contrastive(queries, documents, torch.tensor(0.5), **rules).loss.item() < found.loss.item() - 0.05

    recipe = LossRecipe(initial_tau=0.5, false_negative_margin=0.1, false_negative_threshold=0.8)
    objective = PairObjective(recipe, Temperature(0.5))
    keys = {"query": torch.arange(4), "document": torch.arange(4), "scene": scene}
    sides = {"queries": queries, "documents": documents}
    assert objective(sides, keys)[0].item() == pytest.approx(expected, rel=1e-5)
    keys["query"] = torch.tensor([0, 0, 2, 3])  # the same content is none, in one scene too
    dropped[0, 1] = dropped[1, 0] = True
    expected = reference_loss(queries.double().numpy(), np.eye(4), 0.5, dropped)
    assert objective(sides, keys)[0].item() == pytest.approx(expected, rel=1e-5)


def test_label_bank_is_the_cross_entropy_to_soft_labels():
    import torch

    from audiosearch.trainer.losses import label_bank

    sounds, bank = unit(5, 4, 6), unit(6, 3, 6)
    soft = np.random.default_rng(7).dirichlet(np.ones(3), size=4)
    total = 0.0
    for i in range(4):
        odds = [math.exp(float(sounds[i] @ bank[k]) / 0.2) for k in range(3)]
        total -= sum(soft[i, k] * math.log(odds[k] / sum(odds)) for k in range(3)) / 4
    found = label_bank(*(torch.from_numpy(table) for table in (sounds, bank, soft)), 0.2)
    assert found.item() == pytest.approx(total, rel=1e-9)


def test_distillation_is_least_where_the_teacher_points():
    import torch

    from audiosearch.trainer.losses import distillation

    targets, tau = torch.from_numpy(unit(8, 6, 12)), torch.tensor(0.05)
    right = distillation(targets, targets, tau)
    assert right < distillation(targets.roll(1, dims=0), targets, tau)
    # The same text twice in a batch: neither is the other's negative.
    twice = torch.cat([targets, targets[:1]])
    assert distillation(twice, twice, tau).item() == pytest.approx(right.item(), abs=0.01)


def test_temperature_is_learnt_and_never_below_its_floor():
    import torch

    from audiosearch.trainer.losses import Temperature

    temperature = Temperature(0.07, floor=0.01)
    assert temperature().item() == pytest.approx(0.07)
    (1 / temperature()).backward()
    assert temperature.log_tau.grad is not None and temperature.log_tau.grad.abs() > 0
    with torch.no_grad():
        temperature.log_tau.fill_(-20)
    assert temperature().item() == pytest.approx(0.01)


def test_schedule_warms_up_linearly_and_ends_at_the_final_rate():
    rates = [warmup_cosine(step, steps=100, warmup_steps=10, peak=1.0, final=0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert warmup_cosine(0, steps=1, warmup_steps=0, peak=1.0, final=0.1) == 1.0
    assert warmup_cosine(3, steps=5, warmup_steps=10, peak=1.0, final=0.1) == pytest.approx(0.4)  # never warmed up


def test_within_groups_tells_only_partners_apart():
    """By hand: two scenes under two questions each, and one that is alone."""
    torch = pytest.importorskip("torch")
    from audiosearch.trainer.losses import within_groups

    queries, documents = unit(1, 5, 8), unit(2, 5, 8)
    scores = queries @ documents.T / 0.1
    partners = [(0, 1), (1, 0), (2, 3), (3, 2)]
    forward = np.mean([math.log1p(math.exp(scores[i, j] - scores[i, i])) for i, j in partners])
    backward = np.mean([math.log1p(math.exp(scores[j, i] - scores[i, i])) for i, j in partners])
    rows = [torch.from_numpy(table) for table in (queries, documents)]
    group, tau = torch.tensor([1, 1, 2, 2, 3]), torch.tensor(0.1)
    assert float(within_groups(*rows, tau, group)) == pytest.approx(forward + backward, rel=1e-5)
    same = torch.zeros(5, 5, dtype=torch.bool)
    same[2, 3] = same[3, 2] = True
    first = [math.log1p(math.exp(scores[i, j] - scores[i, i])) for i, j in partners[:2]]
    back = [math.log1p(math.exp(scores[j, i] - scores[i, i])) for i, j in partners[:2]]
    assert float(within_groups(*rows, tau, group, same)) == pytest.approx(np.mean(first) + np.mean(back), rel=1e-5)
    alone = rows[0].clone().requires_grad_()
    nothing = within_groups(alone, rows[1], tau, torch.arange(5))
    nothing.backward()
    assert float(nothing) == 0 and not alone.grad.any()
