"""Forward hooks that belong to one engine: found again wherever they are, inert in copies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

_DICTS = ("_forward_pre_hooks", "_forward_hooks")
_FLAGS = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)


class Hook:
    """A hook that knows whose it is.

    A copy of a module (``copy.deepcopy``, ``pickle``) is a model of its own, which nobody prunes:
    there the hook does nothing but take itself out. Inside ``torch.compile`` it runs as plain
    Python between two graphs.
    """

    def __init__(self, owner: object, function: Callable[..., Any]) -> None:
        self.owner: object | None = owner
        self.number = -1
        self._function: Callable[..., Any] = torch.compiler.disable(function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        return _inert(self.number)

    def __reduce__(self) -> tuple[Callable[[int], Hook], tuple[int]]:
        return _inert, (self.number,)


def _inert(number: int) -> Hook:
    # The flags of an unpickled module name this number: torch must not give it away again.
    RemovableHandle.next_id = max(RemovableHandle.next_id, number + 1)
    return Hook(None, _leave)


def _leave(module: nn.Module, *args: Any) -> None:
    _remove(module, None)


def before(
    owner: object, module: nn.Module, function: Callable[..., Any], first: bool = False
) -> None:
    """``function(module, args, kwargs)`` runs before ``module`` and may replace both."""
    hook = Hook(owner, function)
    handle = module.register_forward_pre_hook(hook, prepend=first, with_kwargs=True)
    hook.number = handle.id


def after(
    owner: object, module: nn.Module, function: Callable[..., Any], always: bool = False
) -> None:
    """``function(module, args, kwargs, output)`` runs behind ``module`` and may replace its output;
    with ``always`` also where it raised (``output`` is then None)."""
    hook = Hook(owner, function)
    handle = module.register_forward_hook(hook, with_kwargs=True, always_call=always)
    hook.number = handle.id


def sweep(model: nn.Module, owner: object) -> None:
    """Take every hook of ``owner`` out of ``model``. Nothing has to be remembered for it, so that
    it finds the hooks of an ``attach`` that was interrupted anywhere."""
    for module in model.modules():
        _remove(module, owner)


def hooked(module: nn.Module) -> object | None:
    """The engine that has a hook on ``module``, if there is one."""
    hooks = module._forward_pre_hooks.values()
    owners = [hook.owner for hook in hooks if isinstance(hook, Hook)]
    return next((owner for owner in owners if owner is not None), None)


def _remove(module: nn.Module, owner: object | None) -> None:
    for name in _DICTS:
        hooks: OrderedDict[int, Any] = getattr(module, name)
        own = [n for n, hook in hooks.items() if isinstance(hook, Hook) and hook.owner is owner]
        for number in own:
            for flags in _FLAGS:
                getattr(module, flags).pop(number, None)
            del hooks[number]  # last: as long as it stands there, a second sweep finds it
