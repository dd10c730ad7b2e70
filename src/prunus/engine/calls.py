"""Arguments of a module's call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn


def by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call by name, however they were given."""
    if not args:
        return kwargs
    return {**inspect.signature(module.forward).bind_partial(*args).arguments, **kwargs}


def cache_of(call: Mapping[str, Any]) -> Any:
    """The KV cache among the arguments of a call, or None. transformers renamed it in 5.24; both
    names are still accepted from callers, and translated only inside ``forward``."""
    given = call.get("cache")
    return call.get("past_key_values") if given is None else given
