"""The training loss against a run of the model by hand, one unpadded prompt at a time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from prunus.train.data import Batch
from prunus.train.objective import Objective
from prunus.train.relax import aggregated_log_scores, standardised
from prunus.train.schedule import Schedule
from prunus.train.softtopk import soft_topk
from tests.support.footprint import footprint
from tests.support.models import Case, case_of
from tests.support.objective import (
    STATE,
    alphas,
    batch_of,
    features_of,
    objective_for,
)
from tests.support.oracles.masked import positions
from tests.support.oracles.selector import encode, walk


@pytest.fixture(params=["llava-clip", "llava-clip-full", "qwen2.5-vl-video"])
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def literal_alpha(objective: Objective, features: Tensor, words: Tensor) -> tuple[Tensor, float]:
    """Weights of one image, each sample with its own count, and its K/N."""
    selector, settings = copy.deepcopy(objective.selector).double(), objective.settings
    size = len(features)
    encoded = encode(selector.encoder, features.double(), words.double(), STATE.text_gate)
    most = max(1, int(size * selector.config.max_share))
    found = walk(selector.pointer, encoded, most, settings.keep)
    log_probs = torch.stack(found.probs).log()[None]
    ran = torch.ones(1, len(found.probs), dtype=torch.bool)
    scores = aggregated_log_scores(log_probs, ran, settings.aggregate, settings.beta)
    scores = standardised(scores, torch.ones(1, size, dtype=torch.bool))
    count = torch.tensor([max(len(found.order), 0.5)], dtype=torch.float64)
    return soft_topk(scores, count, STATE.temperature)[0].float(), len(found.order) / size


@torch.no_grad()
def by_hand(objective: Objective, case: Case, batch: Batch, noise: Tensor) -> tuple[float, ...]:
    """Loss, share and accuracy; ``noise [I, N, D]`` is what the batch draws. Every prompt runs by
    itself, without padding."""
    model, ids = case.model.model, batch.inputs["input_ids"]
    spots, features = case.prompts.spots(ids), features_of(case, batch.inputs)
    extra = 0 if hasattr(model, "visual") else case.prompts.extra  # type: ignore[union-attr]
    everything = torch.cat([one[extra:] for images in features for one in images])
    mean, deviation = everything.mean(0), everything.std(0, unbiased=False)
    if objective.settings.noise == "unit":
        mean, deviation = torch.zeros_like(mean), torch.ones_like(deviation)
    losses, shares, right, image = [], [], [], 0
    for row, images in enumerate(features):
        one = case.prompts.one(batch.inputs, row, trim=True)
        length = one["input_ids"].shape[1]
        embeds = model.get_input_embeddings()(ids[row])
        words = embeds[batch.question[row]]
        embeds = embeds[:length].clone()
        for own, places in zip(images, spots[row], strict=True):
            x = own[extra:]
            alpha, share = literal_alpha(objective, x, words)
            shares.append(share)
            gated = torch.empty_like(x)
            for i, a in enumerate(alpha):
                kept, lost = a.sqrt() * (x[i] - mean), (1 - a).clamp_min(0).sqrt() * deviation
                gated[i] = kept + lost * noise[image, i] + mean
                if objective.denoiser is not None:
                    gated[i] = objective.denoiser(gated[i])
            if not hasattr(model, "visual"):
                whole = torch.cat([own[:extra], gated])[None]
                gated = model.multi_modal_projector(whole)[0]
                places = [*range(places[0] - extra, places[0]), *places]
            embeds[places] = gated
            image += 1
        logits = case.model.lm_head(
            model.language_model(
                inputs_embeds=embeds[None], position_ids=positions(case.model, one)
            ).last_hidden_state
        )[0]
        asked = [n for n in range(1, length) if int(batch.labels[row, n]) != -100]
        hits = []
        for n in asked:
            chances = logits[n - 1].log_softmax(0)
            losses.append(-float(chances[batch.labels[row, n]]))
            hits.append(int(chances.argmax()) == int(batch.labels[row, n]))
        right.append(all(hits))
    share = sum(shares) / len(shares)
    loss = sum(losses) / len(losses) + objective.settings.length * share
    return loss, share, sum(right) / len(right)


@pytest.mark.parametrize(
    "settings",
    [{}, {"noise": "unit", "denoise": False, "aggregate": "alive"}, {"keep": 3, "beta": 0.7}],
    ids=["stable", "unit, alive, no denoiser", "keep"],
)
def test_loss_is_that_of_the_run_by_hand(case: Case, settings: dict[str, Any]) -> None:
    objective, batch = objective_for(case, length=0.3, **settings), batch_of(case, 1, 2)
    sizes = [len(places) for row in case.prompts.spots(batch.inputs["input_ids"]) for places in row]
    shape = (3, max(sizes), objective.gate.mean.shape[0])
    torch.manual_seed(11)
    with torch.no_grad():
        loss, figures = objective(batch, STATE)
    torch.manual_seed(11)
    expected, share, right = by_hand(objective, case, batch, torch.randn(shape))
    assert float(loss) == pytest.approx(expected, abs=5e-4)
    assert float(figures["loss"]) == float(loss)
    assert float(figures["share"]) == pytest.approx(share, abs=1e-5)
    assert float(figures["lm"]) == pytest.approx(expected - 0.3 * share, abs=5e-4)
    assert float(figures["accuracy"]) == pytest.approx(right)
    with torch.no_grad():  # other noise, another loss: the gate is there
        assert abs(float(objective(batch, STATE)[0]) - expected) > 5e-3


def test_what_answers_right_is_counted(llava: Case) -> None:
    """The labels are made what the model says: every row is right."""
    objective, batch = objective_for(llava), batch_of(llava, 1, 1, answer=1)
    said: list[Tensor] = []
    handle = llava.model.register_forward_hook(lambda _, args, out: said.append(out.logits))
    torch.manual_seed(0)
    objective(batch, STATE)
    handle.remove()
    for row in range(2):
        (place,) = (batch.labels[row] != -100).nonzero().flatten().tolist()
        batch.labels[row, place] = said[0][row, place - 1].argmax()
        torch.manual_seed(0)
        objective.gate.batches.zero_()  # what was observed above is forgotten
        _, figures = objective(batch, STATE)
        assert float(figures["accuracy"]) == (row + 1) / 2


def test_only_selector_and_denoiser_learn(case: Case) -> None:
    objective, batch = objective_for(case), batch_of(case, 1, 1)
    case.model(**batch.inputs)  # transformers adds hooks of its own at the first forward
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    hooks = footprint(case.model)
    optimiser = torch.optim.SGD(objective.parameters(), lr=1.0)
    names = {name.split(".")[0] for name, _ in objective.named_parameters()}
    assert names == {"selector", "denoiser"}
    for _ in range(2):
        optimiser.zero_grad()
        loss, figures = objective(batch, STATE)
        loss.backward()
        for name, weight in objective.named_parameters():
            assert weight.grad is not None and bool(weight.grad.isfinite().all()), name
        optimiser.step()
    assert not case.model.training
    assert all(weight.grad is None for weight in case.model.parameters())
    after = case.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(value.requires_grad for value in figures.values())
    assert not any(name.startswith("_model") for name in objective.state_dict())
    assert footprint(case.model) == hooks


def test_hooks_are_gone_after_a_failure(llava: Case) -> None:
    objective, batch = objective_for(llava), batch_of(llava, 1)
    llava.model(**batch.inputs)
    marks = footprint(llava.model)

    def explode(*_: Any) -> None:
        raise RuntimeError("from the model")

    handle = llava.model.model.language_model.layers[2].register_forward_hook(explode)
    with pytest.raises(RuntimeError, match="from the model"):
        objective(batch, STATE)
    handle.remove()
    assert footprint(llava.model) == marks


def test_padding_on_the_right_needs_no_mask(case: Case) -> None:
    objective, batch = objective_for(case), batch_of(case, 2, 1)
    mask = batch.inputs["attention_mask"]
    assert not bool(mask.all())
    losses = []
    for masked in (False, True):

        def add(module: Any, args: Any, kwargs: Any, masked: bool = masked) -> Any:
            assert "attention_mask" not in kwargs
            return args, {**kwargs, "attention_mask": mask} if masked else kwargs

        handle = case.model.register_forward_pre_hook(add, with_kwargs=True)
        objective.gate.batches.zero_()
        torch.manual_seed(4)
        losses.append(float(objective(batch, STATE)[0].detach()))
        handle.remove()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_answers_never_reach_the_selection(case: Case) -> None:
    objective, batch = objective_for(case), batch_of(case, 1, 2)
    losses = []
    with alphas(objective) as seen:
        for turn in range(3):
            if turn == 1:  # another answer
                places = batch.labels != -100
                batch.inputs["input_ids"][places] = batch.labels[places] = 7
            if turn == 2:  # another question
                batch.inputs["input_ids"][batch.question] = 8
            torch.manual_seed(0)
            objective.gate.batches.zero_()
            losses.append(float(objective(batch, STATE)[0].detach()))
    assert torch.equal(seen[0], seen[1]) and losses[0] != losses[1]
    assert float((seen[1] - seen[2]).detach().abs().max()) > 1e-4


ARMS = [
    {"arm": arm, "aggregate": aggregate, "count": count}
    for arm in ("stable", "literal")
    for aggregate in ("full", "alive", "uniform", "last")
    for count in ("sample", "mean")
]


@pytest.mark.parametrize(
    "settings",
    [
        *ARMS,
        {"keep": 4},
        {"keep": 0.5, "arm": "literal"},
        {"keep": 1.0},
        {"keep": 4, "selector": {"kind": "one-shot"}},
        {"max_steps": 2},
        {"selector": {"pointer": "cross", "clip": 10.0, "causal_encoder": True}},
        {"arm": "literal", "selector": {"min_steps": 0, "stop_bias": 30.0}},  # K = 0
        {"selector": {"stop_bias": -30.0, "max_share": 1.0}},  # K = N
    ],
    ids=str,
)
def test_gradients_are_finite(llava: Case, settings: dict[str, Any]) -> None:
    objective, batch = objective_for(llava, **settings), batch_of(llava, 1, 1)
    for temperature in (2.0, 0.02):
        objective.zero_grad()
        with alphas(objective) as seen:
            loss, figures = objective(batch, Schedule(1.0, temperature))
        loss.backward()
        assert bool(seen[0].isfinite().all()) and bool(loss.isfinite())
        assert all(bool(value.isfinite()) for value in figures.values()), figures
        gradients = [weight.grad for weight in objective.selector.parameters()]
        assert all(one is None or bool(one.isfinite().all()) for one in gradients)
        if temperature > 1:  # a sharp top-k may be saturated
            assert any(one is not None and bool((one != 0).any()) for one in gradients)


def test_one_shot_scores_pass_the_same_gate(llava: Case) -> None:
    settings = {"keep": 4, "selector": {"kind": "one-shot"}}
    objective, batch = objective_for(llava, **settings), batch_of(llava, 1, 1)
    with alphas(objective) as seen, torch.no_grad():
        _, figures = objective(batch, STATE)
    scorer = copy.deepcopy(objective.selector).double()
    for row, (images, own) in enumerate(
        zip(features_of(llava, batch.inputs), seen[0], strict=True)
    ):
        embeds = llava.model.get_input_embeddings()(batch.inputs["input_ids"][row])
        words = embeds[batch.question[row]].double()
        encoded = encode(scorer.encoder, images[0].double(), words, STATE.text_gate)
        raw = [float(scorer.scorer(one).detach()) for one in encoded]
        mean = sum(raw) / len(raw)
        deviation = (sum((value - mean) ** 2 for value in raw) / len(raw)) ** 0.5
        scores = torch.tensor([[(value - mean) / deviation for value in raw]])
        expected = soft_topk(scores, torch.tensor([4.0]), STATE.temperature)[0]
        assert torch.allclose(own, expected, atol=1e-4)
    best = seen[0].topk(4).values
    assert float(figures["inside"]) == pytest.approx(float(best.mean()), abs=1e-5)
    others = float(seen[0].sum() - best.sum()) / 24
    assert float(figures["outside"]) == pytest.approx(others, abs=1e-5)
    assert float(figures["kept"]) == 4 and float(figures["share"]) == pytest.approx(0.25)


def test_the_mean_count_runs(llava: Case) -> None:
    """The literal arm's k: the first batch's mean, then a tenth of the way to each new one; outside
    of training it stays."""
    objective = objective_for(llava, arm="literal", selector={"min_steps": 0, "stop_bias": 0.0})
    pointer = objective.selector.pointer
    assert pointer is not None
    expected, seen_counts = None, set()
    with alphas(objective) as seen:
        for bias in (-30.0, 0.0, 3.0, -30.0):
            with torch.no_grad():
                pointer.stop_bias.fill_(bias)
                _, figures = objective(batch_of(llava, 1, 1), STATE)
            hard = float(figures["kept"])
            seen_counts.add(hard)
            expected = hard if expected is None else expected + 0.1 * (hard - expected)
            assert seen[-1].sum(1).tolist() == pytest.approx([expected] * 2, abs=1e-3)
        assert len(seen_counts) > 1
        with torch.no_grad():
            objective.eval()(batch_of(llava, 1, 1), STATE)
        assert seen[-1].sum(1).tolist() == pytest.approx([expected] * 2, abs=1e-3)


def test_a_batch_without_images(llava: Case) -> None:
    inputs = llava.prompts.rows(0, 0)
    nothing = torch.zeros_like(inputs["input_ids"])
    with pytest.raises(ValueError, match="no example of this batch has an image"):
        objective_for(llava)(Batch(inputs, nothing - 100, nothing.bool()), STATE)


@pytest.mark.parametrize("factor", [0.0, 0.25, 1.0])
def test_the_length_weighs_what_the_schedule_says(llava: Case, factor: float) -> None:
    objective = objective_for(llava, length=0.5)
    loss, figures = objective(batch_of(llava, 1, 1), Schedule(1.0, 0.5, factor))
    expected = figures["lm"] + 0.5 * factor * figures["share"]
    assert figures["share"] > 0.05
    torch.testing.assert_close(loss.detach(), expected)
