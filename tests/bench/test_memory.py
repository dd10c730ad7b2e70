"""Peak memory on a CPU: all tensors that are alive at a time."""

from __future__ import annotations

import torch

from prunus.bench.memory import peak

CPU = torch.device("cpu")


def test_what_is_freed_does_not_count_any_more() -> None:
    def action() -> None:
        first = torch.empty(1000)
        second = first + 1
        del first
        third = second * 2  # two of them at any time
        third.view(10, 100).add_(1)  # neither a view nor a sum in place is new
        del second, third

    assert peak(action, CPU) == 2 * 4000


def test_what_was_there_before_does_not_count() -> None:
    before = torch.ones(1000)
    assert peak(lambda: before.view(-1)[1:].sum(), CPU) == 4
    assert peak(lambda: None, CPU) == 0
