"""What a prompt needs beside the weights."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def peak(action: Callable[[], object], device: torch.device) -> int:
    """Largest number of bytes allocated during the call above what was there before.

    On a GPU torch's allocator keeps the account. A CPU has none: there it is the bytes of all
    tensors that the call made and that are alive at a time, seen behind each operator of torch;
    what an operator allocates for itself and gives back is not in it.
    """
    if device.type != "cuda":
        with Alive() as alive:
            action()
        return int(alive.most)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    action()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


class Alive(TorchDispatchMode):
    """Counts bytes of the storages that are made inside the block: ``now`` and at ``most``."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()
        self._given: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator, and look at what it made."""
        before = {_key(one) for one in _tensors((args, kwargs or {}))}
        output = func(*args, **(kwargs or {}))
        for tensor in _tensors(output):
            key = _key(tensor)
            if key in self._known or key in before:
                continue
            storage = tensor.untyped_storage()
            self._known.add(key)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._gone, key, storage.nbytes())
        self.most = max(self.most, self.now)
        return output

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _tensors(values: Any) -> list[Tensor]:
    return [
        one
        for one in torch.utils._pytree.tree_leaves(values)
        if isinstance(one, Tensor) and one.layout == torch.strided
    ]


def cache_bytes(cache: Any) -> int | None:
    """Bytes of keys and values that a cache holds; None where a layer holds something else."""
    found = 0
    for layer in cache.layers:
        for part in (getattr(layer, "keys", None), getattr(layer, "values", None)):
            if not isinstance(part, Tensor):
                return None
            found += part.numel() * part.element_size()
    return found
