"""What ships: weights that load offline, and the fixed evaluation set."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from prunus.builtin import BUILTIN, load_builtin
from prunus.recipes.evaluate import (
    answers_right,
    encode_scenes,
    ground_truth_choice,
    random_choice,
    summary,
    uniform_choice,
)
from prunus.tasks.digits import split_indices
from prunus.tasks.evalset import Item, build_evalset, load_evalset
from prunus.tasks.questions import TYPES


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(ValueError, match="tiny-llava"):
        load_builtin("tiny-lava")


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_loads_in_eval_mode_and_float32(name: str) -> None:
    model, processor = load_builtin(name)
    assert not model.training
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert processor.tokenizer.padding_side == "left"


def test_evalset_file_is_what_the_code_draws() -> None:
    items = load_evalset()
    assert items == build_evalset()
    assert all(Item.from_json(item.to_json()) == item for item in items[:20])


def test_evalset_is_large_even_and_unseen() -> None:
    items = load_evalset()
    types = Counter(question.type for item in items for question in item.questions)
    assert sum(types.values()) >= 2000
    assert set(types) == set(TYPES)
    assert max(types.values()) == min(types.values())
    allowed = set(split_indices("test").tolist())
    for item in items:
        assert {o.digit_id for o in item.scene.objects if o.kind == "digit"} <= allowed


def test_choices_have_the_asked_size() -> None:
    item = load_evalset()[0]
    question = item.questions[0]
    for choice in (ground_truth_choice(64, 24), random_choice(64, 24), uniform_choice(64, 24)):
        kept = choice(item.scene, question, 3)
        assert kept.shape == (64,)
        assert (np.diff(kept) > 0).all()
        assert kept.min() >= 0
        assert kept.max() < 576


def test_keeping_every_token_changes_no_answer() -> None:
    model, _ = load_builtin("tiny-llava")
    items = load_evalset()[:4]
    features = encode_scenes(model, [item.scene for item in items])
    plain = answers_right(model, items, features)
    kept = answers_right(model, items, features, lambda *_: np.arange(576))
    assert summary(plain) == summary(kept)
