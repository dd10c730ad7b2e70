"""Hooks that are taken out while torch walks over the list that it made of them."""

from typing import Any

import pytest
import torch
from torch import nn

from prunus.engine.hooks import after, before, sweep


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_hook_taken_out_in_the_middle_of_a_call_does_nothing(when: str) -> None:
    module, owner, calls = nn.Linear(2, 2), object(), list[Any]()

    def taken_out(*args: Any) -> None:
        sweep(module, owner)  # as another thread may, between torch's list and its question

    def ours(module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
        calls.append(kwargs)

    if when == "before":
        module.register_forward_pre_hook(taken_out)
        before(owner, module, ours)
    else:
        module.register_forward_hook(taken_out)
        after(owner, module, ours)
    module(torch.zeros(1, 2))
    assert calls == []
    assert len(module._forward_pre_hooks) + len(module._forward_hooks) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_without_keyword_arguments_is_nobodys_even_when_the_hook_is_back(when: str) -> None:
    """The next engine takes the same hook while a call that saw the first one's is under way."""
    module, owner, calls = nn.Linear(2, 2), object(), list[Any]()

    def ours(module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
        calls.append(kwargs)

    place = before if when == "before" else after
    place(owner, module, ours)
    hooks = module._forward_pre_hooks if when == "before" else module._forward_hooks
    (hook,) = hooks.values()
    given = (module, (), None)[: 2 if when == "before" else 3]
    assert hook(*given) is None  # as torch calls a hook whose flag is gone
    assert calls == []
    module(torch.zeros(1, 2))
    assert len(calls) == 1
