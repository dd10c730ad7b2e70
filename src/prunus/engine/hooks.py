"""Forward hooks that belong to one engine: found again wherever they are, inert in copies."""

from __future__ import annotations

import inspect
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from prunus.errors import PrunusStateError

_DICTS = ("_forward_pre_hooks", "_forward_hooks")
_FLAGS = (
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)

SHARED = (
    "this model shares modules with one that is being pruned already, and only one of them can be: "
    "leave that `with` block or detach() first, or give it modules of its own"
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
        function = self.function  # as in _run
        return None if function is None or len(args) < self.given else function(*args)

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


def _run_outside(hook: Hook, *args: Any) -> Any:
    if hook.owner is not None:
        _in_graphs.add(hook.owner)
    return _run(hook, *args)


#: What torch says where it was told to compile everything into one graph.
_REASON = (
    "prunus chooses tokens in plain Python between compiled parts of the model, which is no single "
    "graph while it is pruned: compile without fullgraph=True, or the decoder layers one by one"
)
_SAYS_WHY = "reason" in inspect.signature(torch.compiler.disable).parameters  # from torch 2.7 on
_outside: Callable[..., Any] = torch.compiler.disable(
    _run_outside, **({"reason": _REASON} if _SAYS_WHY else {})
)
_in_graphs: weakref.WeakSet[object] = weakref.WeakSet()


def in_graphs(owner: object) -> bool:
    """Whether compiled code has called a hook of ``owner``: it may have been compiled where a hook
    stood, or where none did, and does not ask again."""
    return owner in _in_graphs


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
    """The hook of the next place on ``module``, for ``owner``.

    Raises:
        PrunusStateError: it is another's.
    """
    there = [hook for hook in getattr(module, kind).values() if isinstance(hook, Hook)]
    places = _places.setdefault(module, {})
    place = (kind, len([hook for hook in there if hook.owner is owner]))
    if place not in places:  # a handle is how torch gives out numbers
        places[place] = Hook(RemovableHandle(getattr(module, kind)).id, given)
    hook = places[place]
    # One that is not there belongs to nobody: what put it in was interrupted before it could.
    if hook in there and hook.owner is not None and hook.owner is not owner:
        raise PrunusStateError(SHARED)
    hook.owner, hook.function = owner, function
    return hook


def modules_in(model: nn.Module) -> list[nn.Module]:
    """All modules of ``model``, each once. In a large model ``model.modules()``, a generator in a
    generator for every level, takes a good part of going in and out of a block."""
    found = {id(model): model}
    waiting = [model]
    while waiting:
        for child in waiting.pop()._modules.values():
            if child is not None and id(child) not in found:
                found[id(child)] = child
                waiting.append(child)
    return list(found.values())


def sweep(model: nn.Module, owner: object) -> None:
    """Take every hook of ``owner`` out of ``model``. Nothing has to be remembered for it, so that
    it finds the hooks of an ``attach`` that was interrupted anywhere."""
    with changing:
        for module in modules_in(model):
            if module._forward_pre_hooks or module._forward_hooks:
                _remove(module, owner)


def take_out(owner: object, module: nn.Module) -> frozenset[int]:
    """Take the hook of ``owner`` that runs before ``module`` out, and say which others ran before
    it, for :func:`put_back`."""
    ahead = []
    for number, hook in module._forward_pre_hooks.items():
        if isinstance(hook, Hook) and hook.owner is owner:
            break
        ahead.append(number)
    _remove(module, owner)
    return frozenset(ahead)


def put_back(
    owner: object, module: nn.Module, function: Callable[..., Any], ahead: frozenset[int]
) -> None:
    """As :func:`before`, in front of all hooks but those that are ``ahead``."""
    _remove(module, owner)  # what an interruption may have left
    hooks: OrderedDict[int, Any] = vars(module)["_forward_pre_hooks"]
    behind = [number for number in hooks if number not in ahead]
    before(owner, module, function)
    for number in behind:
        hooks.move_to_end(number)


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
