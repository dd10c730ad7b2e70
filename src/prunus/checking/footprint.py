"""What a model carries besides its weights: hooks, attributes, configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

Footprint = Mapping[str, Mapping[str, Any]]

_HOOKS = {
    "forward hook": "_forward_hooks",
    "forward pre-hook": "_forward_pre_hooks",
    "backward hook": "_backward_hooks",
    "backward pre-hook": "_backward_pre_hooks",
    "state-dict hook": "_state_dict_hooks",
}


def footprint(model: nn.Module) -> Footprint:
    """By module name, everything that a run could leave behind; of a model that has run before
    (transformers adds hooks and attributes of its own at the first call)."""
    seen: dict[int, Any] = {}

    def config_of(module: nn.Module) -> Any:
        config = getattr(module, "config", None)
        if config is None:
            return None
        if id(config) not in seen:
            known = config.to_dict() if hasattr(config, "to_dict") else vars(config)
            seen[id(config)] = repr((type(config), known, _attention_of(config)))
        return id(config), seen[id(config)]

    return {
        name: {
            "class": type(module),
            "configuration": config_of(module),
            "attributes": sorted(vars(module)),
            "forward": vars(module).get("forward"),
            "generate": vars(module).get("generate"),
            **{word: list(getattr(module, kept, {})) for word, kept in _HOOKS.items()},
        }
        for name, module in model.named_modules()
    }


def _attention_of(config: Any) -> Any:
    return getattr(config, "_attn_implementation", None)


def difference(before: Footprint, after: Footprint) -> list[str]:
    """In words what ``after`` has that ``before`` had not, or has no longer; empty if nothing."""
    words = []
    for name in sorted({*before, *after}):
        place = name or "the model"
        old, new = before.get(name), after.get(name)
        if old is None or new is None:
            words.append(f"{place}: module {'added' if old is None else 'gone'}")
            continue
        for fact in old:
            if old[fact] == new[fact]:
                continue
            if fact == "attributes":
                changed = sorted({*old[fact]} ^ {*new[fact]})
                words.append(f"{place}: attribute {', '.join(changed)}")
            else:
                more = "hook" in fact and len(new[fact]) > len(old[fact])
                words.append(f"{place}: {fact} {'left' if more else 'changed'}")
    return words
