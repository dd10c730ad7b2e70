"""Refusing what generate() cannot do on a pruned model, before it starts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from prunus.engine.cache import check_cache
from prunus.engine.calls import cache_of
from prunus.engine.plan import Plan


def guarded(
    generate: Callable[..., Any],
    config: Any,
    plan: Plan,
    announced: Callable[[Mapping[str, Any]], AbstractContextManager[None]],
) -> Callable[..., Any]:
    """``generate`` with a check in front of it; ``announced`` is entered with its arguments.

    Hooks see single forward calls, not how ``generate`` is going to split or extend a prompt, so
    this is the one place that looks at its arguments. It stands on the instance for the time of
    the run and is removed with it.
    """

    @functools.wraps(generate)
    def checked(*args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("generation_config") or config

        def option(name: str) -> Any:
            return kwargs[name] if kwargs.get(name) is not None else getattr(given, name, None)

        if option("cache_implementation") not in (None, "dynamic", "dynamic_full"):
            raise ValueError(
                f"cache_implementation={option('cache_implementation')!r} is not supported while "
                "pruning: leave it out (dynamic cache)"
            )
        if option("prefill_chunk_size") is not None:
            raise ValueError("prefill_chunk_size is not supported while pruning: leave it out")
        if option("use_cache") is False:
            raise ValueError(
                "generate(use_cache=False) would choose tokens anew for every generated token: "
                "leave the cache on"
            )
        assisted = kwargs.get("assistant_model") is not None or option("prompt_lookup_num_tokens")
        if assisted and plan.query_dependent:
            raise ValueError(
                f"{plan.name} looks at the last prompt token, which assisted decoding hides: "
                "generate without an assistant, or use a query-independent method"
            )
        check_cache(cache_of(kwargs))
        with announced(kwargs):
            return generate(*args, **kwargs)

    return checked
