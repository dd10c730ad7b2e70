"""Refusing what generate() cannot do on a pruned model, before it starts."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable
from typing import Any

from torch import nn

from prunus.engine.cache import check_cache
from prunus.engine.calls import cache_of
from prunus.engine.engine import Engine
from prunus.engine.plan import Plan
from prunus.errors import PrunusError

_DYNAMIC = (None, "dynamic", "dynamic_full")
#: Continuous batching packs all requests into one row, and does not pass on what hooks raise.
_BATCHES = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")


class Guard:
    """Stands on a model's instance in the place of one of its methods for the time of a run.

    Hooks see single forward calls, not how ``generate`` is going to split or extend a prompt, so
    this is the one place that looks at its arguments. A copy of the model has the plain method.
    """

    def __init__(self, owner: Engine, model: nn.Module, name: str) -> None:
        self.owner, self.name = owner, name
        self._model = weakref.ref(model)
        functools.update_wrapper(self, getattr(type(model), name))

    @property
    def plain(self) -> Callable[..., Any]:
        """The method of the class, bound to the model."""
        model = self._model()
        return types.MethodType(getattr(type(model), self.name), model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.name in _BATCHES:
            raise PrunusError(
                f"{self.name}() packs several prompts into one row and is not supported while "
                "pruning: call generate() with a left-padded batch"
            )
        names = ("inputs", "generation_config")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        _check(self._model(), self.owner, given)
        with self.owner.generating(given):
            return self.plain(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        model = self._model()
        copied = memo.get(id(model), model)
        return types.MethodType(getattr(type(model), self.name), copied)

    def __reduce__(self) -> Any:
        return getattr, (self._model(), self.name)


def guard(model: nn.Module, owner: Engine) -> None:
    """Put guards on ``model``."""
    for name in ("generate", *_BATCHES):
        if hasattr(type(model), name):
            model.__dict__[name] = Guard(owner, model, name)


def unguard(model: nn.Module, owner: Engine) -> None:
    """Take the guards of ``owner`` off again."""
    for name in ("generate", *_BATCHES):
        found = model.__dict__.get(name)
        if isinstance(found, Guard) and found.owner is owner:
            model.__dict__.pop(name, None)


def _check(model: Any, owner: Engine, call: dict[str, Any]) -> None:
    """Raise PrunusError for what the resolved configuration of a ``generate`` asks for and cannot
    have. It is the model's own resolution: keywords, the configuration that is given, the model's
    own."""
    rest = {k: v for k, v in call.items() if k not in ("inputs", "generation_config")}
    config, _ = model._prepare_generation_config(call.get("generation_config"), **rest)
    kind = getattr(config, "cache_implementation", None)
    if kind not in _DYNAMIC:
        raise PrunusError(
            f"cache_implementation={kind!r} is not supported while pruning: leave it out (the "
            "dynamic cache, whose layers may hold different numbers of tokens)"
        )
    if getattr(config, "prefill_chunk_size", None) is not None:
        raise PrunusError("prefill_chunk_size is not supported while pruning: leave it out")
    if getattr(config, "use_cache", None) is False:
        raise PrunusError(
            "generate(use_cache=False) would choose tokens anew for every generated token: "
            "leave the cache on"
        )
    layer = owner.family.layers[0]
    if getattr(layer, "gradient_checkpointing", False) and layer.training:
        raise PrunusError(
            "generate() on a model in training mode with gradient checkpointing may lose its "
            "cache, and then choose tokens anew for every generated token: call model.eval()"
        )
    _check_assistants(config, call, owner.plan)
    check_cache(cache_of(call))


def _check_assistants(config: Any, call: dict[str, Any], plan: Plan) -> None:
    if getattr(config, "assistant_early_exit", None) is not None:
        raise PrunusError("assistant_early_exit is not supported while pruning: leave it out")
    assisted = call.get("assistant_model") is not None or getattr(
        config, "prompt_lookup_num_tokens", None
    )
    if assisted and plan.asks:
        raise PrunusError(
            f"{plan.name} looks at the last prompt token, which assisted decoding hides: "
            "generate without an assistant, or use a query-independent method"
        )
