"""Greedy coverage: bounds that are looked at only sometimes choose what all gains would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prunus.signals import coverage
from prunus.signals.coverage import cover_lazily, greedy_cover
from tests.support.literal.cover import literal_cover


def random_cover(groups: int, rows: int, tokens: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(groups, rows, tokens, generator=generator).pow(4)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("count", [1, 3, 11])
def test_picks_what_a_literal_loop_picks(count: int, weighted: bool) -> None:
    cover = random_cover(3, 9, 14, count)
    weight = torch.rand(3, 14, generator=torch.Generator().manual_seed(1)) if weighted else None
    picked = greedy_cover(cover, count, weight)
    for n, own in enumerate(cover):
        rated = None if weight is None else weight[n].tolist()
        assert picked[n].tolist() == literal_cover(own.tolist(), count, rated)


def test_equal_tokens_are_taken_from_the_first_on() -> None:
    cover = torch.eye(3)[:, [0, 0, 1, 1, 2, 2]][None]
    assert greedy_cover(cover, 6)[0].tolist() == [0, 2, 4, 1, 3, 5]


NONE = torch.zeros(2, 0, dtype=torch.long)


def test_few_fresh_gains_are_enough_where_it_is_sure() -> None:
    cover = random_cover(2, 30, 60)
    columns, weight = cover.transpose(1, 2), torch.ones(2, 60)
    every, _ = cover_lazily(columns, weight, NONE, 25, fresh=60)
    some, sure = cover_lazily(columns, weight, every[:, :10], 15, fresh=30)
    assert sure.tolist() == [True] * 15 and torch.equal(some, every[:, 10:])


def test_it_goes_on_behind_what_was_picked() -> None:
    cover = random_cover(2, 30, 60)
    columns, weight = cover.transpose(1, 2), torch.rand(2, 60)
    every, _ = cover_lazily(columns, weight, NONE, 25, fresh=60)
    rest, _ = cover_lazily(columns, weight, every[:, :11], 14, fresh=60)
    assert torch.equal(rest, every[:, 11:])


def test_where_it_is_not_sure_it_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One fresh gain at a step is not the best one for long."""
    cover = random_cover(2, 30, 60)
    columns, weight = cover.transpose(1, 2), torch.ones(2, 60)
    every = greedy_cover(cover, 25)
    some, sure = cover_lazily(columns, weight, NONE, 25, fresh=1)
    assert not bool(sure.all()) and not torch.equal(some, every)
    first = sure.tolist().index(False)
    assert torch.equal(some[:, :first], every[:, :first])  # it was, until then
    for tried in (1, 3, 32):
        monkeypatch.setattr(coverage, "_FRESH", 1)
        monkeypatch.setattr(coverage, "_TRIED", tried)
        assert torch.equal(greedy_cover(cover, 25), every)
    assert every[0].tolist() == literal_cover(cover[0].tolist(), 25)


def test_nothing_is_read_from_the_device_on_the_way() -> None:
    columns = torch.zeros(1, 200, 7, device="meta")
    none = torch.zeros(1, 0, dtype=torch.long, device="meta")
    assert cover_lazily(columns, columns[..., 0], none, 60, fresh=9)[0].shape == (1, 60)


def test_none_is_taken_twice_where_nothing_is_left_to_cover() -> None:
    """A still video: slices that are alike cover all that later ones would."""
    cover = random_cover(2, 20, 36).repeat(1, 1, 4)
    picked = greedy_cover(cover, 100)
    assert [len(set(own.tolist())) for own in picked] == [100, 100]
    for n, own in enumerate(cover):
        assert picked[n].tolist() == literal_cover(own.tolist(), 100, None)
