"""The loss and its gradient: against a plain float64 reference, in one pass and in two, with and without dropout."""

from __future__ import annotations

import numpy as np
import pytest
from float64 import exact_norms
from gradient_helpers import PAIRS, gradients, make_batch, make_run, relative_difference

from audiosearch.errors import UsageError


@pytest.fixture
def exact(monkeypatch):
    exact_norms(monkeypatch)


def reference(run, batch):
    """Loss and gradients by the shortest way there is: every item alone, eqs. 1-3 in plain torch, autograd."""
    import torch

    from audiosearch.trainer.batch import PairBatch, micro_batches

    def embed(item):
        (part,) = micro_batches(PairBatch({"one": [item]}, {}), None, run.setup.prompts.pad_id, shared_prefix=False)
        return run.model(part.inputs)[0]

    for parameter in run._trained():
        parameter.grad = None
    queries = torch.stack([embed(item) for item in batch.sides["queries"]])
    documents = torch.stack([embed(item) for item in batch.sides["documents"]])
    tau = run.temperature.log_tau.exp()
    keys = batch.keys["document"].tolist()
    margin, threshold = run.recipe.loss.false_negative_margin, run.recipe.loss.false_negative_threshold
    loss = torch.zeros((), dtype=torch.float64)
    for a, b in ((queries, documents), (documents, queries)):
        for i in range(PAIRS):
            own = a[i] @ b[i]
            terms = [own / tau]
            for j in range(PAIRS):
                other = a[i] @ b[j]
                false = keys[i] == keys[j] or (margin is not None and other > own + margin)
                if j != i and not (false or (threshold is not None and other > threshold)):
                    terms.append(other / tau)
            loss = loss - (own / tau - torch.logsumexp(torch.stack(terms), dim=0)) / PAIRS
    loss.backward()
    named = [*run.model.named_parameters(), *run.temperature.named_parameters()]
    return loss.item(), {name: p.grad.clone() for name, p in named if p.requires_grad}


@pytest.mark.parametrize(
    "options",
    [
        {"grad_cache": False, "micro_batch_size": None},
        {"grad_cache": True, "micro_batch_size": 5},
        {"grad_cache": True, "micro_batch_size": 1},
        {"grad_cache": True, "micro_batch_size": 5, "gradient_checkpointing": True},
    ],
    ids=["one pass", "micro-batches of 5", "micro-batches of 1", "gradient checkpointing"],
)
def test_loss_masks_and_gradients_equal_a_float64_reference(tmp_path, exact, options):
    run = make_run(tmp_path, **options)
    batch = make_batch(run, shared_sound=True)
    assert batch.sides["queries"][5].mel is batch.sides["queries"][6].mel
    theirs = reference(run, batch)
    ours = gradients(run, batch)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-10)
    assert relative_difference(ours[1], theirs[1]) < 1e-8
    assert {"log_tau", "projection.weight"} <= ours[1].keys()
    assert sum(".lora_" in name for name in ours[1]) == 2 * 2 * 3


def test_a_sound_under_two_questions_is_encoded_once_in_a_micro_batch(tmp_path):
    from audiosearch.trainer.batch import micro_batches

    run = make_run(tmp_path)
    sounds, _ = micro_batches(make_batch(run, shared_sound=True), None, run.setup.prompts.pad_id, shared_prefix=False)
    assert len(sounds.inputs.mel) == len(sounds.inputs.n_samples) == PAIRS - 1
    assert len(sounds.inputs.heard) == PAIRS and len(set(sounds.inputs.heard)) == PAIRS - 1
    mel, questions = sounds.inputs.mel, sounds.rows.tolist()
    same = sounds.inputs.heard[questions.index(5)], sounds.inputs.heard[questions.index(6)]
    assert same[0] == same[1] and mel[same[0]].abs().sum() > 0


def test_a_threshold_masks_in_the_loss_as_in_the_reference(tmp_path, exact):
    from audiosearch.trainer.recipe import LossRecipe

    loss = LossRecipe(false_negative_margin=None, false_negative_threshold=0.2)
    run = make_run(tmp_path, loss=loss)
    batch = make_batch(run)
    theirs, ours = reference(run, batch), gradients(run, batch)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-10)
    assert relative_difference(ours[1], theirs[1]) < 1e-8
    unmasked = gradients(make_run(tmp_path, loss=LossRecipe(false_negative_margin=None)), batch)
    assert unmasked[0] != pytest.approx(ours[0], rel=1e-6)


def test_two_passes_equal_one(tmp_path, exact):
    run = make_run(tmp_path, grad_cache=False)
    batch = make_batch(run)
    one = gradients(run, batch)
    two = gradients(make_run(tmp_path, grad_cache=True), batch)
    assert two[0] == pytest.approx(one[0], rel=1e-12)
    assert relative_difference(two[1], one[1]) < 1e-8


def test_the_second_pass_drops_what_the_first_one_dropped(tmp_path, exact):
    """With dropout: GradCache against its own micro-batches, run one by one with graphs kept, from the same state."""
    import torch

    batch = make_batch(make_run(tmp_path))
    results = []
    for grad_cache in (True, False):
        run = make_run(tmp_path, dropout=0.3, grad_cache=grad_cache)
        torch.manual_seed(11)
        results.append((gradients(run, batch), torch.rand(1).item()))
    (two, after_two), (one, after_one) = results
    assert two[0] == pytest.approx(one[0], rel=1e-12)
    assert relative_difference(two[1], one[1]) < 1e-8
    assert after_two == after_one, "the replay must not move the generator"
    torch.manual_seed(12)
    other = gradients(make_run(tmp_path, dropout=0.3), batch)
    assert other[0] != pytest.approx(two[0], rel=1e-6), "without dropout this test would show nothing"


def test_without_the_replay_dropout_would_disagree(tmp_path, exact, monkeypatch):
    import contextlib

    import torch

    from audiosearch.trainer import gradcache

    batch = make_batch(make_run(tmp_path))
    torch.manual_seed(11)
    right = gradients(make_run(tmp_path, dropout=0.3), batch)
    monkeypatch.setattr(gradcache._RandomState, "replayed", lambda self: contextlib.nullcontext())
    torch.manual_seed(11)
    wrong = gradients(make_run(tmp_path, dropout=0.3), batch)
    assert wrong[0] == pytest.approx(right[0]) and relative_difference(wrong[1], right[1]) > 1e-3


def test_statistics_over_the_batch_are_refused(tmp_path):
    from audiosearch.trainer.gradcache import refuse_batch_statistics

    run = make_run(tmp_path)
    refuse_batch_statistics(run.model)  # the frozen one is welcome
    run.model.audio_encoder.init_bn.train()
    with pytest.raises(UsageError, match="init_bn"):
        gradients(run, make_batch(run))


def test_a_loss_that_is_no_number_adds_nothing_to_the_gradients(tmp_path):
    import torch

    run = make_run(tmp_path)
    with torch.no_grad():
        run.temperature.log_tau.fill_(float("nan"))
    loss, found = gradients(run, make_batch(run))
    assert np.isnan(loss) and not found


def test_parameters_are_counted_apart(tmp_path):
    run = make_run(tmp_path)
    count = run.setup.trainable
    # rank 4 on q (48->48), k and v (48->24) of two layers; a head of 24 rows
    assert (count.lora, count.head, count.other) == (2 * 4 * (96 + 72 + 72), 48 * 24, 0)
    assert "LoRA 1,920 on 6 layers (2 k_proj, 2 q_proj, 2 v_proj); tau 1, head 1,152" in str(count)


def test_the_7b_has_as_many_adapter_parameters_as_the_paper_s_recipe_says():
    from audiosearch.model.config import midashenglm_7b
    from audiosearch.model.weights import build_meta
    from audiosearch.trainer.adapters import adapt, add_head
    from audiosearch.trainer.recipe import LoraRecipe, find_recipe, load_recipe

    recipe = load_recipe(find_recipe("alm2vec-pretrain"))
    assert recipe.lora is not None and recipe.lora.expected_parameters == 6_881_280
    model = build_meta(midashenglm_7b())
    add_head(model, 1_024)
    _, count = adapt(model, recipe.lora)
    assert (count.lora, count.head, count.other) == (6_881_280, 3_584 * 1_024, 0)
    assert dict(count.layers) == {"q_proj": 28, "k_proj": 28, "v_proj": 28}
    with pytest.raises(UsageError, match="6,881,280"):
        adapt(build_meta(midashenglm_7b()), LoraRecipe(rank=8, expected_parameters=6_881_280))


def test_adapters_where_no_gradient_comes_are_refused(tmp_path):
    from audiosearch.trainer.adapters import adapt
    from audiosearch.trainer.recipe import LoraRecipe

    model = make_run(tmp_path).model
    model.requires_grad_(False)
    with pytest.raises(UsageError, match="qkv is not in the decoder"):
        adapt(model, LoraRecipe(targets=["qkv"]))


@pytest.mark.parametrize("grad_cache", [True, False])
def test_bfloat16_autocast_keeps_the_gradient_s_direction(tmp_path, grad_cache):
    """As on a GPU: a bf16 base under autocast, adapters in float32, their gradients close to float32's."""
    import torch

    exact = make_run(tmp_path, grad_cache=grad_cache)
    batch = make_batch(exact)
    torch.nn.Module.float(exact.model)
    _, theirs = gradients(exact, batch)
    run = make_run(tmp_path, grad_cache=grad_cache, precision="bfloat16")
    torch.nn.Module.to(run.model, torch.bfloat16)
    for name, parameter in run.model.named_parameters():
        if parameter.requires_grad:
            parameter.data = dict(exact.model.named_parameters())[name].detach().clone()
    assert run.compute.autocast_dtype is torch.bfloat16
    _, ours = gradients(run, batch)
    for name in theirs:
        assert ours[name].dtype is (torch.float64 if name == "log_tau" else torch.float32)
        assert torch.cosine_similarity(ours[name].flatten(), theirs[name].flatten(), dim=0) > 0.95, name
