"""The one-shot scorer, and questions of different lengths side by side."""

from __future__ import annotations

import pytest
import torch

from prunus.method.words import compact_text
from tests.support.random_selectors import random_selector


def test_one_shot_ranks_its_scores_and_leaves_padding_out() -> None:
    selector = random_selector(kind="one-shot")
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 7, 12, generator=generator)
    text, asked = torch.randn(2, 3, 10, generator=generator), torch.ones(2, 3, dtype=torch.bool)
    valid = torch.ones(2, 7, dtype=torch.bool)
    with torch.no_grad():
        encoded = selector.encode(features, valid, text, asked)
        scores = selector.scores(encoded)
    best = scores[1].argmax()  # what would be picked first is not there
    valid[1, best] = False
    picks = selector.pick(encoded, valid, [7, 7], keep=[4, 6])
    ranked = [row.argsort(descending=True, stable=True).tolist() for row in scores]
    ranked[1].remove(int(best))
    assert picks.order[0, :4].tolist() == ranked[0][:4]
    assert picks.order[1, :6].tolist() == ranked[1][:6]
    assert picks.counts.tolist() == [4, 6]
    assert picks.scores[1, best] == -torch.inf and picks.scores[0].equal(scores[0])
    with pytest.raises(ValueError, match="cannot stop by itself"):
        selector.pick(encoded, valid, [7, 7])


def test_questions_are_moved_to_the_front_in_their_order() -> None:
    embeds = torch.arange(2 * 6 * 2.0).view(2, 6, 2)
    mask = torch.tensor([[0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0]]).bool()
    rows, valid = compact_text(embeds, mask)
    assert valid.tolist() == [[True, True, True], [True, False, False]]
    assert rows[0].equal(embeds[0, [1, 3, 4]]) and rows[1, :1].equal(embeds[1, [2]])
    rows, valid = compact_text(embeds, torch.zeros_like(mask))
    assert rows.shape == (2, 1, 2) and not bool(valid.any())
