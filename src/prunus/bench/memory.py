"""What a prompt needs beside the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def peak(action: Callable[[], object], device: torch.device) -> int | None:
    """Largest number of bytes allocated during the call above what was there before; None where
    the device keeps no account (CPU)."""
    if device.type != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    action()
    torch.cuda.synchronize(device)
    return int(torch.cuda.max_memory_allocated(device) - before)


def cache_bytes(cache: Any) -> int:
    """Bytes of keys and values that a cache holds."""
    return sum(
        part.numel() * part.element_size()
        for layer in cache.layers
        for part in (layer.keys, layer.values)
    )
