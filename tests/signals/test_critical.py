"""VisiPruner's rules for one sample: what exactly lies on a threshold, and who wins a tie."""

from __future__ import annotations

import pytest
import torch

from prunus.signals.critical import Progress, Rule, critical


def chosen(changes: list[list[float]], bound: float, least: int = 0) -> list[list[int]]:
    found = critical([torch.tensor(image) for image in changes], bound, least)
    assert all(part.dtype == torch.bool for part in found)
    return [[place for place, stays in enumerate(part.tolist()) if stays] for part in found]


def test_a_change_of_exactly_the_threshold_is_not_critical() -> None:
    assert chosen([[0.25, 0.5, 0.75, 0.5]], 0.5) == [[2]]
    assert chosen([[0.5, 0.5]], 0.5) == [[]]
    assert chosen([[0.0, 0.0, 1e-30]], 0.0) == [[2]]  # a token without any effect never is
    above = float(torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)))
    assert chosen([[0.5, above], [above, 0.5]], 0.5) == [[1], [0]]


def test_ties_at_the_least_number_go_to_the_lower_index_over_all_images() -> None:
    assert chosen([[0.1, 0.3, 0.3], [0.3, 0.2]], 1.0, least=2) == [[1, 2], []]
    assert chosen([[0.1, 0.3, 0.3], [0.3, 0.2]], 1.0, least=3) == [[1, 2], [0]]
    assert chosen([[0.1, 0.3, 0.3], [0.3, 0.2]], 1.0, least=4) == [[1, 2], [0, 1]]
    assert chosen([[0.5] * 40], 1.0, least=7) == [list(range(7))]
    assert chosen([[0.2, 0.2], [0.2, 0.2]], 1.0, least=3) == [[0, 1], [0]]


def test_the_least_number_adds_to_what_exceeds_the_threshold_and_takes_nothing_away() -> None:
    assert chosen([[0.9, 0.1, 0.8, 0.2]], 0.5, least=3) == [[0, 2, 3]]
    assert chosen([[0.9, 0.7, 0.8, 0.2]], 0.5, least=3) == [[0, 1, 2]]
    assert chosen([[0.9, 0.7, 0.8, 0.6]], 0.5, least=3) == [[0, 1, 2, 3]]
    assert chosen([[0.3, 0.1]], 0.5, least=9) == [[0, 1]]  # there are no more
    assert chosen([[0.3, 0.1], []], 0.5, least=1) == [[0], []]
    assert chosen([[], []], 0.5, least=2) == [[], []]


def test_progress_on_its_thresholds() -> None:
    rule = Rule(filter_below=0.5, exit_from=0.75, count=2, consecutive=True)
    sample = Progress(filtered=False)
    assert sample.step(0.5, rule, forced=False) == ""  # not below
    assert sample.step(0.4999, rule, forced=False) == "filter"
    assert sample.step(0.75, rule, forced=False) == ""  # at it counts
    assert sample.step(0.7499, rule, forced=False) == ""  # and this is no longer consecutive
    assert sample.step(0.75, rule, forced=False) == ""
    assert sample.step(0.9, rule, forced=False) == "exit"
    assert sample.done and sample.step(0.0, rule, forced=True) == ""


@pytest.mark.parametrize("forced", [False, True])
def test_a_filter_without_an_exit_is_done_at_once(forced: bool) -> None:
    rule = Rule(0.5, 0.75, count=0, consecutive=False)
    sample = Progress(filtered=False)
    assert sample.step(0.4, rule, forced) == "filter"  # its own reason comes before force
    assert sample.done
    late = Progress(filtered=False)
    assert late.step(0.6, rule, forced) == ("forced" if forced else "")
    assert late.done == forced
