"""Arguments of a module's call, and what one thread knows of the call that runs in it."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from prunus.grid import AnyGrid

if TYPE_CHECKING:
    from prunus.engine.decode import Resume
    from prunus.engine.prefill import Prefill

_CACHE = ("cache", "past_key_values", "layer_past")


def by_name(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call by name, however they were given."""
    if not args:
        return kwargs
    return {**dict(zip(_names(type(module).forward), args, strict=False)), **kwargs}


@functools.cache
def _names(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the positional parameters of ``forward``, without ``self``."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(forward).parameters.values()
    return tuple(one.name for one in parameters if one.kind in kinds)[1:]


def cache_of(call: Mapping[str, Any]) -> Any:
    """The KV cache among the arguments of a call, or None. transformers renamed it in 5.24; older
    names are still accepted from callers, and translated only inside ``forward``."""
    for name in _CACHE:
        if (found := call.get(name)) is not None:
            return found
    return None


@dataclass
class Outer:
    """What outer modules were called with, until the language model needs it."""

    labels: Tensor | None = None
    logits_to_keep: Any = 0
    cache: Any = None  # that was looked at
    core: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Generation:
    """One ``generate`` that runs; ``grids`` by kind, those of its visual inputs."""

    grids: dict[str, list[AnyGrid]]
    saw_images: bool = False


class Here(threading.local):
    """The state of one thread. A call of a model never leaves its thread, so that threads that
    share a pruned model share none of this.

    Attributes:
        outer, generation: what runs around the language model.
        running: the prompt, or the further call on its cache, that is in the language model.
        prefill: the prompt that ran last in this thread.
        ends: where the next prompt ends, if that was told.
        in_model: the language model runs, and its hook was seen.
        peeking: a layer runs only to see what its attention function is given.
    """

    def __init__(self) -> None:
        self.outer = Outer()
        self.generation: Generation | None = None
        self.running: Prefill | Resume | None = None
        self.prefill: Prefill | None = None
        self.ends: Ends | None = None
        self.in_model = False
        self.peeking = False


class Peeked(Exception):
    """Ends a layer that ran only to see what its attention function is ``given``."""

    def __init__(self, given: Any) -> None:
        super().__init__("seen")
        self.given = given


@dataclass(frozen=True)
class Ends:
    """Where the prompts of the next call end: ``labels`` as for training, or ``last``, int64
    ``[B]``, the position of each row's last prompt token; neither: the last token is meant."""

    labels: Tensor | None = None
    last: Tensor | None = None
