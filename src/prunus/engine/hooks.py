"""Forward hooks that belong to one engine: found again wherever they are, inert in copies."""

from __future__ import annotations

import threading
import weakref
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

#: Held while hooks are registered or taken out: two engines that follow each other share them.
changing = threading.RLock()


class Hook:
    """A hook that knows whose it is.

    There is one for each place on a module, for as long as the module lives: what
    ``torch.compile`` made while one engine was at work calls the same hook again when another is,
    and a hook without an owner does nothing. In a graph it runs as plain Python.

    A copy of a module (``copy.deepcopy``, ``pickle``) is a model of its own, which nobody prunes:
    there the hook does nothing but take itself out.
    """

    def __init__(self, number: int, given: int, function: Callable[..., Any] | None = None) -> None:
        self.number = number
        self.given = given  # how many arguments torch calls it with, keyword arguments included
        self.owner: object | None = None
        self.function = function

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_compiling():  # costs nothing where nobody compiles
            return _outside(self, *args)
        return _run(self, *args)

    def let_go(self) -> None:
        """Do nothing from now on."""
        self.owner = self.function = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        return _inert(self.number, self.given)

    def __reduce__(self) -> tuple[Callable[[int, int], Hook], tuple[int, int]]:
        return _inert, (self.number, self.given)


def _run(hook: Hook, *args: Any) -> Any:
    function = hook.function  # read once: another thread may take it away
    # torch lists a module's hooks first and asks how each wants to be called just before it calls
    # it. One that is taken out in between is called without keyword arguments, as nobody's.
    return None if function is None or len(args) < hook.given else function(*args)


_outside: Callable[..., Any] = torch.compiler.disable(_run)


def _inert(number: int, given: int) -> Hook:
    # The flags of an unpickled module name this number: torch must not give it away again.
    RemovableHandle.next_id = max(RemovableHandle.next_id, number + 1)
    return Hook(number, given, _leave)


def _leave(module: nn.Module, *args: Any) -> None:
    _remove(module, None)


_places: weakref.WeakKeyDictionary[nn.Module, dict[tuple[str, int], Hook]]
_places = weakref.WeakKeyDictionary()


def before(owner: object, module: nn.Module, function: Callable[..., Any]) -> None:
    """``function(module, args, kwargs)`` runs before ``module`` and may replace both."""
    hook = _take(owner, module, "_forward_pre_hooks", 3, function)
    module._forward_pre_hooks_with_kwargs[hook.number] = True
    module._forward_pre_hooks[hook.number] = hook


def after(
    owner: object, module: nn.Module, function: Callable[..., Any], always: bool = False
) -> None:
    """``function(module, args, kwargs, output)`` runs behind ``module`` and may replace its output;
    with ``always`` also where it raised (``output`` is then None)."""
    hook = _take(owner, module, "_forward_hooks", 4, function)
    module._forward_hooks_with_kwargs[hook.number] = True
    if always:
        module._forward_hooks_always_called[hook.number] = True
    module._forward_hooks[hook.number] = hook


def _take(
    owner: object, module: nn.Module, kind: str, given: int, function: Callable[..., Any]
) -> Hook:
    """The hook of the next place on ``module``, for ``owner``."""
    there = [hook for hook in getattr(module, kind).values() if isinstance(hook, Hook)]
    places = _places.setdefault(module, {})
    place = (kind, len([hook for hook in there if hook.owner is owner]))
    if place not in places:  # a handle is how torch gives out numbers
        places[place] = Hook(RemovableHandle(getattr(module, kind)).id, given)
    hook = places[place]
    hook.owner, hook.function = owner, function
    return hook


def sweep(model: nn.Module, owner: object) -> None:
    """Take every hook of ``owner`` out of ``model``. Nothing has to be remembered for it, so that
    it finds the hooks of an ``attach`` that was interrupted anywhere."""
    with changing:
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
            # Last: as long as it stands there, a second sweep finds it.
            hooks.pop(number).let_go()
