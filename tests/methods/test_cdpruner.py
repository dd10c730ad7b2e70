"""CDPruner against determinants of kernels made of the unmodified model's tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import prunus
from prunus.families import family_of
from prunus.pruners.cdpruner import CDPruner, zero_to_one
from tests.support.chat_models import tiny_qwen
from tests.support.entering import entering
from tests.support.facts import asks
from tests.support.literal.dpp import literal_greedy
from tests.support.models import Case


def unit(rows: Tensor) -> Tensor:
    return torch.stack([row / row.norm() for row in rows.double()])


def scaled(relevance: list[float]) -> list[float]:
    low, high = min(relevance), max(relevance)
    return [(one - low + 1e-6) / (high - low) for one in relevance]


def literal(tokens: Tensor, relevance: list[float], weight: float, count: int) -> list[int]:
    """Ascending tokens of one image: projected ``[n, D]``, relevance as it is."""
    rows, r = unit(tokens), scaled(relevance)
    kernel = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for i in range(len(rows)):
        for j in range(len(rows)):
            similar = 1.0 if i == j else float(rows[i] @ rows[j])
            kernel[i, j] = (1 - weight) * similar + weight * r[i] * similar * r[j]
    return sorted(literal_greedy(kernel, count))


def halves(tokens: Tensor, relevance: list[float], count: int) -> list[int]:
    middle, few = len(tokens) // 2, count // 2
    first = literal(tokens[:middle], relevance[:middle], 0.5, few)
    second = literal(tokens[middle:], relevance[middle:], 0.5, count - few)
    return first + [middle + one for one in second]


def by_words(case: Case, inputs: dict[str, Tensor], row: int) -> list[tuple[Tensor, list[float]]]:
    """Of each image of a row: projected tokens, and their cosine with the mean word."""
    _, states = entering(case, CDPruner(keep=1.0), inputs)
    ids, there = inputs["input_ids"][row], inputs["attention_mask"][row].bool()
    visual = torch.stack(list(family_of(case.model).placeholders(ids[None], None).values())).any(0)
    words = [int(one) for one in ids[there & ~visual[0]]]
    embed = case.model.get_input_embeddings().weight.detach().double()
    mean = torch.stack([embed[one] for one in words]).sum(0) / len(words)
    found = []
    for places in case.prompts.spots(inputs["input_ids"])[row]:
        tokens = states[row, places]
        close = [float(cosine_similarity(own.double(), mean, dim=0)) for own in tokens]
        found.append((tokens, close))
    return found


@pytest.mark.parametrize(("keep", "weight"), [(5, None), (7, 0.9), (4, 0.0)])
def test_by_words_it_keeps_what_determinants_say(
    case: Case, keep: int, weight: float | None
) -> None:
    inputs = case.prompts.rows(2, 1)
    run, _ = entering(case, CDPruner(keep=keep, weight=weight), inputs)
    share = 0.5 if weight is None else weight
    for row in range(2):
        for image, (tokens, close) in enumerate(by_words(case, inputs, row)):
            assert run.trace[0].kept[row][image].tolist() == literal(tokens, close, share, keep)


@pytest.mark.parametrize("keep", [1, 2, 7])
def test_openvino_chooses_in_two_halves(case: Case, keep: int) -> None:
    inputs = case.prompts.rows(1)
    method = CDPruner(keep=keep, **CDPruner.presets["openvino"])
    run, _ = entering(case, method, inputs)
    [(tokens, close)] = by_words(case, inputs, 0)
    assert run.trace[0].kept[0][0].tolist() == halves(tokens, close, keep)


def test_trap_9_relevance_is_normalised_image_by_image(llava: Case) -> None:
    """Published code takes smallest and largest over the whole batch."""
    assert zero_to_one(torch.tensor([[0.0, 1.0], [10.0, 30.0]])).round(decimals=4).tolist() == [
        [0.0, 1.0],
        [0.0, 1.0],
    ]
    inputs = llava.prompts.rows(1, 1, text=8)
    run, _ = entering(llava, CDPruner(keep=5, weight=1.0), inputs)
    for row in range(2):
        alone, _ = entering(
            llava, CDPruner(keep=5, weight=1.0), llava.prompts.one(inputs, row, trim=True)
        )
        assert torch.equal(run.trace[0].kept[row][0], alone.trace[0].kept[0][0])


def test_equal_relevance_is_one() -> None:
    assert zero_to_one(torch.full((2, 3), -0.4)).tolist() == [[1.0] * 3] * 2


def test_words_around_images_are_no_text() -> None:
    """The signs that the template writes around a picture belong to the picture."""
    model, processor = tiny_qwen()
    image = torch.randint(0, 255, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    said = [{"type": "image"}, {"type": "text", "text": "what color is the box?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": said}], add_generation_prompt=True
    )
    inputs = processor(images=[image], text=[text], return_tensors="pt")
    with prunus.prune(model, CDPruner(keep=5), processor=processor) as run, torch.no_grad():
        model(**inputs)
    tokenizer = processor.tokenizer
    around = [
        tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("vision_start", "vision_end", "image_pad")
    ]
    words = [int(one) for one in inputs["input_ids"][0] if int(one) not in around]
    mean = model.get_input_embeddings().weight[words].mean(0)
    tokens = model.model.get_image_features(
        inputs["pixel_values"], inputs["image_grid_thw"]
    ).pooler_output[0]
    close = cosine_similarity(tokens, mean[None], dim=1)
    assert torch.allclose(run.trace[0].scores[0][0], close, atol=1e-5)


def test_only_without_relevance_the_question_does_not_matter() -> None:
    assert asks(CDPruner()) and not asks(CDPruner(weight=0.0))


def test_what_choosing_costs(llava: Case) -> None:
    def cost(**given: Any) -> float:
        with prunus.prune(llava.model, CDPruner(keep=4, **given)) as run, torch.no_grad():
            llava.model(**llava.prompts.rows(1))
        found: float = run.report()["flops"]["pruned"]["method"]
        return found

    words, kernel, steps = 16 * 64, 16 * 16 * 64, 16 * (1 + 2 + 3)
    assert cost() == 2 * (words + kernel + steps)
    assert cost(weight=0.0) == 2 * (kernel + steps)
    assert cost(halves=True) == 2 * (words + kernel / 2 + 2 * 8 * 1)


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_a_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"weight={weight}: give a number from 0 to 1"):
        CDPruner(weight=weight)
