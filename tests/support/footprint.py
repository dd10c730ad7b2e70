"""What pruning could leave behind on a model: hooks, attributes, objects of prunus."""

from __future__ import annotations

from typing import Any

from prunus.engine.hooks import Hook
from prunus.engine.lent import loan_of


def footprint(model: Any) -> dict[str, Any]:
    """Every hook and instance attribute of every module (tensors and rope state left out)."""
    left_out = {"rope_deltas"}
    return {
        name: (
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
            sorted(set(module.__dict__) - left_out),
            type(module),
            id(getattr(module, "config", None)),
        )
        for name, module in model.named_modules()
    }


def ours(model: Any) -> list[str]:
    """What of prunus is in a model."""
    found = [name for name in vars(model) if "generat" in name and callable(vars(model)[name])]
    for name, module in model.named_modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            found += [f"{name}: hook" for hook in hooks.values() if isinstance(hook, Hook)]
        if loan_of(vars(module).get("config")) is not None:
            found.append(f"{name}: config")
    return found
