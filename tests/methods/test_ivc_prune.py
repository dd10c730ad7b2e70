"""IVC-Prune against its formulas in loops: values and positions of the unmodified model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import prunus
from prunus.families import family_of
from prunus.method.signals import PromptMask, Rotary, Values
from prunus.method.view import View
from prunus.pruners.ivc_prune import IVCPrune
from tests.support.facts import asks, counts
from tests.support.models import Case, case_of
from tests.support.runs import plain


def taken(case: Case, inputs: dict[str, Tensor], layer: int) -> tuple[Tensor, Tensor]:
    """Values ``[B, L, H_kv, d]`` of a layer and positions ``[A, B, L]``, of the unmodified model,
    from the first token of each row on."""
    found: dict[str, Any] = {}

    def note(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        found["ids"] = kwargs.get("position_ids")

    model = family_of(case.model).language_model
    handle = model.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        states = case.model(**inputs, output_hidden_states=True).hidden_states[layer]
        own = model.layers[layer]
        values = own.self_attn.v_proj(own.input_layernorm(states))
    handle.remove()
    first = inputs["attention_mask"].argmax(1)
    ids = found["ids"]
    if ids is None:
        ids = torch.arange(states.shape[1]).expand(states.shape[:2])
    axes = ids[None] if ids.ndim == 2 else ids[-3:]
    starts = axes.gather(2, first.expand(len(axes), -1)[..., None])
    return values.unflatten(-1, (-1, own.self_attn.head_dim)), axes - starts


def angle_means(case: Case, position: list[int]) -> tuple[float, float]:
    """Mean cosine and sine over frequencies and axes, from the configuration alone."""
    config = case.model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    base = config.rope_parameters["rope_theta"]
    rates = [base ** (-2 * m / width) for m in range(width // 2)]
    angles = [at * rate for at in position for rate in rates]
    count = len(angles)
    return math.fsum(map(math.cos, angles)) / count, math.fsum(map(math.sin, angles)) / count


def best(scores: list[float], count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda n: (-scores[n], n))[:count]


def attends(values: Tensor, row: int, columns: list[int], places: list[int]) -> list[float]:
    """Of one token as query, softmax over ``columns``, mean over heads, at ``places``."""
    heads, width = values.shape[1:]
    total = [0.0 for _ in places]
    for head in range(heads):
        own = values[:, head].double()
        logits = {at: float(own[row] @ own[at]) / math.sqrt(width) for at in columns}
        mass = sum(math.exp(one) for one in logits.values())
        total = [
            sum_ + math.exp(logits[at]) / mass / heads
            for sum_, at in zip(total, places, strict=True)
        ]
    return total


def mean_rows(rows: list[list[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def literal(
    case: Case, inputs: dict[str, Tensor], row: int, places: list[int], method: IVCPrune
) -> list[int]:
    layer = method.layer if method.layer is not None else family_of(case.model).depth // 2
    values, positions = taken(case, inputs, layer - 1)
    there = inputs["attention_mask"][row].nonzero()[:, 0].tolist()
    columns = places if method.columns == "image" else there
    every = {at for image in case.prompts.spots(inputs["input_ids"])[row] for at in image}
    text = [at for at in there if at > places[-1] and at not in every]
    marks = _around(case, inputs["input_ids"][row])
    text = [at for at in text if at not in marks]
    text = text[method.skip :] or text
    size = len(places)
    rows = [attends(values[row], at, columns, places) for at in text]
    seeds = best(mean_rows(rows), max(1, round(method.seeds * size)))
    more = [attends(values[row], places[seed], columns, places) for seed in seeds]
    scores = mean_rows(rows + more)
    means = [angle_means(case, positions[:, row, at].tolist()) for at in places]
    few = round(method.landmarks * size)
    landmarks = {n for part in zip(*means, strict=True) for n in best(list(part), few)}
    if method.keep is None:
        return sorted({*seeds, *best(scores, round(method.share * size)), *landmarks})
    ranked = best([one + 10 * (n in landmarks) for n, one in enumerate(scores)], int(method.keep))
    return sorted(ranked)


def _around(case: Case, ids: Tensor) -> set[int]:
    """Placeholders that are no cells (CLS)."""
    holders = family_of(case.model).placeholders(ids[None], None).values()
    return set(torch.stack(list(holders)).any(0)[0].nonzero()[:, 0].tolist())


SETTINGS = {
    "default": IVCPrune(),
    "more of each": IVCPrune(layer=3, share=0.3, landmarks=0.15, seeds=0.2, skip=0),
    "nothing but values": IVCPrune(landmarks=0.0, share=0.4, skip=50),
    "exact": IVCPrune(keep=7, layer=1, landmarks=0.1, columns="image"),
    "fewer than landmarks": IVCPrune(keep=2, landmarks=0.3),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_keeps_what_the_literal_reading_keeps(case: Case, name: str) -> None:
    """In a padded batch of one image and of two."""
    method, inputs = SETTINGS[name], case.prompts.rows(1, 2)
    with prunus.prune(case.model, method) as run, torch.no_grad():
        case.model(**inputs)
    for row, images in enumerate(case.prompts.spots(inputs["input_ids"])):
        for image, places in enumerate(images):
            expected = literal(case, inputs, row, places, method)
            assert run.trace[0].kept[row][image].tolist() == expected
    assert run.trace[0].trim_cache


def test_landmarks_of_the_published_example() -> None:
    """One frequency: the largest cosine is at 0, the largest sine at 2."""
    cos = [math.cos(at) for at in range(4)]
    sin = [math.sin(at) for at in range(4)]
    assert [round(one, 3) for one in cos] == [1.0, 0.54, -0.416, -0.99]
    assert [round(one, 3) for one in sin] == [0.0, 0.841, 0.909, 0.141]
    assert best(cos, 1) == [0] and best(sin, 1) == [2]


@pytest.mark.parametrize("name", ["llava-clip", "qwen2.5-vl-video"])
def test_angles_are_those_of_the_configuration(name: str) -> None:
    """Also where the model runs in half precision, whose tables are rounded."""
    case = case_of(name)
    inputs = case.prompts.rows(1, 1, text=9)
    _, positions = taken(case, inputs, 0)
    rotary = family_of(case.model).language_model.rotary_emb
    rates = rotary.inv_freq
    case.model.bfloat16()
    rotary.inv_freq = rates  # as from_pretrained(dtype=...) leaves it
    pixels = {k: v.bfloat16() if v.is_floating_point() else v for k, v in inputs.items()}
    seen: list[View] = []

    class Looker(IVCPrune):
        name = "looker-at-angles"

        def select(self, stage: int, view: View) -> Any:
            seen.append(view)
            return super().select(stage, view)

    with prunus.prune(case.model, Looker(layer=2)), torch.no_grad():
        case.model(**pixels)
    spots = case.prompts.spots(inputs["input_ids"])
    assert sum(len(view.owners) for view in seen) == 2
    for view in seen:
        turns = view[Rotary(1)]
        assert turns.cos.dtype == torch.float32
        for number, (sample, image) in enumerate(view.owners):
            for token, place in enumerate(spots[sample][image]):
                cos, sin = angle_means(case, positions[:, sample, place].tolist())
                assert float(turns.cos[number, token].mean()) == pytest.approx(cos, abs=1e-5)
                assert float(turns.sin[number, token].mean()) == pytest.approx(sin, abs=1e-5)


def test_prompt_signals_are_of_all_that_is_there(llava: Case) -> None:
    """Padding and answers are no part of it, and tokens that went before are gone."""
    inputs = llava.prompts.rows(1, 2)
    found: list[tuple[View, Tensor, Tensor]] = []

    class Looker(IVCPrune):
        name = "looker-at-prompts"

        def select(self, stage: int, view: View) -> Any:
            found.append((view, view[Values(1, "prompt")], view[PromptMask()]))
            return super().select(stage, view)

    values, _ = taken(llava, inputs, 1)
    ends = [len(own) - 3 for own in inputs["input_ids"]]
    first = prunus.Fixed([0, 3, 7], layer=2)
    with prunus.prune(llava.model, [first, Looker(layer=2)]) as run, torch.no_grad():
        run.prompt_ends(ends)
        llava.model(**inputs)
    for view, own, there in found:
        for number, (sample, _) in enumerate(view.owners):
            images = llava.prompts.spots(inputs["input_ids"])[sample]
            gone = {at for image in images for n, at in enumerate(image) if n not in (0, 3, 7)}
            valid = inputs["attention_mask"][sample].nonzero()[:, 0].tolist()
            left = [at for at in valid if at not in gone and at <= ends[sample]]
            assert int(there[number].sum()) == len(left)
            assert torch.allclose(own[number][there[number]], values[sample, left], atol=1e-5)


def test_positions_that_were_closed_up_before(llava: Case) -> None:
    """Behind PyramidDrop tokens are turned by where they are now."""
    inputs = llava.prompts.rows(1)
    seen: list[tuple[View, Tensor]] = []

    class Looker(IVCPrune):
        name = "looker-at-closed-positions"

        def select(self, stage: int, view: View) -> Any:
            seen.append((view, view[Rotary(2)].cos))
            return super().select(stage, view)

    before = prunus.methods()["pyramiddrop"](keep=0.9, layers=(1,))
    with prunus.prune(llava.model, [before, Looker(layer=3)]) as run, torch.no_grad():
        llava.model(**inputs)
    [(view, cos)] = seen
    kept = run.trace[0].kept[0][0]
    start = llava.prompts.spots(inputs["input_ids"])[0][0][0]
    assert 1 < len(kept) < 16
    expected = [angle_means(llava, [start + n])[0] for n in range(len(kept))]
    assert torch.allclose(cos.mean((2, 3))[0], torch.tensor(expected), atol=1e-5)
    assert torch.equal(view.present[0], kept)


def test_an_image_without_text_behind_it_is_refused(llava: Case) -> None:
    inputs = llava.prompts.rows(1)
    last = llava.prompts.spots(inputs["input_ids"])[0][0][-1]
    short = {k: v[:, : last + 1] if v.ndim == 2 else v for k, v in inputs.items()}
    with prunus.prune(llava.model, IVCPrune()), torch.no_grad():
        with pytest.raises(ValueError, match="no text stands behind an image"):
            llava.model(**short)
        assert plain(llava.model, inputs).isfinite().all()


def test_facts(llava: Case) -> None:
    assert asks(IVCPrune()) and counts(IVCPrune(keep=0.5), 576) == (288,)
    assert [cut.layer for cut in IVCPrune().cuts(32)] == [16]
    inputs = llava.prompts.rows(1, text=6)
    length = inputs["input_ids"].shape[1]
    for columns, others in (("prompt", length + 16), ("image", 16)):
        method = IVCPrune(columns=columns)  # type: ignore[arg-type]
        with prunus.prune(llava.model, method) as run, torch.no_grad():
            llava.model(**inputs)
        rows = 6 + 1  # of text, and of one seed; 4 heads of 8 channels
        assert run.report()["flops"]["pruned"]["method"] == 2 * rows * 32 * others


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": 1.5}, "share=1.5: give a number from 0 to 1"),
        ({"layer": 0}, "layer=0: some layer must have run before"),
        ({"skip": -1}, "skip=-1: it cannot be negative"),
        ({"keep": 0}, "keep=0"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IVCPrune(**given)
