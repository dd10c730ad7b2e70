"""MMTok against its coverage written out in loops, on tokens of the unmodified model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import prunus
from prunus.families import family_of
from prunus.grid import Grid
from prunus.method.words import Words
from prunus.pruners.mmtok import MMTok, without_stop_words
from tests.methods.test_cdpruner_clip import inputs_for
from tests.methods.test_mmr import cosine, features_of
from tests.support.chat_models import tiny_llava
from tests.support.entering import view_by_hand
from tests.support.facts import asks
from tests.support.literal.cover import literal_cover
from tests.support.models import Case


def shares(logits: list[float]) -> list[float]:
    most = max(logits)
    weights = [math.exp(one - most) for one in logits]
    return [one / sum(weights) for one in weights]


def covered(
    words: list[list[float]],
    tokens: list[list[float]],
    features: list[list[float]],
    temperatures: tuple[float, float] = (0.02, 0.2),
    weight: float = 0.5,
) -> list[list[float]]:
    """How each token (columns) covers each word and each token (rows)."""
    cover = []
    for word in words:
        row = shares([cosine(word, token) / temperatures[0] for token in tokens])
        cover.append([one / len(words) for one in row])
    for own in features:
        row = shares([cosine(own, other) / temperatures[1] for other in features])
        cover.append([weight * one / len(features) for one in row])
    return cover


def literal(
    words: list[list[float]],
    tokens: list[list[float]],
    features: list[list[float]],
    count: int,
    temperatures: tuple[float, float] = (0.02, 0.2),
) -> list[int]:
    return sorted(literal_cover(covered(words, tokens, features, temperatures), count))


def test_the_published_example() -> None:
    """Three tokens that are unlike, and one word that is the third."""
    rows = torch.eye(3)
    assert literal([rows[2].tolist()], rows.tolist(), rows.tolist(), 1) == [2]
    assert literal([rows[2].tolist()], rows.tolist(), rows.tolist(), 2) == [0, 2]
    said = Words(
        ids=torch.tensor([[0, 0, 0, 1]]),
        prompt=torch.ones(1, 4, dtype=torch.bool),
        visual=torch.tensor([[True, True, True, False]]),
        embed=lambda ids: torch.stack([rows[0], rows[2]])[ids],
    )
    for keep, kept in ((1, [2]), (2, [0, 2])):
        method = MMTok(keep=keep)
        view = view_by_hand(keep, Grid(1, 1, 3, (8, 8)), rows, sees=method.cuts(2)[0].sees)
        source: Any = view.source
        source.words = lambda: said
        assert method.select(0, view).kept.tolist() == [kept]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"text_temperature": 0.3, "image_temperature": 0.05, "weight": 2.0},
        {"weight": 0.0, "text_temperature": 0.1},
    ],
)
def test_keeps_what_covers_most(case: Case, given: dict[str, float]) -> None:
    inputs = case.prompts.rows(1, 1)
    features, prompts = features_of(case, inputs)
    family, ids = family_of(case.model), inputs["input_ids"]
    with prunus.prune(case.model, MMTok(keep=6, **given)) as run, torch.no_grad():  # type: ignore[arg-type]
        case.model(**inputs)
    visual = torch.stack(list(family.placeholders(ids, None).values())).any(0)
    temperatures = given.get("text_temperature", 0.02), given.get("image_temperature", 0.2)
    for row in range(2):
        [places] = case.prompts.spots(ids)[row]
        behind = int(visual[row].nonzero().max()) + 1
        words = [case.model.get_input_embeddings()(one).tolist() for one in ids[row, behind:]]
        tokens = prompts[row, places].tolist()
        own = features[row] if family.reads_tower else prompts[row, places]
        cover = covered(words, tokens, own.tolist(), temperatures, given.get("weight", 0.5))
        assert run.trace[0].kept[row][0].tolist() == sorted(literal_cover(cover, 6))
        sums = [sum(column) for column in zip(*cover, strict=True)]
        assert torch.allclose(run.trace[0].scores[row][0], torch.tensor(sums), atol=1e-5)


def test_stop_words_are_left_out_of_the_text() -> None:
    assert without_stop_words("What is the color of the theory's box?") == (
        "What color theory's box?"
    )
    assert without_stop_words("Is it there?") == "Is it there?"  # nothing else is in it
    assert without_stop_words("") == ""


def test_words_without_stop_words_are_those_of_the_rest() -> None:
    """In a batch of questions of different length."""
    model, processor = tiny_llava()
    asked = ["what is in the picture? how many are there", "is the box red"]
    inputs = inputs_for(processor, *asked)
    method = MMTok(keep=5, stop_words="english", text_temperature=0.1)
    with prunus.prune(model, method, processor=processor) as run, torch.no_grad():
        model(**inputs)
    with torch.no_grad():
        tokens = model.model.get_image_features(inputs["pixel_values"]).pooler_output
        seen = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
        features = seen.hidden_states[model.config.vision_feature_layer][:, 1:]
        for row, rest in enumerate(["what picture? how many", "box red"]):
            ids = processor.tokenizer(rest, add_special_tokens=False)["input_ids"]
            words = model.get_input_embeddings()(torch.tensor(ids)).tolist()
            expected = literal(words, tokens[row].tolist(), features[row].tolist(), 5, (0.1, 0.2))
            assert run.trace[0].kept[row][0].tolist() == expected
    with pytest.raises(ValueError, match="nobody said what the model's tokenizer is"):
        with prunus.prune(model, method), torch.no_grad():
            model(**inputs)


def test_facts_and_costs(llava: Case) -> None:
    assert asks(MMTok())
    inputs = llava.prompts.rows(1, text=6)
    with prunus.prune(llava.model, MMTok(keep=4)) as run, torch.no_grad():
        llava.model(**inputs)
    assert run.report()["flops"]["pruned"]["method"] == 2 * (6 * 16 * 64 + 16 * 16 * 32)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text_temperature": 0.0}, "text_temperature=0.0: give at least 0.001"),
        ({"image_temperature": -1.0}, "image_temperature=-1.0: give at least 0.001"),
        ({"weight": -0.5}, "weight=-0.5: it cannot be negative"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MMTok(**given)
